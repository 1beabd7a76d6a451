"""Functions of one tensor, element by element, that a quantiser had better leave whole.

In 8 bits each of their nodes rounds. Between DequantizeLinear and QuantizeLinear they round once,
and are one table on cards.
"""

from collections.abc import Collection, Sequence
from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper

from halfdome.host.frontend.functions import DOMAINS, ELEMENTWISE, WITH_OTHERS
from halfdome.host.frontend.known import Known
from halfdome.host.frontend.net import MOVES, used
from halfdome.host.frontend.regions import regions

_CLAMPS = ("Relu", "Clip")
"""What the quantiser drops behind an operator of 8 bits, whose limits do the same."""
_QUANTISING = ("Conv", "MatMul", "Gemm", "Add", "Mul", "Concat")
"""Operators that want 8 bits whatever they are given; others stay as what is before them is."""
_MOVING = ("GlobalAveragePool", "MaxPool", "Resize", *MOVES)
"""Operators that make 8 bits of 8 bits."""


def keep_functions_whole(model: onnx.ModelProto, kept: Collection[str]) -> list[str]:
    """Names of nodes that stay in floating point, of functions of more than one node.

    Behind a function that others see than operators that quantise what they take stands a sum with
    0 then, which does. `kept` are nodes that stay in floating point anyway: no function has them,
    or begins with what they make.
    """
    graph = model.graph
    outputs = {value.name for value in graph.output}
    known = _Known(graph, kept)
    found = {
        region.places[-1]: region
        for region in regions(graph.node, outputs, known.operands, known.is_float)
        if len(region.places) > 1 and region.source in known.quantised
    }
    whole = [graph.node[place].name for region in found.values() for place in region.places]
    nodes: list[onnx.NodeProto] = []
    for place, node in enumerate(graph.node):
        nodes.append(node)
        if place in found and not _is_quantised_behind(graph, node.output[0]):
            zero, end = f"{node.name} zero", node.output[0]
            graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), zero))
            node.output[0] = f"{node.name} whole"
            nodes.append(helper.make_node("Add", [node.output[0], zero], [end], name=zero))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    return whole


class _Known(Known):
    """What is known of a model in floating point.

    `quantised` are names of tensors that will have 8 bits, but for those of functions.
    """

    def __init__(self, graph: onnx.GraphProto, kept: Collection[str]):
        super().__init__(graph)
        self._numbers = {each.name for each in graph.initializer if prod(each.dims) == 1}
        self._kept = kept
        self._computed: set[str] = set()
        self.quantised: set[str] = set()
        for node in graph.node:
            moves = node.op_type in _MOVING and node.input[0] in self.quantised
            if node.name not in kept and (moves or node.op_type in _QUANTISING):
                self.quantised.update(node.output)

    def operands(self, node: onnx.NodeProto) -> Sequence[str]:
        """Tensors that a node computes with element by element, but for numbers."""
        if node.op_type not in (*ELEMENTWISE, *WITH_OTHERS) or node.domain not in DOMAINS:
            return []
        names = [name for name in node.input if name and name not in self._numbers]
        alike = {self._sizes(name) for name in (*names, node.output[0])}
        if node.name in self._kept or len(alike) != 1 or None in alike:
            return []
        if node.op_type in _CLAMPS and node.input[0] not in self._computed:
            return []
        self._computed.add(node.output[0])
        return names

    def _sizes(self, name: str) -> tuple[int, ...] | None:
        """Sizes of a float32, 0 for those that are open; None if none is known."""
        if not self.is_float(name) or not self.types[name].HasField("shape"):
            return None
        return tuple(dim.dim_value for dim in self.types[name].shape.dim)


def _is_quantised_behind(graph: onnx.GraphProto, name: str) -> bool:
    """Whether all that see a tensor quantise it."""
    users = [node for node in graph.node if name in used(node)]
    seen = any(value.name == name for value in graph.output)
    return not seen and all(user.op_type in _QUANTISING for user in users)
