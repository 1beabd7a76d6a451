"""Layer by layer: what the cards compute beside ONNX Runtime's 8 bits, and beside fp32."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from halfdome.hdl.config import CardConfig
from halfdome.host import arguments
from halfdome.host.frontend.calibration import written
from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.net import Net
from halfdome.host.frontend.plan import SUFFIX, Plan
from halfdome.host.frontend.prepare import Prepared, Requests, prepare
from halfdome.host.frontend.sessions import oracle, run_session
from halfdome.host.frontend.steps import HostStep
from halfdome.host.platform import check_options
from halfdome.host.serving.session import InferenceSession

_QUANTISED = "_quantized"
"""What ONNX Runtime's quantiser adds to the name of a tensor that becomes one of 8 bits."""
_CLAMPS = ("Relu", "Clip")
"""Operators that the quantiser leaves out, since the limits of 8 bits do the same."""

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TensorDifference:
    """A tensor of the model, over all requests.

    Attributes
    ----------
    tensor, node, operator : str
    where : "cards" or "host"
    values : int
    differing : int, how many differ from ONNX Runtime's in a bit
    largest_difference : float, from ONNX Runtime's: in steps of a tensor of integers, else in what
        the tensor is in
    sqnr_db : float or None if all are equal; signal to noise against ONNX Runtime's
    fp32_tensor : str or None, what it is in the model before quantising
    fp32_largest_difference : float or None, in steps of a tensor of integers
    fp32_sqnr_db : float or None, also if all are equal
    """

    tensor: str
    node: str
    operator: str
    where: str
    values: int
    differing: int
    largest_difference: float
    sqnr_db: float | None
    fp32_tensor: str | None = None
    fp32_largest_difference: float | None = None
    fp32_sqnr_db: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds.

    Attributes
    ----------
    model, engine, config_hash : str
    cards, requests : int
    tensors : TensorDifference of each tensor that was looked at, in the order of the nodes
    first : the first node whose tensor differs from ONNX Runtime's in a bit, None if none does
    """

    model: str
    engine: str
    config_hash: str
    cards: int
    requests: int
    tensors: tuple[TensorDifference, ...]
    first: str | None

    @property
    def differing(self) -> int:
        """Tensors that differ in a bit."""
        return sum(each.differing > 0 for each in self.tensors)

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def compare(
    model: Any, requests: Sequence[Tensors], *, example_inputs: Sequence[object] | None = None,
    calibration: Requests | None = None, shapes: Mapping[str, Sequence[int]] = {},
    cards: int = 6, config: str | CardConfig = "default", engine: str = "native",
    dump: str | Path | None = None, say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, of: None, **options: object,
) -> Comparison:  # fmt: skip
    """Runs a model with all its tensors handed back, and compares each with ONNX Runtime's.

    Parameters
    ----------
    model, example_inputs, calibration, shapes, cards, config : as for `halfdome.compile`
    requests : what the model is asked, arrays by input; an extra first axis counts requests
    engine, options : as for `halfdome.open`
    dump : folder that becomes one .npz for each request, with `cards/`, `int8/` and `fp32/` before
        the names of tensors
    say : told what is done next
    progress : told how many steps of all requests were done, and of how many

    Tensors that only steps of the host hold are ONNX Runtime's anyway, and left out. Raises what
    `halfdome.compile` and `halfdome.open` raise, `ModelError` for a model that is compiled already
    and for no requests, and `ValueError` for an option that there is not and a `dump` that cannot
    be written.
    """
    refuse_compiled(model)
    check_options(options)
    if dump is not None:
        dump = arguments.output_folder(dump)
    prepared = prepare(model, example_inputs, calibration=calibration, shapes=shapes, say=say)
    plan = compile(prepared, cards=cards, config=config, every=True, say=say)
    every = [
        request
        for place, arrays in enumerate(requests)
        for request in plan.split(f"requests[{place}]", arrays)
    ]
    if not every:
        raise ModelError("requests: are none; give one or more")
    total = len(plan.steps) * len(every)
    with InferenceSession(plan, config=config, engine=engine, say=say, **options) as session:
        say("running it")
        tensors = session.tensors(every, lambda done: progress(done, total))
    say("asking ONNX Runtime")
    return differences(prepared, plan, every, tensors, engine=engine, dump=dump)


def refuse_compiled(model: object) -> None:
    """Raises `ModelError` for a model that does not hold any more what it came from."""
    path = isinstance(model, str | Path) and Path(model).suffix == SUFFIX
    if path or isinstance(model, Plan):
        raise ModelError(
            "model: is compiled, and holds no more what it would be compared with; give the model "
            "that it was compiled from"
        )


def differences(
    prepared: Prepared, plan: Plan, requests: Sequence[Tensors], tensors: Sequence[Tensors], *,
    engine: str, dump: str | Path | None = None,
) -> Comparison:  # fmt: skip
    """Compares what a session of `plan` gave back for requests, `tensors`, with ONNX Runtime's."""
    net = Net(prepared.model)
    names = [
        name for node in net.nodes for name in node.output if tensors and name in tensors[0]
    ]  # fmt: skip
    floating = _floating_names(net, prepared.floating, names)
    judge = oracle(prepared.model, names)
    source = oracle(prepared.floating, list(dict.fromkeys(floating.values()))) if floating else None
    wanted: list[Tensors] = []
    fp32: list[Tensors] = []
    for place, request in enumerate(requests):
        given = prepared.inputs_of(request)
        wanted.append(_asked(judge, given))
        fp32.append(_asked(source, given) if source is not None else {})
        if dump is not None:
            _dump(Path(dump) / f"{place}.npz", tensors[place], wanted[-1], fp32[-1], names)
    on_host = {
        name for step in plan.steps if isinstance(step, HostStep) for name in step.outputs
    }  # fmt: skip
    rows = []
    for name in names:
        maker = net.maker[name]
        found = np.stack([each[name] for each in tensors])
        right = np.stack([each[name] for each in wanted])
        row = TensorDifference(
            name, net.labels[maker], net.nodes[maker].op_type,
            "host" if name in on_host else "cards", found.size, *_against(found, right),
        )  # fmt: skip
        if name in floating:
            truth = np.stack([each[floating[name]] for each in fp32])
            row = _beside_fp32(row, floating[name], found, truth, net.quantisation.get(name))
        rows.append(row)
    first = next((row.node for row in rows if row.differing), None)
    return Comparison(
        prepared.name, engine, plan.config, plan.cards, len(requests), tuple(rows), first
    )


