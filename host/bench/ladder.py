"""The ladder's models on the cards: what is where, how right they are, and what they take."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from halfdome.hdl.config import CardConfig
from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.prepare import Prepared, prepare
from halfdome.host.frontend.sessions import oracle, run_session
from halfdome.host.models.ladder import (
    digits,
    dlrm,
    efficientnet,
    families,
    mtcnn,
    open_nsfw,
    pp_ocr,
    resnet50,
    yolox,
)
from halfdome.host.models.ladder.boxes import Boxes, overlap
from halfdome.host.models.ladder.rung import Rung
from halfdome.host.models.ladder.wheels import MissingModel
from halfdome.host.models.movielens import DataError
from halfdome.host.platform import check
from halfdome.host.report.stamp import stamp
from halfdome.host.serving.compare import differences
from halfdome.host.serving.result import layers_of, utilisation_of
from halfdome.host.serving.session import InferenceSession

_ALIKE = 0.5
"""What two boxes share at least, of what they cover together, if they show the same."""


@dataclass(frozen=True)
class Step:
    """How a rung is built, and which of its outputs says what its samples are.

    `axis` is that of the classes; without one, whole numbers are classes, and probabilities are
    of two. Of what finds things, samples are the boxes that `boxes` reads out of the output. What
    is `heavy` is measured only if it is asked for by name.
    """

    build: Callable[[], Rung]
    output: str
    axis: int | None = None
    boxes: Callable[[np.ndarray], Boxes] | None = None
    heavy: bool = False

    def agreeing(self, outputs: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> int:
        """Samples that others see alike: of one class, or boxes that are mostly the same."""
        if self.boxes is None:
            return int((self.classes(outputs) == self.classes(others)).sum())
        mine, theirs = (self.boxes(each[self.output]).edges for each in (outputs, others))
        return int((overlap(mine, theirs).max(1, initial=0) > _ALIKE).sum())

    def samples(self, outputs: Mapping[str, np.ndarray]) -> int:
        """How many there are."""
        if self.boxes is None:
            return len(self.classes(outputs))
        return len(self.boxes(outputs[self.output]).scores)

    def classes(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The class of each sample."""
        array = outputs[self.output]
        if self.axis is not None:
            return array.argmax(self.axis).reshape(-1)
        return (array if array.dtype.kind == "i" else array >= 0.5).reshape(-1)


RUNGS: Mapping[str, Step] = {
    "digits": Step(digits.digits, "label"),
    "p_net": Step(mtcnn.p_net, "faces", 1),
    "open_nsfw": Step(open_nsfw.open_nsfw, "outputs", 1),
    "lite0": Step(efficientnet.lite0, efficientnet.OUTPUT, 1),
    "resnet50": Step(resnet50.resnet50, "gpu_0/softmax_1", 1),
    "resnext101": Step(families.resnext101, families.OUTPUT, 1, heavy=True),
    "regnety_128gf": Step(families.regnety_128gf, families.OUTPUT, 1, heavy=True),
    "fbnetv3_g": Step(families.fbnetv3_g, families.OUTPUT, 1),
    "yolox": Step(yolox.yolox, yolox.OUTPUT, boxes=yolox.boxes),
    "pp_ocr": Step(pp_ocr.pp_ocr, pp_ocr.OUTPUT, boxes=pp_ocr.lines),
    "random_dlrm": Step(dlrm.random_dlrm, "probability"),
    "trained_dlrm": Step(dlrm.trained_dlrm, "probability"),
}


def measure(
    config: CardConfig, rungs: Sequence[str], *, cards: int = 6,
    engine: str = "native", requests: int = 1, apart: bool = False,
    progress: Callable[[str, int, int], None] = lambda rung, done, of: None,
) -> dict:  # fmt: skip
    """A row for each rung, JSON-able; one whose files are missing says in `missing` what to do.

    `equal` is about all tensors that steps hand on and the outputs, in every bit of ONNX Runtime's
    8-bit operators. With `apart` a row has `apart`, too: the layers of a request when each begins
    after the one before. `progress` is told the rung, how many of its steps were done, and of how
    many.

    Raises `ValueError` for a rung that there is not, and for more requests than it has.
    """
    check_rungs(rungs)
    check(config, cards, engine)
    rows = []
    for name in rungs:
        progress(name, 0, 0)
        rung = built(name)
        if isinstance(rung, str):
            rows.append({"rung": name, "missing": rung})
            continue
        if not 1 <= requests <= len(rung.inputs):
            raise ValueError(f"--requests {requests}: must be 1 to {len(rung.inputs)} for {name}")
        rows.append({"rung": name} | measured(
            rung, RUNGS[name], config, cards, engine, rung.inputs[:requests],
            lambda done, of, name=name: progress(name, done, of), apart=apart,
        ))  # fmt: skip
    return {**stamp(config, 0), "engine": engine, "cards": cards, "rows": rows}


