"""`halfdome bench models`: the ladder of models."""

from typing import Annotated

import typer

from halfdome.hdl.config import preset
from halfdome.host.cli import options
from halfdome.host.cli.options import console


def bench_models(
    rungs: Annotated[
        list[str] | None,
        typer.Option("--rung", metavar="NAME", help="Of the ladder; may be given more than once."),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each.")] = 1,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="One request alone, several in flight, all cards.")
    ] = False,
    apart: Annotated[
        bool, typer.Option("--apart", help="Each layer by itself, too, beside its bound.")
    ] = False,
    cards: options.Cards = 6,
    config: options.Config = "default",
    engine: options.EngineName = "native",
    json_file: options.JsonFile = None,
) -> None:
    """The ladder of models: what of each is on the cards, how right it is, what it takes.

    Tensors are compared with ONNX Runtime's 8-bit operators; any difference makes the exit status
    1. OpenNSFW takes minutes, ResNet-50 with --scaling an hour. ResNeXt-101 and RegNetY-128GF are
    measured if they are named. With --apart a second run has each layer of a card begin when the
    one before has ended: what takes more than it should of its bound is told.

    Example: `halfdome bench models --rung digits --rung p_net --json models.json`

    Example: `halfdome bench models --rung lite0 --apart --cards 1 --json lite0.json`
    """
    from halfdome.host.bench import ladder
    from halfdome.host.bench import scaling as scaled
    from halfdome.host.report import models

    if scaling and (requests > 1 or apart):
        raise ValueError("--scaling: says how many requests, and has no --apart: leave them out")
    design, chosen = preset(config), rungs or ladder.usual()
    with options.progress() as bar:
        task = bar.add_task("models", total=None)

        def progress(rung: str, done: int, total: int) -> None:
            bar.update(task, description=rung, total=total or None)
            bar.update(task, **({"advance": done} if total else {"completed": 0}))

        how = {"cards": cards, "engine": engine, "progress": progress}
        if scaling:
            result = scaled.measure(design, chosen, **how)
        else:
            result = ladder.measure(design, chosen, requests=requests, apart=apart, **how)
    models.print_ladder(result, console)
    models.print_utilisation(result, console)
    if apart:
        models.print_apart(result, console)
    options.write_json(json_file, result)
    wrong = [row["rung"] for row in result["rows"] if not row.get("equal", True)]
    if wrong:
        console.print(f"[red]{', '.join(wrong)}: not as ONNX Runtime has it[/red]")
        raise typer.Exit(1)
