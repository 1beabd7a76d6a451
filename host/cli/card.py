"""`halfdome verilog`, `fpga` and `info`: what a configuration becomes."""

import json
from pathlib import Path
from typing import Annotated

import typer

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import PICO, PRESETS, CardConfig, preset
from halfdome.host import arguments
from halfdome.host.cli import explore, options
from halfdome.host.cli.options import console
from halfdome.host.explore import needed
from halfdome.host.report import tables

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Instead of the preset's.")
]
Study = Annotated[
    Path | None, typer.Option("--study", metavar="STUDY.toml", help="With --point: its card.")
]
Number = Annotated[int | None, typer.Option("--point", metavar="N", help="Of the study.")]


def verilog(
    config: options.Config = "default",
    settings: Settings = None,
    study: Study = None,
    point: Number = None,
    storage: explore.Storage = None,
    output: options.OutputFolder = Path("build"),
) -> None:
    """Write the card as Verilog, with all that belongs to it: see docs/verilog.md.

    Example: `halfdome verilog --config tiny --set lanes=8 -o build/`
    """
    from halfdome.hdl import verilog_top
    from halfdome.hdl.verilog import TOP, c_header, card_verilog, interface_markdown
    from halfdome.sim.build.progress import told

    name, design = _chosen(config, settings, study, point, storage)
    arguments.output_folder(output)
    with told(f"writing Verilog of {name}"):
        files = {f"{TOP}.v": card_verilog(design)}
    files |= {
        f"{verilog_top.NAME}.v": verilog_top.top_verilog(design, TOP),
        f"{verilog_top.BENCH}.v": verilog_top.bench_verilog(design),
        f"{verilog_top.NAME}.json": verilog_top.ports_json(design),
        f"{verilog_top.NAME}.f": f"{TOP}.v\n{verilog_top.NAME}.v\n",
        f"{TOP}.h": c_header(design),
        f"{TOP}.md": interface_markdown(design),
        f"{TOP}.json": design.as_json() + "\n",
    }
    for file, text in files.items():
        (output / file).write_text(text)
        typer.echo(output / file)


