"""`halfdome bench engine` and `model`: how fast the simulators are, and how true."""

import secrets
from typing import Annotated

import numpy as np
import typer

from halfdome.hdl.config import preset
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import tables


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
        for of, counted in (("compared", "processor seconds of one thread"), ("alone", "seconds")):
            console.print(tables.of_rows(f"Speed {of}, {counted}", result["speed"][of]))
    if wrong:
        console.print("[red]the timing card differs from hardware by more than its bar[/red]")
        raise typer.Exit(1)
