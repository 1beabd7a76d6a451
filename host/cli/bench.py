"""`halfdome bench`: measure, and say against what."""

import secrets
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from halfdome.hdl.config import preset
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import tables

app = typer.Typer(help="Measure, and say against what.", no_args_is_help=True)


@app.command("matmul")
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


@app.command("gather")
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


@app.command("link")
def bench_link(
    config: options.Config = "default",
    engine: options.EngineName = "native",
    json_file: options.JsonFile = None,
) -> None:
    """Link efficiency: payload over what the wire could carry, for DMA of 64 B to 1 MiB.

    One card and six, host and peer, and how many tags cover the latency of a read. Takes minutes.

    Example: `halfdome bench link --json link.json`
    """
    from halfdome.host.bench import link

    design = preset(config)
    with options.progress() as bar:
        task = bar.add_task("transfers", total=link.steps())
        result = link.measure(design, engine, lambda rows: bar.advance(task, rows))
    tables.print_link(result, console)
    options.write_json(json_file, result)


@app.command("transfers")
def bench_transfers(
    samples: options.Samples = 1024,
    batch: options.Batch = 128,
    cards: options.Cards = 6,
    config: options.Config = "default",
    engine: options.EngineName = "native",
    data: options.Data = None,
    json_file: options.JsonFile = None,
) -> None:
    """What each trick of the transfers saves on a batch: bytes over the uplink and cycles.

    Every switch on and off, the others as usual. Answers are compared with the golden model; any
    difference makes the exit status 1.

    Example: `halfdome bench transfers --samples 512 --json transfers.json`
    """
    from halfdome.host.bench import dlrm, transfers
    from halfdome.host.models.dlrm import WEIGHTS

    work = dlrm.workload(data, WEIGHTS, samples, batch)
    design = preset(config)
    with options.progress() as bar:
        task = bar.add_task("settings", total=transfers.steps())
        result = transfers.measure(
            work, design, cards=cards, engine=engine, progress=lambda n: bar.advance(task, n)
        )
    tables.print_transfers(result, console)
    options.write_json(json_file, result)
    options.require_right(result["mismatching_samples"], "samples")


@app.command("faults")
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


@app.command("engine")
def bench_engine(config: options.Config = "default", json_file: options.JsonFile = None) -> None:
    """Simulation speed: pysim, the bare compiled card, one native card, six; and their ratios.

    Example: `halfdome bench engine --json engines.json`
    """
    from halfdome.host.bench import engines

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
    options.write_json(json_file, result)


@app.command("cores")
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
    data: options.Data = None,
    json_file: options.JsonFile = None,
) -> None:
    """What the cores of a card are worth: the demo, RM1 to RM3, blocks of ResNet-50 and ResNeXt-50.

    Cycles of a request on a full card, how many times as fast as on the first number of cores, what
    binds, and how near to it; and how equally cores share memory that all of them want. Answers are
    compared with the golden model; any difference makes the exit status 1. Takes long.

    Example: `halfdome bench cores --workload RM1 --cores 1 --cores 4 --json cores.json`
    """
    from halfdome.host.bench import cores

    with console.status("cores") as status:
        result = cores.measure(
            preset(config), workloads or cores.WORKLOADS, counts or cores.COUNTS, data=data,
            engine=engine, requests=requests, progress=status.update,
        )  # fmt: skip
    tables.print_cores(result, console)
    options.write_json(json_file, result)
    rows = (*result["rows"], *result.get(cores.TOGETHER, ()))
    options.require_right(sum(row.get("mismatching_values", 0) for row in rows), "values")


@app.command("flights")
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


@app.command("model")
def bench_model(
    draws: Annotated[int, typer.Option(min=1, help="Random calls of each kind.")] = 10,
    configs: Annotated[
        int, typer.Option(min=0, help="Cards drawn at random in place of the preset's.")
    ] = 0,
    show: Annotated[int, typer.Option(min=0, help="Calls with the largest errors to list.")] = 5,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of cards and operands; by default anew.")
    ] = None,
    config: options.Config = "tiny",
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure how fast both are, too: takes minutes.")
    ] = False,
    json_file: options.JsonFile = None,
) -> None:
    """What the timing card says against what hardware takes: the same calls on both engines.

    Errors of cycles by command and of whole calls, and of what engines did meanwhile. A value that
    differs, or an error above its bar, makes the exit status 1; of the worst such calls that are
    listed every command is told, with its descriptor and its cycles on both. Each card that is
    drawn costs a minute or two of compiling.

    Example: `halfdome bench model --draws 20 --show 3`

    Example: `halfdome bench model --configs 8 --draws 4 --json errors.json`

    Example: `halfdome bench model --config default --draws 1 --speed --json model.json`
    """
    from halfdome.host.bench import speeds, timing

    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    rng = np.random.default_rng(chosen)
    cards = [timing.draw(rng) for _ in range(configs)] or [preset(config)]
    console.print(f"seed {chosen}: {', '.join(card.hash for card in cards)}")
    with options.progress() as bar:
        task = bar.add_task("calls", total=len(cards) * draws * len(timing.CALLS))
        result = timing.measure(cards, draws, chosen, lambda n: bar.advance(task, n))
        if speed:
            bar.update(bar.add_task("speed", total=None))
            result["speed"] = speeds.measure(cards[0])
    options.write_json(json_file, result)
    console.print(tables.of_rows("Cycles of commands, timing against native", result["commands"]))
    console.print(tables.of_rows("Cycles of whole calls", result["calls"]))
    wrong = [
        row
        for row in result["worst"]
        if row["error"] > result["bar"]
        or row["stall_error"] > result["stall_bar"]
        or not row["equal"]
    ]
    if shown := result["worst"][:show]:
        told = [{name: row[name] for name in row if name != "trace"} for row in shown]
        console.print(tables.of_rows("Worst calls", told))
    for row in wrong[:show]:
        console.print(f"{row['call']}, draw {row['draw']} on config {row['config']}:")
        for each in row["trace"]:
            console.print(
                f"  {each['command']}: native {each['native']}, timing {each['timing']}, "
                f"{each['descriptor']}",
                highlight=False,
            )
    console.print(
        f"what engines did is {100 * result['worst_stall_error']:.2g} % off at most; "
        f"native takes {result['native_over_timing_seconds']:.1f} times as long"
    )
    if speed:
        for of, rows in result["speed"].items():
            console.print(tables.of_rows(f"Processor seconds of one thread, {of}", rows))
    if wrong:
        console.print("[red]the timing card differs from hardware by more than its bar[/red]")
        raise typer.Exit(1)


@app.command("models")
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


@app.command("fpga")
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


@app.command("area")
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
    """The fit of area against synthesis for an ECP5: parts of random cards, and the error of each.

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
    console.print(tables.of_rows("Parts on an ECP5, as Yosys counts them", result["rows"]))
    options.write_json(json_file, result)
    if add is not None:
        synthesise.add(add, result, fit)
    console.print(tables.of_rows("95th percentile of the error, %", [result["p95_percent"]]))
    if max(result["p95_percent"].values()) > 10:
        raise typer.Exit(1)