def usual() -> list[str]:
    """Rungs that are measured if none is named."""
    return [name for name, step in RUNGS.items() if not step.heavy]


def check_rungs(rungs: Sequence[str]) -> None:
    """Raises `ValueError` for a rung that there is not."""
    for name in rungs:
        if name not in RUNGS:
            raise ValueError(f"--rung {name}: unknown; known are {', '.join(RUNGS)}")


def built(name: str) -> Rung | str:
    """A rung, or what to do about files that are missing."""
    try:
        return RUNGS[name].build()
    except (MissingModel, DataError, ImportError) as error:
        return str(error)


def measured(
    rung: Rung, step: Step, config: CardConfig, cards: int, engine: str,
    asked: Sequence[Mapping[str, np.ndarray]], progress: Callable[[int, int], None], *,
    apart: bool = False,
) -> dict:  # fmt: skip
    """What requests of a rung took and how right they are; of the first, what its layers take
    `apart`. `progress` is told how many steps were done, of how many."""
    start = time.perf_counter()
    prepared = prepare(rung.model, calibration=rung.calibration)
    ready = time.perf_counter()
    plan = compile(prepared, cards=cards, config=config)
    compiled = time.perf_counter()
    right = {
        of: _answers(model, prepared, asked)
        for of, model in (("int8", prepared.model), ("fp32", prepared.floating))
    }
    total = len(plan.steps) * len(asked)
    with InferenceSession(plan, config=config, engine=engine) as session:
        opened = time.perf_counter()
        tensors = session.tensors(asked, lambda done: progress(done, total))
        ran = time.perf_counter()
        cycles = sum(each.cycles for each in session.steps)
        layers, used = layers_of(session), utilisation_of(session)
    comparison = differences(prepared, plan, asked, tensors, engine=engine)
    worst = [each.sqnr_db for each in comparison.tensors if each.sqnr_db is not None]
    alike = {
        of: sum(map(step.agreeing, tensors, outputs)) for of, outputs in right.items()
    }  # fmt: skip
    partition = plan.report
    return {
        "model": rung.name,
        "operators": dict(Counter(node.op_type for node in prepared.model.graph.node)),
        "nodes_on_cards": partition["nodes_on_cards"],
        "nodes_on_host": partition["nodes_on_host"],
        "quantise_seconds": ready - start, "compile_seconds": compiled - ready,
        "run_seconds": ran - opened, "requests": len(asked),
        "cycles_per_request": cycles / len(asked),
        "equal": not comparison.differing, "first_difference": comparison.first,
        "worst_sqnr_db": min(worst, default=None), "samples": sum(map(step.samples, tensors)),
        "top1_as_int8": alike["int8"], "top1_as_fp32": alike["fp32"],
        "moved_bytes": sum(sum(each.moved_bytes.values()) for each in layers.values()),
        "least_bytes": sum(each.least_bytes for each in layers.values()),
        **asdict(used), "layers": {number: each.as_dict() for number, each in layers.items()},
        **({"apart": _apart(prepared, config, cards, engine, asked[0])} if apart else {}),
    }  # fmt: skip


def _apart(
    prepared: Prepared, config: CardConfig, cards: int, engine: str,
    request: Mapping[str, np.ndarray],
) -> dict[int, dict]:  # fmt: skip
    """The layers of a request by step, each by itself."""
    plan = compile(prepared, cards=cards, config=config, apart=True)
    with InferenceSession(plan, config=config, engine=engine) as session:
        session.tensors([request])
        return {number: each.as_dict() for number, each in layers_of(session).items()}


def _answers(
    model, prepared: Prepared, requests: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """What ONNX Runtime answers to each request: outputs by name."""
    session = oracle(model)
    names = [each.name for each in session.get_outputs()]
    return [
        dict(zip(names, run_session(session, names, prepared.inputs_of(each)), strict=True))
        for each in requests
    ]
