"""A QOperator model, looked up: its nodes, constants, tensors, and what 8 bits are worth in it."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from halfdome.host.frontend.sessions import Tensor, tensors

Quantisation = tuple[np.float32 | None, int]
"""Scale, if it is known, and zero point: an element q is worth (q - zero point) * scale."""

MOVES = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose", "Slice", "Split", "Pad",
    "Concat", "Gather",
}  # fmt: skip
"""Operators whose outputs hold elements of their inputs, which say nothing of scales."""
_KEEPING = {*MOVES, "MaxPool", "Resize"}
"""Operators whose outputs mean what their inputs mean."""
_OPERANDS = {
    "QLinearConv": (0, 3, -6), "QLinearMatMul": (0, 3, -6), "QGemm": (0, 3, -7),
    "QLinearAdd": (0, 3, -6), "QLinearMul": (0, 3, -6), "QLinearGlobalAveragePool": (0, -3),
    "QLinearAveragePool": (0, -3), "QLinearSigmoid": (0, -3), "QLinearLeakyRelu": (0, -3),
    "QLinearSoftmax": (0, -3), "QuantizeLinear": (-1,), "DequantizeLinear": (0,),
}  # fmt: skip
"""Where scale and zero point of operands stand, right behind each; negative: of the output."""


class Function(NamedTuple):
    """What a node stands for: the model's nodes, and the labels of those but its own."""

    nodes: tuple[onnx.NodeProto, ...]
    labels: tuple[str, ...]


class Net:
    """Nodes in an order in which they can run, and what surrounds them.

    Attributes
    ----------
    nodes : list of NodeProto without Constant nodes, which are constants
    functions : Function of each node that stands for others, by its output
    tensors : dtype and static shape by name, of inputs and what nodes make
    inputs, outputs : names
    labels : what people call each node: its name, or its output if it has none
    maker : index of the node that makes a tensor, by name
    users : indices of the nodes that use a tensor, by name
    """

    def __init__(self, model: onnx.ModelProto):
        self.model = model
        self.tensors: dict[str, Tensor] = tensors(model)
        self._protos = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, np.ndarray] = {}
        nodes = []
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._protos[node.output[0]] = node.attribute[0].t
            else:
                nodes.append(node)
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        self._order(nodes, {})

    def _order(self, nodes: Sequence[onnx.NodeProto], functions: Mapping[str, Function]) -> None:
        self.nodes = list(nodes)
        self.functions = dict(functions)
        self.labels = [node.name or node.output[0] for node in self.nodes]
        self.maker = {
            name: place for place, node in enumerate(self.nodes) for name in node.output if name
        }
        self.users: dict[str, list[int]] = {}
        for place, node in enumerate(self.nodes):
            for name in dict.fromkeys(used(node)):
                self.users.setdefault(name, []).append(place)

    def replaced(self, nodes: Sequence[onnx.NodeProto], functions: Mapping[str, Function]) -> "Net":
        """The same with other nodes, of which some stand for `functions`."""
        made = copy(self)
        vars(made).pop("quantisation", None)
        made._order(nodes, functions)
        return made

    def inside(self, node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
        """The model's nodes that a node stands for; most stand for themselves."""
        function = self.functions.get(node.output[0]) if node.output else None
        return function.nodes if function else (node,)

    def labels_of(self, place: int) -> list[str]:
        """What people call a node, and others that it stands for."""
        function = self.functions.get(self.nodes[place].output[0])
        return [self.labels[place], *(function.labels if function else ())]

    def is_constant(self, name: str) -> bool:
        """Whether it is an initializer of the model, or a Constant."""
        return name in self._protos

    def constant(self, name: str) -> np.ndarray | None:
        """The array of a constant; None for what is none."""
        if name in self._protos and name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._protos[name])
        return self._arrays.get(name)

    def proto(self, name: str) -> onnx.TensorProto:
        """A constant as a model holds it."""
        proto = onnx.TensorProto()
        proto.CopyFrom(self._protos[name])
        proto.name = name
        return proto

    def moved(self, node: onnx.NodeProto) -> list[str]:
        """The operands whose elements a node moves, or chooses from."""
        return list(node.input if node.op_type == "Concat" else node.input[:1])

    @cached_property
    def quantisation(self) -> Mapping[str, Quantisation]:
        """Scale and zero point by tensor, one for all tensors that share elements.

        Makers have the first word, then users in their order. A node that sees it otherwise is
        refused where it is translated.
        """
        group = {name: name for name in (*self.tensors, *self._protos)}

        def find(name: str) -> str:
            while group.setdefault(name, name) != name:
                group[name] = group[group[name]]
                name = group[name]
            return name

        model = [each for node in self.nodes for each in self.inside(node)]
        for node in model:
            if node.op_type in _KEEPING:
                for name in (*self.moved(node), *node.output):
                    group[find(name)] = find(node.output[0])
        found: dict[str, Quantisation] = {}
        for makers in (True, False):
            for node in model:
                for name, scale, zero in self._declared(node):
                    if (name in node.output) is makers:
                        found.setdefault(find(name), (scale, zero))
        return {name: found[find(name)] for name in self.tensors if find(name) in found}

    def _declared(self, node: onnx.NodeProto) -> Iterator[tuple[str, np.float32 | None, int]]:
        """What a node says of its operands and output."""
        if node.op_type in ("ConvInteger", "MatMulInteger"):
            for name, zero in zip(node.input[:2], node.input[2:4], strict=False):
                zeros = self.constant(zero)
                if zeros is not None and zeros.size == 1:
                    yield name, None, int(zeros.item())
        if node.op_type == "QLinearConcat":
            yield from self._said(node.output[0], *node.input[:2])
            for place in range(2, len(node.input), 3):
                yield from self._said(*node.input[place : place + 3])
        for place in _OPERANDS.get(node.op_type, ()):
            at = abs(place)
            name = node.output[0] if place < 0 else node.input[place]
            scale = node.input[at : at + 1] if place < 0 else node.input[at + 1 : at + 2]
            zero = node.input[at + 1 : at + 2] if place < 0 else node.input[at + 2 : at + 3]
            yield from self._said(name, *(scale or [""]), *(zero or [""]))

    def _said(self, name: str, scale: str, zero: str) -> Iterator[tuple[str, np.float32, int]]:
        scales = self.constant(scale)
        zeros = self.constant(zero) if zero else np.zeros(1, np.uint8)
        if scales is not None and zeros is not None and scales.size == zeros.size == 1:
            yield name, np.float32(scales.item()), int(zeros.item())


def used(node: onnx.NodeProto) -> list[str]:
    """Names that a node takes, those that graphs in its attributes take from around it included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {value.name for value in graph.input} | {each.name for each in graph.initializer}
            for inner in graph.node:
                names += [name for name in used(inner) if name not in own]
                own |= set(inner.output)
            names += [value.name for value in graph.output if value.name not in own]
    return names


def nodes_within(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph, and of the graphs in their attributes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_within(inner)


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """Attributes of a node by name, strings as text."""
    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return found