def fpga(
    units: Annotated[
        list[str] | None, typer.Option("--unit", metavar="NAME", help="Default: every unit.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help=f"Of units: {', '.join(PRESETS)}; default: tiny.")
    ] = None,
    settings: Settings = None,
    study: Study = None,
    point: Number = None,
    storage: explore.Storage = None,
    board: Annotated[
        str | None,
        typer.Option(
            "--board",
            metavar="NAME",
            help="Build a bitstream of a pico for a board; for nitefury write a card's project.",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="Of a pico: matmul or gather.")
    ] = "matmul",
    run: Annotated[
        bool, typer.Option(help="Build it; else write the project for your own tools.")
    ] = True,
    output: options.OutputFolder = Path("build"),
    json_file: options.JsonFile = None,
) -> None:
    """Place and route what decides a card's size on an ECP5, or a pico for a board.

    Example: `halfdome fpga --unit array --unit lane --config tiny`

    Example: `halfdome fpga --unit array --study docs/studies/links.toml --point 3`

    Example: `halfdome fpga --board ulx3s-85f -o build/`

    Example: `halfdome fpga --board nitefury --no-run -o build/`
    """
    from halfdome.hdl.synthesis import UNITS, ecp5_report

    if board is not None:
        if units:
            raise ValueError("--unit: is placed by itself, not on a board; leave --board out")
        card = {"--config": config, "--set": settings, "--study": study, "--point": point}
        if given := [name for name, value in card.items() if value is not None]:
            raise ValueError(f"{given[0]}: a board holds a pico; leave {given[0]} out")
        if json_file and not run:
            raise ValueError("--json: there is no result with --no-run; leave one of them out")
        _fit_board(board, engine, run, output, json_file)
        return
    if not run:
        raise ValueError("--no-run: writes the project of a board; name one by --board")
    if config is None and study is None:
        config = "tiny"
    name, design = _chosen(config, settings, study, point, storage)
    chosen = units or list(UNITS)
    for unit in chosen:
        if unit not in UNITS:
            raise ValueError(f"--unit {unit}: unknown; known are {', '.join(UNITS)}")
    rows = []
    with options.progress() as bar:
        task = bar.add_task("units", total=len(chosen))
        for unit in chosen:
            bar.update(task, description=unit)
            rows.append(ecp5_report(UNITS[unit](design), unit))
            bar.advance(task)
    console.print(tables.of_rows(f"Lattice LFE5UM5G-85, {name}", rows))
    options.write_json(json_file, {"config_hash": design.hash, "rows": rows})


def _fit_board(name: str, engine: str, run: bool, output: Path, json_file: Path | None) -> None:
    from halfdome.hdl.boards import nitefury
    from halfdome.hdl.boards.boards import BOARDS, TOP, project
    from halfdome.hdl.boards.build import build
    from halfdome.hdl.pico import PICO_ENGINES
    from halfdome.sim.build.progress import told

    if name == nitefury.BOARD:
        if run:
            raise ValueError(f"--board {name}: Vivado builds its bitstream; add --no-run")
        arguments.output_folder(output)
        with told(f"writing a card for {name}"):
            nitefury.project().extract(str(output))
        typer.echo(output / f"build_{nitefury.TOP}.sh")
        return
    if engine not in (known := [each.name.lower() for each in PICO_ENGINES]):
        raise ValueError(f"--engine {engine}: a pico has none; known are {', '.join(known)}")
    plan = project(name, Engine[engine.upper()])
    arguments.output_folder(output)
    plan.extract(str(output))
    if not run:
        typer.echo(output / f"build_{TOP}.sh")
        return
    with told(f"building a bitstream for {name}"):
        row = build(name, plan, output)
    console.print(tables.of_rows(f"a {engine} pico on {name}", [row]))
    console.print(f"{output / str(row['bitstream'])}; a host reaches it by {BOARDS[name].serial}")
    options.write_json(json_file, {"config_hash": PICO.hash, "rows": [row]})


def info(
    config: options.Config = "default",
    settings: Settings = None,
    study: Study = None,
    point: Number = None,
    storage: explore.Storage = None,
    json_file: options.JsonFile = None,
) -> None:
    """Show what a configuration means, and what the cache of compiled models holds.

    Example: `halfdome info --config m2`
    """
    from rich.table import Table

    from halfdome.host.platform import cache_summary

    name, design = _chosen(config, settings, study, point, storage)
    facts = describe(design)
    facts |= {f"cache_{name}": value for name, value in cache_summary().items()}
    table = Table("quantity", "value", title=f"{name} ({design.hash})")
    for quantity, value in facts.items():
        table.add_row(quantity, f"{value:,}" if isinstance(value, int | float) else str(value))
    console.print(table)
    options.write_json(json_file, facts)


def _chosen(
    config: str | None, settings: list[str] | None, study: Path | None, point: int | None,
    storage: str | None,
) -> tuple[str, CardConfig]:  # fmt: skip
    """A card and what it is called: of a preset, some fields set, or of a point of a study."""
    if (study is None) != (point is None):
        raise ValueError("--study and --point: give both, the file and the number of a point in it")
    if study is not None and point is not None:
        if settings or config not in (None, "default"):
            raise ValueError("--study: tells the card; give --config and --set without it")
        with needed():
            from halfdome.host.explore.measured import design_of

        return f"{study} point {point}", design_of(study, point, storage).card
    config, changes = config or "default", explore.fields(settings or ())
    name = " ".join([config, *(f"{field}={value}" for field, value in changes.items())])
    return name, preset(config).replace(**changes)


def describe(config: CardConfig) -> dict:
    """Every field of a configuration, and the peaks that follow from it."""
    macs = config.cores * config.array_rows * config.array_columns
    return json.loads(config.as_json()) | {
        "config_hash": config.hash,
        "engines": ", ".join(engine.name.lower() for engine in Engine),
        "peak_int8_tops": macs * 2 * config.clock_mhz / 1e6,
        "bus_gb_per_s": config.bus_bytes * config.clock_mhz / 1e3,
        "window_bytes": config.window_bytes,
    }
