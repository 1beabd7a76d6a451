"""`halfdome run MODEL`, `compile` and `compare`: models that a user brings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfdome.hdl.config import MOST_CARDS, PLATFORM_CARDS, preset
from halfdome.host import arguments
from halfdome.host.cli import options
from halfdome.host.cli.options import console
from halfdome.host.report import models as tables
from halfdome.host.report.size import size

if TYPE_CHECKING:
    from halfdome.host.frontend.prepare import Requests

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="ONNX file, or .pt2 file of torch.export.save.", show_default=False
    ),
]
Input = Annotated[
    Path,
    typer.Option(
        "--input",
        metavar="FILE.npz|DIR",
        help="What is asked: arrays by the names of the inputs, an extra first axis counting "
        "requests; or a folder of such files.",
        show_default=False,
    ),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        "--calibrate",
        metavar="FILE.npz|DIR",
        help="Requests that show which ranges a model in floating point has.",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=1x3x224x224",
        help="Of an input that leaves sizes open. May be given more than once.",
    ),
]


@contextmanager
def _told() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """A line that says what is done, and becomes a bar of steps; gone if that fails."""
    bar = options.progress()
    task = bar.add_task("reading", total=None)

    def say(text: str) -> None:
        bar.update(task, description=text)

    def progress(done: int, total: int) -> None:
        bar.update(task, total=total, advance=done)

    bar.start()
    try:
        yield say, progress
    except BaseException:
        bar.live.transient = True
        bar.live.stop()  # without the empty line that `bar.stop` ends with
        raise
    bar.stop()


def _calibration(path: Path | None) -> "Requests | None":
    from halfdome.host.frontend.calibration import read_requests

    return None if path is None else read_requests(path, "--calibrate")


def run_model(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="ONNX file, .pt2 file of torch.export.save, or .halfdome file.",
            show_default=False,
        ),
    ],
    input: Input,
    calibrate: Calibrate = None,
    shape: Shapes = None,
    cards: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_CARDS, help="Cards; 6, or those that a model is compiled for."
        ),
    ] = None,
    config: options.Config = "default",
    engine: options.EngineName = "native",
    no_values: options.NoValues = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Hold the outputs against ONNX Runtime's.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.npz",
            help="Write the outputs, those of several requests stacked.",
            callback=options.output_file,
        ),
    ] = None,
    json_file: options.JsonFile = None,
) -> None:
    """Answer requests with a model: on the cards, and on the host what they do not compute.

    With --compare an output that differs in a bit from ONNX Runtime's 8-bit operators makes the
    exit status 1. With --no-values neither do steps of the host run that need what cards put out.

    Example: `halfdome run model.onnx --input x.npz --calibrate samples.npz --shape x=1x3x224x224`

    Example: `halfdome run model.halfdome --input requests/ --output y.npz --json result.json`
    """
    from halfdome.host.frontend.calibration import read_requests
    from halfdome.host.frontend.compile import compile
    from halfdome.host.frontend.load import parse_shapes
    from halfdome.host.frontend.plan import SUFFIX, Plan
    from halfdome.host.frontend.prepare import prepare
    from halfdome.host.platform import check
    from halfdome.host.serving import result as results
    from halfdome.host.serving.compare import differences, refuse_compiled
    from halfdome.host.serving.session import InferenceSession

    design = preset(config)
    if no_values and (compare or output is not None):
        raise ValueError(
            "--no-values: leaves no outputs to compare or write: leave out --compare and --output"
        )
    arrays = read_requests(input, "--input")
    if compare:
        refuse_compiled(model)
    check(design, cards or PLATFORM_CARDS, engine, not no_values)
    with _told() as (say, progress):
        prepared = None
        if model.suffix == SUFFIX:
            if calibrate is not None or shape:
                raise ValueError(f"{model}: is compiled; --calibrate and --shape are part of that")
            plan = Plan.load(model)
        else:
            prepared = prepare(
                model, calibration=_calibration(calibrate), shapes=parse_shapes(shape or ()),
                say=say,
            )  # fmt: skip
            plan = compile(prepared, cards=cards or PLATFORM_CARDS, config=design, say=say)
        requests = [request for each in arrays for request in plan.split(f"--input {input}", each)]
        total = len(plan.steps) * len(requests)
        with InferenceSession(
            plan, cards=cards, config=design, engine=engine, values=not no_values, say=say
        ) as session:
            say("running it")
            tensors = session.tensors(requests, lambda done: progress(done, total))
            layers = results.layers_of(session)
            result = results.of_run(session, tensors, layers)
    comparison = None
    if compare and prepared is not None:
        comparison = differences(prepared, plan, requests, tensors, engine=engine)
        result["compare"] = comparison.as_dict()
    if output is not None:
        results.write_outputs(output, plan, tensors)
    tables.print_run(result, layers, console)
    options.write_json(json_file, result)
    if comparison is not None:
        tables.print_verdict(result["compare"], console)
        if comparison.differing:
            raise typer.Exit(1)


def compile_model(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.halfdome",
            help="File to write; by default beside the model.",
            callback=options.output_file,
        ),
    ] = None,
    calibrate: Calibrate = None,
    shape: Shapes = None,
    cards: options.Cards = 6,
    config: options.Config = "default",
    json_file: options.JsonFile = None,
) -> None:
    """Compile a model, and tell what of it is where, why, and what crosses the links for it.

    Example: `halfdome compile model.onnx -o model.halfdome --calibrate samples.npz --cards 6`
    """
    from halfdome.host.frontend.compile import compile
    from halfdome.host.frontend.load import parse_shapes
    from halfdome.host.frontend.plan import SUFFIX

    output = output or model.with_suffix(SUFFIX)
    if output.suffix != SUFFIX:
        raise ValueError(f"--output {output}: must end with {SUFFIX}, by which `run` knows it")
    if model.is_file() and model.suffix != SUFFIX:
        arguments.output_file(output)
    design = preset(config)
    with _told() as (say, _):
        plan = compile(
            model, calibration=_calibration(calibrate), shapes=parse_shapes(shape or ()),
            cards=cards, config=design, say=say,
        )  # fmt: skip
        say("writing it")
        plan.save(output)
    tables.print_partition(plan.report, console)
    options.write_json(json_file, plan.report)
    console.print(f"{output}: {size(output.stat().st_size)}", highlight=False)


def compare_model(
    model: Model,
    input: Input,
    calibrate: Calibrate = None,
    shape: Shapes = None,
    cards: options.Cards = 6,
    config: options.Config = "default",
    engine: options.EngineName = "native",
    dump: Annotated[
        Path | None,
        typer.Option(
            "--dump",
            metavar="DIR",
            help="Write all tensors, one .npz for each request: cards/, int8/ and fp32/NAME.",
        ),
    ] = None,
    json_file: options.JsonFile = None,
) -> None:
    """Hold every tensor of a model against ONNX Runtime's int8, and against fp32.

    A bit that differs from ONNX Runtime's 8-bit operators makes the exit status 1.

    Example: `halfdome compare model.onnx --input x.npz --calibrate samples.npz --dump tensors/`
    """
    from halfdome.host.frontend.calibration import read_requests
    from halfdome.host.frontend.load import parse_shapes
    from halfdome.host.platform import check
    from halfdome.host.serving.compare import compare

    design = preset(config)
    check(design, cards, engine)
    requests = read_requests(input, "--input")
    with _told() as (say, progress):
        comparison = compare(
            model, requests, calibration=_calibration(calibrate), shapes=parse_shapes(shape or ()),
            cards=cards, config=design, engine=engine, dump=dump, say=say, progress=progress,
        )  # fmt: skip
    result = comparison.as_dict()
    tables.print_comparison(result, console)
    options.write_json(json_file, result)
    tables.print_verdict(result, console)
    if comparison.differing:
        raise typer.Exit(1)
