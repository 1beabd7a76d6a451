"""`halfdome bench cores` and others: several cores, models and requests at a time."""

from typing import Annotated

import typer

from halfdome.hdl.config import preset
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import tables


def bench_cores(
    workloads: Annotated[
        list[str] | None,
        typer.Option("--workload", metavar="NAME", help="May be given more than once."),
    ] = None,
    counts: Annotated[
        list[int] | None, typer.Option("--cores", help="How many; may be given more than once.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Of a full card, counted.")] = 8,
    config: options.Config = "quad",
    engine: options.EngineName = "timing",
    no_values: options.NoValues = False,
    data: options.Data = None,
    json_file: options.JsonFile = None,
) -> None:
    """What the cores of a card are worth: the demo, RM1 to RM3, blocks of ResNet-50 and ResNeXt-50.

    Cycles of a request on a full card, how many times as fast as on the first number of cores, what
    binds, and how near to it. Answers are compared with the golden model, unless values are left
    out; any difference makes the exit status 1. Takes long.

    Example: `halfdome bench cores --workload RM1 --cores 1 --cores 4 --json cores.json`
    """
    from halfdome.host.bench import cores

    with console.status("cores") as status:
        result = cores.measure(
            preset(config), workloads or cores.WORKLOADS, counts or cores.COUNTS, data=data,
            engine=engine, requests=requests, values=not no_values, progress=status.update,
        )  # fmt: skip
    tables.print_cores(result, console)
    options.write_json(json_file, result)
    wrong = sum(row.get("mismatching_values") or 0 for row in result["rows"])
    options.require_right(wrong, "values")


def bench_fairness(
    config: options.Config = "quad",
    engine: options.EngineName = "timing",
    json_file: options.JsonFile = None,
) -> None:
    """How equally the cores of a card share memory that all of them want.

    All cores read more than there is, each operands of its own: what the one that got least got of
    its share in the worst 10,000 cycles.

    Example: `halfdome bench fairness --config m2 --json fairness.json`
    """
    from halfdome.host.bench import fairness

    with console.status("cores ask for memory"):
        result = fairness.bench(preset(config), engine)
    console.print(tables.of_rows("What the core that got least got of its share", result["rows"]))
    options.write_json(json_file, result)


def bench_together(
    config: options.Config = "quad",
    engine: options.EngineName = "timing",
    json_file: options.JsonFile = None,
) -> None:
    """What two models cost each other on one card, each on half of its cores.

    RM1 and two blocks of ResNet-50 answer alone, and then at the same time. Answers are compared
    with the golden model; any difference makes the exit status 1.

    Example: `halfdome bench together --json together.json`
    """
    from halfdome.host.bench import together

    with console.status("two models"):
        result = together.bench(preset(config), engine)
    console.print(tables.of_rows("Two models at once, on cores of their own", result["rows"]))
    options.write_json(json_file, result)
    options.require_right(sum(row["mismatching_values"] for row in result["rows"]), "values")


def bench_flights(
    counts: Annotated[
        list[int] | None,
        typer.Option(
            "--in-flight", metavar="N", min=1, max=64, help="May be given more than once."
        ),
    ] = None,
    cards: options.Cards = 6,
    config: options.Config = "default",
    engine: options.EngineName = "timing",
    data: options.Data = None,
    json_file: options.JsonFile = None,
) -> None:
    """How many requests in flight are worth it: the demo in requests of 16 samples, on all cards.

    Cycles of a request while so many are in flight, and the fewest that answer as many as any. An
    answer that differs from the golden model's makes the exit status 1.

    Example: `halfdome bench flights --in-flight 4 --in-flight 24 --json flights.json`
    """
    from halfdome.host.bench import flights

    counts = counts or list(flights.COUNTS)
    with options.progress() as bar:
        task = bar.add_task("in flight", total=len(counts))
        result = flights.measure(
            preset(config), counts, cards=cards, engine=engine, data=data,
            progress=lambda count: bar.advance(task),
        )  # fmt: skip
    options.write_json(json_file, result)
    console.print(tables.of_rows("The demo, requests of 16 samples", result["rows"]))
    console.print(f"more than {result['saturates_at']} in flight answer no more requests")
    wrong = sum(row["mismatching_values"] for row in result["rows"])
    options.require_right(wrong, "values")
