"""`halfdome run`: models on simulated cards, above all the demo."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from halfdome.hdl.config import preset
from halfdome.host.cli import models, options
from halfdome.host.cli.options import console
from halfdome.host.report import tables

MODEL = "MODEL"
"""What the help calls a model's path, and the command that takes it."""


class _Group(TyperGroup):
    """What is neither a command nor a question is about a model: `run` takes its path itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [MODEL, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple:
        """Without a name for the command that takes a path, which is not written out."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == MODEL else name, command, rest


app = typer.Typer(
    cls=_Group,
    help="""Run a model on simulated cards: one of yours, by its path, or the demo.

    Example: `halfdome run model.onnx --input x.npz --calibrate samples.npz`

    Example: `halfdome run dlrm --samples 2048`
    """,
    no_args_is_help=True,
)
app.command(MODEL)(models.run_model)


def _cycles(window: str) -> tuple[int, int]:
    """The numbers of A:B."""
    first, colon, last = window.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise ValueError(f"--waves-cycles {window}: must be A:B, like 2000:3000")
    return int(first), int(last)


@app.command("dlrm")
def run_dlrm(
    samples: options.Samples = 1024,
    batch: options.Batch = 128,
    cards: options.Cards = 6,
    config: options.Config = "default",
    engine: options.EngineName = "native",
    no_values: options.NoValues = False,
    data: options.Data = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trained weights (safetensors).")
    ] = None,
    json_file: options.JsonFile = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a timeline for ui.perfetto.dev.",
            callback=options.output_file,
        ),
    ] = None,
    waves: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write waveforms of a card.", callback=options.output_file
        ),
    ] = None,
    waves_card: Annotated[int, typer.Option(metavar="N", help="The card looked into.")] = 0,
    waves_cycles: Annotated[
        str, typer.Option(metavar="A:B", help="From cycle A to before cycle B.")
    ] = "0:10000",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:card=N,at=US,…]",
            help="What goes wrong while answering, on the link of a card (0) or, `link=uplink`, on "
            "the one that all share, from so many µs on (0): corrupt, poison, poisoned-write, "
            "unsupported, abort, lost-completion, late-completion, link-down, silent. Also "
            "`for=US`, how late or long (50), `skip=N` and `count=N` packets. May be given more "
            "than once.",
        ),
    ] = None,
) -> None:
    """Will this user rate this item 4 or more? MovieLens-100K, answered by six cards.

    Every answer is compared with the golden model, unless values are left out; any difference
    makes the exit status 1, and so does a fault that nobody noticed.

    Example: `halfdome run dlrm --samples 2048 --json result.json --trace timeline.json`

    Example: `halfdome run dlrm --fault poison:card=2,at=40 --fault link-down:card=4,at=60,for=100`
    """
    from halfdome.host import platform
    from halfdome.host.bench import dlrm as bench
    from halfdome.host.models import dlrm

    design = preset(config)
    work = bench.workload(data, weights or dlrm.WEIGHTS, samples, batch)
    values = not no_values
    bench.check_design(work, design, cards=cards, engine=engine, values=values, faults=fault or ())
    extras: dict[str, Any] = {}
    if waves is not None:
        start, stop = _cycles(waves_cycles)
        extras["waves"] = platform.waves(
            waves, card=waves_card, start=start, stop=stop, cards=cards
        )
    if fault:
        extras["patience_cycles"] = bench.FAULT_PATIENCE_CYCLES
    with options.progress() as bar:
        task = bar.add_task(f"{cards} cards, {engine}", total=samples)
        outcome = bench.run(
            work,
            design,
            cards=cards,
            engine=engine,
            values=values,
            progress=lambda done: bar.advance(task, done),
            trace=trace,
            faults=fault or (),
            **extras,
        )
    if waves is not None and not waves.exists():
        console.print(f"[red]no waveforms: the run ended before cycle {start}[/red]")
    tables.print_dlrm(outcome.report, console)
    unnoticed = 0
    if fault:
        tables.print_faults(outcome.report["faults"], console)
        unnoticed = outcome.report["faults"]["total"]["unnoticed"]
    options.write_json(json_file, outcome.report)
    options.require_right(outcome.mismatches, "samples")
    if unnoticed:
        raise typer.Exit(1)
