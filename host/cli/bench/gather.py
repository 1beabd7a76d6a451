"""`halfdome bench gather`: efficiency of the gather unit."""

from typing import Annotated

import typer

from halfdome.hdl.config import MOST_CARDS, PLATFORM_CARDS, preset
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import tables


def bench_gather(
    dims: Annotated[list[int] | None, typer.Option("--dim", help="Elements of a row.")] = None,
    bits: Annotated[list[int] | None, typer.Option("--bits", help="8 or 4.")] = None,
    poolings: Annotated[list[int] | None, typer.Option("--pooling", help="Rows of a bag.")] = None,
    reuses: Annotated[
        list[str] | None, typer.Option("--reuse", metavar="TRACE", help="uniform or production.")
    ] = None,
    strides: Annotated[
        list[str] | None, typer.Option("--stride", help="packed, or padded to 64 bytes.")
    ] = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", metavar="NAME", help="RM1, RM2 or RM3.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="cache, placement or channels: the worth on production lookups."),
    ] = None,
    lookups: Annotated[
        int | None,
        typer.Option(min=1, help="Rows a command pools; by default about 20,000 cycles' worth."),
    ] = None,
    cards: Annotated[
        int, typer.Option(help=f"Points measured at once, 1 to {MOST_CARDS}.")
    ] = PLATFORM_CARDS,
    seed: Annotated[int, typer.Option(min=0, help="Of the traces.")] = 0,
    config: options.Config = "default",
    engine: options.EngineName = "native",
    json_file: options.JsonFile = None,
) -> None:
    """Gather efficiency: cycles of the tightest bound over cycles taken.

    The whole sweep, or what the options leave of it; each may be given more than once. Answers are
    compared with the golden model; any difference makes the exit status 1.

    Example: `halfdome bench gather --dim 64 --bits 8 --pooling 32 --json gather.json`
    """
    from halfdome.host.bench import gather, gather_run, gather_study

    axes = {"dims": dims, "bits": bits, "poolings": poolings, "reuses": reuses, "strides": strides}
    chosen = {name: values for name, values in axes.items() if values}
    design = preset(config)
    how = {"engine": engine, "cards": cards, "seed": seed, "lookups": lookups}
    if study is not None:
        if reuses or shapes:
            raise ValueError("--study: takes --dim, --bits, --pooling and --stride alone")
        points = gather_study.points(**chosen)
        total = len(points) * len(gather_study.variants(study, design))
    else:
        points = [] if shapes and not chosen else gather.sweep(**chosen)
        if shapes or not chosen:
            points += gather.shapes(shapes or gather.SHAPES)
        total = len(points)
    with options.progress() as bar:
        task = bar.add_task(study or "points", total=total)
        how["progress"] = lambda done: bar.advance(task, done)
        if study is not None:
            result = gather_study.compare(study, points, design, **how)
            show = tables.print_gather_study
        else:
            result = gather_run.measure(points, design, **how)
            show = tables.print_gather
    show(result, console)
    options.write_json(json_file, result)
    options.require_right(sum(row["mismatching_values"] for row in result["rows"]), "values")
