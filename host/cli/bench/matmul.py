"""`halfdome bench matmul`: utilisation of the array."""

from typing import Annotated

import typer

from halfdome.hdl.config import preset
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import tables


def bench_matmul(
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="MxKxN", help="May be given more than once."),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Instead 1331 shapes against their bounds.")
    ] = False,
    config: options.Config = "default",
    engine: options.EngineName = "native",
    no_values: options.NoValues = False,
    json_file: options.JsonFile = None,
) -> None:
    """MAC utilisation: useful multiply-accumulates over what the array could do.

    Operands in the scratchpad as far as they fit, then with the weights and with everything in
    DRAM; by default large layers and those of a recommendation model with their sum. Outputs are
    compared with the golden model, unless values are left out; any difference, or with --grid any
    shape outside its bounds, makes the exit status 1.

    Example: `halfdome bench matmul --shape 256x256x256 --shape 64x512x512`
    """
    from halfdome.host.bench import matmul

    parsed: list[tuple[int, int, int]] = []
    for shape in shapes or ():
        sizes = shape.split("x")
        if len(sizes) != 3 or not all(size.isdecimal() and int(size) for size in sizes):
            raise ValueError(f"--shape {shape}: must be MxKxN, like 256x256x256")
        parsed.append((int(sizes[0]), int(sizes[1]), int(sizes[2])))
    design, chosen, values = preset(config), parsed or list(matmul.SHAPES), not no_values
    with options.progress() as bar:
        if grid:
            task = bar.add_task("products", total=len(matmul.GRID) ** 3 * len(matmul.GRID_PLACES))
            result = matmul.grid(
                design, matmul.GRID, engine, lambda n: bar.advance(task, n), values
            )
        else:
            task = bar.add_task("products", total=len(chosen) * len(matmul.PLACES))
            result = matmul.measure(design, chosen, engine, lambda n: bar.advance(task, n), values)
    options.write_json(json_file, result)
    if grid:
        outside = result["outside"]
        console.print(f"{len(result['rows'])} products, {len(outside)} outside their bounds")
        if outside:
            console.print(tables.of_rows("Outside their bounds", outside))
            raise typer.Exit(1)
        return
    shown = [dict(list(row.items())[:-1]) for row in result["rows"]]
    console.print(tables.of_rows("MATMUL on one card", shown))
    if "dlrm" in result:
        console.print(tables.of_rows("Both nets of a recommendation model", result["dlrm"]))
    options.require_right(sum(row["mismatching_values"] or 0 for row in result["rows"]), "values")
