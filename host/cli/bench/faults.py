"""`halfdome bench faults`: what becomes of them."""

import typer

from halfdome.hdl.config import preset
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import tables


def bench_faults(
    config: options.Config = "tiny",
    engine: options.EngineName = "native",
    json_file: options.JsonFile = None,
) -> None:
    """The fault matrix: every fault at every phase of a batch, who noticed, what was done.

    A made-up model on two cards, with fewer cycles of patience than `run dlrm --fault` has. An
    answer that is not right in the end, or a fault that nobody noticed, makes the exit status 1.

    Example: `halfdome bench faults --config tiny --json faults.json`
    """
    from halfdome.host.bench import faults

    design = preset(config)
    with options.progress() as bar:
        task = bar.add_task("faults", total=len(faults.cells()))
        result = faults.measure(design, engine, lambda n: bar.advance(task, n))
    tables.print_fault_matrix(result, console)
    options.write_json(json_file, result)
    bad = [row for row in result["rows"] if row["outcome"] != "right" or "unnoticed" in row["who"]]
    if bad:
        console.print(f"[red]{len(bad)} faults were not noticed, or not made good[/red]")
        raise typer.Exit(1)
