"""The `halfdome` command."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hdl.commands import Engine
from hdl.config import PRESETS, CardConfig, preset
from host.report import tables

app = typer.Typer(
    help="A six-card inference accelerator platform, simulated cycle by cycle.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
run_app = typer.Typer(help="Run a model on simulated cards.", no_args_is_help=True)
app.add_typer(run_app, name="run")
bench_app = typer.Typer(help="Measure, and say against what.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

console = Console()


def _output_file(path: Path | None) -> Path | None:
    """Refuses a file that cannot be written before the work that would fill it."""
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"{path} is a folder, must be a file")
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path}: folder {path.parent} does not exist")
    return path


ConfigOption = Annotated[str, typer.Option("--config", help=f"Preset: {', '.join(PRESETS)}.")]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Also write the result as JSON.", callback=_output_file
    ),
]
EngineOption = Annotated[str, typer.Option("--engine", help="native (compiled) or pysim.")]


def _cycles(window: str) -> tuple[int, int]:
    """The numbers of A:B."""
    first, colon, last = window.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise ValueError(f"--waves-cycles {window}: must be A:B, like 2000:3000")
    return int(first), int(last)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _write_json(path: Path | None, result: dict) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")


@run_app.command("dlrm")
def run_dlrm(
    samples: Annotated[int, typer.Option(help="Held-out interactions to answer.")] = 1024,
    batch: Annotated[int, typer.Option(help="Samples of a batch.")] = 128,
    cards: Annotated[int, typer.Option(help="Cards, 1 to 6.")] = 6,
    config: ConfigOption = "default",
    engine: EngineOption = "native",
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="MovieLens-100K in RecBole's format.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trained weights (safetensors).")
    ] = None,
    json_file: JsonOption = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a timeline for ui.perfetto.dev.", callback=_output_file
        ),
    ] = None,
    waves: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write waveforms of a card.", callback=_output_file),
    ] = None,
    waves_card: Annotated[int, typer.Option(metavar="N", help="The card looked into.")] = 0,
    waves_cycles: Annotated[
        str, typer.Option(metavar="A:B", help="From cycle A to before cycle B.")
    ] = "0:10000",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:card=N,at=US,…]",
            help="What goes wrong while answering, on the link of a card (0), from so many µs on "
            "(0): corrupt, poison, poisoned-write, unsupported, abort, lost-completion, "
            "late-completion, link-down, silent. Also `for=US`, how late or long (50), `skip=N` "
            "and `count=N` packets. May be given more than once.",
        ),
    ] = None,
) -> None:
    """Will this user rate this item 4 or more? MovieLens-100K, answered by six cards.

    Every answer is compared with the golden model; any difference makes the exit status 1, and so
    does a fault that nobody noticed.

    Example: `halfdome run dlrm --samples 2048 --json result.json --trace timeline.json`

    Example: `halfdome run dlrm --fault poison:card=2,at=40 --fault link-down:card=4,at=60,for=100`
    """
    from host.bench import dlrm as bench
    from host.models import dlrm
    from host.runtime import runtime

    design = preset(config)
    work = bench.workload(data, weights or dlrm.WEIGHTS, samples, batch)
    bench.check_design(work, design, cards=cards, engine=engine, faults=fault or ())
    options = {}
    if waves is not None:
        start, stop = _cycles(waves_cycles)
        options["waves"] = runtime.waves(
            waves, card=waves_card, start=start, stop=stop, cards=cards
        )
    if fault:
        options["patience_cycles"] = bench.FAULT_PATIENCE_CYCLES
    with _progress() as bar:
        task = bar.add_task(f"{cards} cards, {engine}", total=samples)
        outcome = bench.run(
            work,
            design,
            cards=cards,
            engine=engine,
            progress=lambda done: bar.advance(task, done),
            trace=trace,
            faults=fault or (),
            **options,
        )
    if waves is not None and not waves.exists():
        console.print(f"[red]no waveforms: the run ended before cycle {start}[/red]")
    tables.print_dlrm(outcome.report, console)
    unnoticed = 0
    if fault:
        tables.print_faults(outcome.report["faults"], console)
        unnoticed = outcome.report["faults"]["total"]["unnoticed"]
    _write_json(json_file, outcome.report)
    if outcome.mismatches:
        console.print(f"[red]{outcome.mismatches} samples differ from the golden model[/red]")
    if outcome.mismatches or unnoticed:
        raise typer.Exit(1)


@app.command()
def verilog(
    config: ConfigOption = "default",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")] = Path(
        "build"
    ),
) -> None:
    """Write the card as one Verilog file, with a C header of its registers and descriptors.

    Example: `halfdome verilog --config tiny -o build/`
    """
    from hdl.verilog import TOP, c_header, card_verilog

    design = preset(config)
    output.mkdir(parents=True, exist_ok=True)
    with console.status(f"generating {config} ({design.hash})"):
        (output / f"{TOP}.v").write_text(card_verilog(design))
    (output / f"{TOP}.h").write_text(c_header(design))
    (output / f"{TOP}.json").write_text(design.as_json() + "\n")
    for suffix in ("v", "h", "json"):
        typer.echo(output / f"{TOP}.{suffix}")


@app.command()
def fpga(
    units: Annotated[
        list[str] | None, typer.Option("--unit", metavar="NAME", help="Default: every unit.")
    ] = None,
    config: ConfigOption = "tiny",
    json_file: JsonOption = None,
) -> None:
    """Place and route the units that decide a card's size on an ECP5: LUTs, DSPs, Fmax.

    Example: `halfdome fpga --unit array --unit lane --config tiny`
    """
    from hdl.synthesis import UNITS, ecp5_report

    design = preset(config)
    chosen = units or list(UNITS)
    for unit in chosen:
        if unit not in UNITS:
            raise ValueError(f"--unit {unit}: unknown; known are {', '.join(UNITS)}")
    rows = []
    with _progress() as bar:
        task = bar.add_task("units", total=len(chosen))
        for unit in chosen:
            bar.update(task, description=unit)
            rows.append(ecp5_report(UNITS[unit](design), unit))
            bar.advance(task)
    console.print(tables.of_rows(f"Lattice LFE5UM5G-85, {config}", rows))
    _write_json(json_file, {"config_hash": design.hash, "rows": rows})


@app.command()
def explore(
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="FIELD=V1,V2,…", help="Values to try; array=RxC works too."),
    ],
    config: ConfigOption = "default",
    samples: Annotated[int, typer.Option(help="Held-out interactions to answer.")] = 256,
    batch: Annotated[int, typer.Option(help="Samples of a batch.")] = 128,
    cards: Annotated[int, typer.Option(help="Cards, 1 to 6.")] = 6,
    engine: EngineOption = "native",
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="MovieLens-100K in RecBole's format.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")] = Path(
        "build/explore"
    ),
    json_file: JsonOption = None,
) -> None:
    """Run the demo's batches over a grid of configurations: a table, a CSV and a picture.

    Example: `halfdome explore --set array=8x8,16x16 --set lanes=4,8,16`
    """
    from host.bench import dlrm as bench
    from host.explore import grid
    from host.models import dlrm

    points = grid.points(preset(config), settings)
    work = bench.workload(data, dlrm.WEIGHTS, samples, batch)
    grid.check(points, work, cards=cards, engine=engine)
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    with _progress() as bar:
        task = bar.add_task("samples", total=len(points) * samples)
        for number, point in enumerate(points, start=1):
            bar.update(task, description=f"{number}/{len(points)} {point.name}")
            rows.append(
                grid.measure(
                    point,
                    work,
                    cards=cards,
                    engine=engine,
                    progress=lambda done: bar.advance(task, done),
                )
            )
            grid.write_csv(output / "explore.csv", rows)  # what is measured stays measured
    grid.draw(output / "explore.png", rows)
    _write_json(json_file, {"rows": rows})
    console.print(grid.table(rows))
    typer.echo(f"{output / 'explore.csv'}\n{output / 'explore.png'}")


@bench_app.command("matmul")
def bench_matmul(
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="MxKxN", help="May be given more than once."),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Instead 1331 shapes against their closed form.")
    ] = False,
    config: ConfigOption = "default",
    engine: EngineOption = "native",
    json_file: JsonOption = None,
) -> None:
    """MAC utilisation: useful multiply-accumulates over what the array could do.

    Operands in the scratchpad as far as they fit, then in DRAM; by default large layers and those
    of a recommendation model with their sum. Outputs are compared with the golden model; any
    difference, or with --grid any shape outside its bounds, makes the exit status 1.

    Example: `halfdome bench matmul --shape 256x256x256 --shape 64x512x512`
    """
    from host.bench import matmul

    parsed: list[tuple[int, int, int]] = []
    for shape in shapes or ():
        sizes = shape.split("x")
        if len(sizes) != 3 or not all(size.isdecimal() and int(size) for size in sizes):
            raise ValueError(f"--shape {shape}: must be MxKxN, like 256x256x256")
        parsed.append((int(sizes[0]), int(sizes[1]), int(sizes[2])))
    design, chosen = preset(config), parsed or list(matmul.SHAPES)
    with _progress() as bar:
        if grid:
            task = bar.add_task("products", total=len(matmul.GRID) ** 3)
            result = matmul.grid(design, matmul.GRID, engine, lambda n: bar.advance(task, n))
        else:
            task = bar.add_task("products", total=len(chosen) * len(matmul.PLACES))
            result = matmul.measure(design, chosen, engine, lambda n: bar.advance(task, n))
    _write_json(json_file, result)
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
    if wrong := sum(row["mismatching_values"] for row in result["rows"]):
        console.print(f"[red]{wrong} values differ from the golden model[/red]")
        raise typer.Exit(1)


@bench_app.command("gather")
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
    cards: Annotated[int, typer.Option(help="Points measured at once, 1 to 6.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the traces.")] = 0,
    config: ConfigOption = "default",
    engine: EngineOption = "native",
    json_file: JsonOption = None,
) -> None:
    """Gather efficiency: cycles of the tightest bound over cycles taken.

    The whole sweep, or what the options leave of it; each may be given more than once. Answers are
    compared with the golden model; any difference makes the exit status 1.

    Example: `halfdome bench gather --dim 64 --bits 8 --pooling 32 --json gather.json`
    """
    from host.bench import gather, gather_run, gather_study

    axes = {"dims": dims, "bits": bits, "poolings": poolings, "reuses": reuses, "strides": strides}
    chosen = {name: values for name, values in axes.items() if values}
    design = preset(config)
    options = {"engine": engine, "cards": cards, "seed": seed, "lookups": lookups}
    if study is not None:
        if reuses or shapes:
            raise ValueError("--study: takes --dim, --bits, --pooling and --stride alone")
        points = gather_study.points(**chosen)
        total = len(points) * len(gather_study.variants(study, design))
        with _progress() as bar:
            task = bar.add_task(study, total=total)
            result = gather_study.compare(
                study, points, design, **options, progress=lambda done: bar.advance(task, done)
            )
        tables.print_gather_study(result, console)
        _finish_gather(json_file, result)
        return
    points = [] if shapes and not chosen else gather.sweep(**chosen)
    if shapes or not chosen:
        points += gather.shapes(shapes or gather.SHAPES)
    with _progress() as bar:
        task = bar.add_task("points", total=len(points))
        result = gather_run.measure(
            points, design, **options, progress=lambda done: bar.advance(task, done)
        )
    tables.print_gather(result, console)
    _finish_gather(json_file, result)


def _finish_gather(json_file: Path | None, result: dict) -> None:
    """Writes the result; ends with status 1 if an answer was wrong."""
    _write_json(json_file, result)
    if wrong := sum(row["mismatching_values"] for row in result["rows"]):
        console.print(f"[red]{wrong} values differ from the golden model[/red]")
        raise typer.Exit(1)


@bench_app.command("link")
def bench_link(
    config: ConfigOption = "default", engine: EngineOption = "native", json_file: JsonOption = None
) -> None:
    """Link efficiency: payload over what the wire could carry, for DMA of 64 B to 1 MiB.

    One card and six, host and peer, and how many tags cover the latency of a read. Takes minutes.

    Example: `halfdome bench link --json link.json`
    """
    from host.bench import link

    design = preset(config)
    with _progress() as bar:
        task = bar.add_task("transfers", total=link.steps())
        result = link.measure(design, engine, lambda rows: bar.advance(task, rows))
    console.print(tables.of_rows("DMA over PCIe", result["rows"]))
    console.print(tables.of_rows("64 KiB reads of the host, by tags", result["tags"]))
    _write_json(json_file, result)


@bench_app.command("transfers")
def bench_transfers(
    samples: Annotated[int, typer.Option(help="Held-out interactions to answer.")] = 1024,
    batch: Annotated[int, typer.Option(help="Samples of a batch.")] = 128,
    cards: Annotated[int, typer.Option(help="Cards, 1 to 6.")] = 6,
    config: ConfigOption = "default",
    engine: EngineOption = "native",
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="MovieLens-100K in RecBole's format.")
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """What each trick of the transfers saves on a batch: bytes over the uplink and cycles.

    Every switch on and off, the others as usual. Answers are compared with the golden model; any
    difference makes the exit status 1.

    Example: `halfdome bench transfers --samples 512 --json transfers.json`
    """
    from host.bench import dlrm, transfers
    from host.models.dlrm import WEIGHTS

    work = dlrm.workload(data, WEIGHTS, samples, batch)
    design = preset(config)
    with _progress() as bar:
        task = bar.add_task("settings", total=transfers.steps())
        result = transfers.measure(
            work, design, cards=cards, engine=engine, progress=lambda n: bar.advance(task, n)
        )
    tables.print_transfers(result, console)
    _write_json(json_file, result)
    if wrong := result["mismatching_samples"]:
        console.print(f"[red]{wrong} samples differ from the golden model[/red]")
        raise typer.Exit(1)


@bench_app.command("faults")
def bench_faults(
    config: ConfigOption = "tiny", engine: EngineOption = "native", json_file: JsonOption = None
) -> None:
    """The fault matrix: every fault at every phase of a batch, who noticed, what was done.

    A made-up model on two cards, with fewer cycles of patience than `run dlrm --fault` has. An
    answer that is not right in the end, or a fault that nobody noticed, makes the exit status 1.

    Example: `halfdome bench faults --config tiny --json faults.json`
    """
    from host.bench import faults

    design = preset(config)
    with _progress() as bar:
        task = bar.add_task("faults", total=len(faults.cells()))
        result = faults.measure(design, engine, lambda n: bar.advance(task, n))
    tables.print_fault_matrix(result, console)
    _write_json(json_file, result)
    bad = [row for row in result["rows"] if row["outcome"] != "right" or "unnoticed" in row["who"]]
    if bad:
        console.print(f"[red]{len(bad)} faults were not noticed, or not made good[/red]")
        raise typer.Exit(1)


@bench_app.command("engine")
def bench_engine(config: ConfigOption = "default", json_file: JsonOption = None) -> None:
    """Simulation speed: pysim, the bare compiled card, one native card, six; and their ratios.

    Example: `halfdome bench engine --json engines.json`
    """
    from host.bench import engines

    with console.status("simulating with both engines"):
        result = engines.compare(preset(config))
    speed = {
        name.removesuffix("_cycles_per_second"): value
        for name, value in result.items()
        if name.endswith("_cycles_per_second")
    }
    work = result["native_work"]
    console.print(tables.of_rows(f"Card cycles per second of wall time, native: {work}", [speed]))
    ratios = [
        {"ratio": name.replace("_", " "), "measured": result[name], "bar": bar}
        for name, bar in result["bars"].items()
    ]
    load = result["load_average_before"]
    console.print(f"{result['processors']} processors, load average {load:.1f} before")
    console.print(tables.of_rows("Ratios, and what they should be at least", ratios))
    shares = {
        name.removesuffix("_share"): value
        for name, value in result.items()
        if name.endswith("_share")
    }
    console.print(tables.of_rows("Where one native card's wall time goes", [shares]))
    _write_json(json_file, result)


@app.command()
def info(config: ConfigOption = "default", json_file: JsonOption = None) -> None:
    """Show what a configuration means, and what the cache of compiled models holds.

    Example: `halfdome info --config m2`
    """
    from rich.table import Table

    from host.runtime.runtime import cache_summary

    design = preset(config)
    facts = describe(design)
    facts |= {f"cache_{name}": value for name, value in cache_summary().items()}
    table = Table("quantity", "value", title=f"{config} ({design.hash})")
    for name, value in facts.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    console.print(table)
    _write_json(json_file, facts)


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


def main() -> None:
    """Entry point: errors that a user can mend become one line and exit status 2."""
    try:
        app()
    except (ValueError, MemoryError, OSError, RuntimeError) as error:
        message = f"[red]error:[/red] {escape(str(error))}"
        Console(stderr=True).print(message, soft_wrap=True, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
