"""Parts a QOperator model between the cards and the host, in as few steps as it can."""

from collections.abc import Callable, Collection, Mapping, Sequence

import onnx

from halfdome.hdl.config import PRESETS, CardConfig
from halfdome.host.frontend import (
    translate_elements as elements,
)
from halfdome.host.frontend import (
    translate_moves as moves,
)
from halfdome.host.frontend import (
    translate_pooling as pooling,
)
from halfdome.host.frontend import (
    translate_products as products,
)
from halfdome.host.frontend.commute import quantised_first
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.functions import DOMAINS, FUNCTION, collapse
from halfdome.host.frontend.net import MOVES, Net, used
from halfdome.host.frontend.reasons import reason
from halfdome.host.frontend.steps import CardStep, HostStep
from halfdome.host.frontend.translate import Builder, NotByRows, Refused
from halfdome.host.frontend.weights import add
from halfdome.host.graph.values import GraphError

TRANSLATIONS: Mapping[str, Callable[[Builder, onnx.NodeProto], None]] = {
    "QLinearConv": products.qlinear_conv,
    "ConvInteger": products.conv_integer,
    "QLinearMatMul": products.qlinear_matmul,
    "MatMulInteger": products.matmul_integer,
    "QGemm": products.qgemm,
    "QLinearGlobalAveragePool": products.global_average,
    "MaxPool": pooling.max_pool,
    "QLinearAveragePool": pooling.average_pool,
    "QLinearAdd": elements.qlinear_add,
    "QLinearMul": elements.qlinear_mul,
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu"), elements.qlinear_function),
    "QuantizeLinear": elements.quantise_linear,
    "DequantizeLinear": elements.dequantise_linear,
    "QLinearConcat": moves.qlinear_concat,
    "Concat": moves.concat,
    "Slice": moves.slice_,
    "Split": moves.split,
    "Pad": moves.pad,
    "Gather": moves.gather,
    "Resize": moves.resize,
    "Transpose": moves.transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"), moves.reshape),
}
"""Operators that cards compute, and how."""
_TRANSLATIONS = {**TRANSLATIONS, FUNCTION: elements.byte_function}
_OF_IMAGES = ("QLinearConv", "MaxPool", "QLinearAveragePool")
"""What takes a pixel's channels side by side."""
_BESIDE = {*MOVES, "QuantizeLinear", "DequantizeLinear"}
"""What computes nothing worth a way to the cards."""


def steps(
    model: onnx.ModelProto, check: Callable[[CardStep], object] | None = None, *,
    pooled: Collection[str] = (), every: bool = False, config: CardConfig = PRESETS["default"],
) -> list[HostStep | CardStep]:  # fmt: skip
    """Steps in an order in which they can run, of the host and of cards in turn.

    Parameters
    ----------
    model : a QOperator model, as `to_qoperator` returns it
    check : what else a step must pass, such as a compiler; the node that it names in a `GraphError`
        goes to the host
    pooled : inputs that the cards make themselves
    every : whether steps of cards return all that their nodes make, to be looked at
    config : what the cards are: images are laid out for them

    Each node that a card can compute is on one, unless it only moves or converts elements between
    nodes of the host. Raises `ModelError` for a model that ONNX Runtime does not take.
    """
    net = collapse(Net(quantised_first(model)))
    refused: dict[int, str] = {}
    for place in range(len(net.nodes)):
        if why := _refusal(net, place):
            refused[place] = why
    made: dict[tuple[int, ...], CardStep] = {}
    while True:
        host = _settled(net, refused, pooled)
        plan = _alternating(net, host)
        again = False
        for kind, places in plan:
            if kind != "cards" or tuple(places) in made:
                continue
            try:
                made[tuple(places)] = _checked(net, places, check, config, every=every)
            except Refusal as error:
                refused[error.place] = error.why
                again = True
                break
        if not again:
            break
    return [
        made[tuple(places)] if kind == "cards" else _host_step(net, places, host)
        for kind, places in plan
    ]


class Refusal(Exception):
    """Which node of a step cannot be on a card, and why."""

    def __init__(self, place: int, why: str):
        super().__init__(why)
        self.place = place
        self.why = why


def _checked(
    net: Net, places: Sequence[int], check: Callable[[CardStep], object] | None,
    config: CardConfig, *, every: bool,
) -> CardStep:  # fmt: skip
    step = card_step(net, places, config, every=every)
    if check:
        try:
            check(step)
        except GraphError as error:
            for place in places:
                if error.output in step.made[net.labels[place]]:
                    raise Refusal(place, f"no command takes it: {error}") from None
            raise
    return step


def _refusal(net: Net, place: int) -> str | None:
    """Why a node cannot be on a card, whatever surrounds it."""
    node = net.nodes[place]
    if node.op_type not in _TRANSLATIONS or node.domain not in DOMAINS:
        return reason(node.op_type, node.domain)
    try:
        card_step(net, [place], alone=True)
    except Refusal as error:
        return error.why
    return None