def _asked(session, request: Tensors) -> dict[str, np.ndarray]:
    names = [each.name for each in session.get_outputs()]
    taken = {each.name for each in session.get_inputs()}
    feed = {name: array for name, array in request.items() if name in taken}
    return dict(zip(names, run_session(session, names, feed), strict=True))


def _floating_names(
    net: Net, floating: onnx.ModelProto | None, names: Iterable[str]
) -> dict[str, str]:
    """The tensor in fp32 that each tensor stands for, as far as there is one of its shape."""
    if floating is None:
        return {}
    source = Net(floating)
    found = {}
    for name in names:
        base = name.removesuffix(_QUANTISED)
        while base in source.maker and base not in net.tensors:
            users = source.users.get(base, [])
            node = source.nodes[users[0]] if len(users) == 1 else None
            if node is None or node.op_type not in _CLAMPS:
                break
            if node.output[0] + _QUANTISED in net.tensors:
                break  # the quantised model holds both
            base = node.output[0]
        if base in source.maker and source.tensors[base].shape == net.tensors[name].shape:
            found[name] = base
    return found


def _against(found: np.ndarray, right: np.ndarray) -> tuple[int, float, float | None]:
    """How many differ in a bit, by how much at most, and the SQNR in dB."""
    if found.dtype != right.dtype:
        raise ModelError(f"compares {found.dtype} with {right.dtype}")
    if found.dtype.kind not in "fiu":
        return int((found != right).sum()), float((found != right).any()), None
    bits = f"u{found.dtype.itemsize}"
    differing = int((found.view(bits) != right.view(bits)).sum())
    if not differing:
        return 0, 0.0, None
    return differing, *_distance(found, right)


def _distance(found: np.ndarray, right: np.ndarray) -> tuple[float, float | None]:
    """The largest difference, and the SQNR in dB; None where there is no noise, or no signal."""
    with np.errstate(all="ignore"):  # values may be infinite, or their squares
        signal, noise = right.astype(np.float64), found.astype(np.float64) - right
        largest = float(np.abs(noise).max(initial=0))
        power, lost = (float(np.square(each).sum()) for each in (signal, noise))
    return largest, float(10 * np.log10(power / lost)) if lost and power else None


def _beside_fp32(row: TensorDifference, name: str, found, truth, quantisation) -> TensorDifference:
    step = 1.0
    if found.dtype.kind in "iu":
        if quantisation is None or quantisation[0] is None:
            return row
        step = float(quantisation[0])
        found = (found.astype(np.float64) - quantisation[1]) * step
    largest, sqnr = _distance(found, truth)
    return TensorDifference(**{
        **asdict(row), "fp32_tensor": name, "fp32_largest_difference": largest / step,
        "fp32_sqnr_db": sqnr,
    })  # fmt: skip


def _dump(
    path: Path, cards: Tensors, int8: Tensors, fp32: Tensors, names: Iterable[str]
) -> None:  # fmt: skip
    """Names of tensors may hold slashes, and so may members of an archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every = {f"cards/{name}": cards[name] for name in names}
    every |= {f"int8/{name}": array for name, array in int8.items()}
    every |= {f"fp32/{name}": array for name, array in fp32.items()}
    np.savez_compressed(path, **{name: written(array) for name, array in every.items()})
