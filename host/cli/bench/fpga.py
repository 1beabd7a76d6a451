"""`halfdome bench fpga` and `area`: size and clock on an FPGA."""

from pathlib import Path
from typing import Annotated

import typer

from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import tables


def bench_fpga(
    rungs: Annotated[
        list[str] | None,
        typer.Option("--rung", metavar="NAME", help="May be given more than once; default: all."),
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Of a placement; default: 1, 2 and 3.")
    ] = None,
    json_file: options.JsonFile = None,
) -> None:
    """Size and clock on an ECP5: arrays, lanes, engines, a pico, and by synthesis a whole card.

    The clock is the median over the seeds. Takes hours; an array of 2x2 half a minute.

    Example: `halfdome bench fpga --rung "array 4x4" --rung "lanes 4" --json fpga.json`
    """
    from halfdome.host.bench import fpga

    chosen, placed = rungs or list(fpga.LADDER), seeds or fpga.SEEDS
    with options.progress() as bar:
        task = bar.add_task("", total=None)

        def begin(step: str, done: int, steps: int) -> None:
            bar.update(task, description=step, completed=done, total=steps)

        result = fpga.measure(chosen, placed, begin)
    shown = [
        {name: value for name, value in row.items() if name in fpga.SHOWN} for row in result["rows"]
    ]
    told = ", ".join(map(str, result["seeds"]))
    console.print(tables.of_rows(f"{result['device']}, median of the seeds {told}", shown))
    options.write_json(json_file, result)


def bench_area(
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", metavar="NAME", help="May be given more than once; default: all."),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Random cards of each part.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the cards.")] = 0,
    add: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add rows to a file like area.csv.")
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="The rows added are for the fit, not to test it with.")
    ] = False,
    json_file: options.JsonFile = None,
) -> None:
    """The fit of area against synthesis for an ECP5 and silicon, and its error on random cards.

    An error above 10 % at the 95th percentile makes the exit status 1. A part takes seconds.

    Example: `halfdome bench area --part queue --part row_fetcher --draws 2 --seed 7`
    """
    from halfdome.host.explore import synthesise
    from halfdome.host.explore.area import PARTS

    chosen = parts or list(PARTS)
    with options.progress() as bar:
        task = bar.add_task("parts", total=len(chosen) * draws)
        result = synthesise.measure(
            chosen, draws, seed, lambda text: bar.update(task, advance=1, description=text)
        )
    console.print(
        tables.of_rows("Parts on an ECP5 and in silicon, as Yosys counts them", result["rows"])
    )
    options.write_json(json_file, result)
    if add is not None:
        synthesise.add(add, result, fit)
    console.print(tables.of_rows("95th percentile of the error, %", [result["p95_percent"]]))
    if max(result["p95_percent"].values()) > 10:
        raise typer.Exit(1)