def card_step(
    net: Net, places: Sequence[int], config: CardConfig = PRESETS["default"], *,
    alone: bool = False, every: bool = False,
) -> CardStep:  # fmt: skip
    """The step of these nodes: by rows if all work so, else with a request as a sample.

    `alone`: only whether each can be translated counts, not what comes out of it. `every`: all that
    nodes make comes out. Raises `Refusal`.
    """
    outputs = _outputs(net, places)
    seen = [name for place in places for name in net.nodes[place].output if name and every]
    channels_last = any(net.nodes[place].op_type in _OF_IMAGES for place in places)
    for by_rows in (True, False):
        if by_rows and not _rows_agree(net, places):
            continue
        builder = Builder(net, config, by_rows=by_rows, channels_last=channels_last)
        try:
            for place in places:
                node = net.nodes[place]
                try:
                    builder.begin(net.labels[place], node)
                    _TRANSLATIONS[node.op_type](builder, node)
                except Refused as error:
                    raise Refusal(place, str(error.args[0])) from None
            try:
                return builder.finish(() if alone else outputs, seen)
            except Refused as error:
                why, name = error.args
                raise Refusal(net.maker[name], why) from None
        except NotByRows:
            continue
    raise ModelError("a request as one sample: it has no rows to keep apart")


def _rows_agree(net: Net, places: Sequence[int]) -> bool:
    """Whether all tensors of these nodes begin with the same size."""
    names = {
        name
        for place in places
        for name in (*net.nodes[place].input, *net.nodes[place].output)
        if name in net.tensors
    }
    sizes = {(net.tensors[name].shape or (None,))[0] for name in names}
    return len(sizes) == 1 and None not in sizes


def _outputs(net: Net, places: Sequence[int]) -> list[str]:
    """What nodes make for others, or for the model's outputs."""
    inside = set(places)
    return [
        name
        for place in places
        for name in net.nodes[place].output
        if name
        and (name in net.outputs or any(user not in inside for user in net.users.get(name, ())))
    ]


def _settled(net: Net, refused: Mapping[int, str], pooled: Collection[str]) -> dict[int, str]:
    """Why nodes are on the host: refused, or beside nodes of the host and not worth the way."""
    host = dict(refused)
    changed = True
    while changed:
        changed = False
        for place, node in enumerate(net.nodes):
            if place in host or any(each.op_type not in _BESIDE for each in net.inside(node)):
                continue
            before = [net.maker[name] for name in node.input if name in net.maker]
            after = [user for name in node.output for user in net.users.get(name, ())]
            if node.op_type == "DequantizeLinear":
                beside = any(user in host for user in after) or not after
                beside = beside or any(name in net.outputs for name in node.output)
            else:
                beside = all(user in host for user in after)
            near = any(name in pooled for name in node.input)
            if beside or (not near and all(maker in host for maker in before)):
                host[place] = "beside nodes of the host, where it costs less than the way"
                changed = True
    return host


def _alternating(net: Net, host: Mapping[int, str]) -> list[tuple[str, list[int]]]:
    """Nodes in turns of one kind, as few as can be: in each turn, all that are ready."""
    plans = [_turns(net, host, first) for first in ("host", "cards")]
    return min(plans, key=len)


def _turns(net: Net, host: Mapping[int, str], kind: str) -> list[tuple[str, list[int]]]:
    turns: list[tuple[str, list[int]]] = []
    done: set[int] = set()
    left = list(range(len(net.nodes)))
    while left:
        taken = []
        for place in left:
            makers = {net.maker[name] for name in used(net.nodes[place]) if name in net.maker}
            if (place in host) == (kind == "host") and makers <= done:
                taken.append(place)
                done.add(place)
        if taken:
            turns.append((kind, taken))
        left = [place for place in left if place not in done]
        kind = "cards" if kind == "host" else "host"
    return turns


def _is_seen_elsewhere(net: Net, places: Sequence[int], name: str) -> bool:
    """Whether one node of a step takes a tensor, and nodes of others take it, too."""
    users = net.users.get(name, [])
    return len(users) > 1 and sum(place in places for place in users) == 1


def _host_step(net: Net, places: Sequence[int], host: Mapping[int, str]) -> HostStep:
    inside = [each for place in places for each in net.inside(net.nodes[place])]
    nodes = list({tuple(each.output): each for each in inside}.values())  # functions share some
    made = {name for node in nodes for name in node.output}
    taken = list(dict.fromkeys(name for node in nodes for name in used(node)))
    inputs = [name for name in taken if name not in made and not net.is_constant(name)]
    outputs = _outputs(net, places)
    known = {value.name: value for value in (*net.model.graph.input, *net.model.graph.value_info)}
    values = []
    for name in inputs:
        if name in net.tensors:
            tensor = net.tensors[name]
            kind = onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
            values.append(onnx.helper.make_tensor_value_info(name, kind, tensor.shape))
        elif name in known:
            values.append(known[name])
        else:
            raise ModelError(f"{name}: nothing says of which type it is; infer shapes first")
    # Of a tensor that one node alone takes ONNX Runtime may quantise what makes it: weights of a
    # product that is quantised, and what moves lead to QuantizeLinear. Of these it must not, as
    # others take them, so that there must be a second one here, too.
    shared = [name for name in outputs if _is_seen_elsewhere(net, places, name)]
    seen = [onnx.helper.make_node("Identity", [name], [f"{name} seen"]) for name in shared]
    returned = [*outputs, *(node.output[0] for node in seen)]
    graph = onnx.helper.make_graph(
        [*nodes, *seen], net.model.graph.name, values,
        [onnx.helper.make_empty_tensor_value_info(name) for name in returned],
    )  # fmt: skip
    add(graph, (net.proto(name) for name in taken if net.is_constant(name)))
    model = onnx.helper.make_model(
        graph, opset_imports=net.model.opset_import, functions=net.model.functions,
        ir_version=net.model.ir_version,
    )  # fmt: skip
    reasons = {label: host[place] for place in places for label in net.labels_of(place)}
    return HostStep(model, tuple(inputs), tuple(outputs), reasons)
