"""Functions of one 8-bit tensor, element by element: whatever computes them, a table of 256 does.

Between a DequantizeLinear and a QuantizeLinear stand nodes in floating point whose results nobody
else sees. They become one node, which knows those that it stands for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from halfdome.hdl.commands import TABLE_BYTES
from halfdome.host.frontend.net import Function, Net
from halfdome.host.frontend.sessions import part

FUNCTION = "ByteFunction"
"""Operator of the node in whose place others stood."""
ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "Elu", "Erf", "Exp", "FastGelu", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Log", "Mish", "Neg", "PRelu", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
"""Operators that make a float of a float."""
WITH_OTHERS = ("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub")
"""Operators that do so if their other operands are numbers, or the same float in another guise."""
_DOMAINS = ("", "ai.onnx", "com.microsoft")


def collapse(net: Net) -> Net:
    """The same net with one node for each function of bytes."""
    found = {place: region for place in range(len(net.nodes)) if (region := _found(net, place))}
    inner = {each for region in found.values() for each in region.inner}
    unread = {
        each for region in found.values() for each in region.sources
        if _is_seen_by(net, each, {*inner, *found})
    }  # fmt: skip
    nodes, functions = [], {}
    for place, node in enumerate(net.nodes):
        if place in found:
            region, result = found[place], node.output[0]
            own = region.inner[-1] if region.inner else place
            gone = [each for each in region.sources if each in unread]
            unread -= {*gone}
            inner |= {*gone}
            labels = [net.labels[each] for each in (*gone, *region.inner, place) if each != own]
            functions[result] = Function(_standing(net, region, place), tuple(labels))
            source = net.nodes[region.sources[0]].input[0]
            node = onnx.helper.make_node(FUNCTION, [source], [result], name=net.labels[own])
        elif place in inner | unread:
            continue
        nodes.append(node)
    return net.replaced(nodes, functions)


def table(net: Net, nodes: Sequence[onnx.NodeProto]) -> np.ndarray:
    """What ONNX Runtime makes of all bytes, by nodes whose first takes them and whose last gives.

    uint8 or int8 [256], at the place of each byte. Raises `Unsteady` if a byte that stands alone
    becomes another.
    """
    x = nodes[0].input[0]
    kind, shape = net.tensors[x].dtype, net.tensors[x].shape or ()
    leading = [1] * (len(shape) - 1)
    session = part(net.model, nodes, {x: (kind, (*leading, "count"))}, net.proto)
    every = np.arange(TABLE_BYTES, dtype=np.uint8).view(kind)

    def computed(values: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {x: values.reshape(*leading, -1)})[0]).reshape(-1)

    made = computed(every)
    singly = np.concatenate([computed(each) for each in every])
    if wrong := int((made != singly).sum()):
        raise Unsteady(f"{wrong} of 256 bytes are others at the end of a tensor")
    return made


class Unsteady(Exception):
    """What becomes of a byte depends on where it stands: ONNX Runtime computes many at a time, and
    those at the end of a tensor in another way."""


@dataclass(frozen=True)
class _Region:
    """What a QuantizeLinear makes bytes of: nodes in floating point, and DequantizeLinear nodes of
    one tensor, by their places."""

    inner: Sequence[int]
    sources: Sequence[int]


def _found(net: Net, place: int) -> _Region | None:
    """What is in front of a QuantizeLinear, if it is a function of one 8-bit tensor."""
    node = net.nodes[place]
    if node.op_type != "QuantizeLinear":
        return None
    inner: set[int] = set()
    sources: set[int] = set()
    waiting = [node.input[0]]
    while waiting:
        name = waiting.pop()
        if _is_number(net, name):
            continue
        maker = net.maker.get(name)
        made = None if maker is None else net.nodes[maker]
        if maker is None or made is None or made.domain not in _DOMAINS:
            return None
        if made.op_type == "DequantizeLinear":
            sources.add(maker)
        elif made.op_type in (*ELEMENTWISE, *WITH_OTHERS):
            inner.add(maker)
            waiting += [each for each in made.input if each and net.maker.get(each) not in inner]
        else:
            return None
    taken = {net.nodes[each].input[0] for each in sources}
    region = _Region(sorted(inner), sorted(sources))
    alone = all(_is_seen_by(net, each, {*inner, place}) for each in inner)
    if len(taken) != 1 or not alone or not _is_of_bytes(net, region, node):
        return None
    return region


def _is_number(net: Net, name: str) -> bool:
    array = net.constant(name)
    return array is not None and array.size == 1


def _is_of_bytes(net: Net, region: _Region, quantise: onnx.NodeProto) -> bool:
    """Whether all scales are numbers, and shape and width of both ends are alike."""
    ends = [quantise, *(net.nodes[each] for each in region.sources)]
    numbers = all(_is_number(net, name) for node in ends for name in node.input[1:] if name)
    x, y = (net.tensors.get(name) for name in (ends[-1].input[0], quantise.output[0]))
    if x is None or y is None or not numbers:
        return False
    return x.dtype.itemsize == y.dtype.itemsize == 1 and x.shape is not None and x.shape == y.shape


def _is_seen_by(net: Net, place: int, others: set[int]) -> bool:
    """Whether nobody but others sees what a node makes."""
    return all(
        name not in net.outputs and {*net.users.get(name, ())} <= others
        for name in net.nodes[place].output
    )


def _standing(net: Net, region: _Region, place: int) -> tuple[onnx.NodeProto, ...]:
    """The nodes of a region, its floats named so that other nodes of the same are none."""
    kept = []
    mine = {net.nodes[each].output[0] for each in region.sources}
    result = net.nodes[place].output[0]
    for each in (*region.sources, *region.inner, place):
        node = onnx.NodeProto()
        node.CopyFrom(net.nodes[each])
        names = node.output if each in region.sources else node.input
        for at, name in enumerate(names):
            if name in mine:
                names[at] = f"{name} of {result}"
        kept.append(node)
    return tuple(kept)
