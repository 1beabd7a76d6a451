"""Functions of one 8-bit tensor, element by element: whatever computes them, a table of 256 does.

Nodes that make 8 bits of the same 8 bits, by any way through floating point or other 8 bits that
nobody else sees, become one node, which knows those that it stands for.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from halfdome.hdl.commands import TABLE_BYTES
from halfdome.host.frontend.net import Function, Net
from halfdome.host.frontend.regions import Region, regions
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
_OF_BYTES = {"QLinearSigmoid": (0,), "QLinearLeakyRelu": (0,), "QLinearAdd": (0, 3),
             "QLinearMul": (0, 3)}  # fmt: skip
"""Operators that make bytes of bytes, and where those stand; other operands say what they mean."""
SCALES = {
    "QuantizeLinear": 1, "QLinearSigmoid": 3, "QLinearLeakyRelu": 3, "QLinearAdd": 6,
    "QLinearMul": 6,
}  # fmt: skip
"""Where the scale of an output stands, and behind it the zero point, of what may end a function."""
_WAYS = ("QuantizeLinear", "DequantizeLinear")
DOMAINS = ("", "com.microsoft")
"""Of operators that are known here."""


def collapse(net: Net) -> Net:
    """The same net with one node for each function of bytes."""
    found = {region.places[-1]: region for region in _regions(net)}
    inside = {place for region in found.values() for place in region.places}
    gone = {
        place for place in inside
        if all(
            name not in net.outputs and {*net.users.get(name, ())} <= inside
            for name in net.nodes[place].output
        )
    }  # fmt: skip
    left = gone | {*found}
    nodes, functions = [], {}
    for place, node in enumerate(net.nodes):
        if place in found:
            region, result = found[place], node.output[0]
            named = [each for each in region.places if net.nodes[each].op_type not in _WAYS]
            own = named[-1] if named else place
            labels = [net.labels[each] for each in region.places if each in left and each != own]
            left -= {*region.places}
            functions[result] = Function(_standing(net, region), tuple(labels))
            node = onnx.helper.make_node(FUNCTION, [region.source], [result], name=net.labels[own])
        elif place in gone:
            continue
        nodes.append(node)
    return net.replaced(nodes, functions)


def table(net: Net, x: str, nodes: Sequence[onnx.NodeProto]) -> np.ndarray:
    """What ONNX Runtime makes of all bytes of a tensor, by nodes of which the last gives it.

    uint8 or int8 [256], at the place of each byte. Raises `Unsteady` if a byte that stands alone
    becomes another.
    """
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


def _regions(net: Net) -> list[Region]:
    """All functions of bytes, none within another, but for single nodes that are translated by
    themselves."""
    found = regions(
        net.nodes, net.outputs, lambda node: _operands(net, node), lambda name: _is_byte(net, name)
    )
    return [
        region for region in found
        if len(region.places) > 1 or net.nodes[region.places[0]].op_type not in _OF_BYTES
    ]  # fmt: skip


def _operands(net: Net, node: onnx.NodeProto) -> list[str]:
    """What a node computes with, element by element, but for numbers; none if it does not so."""
    if node.domain not in DOMAINS or len(node.output) != 1:
        return []
    if node.op_type in _WAYS:
        places: Sequence[int] = (0,)
    elif node.op_type in (*ELEMENTWISE, *WITH_OTHERS):
        places = [] if _is_byte(net, node.output[0]) else range(len(node.input))
    else:
        places = _OF_BYTES.get(node.op_type, ())
    given = [name for place, name in enumerate(node.input) if place in places and name]
    said = [name for place, name in enumerate(node.input) if place not in places and name]
    names = [name for name in given if not _is_number(net, name)]
    shapes = {
        tensor and tensor.shape for tensor in map(net.tensors.get, (*names, node.output[0]))
    }  # fmt: skip
    alike = len(shapes) == 1 and None not in shapes
    return names if alike and all(_is_number(net, name) for name in said) else []


def _is_byte(net: Net, name: str) -> bool:
    return name in net.tensors and net.tensors[name].dtype in (np.uint8, np.int8)


def _is_number(net: Net, name: str) -> bool:
    array = net.constant(name)
    return array is not None and array.size == 1


def _standing(net: Net, region: Region) -> tuple[onnx.NodeProto, ...]:
    """The nodes of a region, those that others have, too, named so that they are nobody else's."""
    kept = []
    fresh = {net.nodes[each].output[0] for each in region.copied}
    result = net.nodes[region.places[-1]].output[0]
    for each in region.places:
        node = onnx.NodeProto()
        node.CopyFrom(net.nodes[each])
        if each in region.copied and node.name:
            node.name = f"{node.name} of {result}"
        for names in (node.input, node.output):
            names[:] = [f"{name} of {result}" if name in fresh else name for name in names]
        kept.append(node)
    return tuple(kept)
