"""A graph under construction: ONNX tensors as values of it, and in which order they lie there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from halfdome.hdl.config import CardConfig
from halfdome.host.frontend import layout
from halfdome.host.frontend.layout import Order
from halfdome.host.frontend.net import Net
from halfdome.host.frontend.steps import CardStep, Port, Windows
from halfdome.host.graph import operators
from halfdome.host.graph.graph import Node
from halfdome.host.graph.values import GraphError, Value, format_of

MOST_MOVED = 1 << 26
"""Products of a weight and an element, for one request, above which a move stays on the host."""
_SHARE = 8
"""A matrix of 0 and 1 takes at most one part in so many of a card's memory."""
_TOO_MUCH = 1 << 10
_FRESH = ("linear", "conv2d", "batch_matmul", "transpose")
"""Operators whose outputs have no columns that nobody reads."""
_WIDEST = 128
"""Bytes of the widest bus word: rows that are joined begin at whole words."""


class Refused(Exception):
    """Why a node cannot be on a card, in words."""


class NotByRows(Exception):
    """A node joins rows of its operands: a whole request is a sample."""


@dataclass(frozen=True)
class Held:
    """An ONNX tensor in a graph: the value that holds it, and the order of its axes there."""

    value: str
    order: Order


class Builder:
    """Adds the graph nodes of one ONNX node after the other.

    A tensor may be held in several orders; one that comes from outside is asked for in whichever
    its first user wants. Axis 0 is the samples, and in no order, if `by_rows`.
    """

    def __init__(self, net: Net, config: CardConfig, *, by_rows: bool, channels_last: bool):
        self.net = net
        self.config = config
        self.by_rows = by_rows
        self.first = int(by_rows)
        self.channels_last = channels_last
        self._held: dict[str, list[Held]] = {}
        self._variants: dict[str, str] = {}
        self._values: dict[str, Value] = {}
        self._padded: set[str] = set()
        self._inputs: list[Port] = []
        self._nodes: list[Node] = []
        self._constants: dict[str, np.ndarray] = {}
        self._made: dict[str, list[str]] = {}
        self._label = ""

    # What a node asks

    def begin(self, label: str, node: onnx.NodeProto) -> None:
        """Graph nodes that follow are those of this ONNX node. Raises `Refused` if it has sizes
        that are unknown or zero."""
        self._label = label
        function = self.net.functions.get(node.output[0])
        for each in (label, *(function.labels if function else ())):
            self._made.setdefault(each, [])
        for name in (*node.input, *node.output):
            if name and not self.net.is_constant(name):
                self.shape(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a tensor. Raises `Refused` if they are known at run time alone, and for a
        constant."""
        if self.net.is_constant(name):
            raise Refused(f"{name} is a constant where cards take a tensor of the request")
        tensor = self.net.tensors.get(self._variants.get(name, name))
        if tensor is None or tensor.shape is None:
            raise Refused(f"the shape of {name} is known only at run time")
        if 0 in tensor.shape:
            raise Refused(f"{name} is empty")
        if self.by_rows and not tensor.shape:
            raise NotByRows
        return tensor.shape

    def constant(self, name: str, what: str) -> np.ndarray:
        """An operand that must be constant. Raises `Refused` that says `what` it is."""
        array = self.net.constant(name)
        if array is None:
            raise Refused(f"{what} is known only at run time")
        return array

    def orders(self, name: str) -> list[Order]:
        """The orders in which a tensor can be had for nothing; the best first."""
        held = [form.order for form in self._held.get(name, ())]
        return held if held else [self._usual(name)]

    def _usual(self, name: str) -> Order:
        shape = self.shape(name)
        order = tuple(range(self.first, len(shape)))
        if self.channels_last and len(shape) == 4:
            order = tuple(axis for axis in (0, 2, 3, 1) if axis in order)
        return layout.without_ones(order, shape)

    def cost(self, name: str, order: Order) -> int:
        """Transpositions that it takes to have a tensor in an order; bringing it twice is one."""
        if self._comes_from_outside(name):
            return int(name in self._held and order not in self.orders(name))
        shape = self.shape(name)
        return min(self._effort(form, order, shape) for form in self._held[name])

    def _comes_from_outside(self, name: str) -> bool:
        return name not in self._held or any(port.tensor == name for port in self._inputs)

    def ask(self, name: str, order: Order, dims: Sequence[int] | None = None) -> Held:
        """A tensor in an order, and with `dims` if it is brought for this.

        Raises `Refused` if that takes too much.
        """
        for form in self._held.get(name, ()):
            if form.order == order:
                return form
        if self._comes_from_outside(name):
            return self._bring(name, order, dims)
        shape = self.shape(name)
        efforts = {form: self._effort(form, order, shape) for form in self._held[name]}
        form = min(efforts, key=lambda each: efforts[each])
        if efforts[form] >= _TOO_MUCH:
            raise Refused("wants axes in an order that takes more than two transpositions")
        if self._values[form.value].format.nbytes != 1:
            raise Refused(f"wants the axes of {name} in another order; cards transpose 8 bits")
        return self._hold(name, Held(self._turned(form, order, shape), order))

    def _effort(self, form: Held, order: Order, shape: Sequence[int]) -> int:
        """Commands that bring a form into an order, or `_TOO_MUCH`."""
        if form.order == order:
            return 0
        if self._columns(form, order, shape) is not None:
            return 1
        way = layout.transpositions(form.order, order)
        return _TOO_MUCH if way is None else len(way)

    def _columns(self, form: Held, order: Order, shape: Sequence[int]) -> np.ndarray | None:
        """Where each column comes from, if axes change places within the rows of a value."""
        kept = next(
            (at for at, axes in enumerate(zip(form.order, order, strict=True)) if len({*axes}) > 1),
            len(order),
        )
        inner = form.order[kept:]
        *rows, columns = self.dims(form.value)
        size = _size(shape, inner)
        if columns % size or not self.is_reasonable(prod(rows), columns**2):
            return None
        places = np.arange(columns).reshape(-1, *(shape[axis] for axis in inner))
        return places.transpose(0, *(inner.index(axis) + 1 for axis in order[kept:])).reshape(-1)

    def _turned(self, form: Held, order: Order, shape: Sequence[int]) -> str:
        columns = self._columns(form, order, shape)
        if columns is not None:
            return self.copied(form.value, np.eye(len(columns), dtype=np.int8)[columns])
        value = form.value
        for prefix, a, b in layout.transpositions(form.order, order) or ():
            dims = (*(shape[axis] for axis in prefix), *(_size(shape, each) for each in (a, b)))
            value = self.add("transpose", [self.shaped(value, dims)])
        return value

    def in_windows(self, name: str, order: Order, windows: Windows) -> str | None:
        """An image that the host lays out as a convolution reads it, if it comes from there; for
        nobody else."""
        if not self._comes_from_outside(name) or self.net.is_constant(name):
            return None
        axes = windows.axes
        *lead, channels = (self.shape(name)[axis] for axis in order)
        taken = channels * prod(each.taps for each in axes)
        dims = (*lead[: len(lead) - len(axes)], *(each.count for each in axes), taken)
        return self._bring(name, order, dims, windows).value

    def _bring(
        self, name: str, order: Order, dims: Sequence[int] | None, windows: Windows | None = None
    ) -> Held:
        """A graph input."""
        tensor, shape = self.net.tensors[name], self.shape(name)
        scale, zero_point = self.net.quantisation.get(name, (None, 0))
        try:
            kind = format_of(tensor.dtype)
        except GraphError:
            raise Refused(f"{name} is {tensor.dtype}, which no tensor of a card is") from None
        value = self._unused(name)
        samples = shape[0] if self.by_rows else 1
        dims = tuple(dims or (shape[axis] for axis in order)) or (1,)
        if kind.nbytes > 1:
            scale, zero_point = None, 0
        self._values[value] = Value(
            value, (samples, *dims), kind, None if scale is None else float(scale), zero_point
        )
        ones = (axis for axis in range(self.first, len(shape)) if axis not in order)
        axes = (*range(self.first), *order, *ones)
        self._inputs.append(Port(name, value, tensor.dtype, shape, axes, dims, windows))
        form = Held(value, order)
        return form if windows else self._hold(name, form)

    def _hold(self, name: str, form: Held) -> Held:
        self._held.setdefault(name, []).append(form)
        return form

    def either(self, name: str) -> Held:
        """A tensor in whichever order it has."""
        return self.ask(name, self.orders(name)[0])

    def dims(self, value: str) -> tuple[int, ...]:
        """The shape of a value, of one sample."""
        return self._values[value].shape[1:]

    # What a node adds

    def had(self, name: str, order: Order, dims: Sequence[int]) -> str:
        """The value of a tensor in an order, with these dims."""
        return self.shaped(self.ask(name, order, dims).value, dims)

    def shaped(self, value: str, dims: Sequence[int]) -> str:
        """A value with other dims, its elements in the order they are in.

        Rows may become longer; rows that are cut apart are moved.
        """
        dims = tuple(dims) or (1,)
        if self.dims(value) == dims:
            return value
        return self.add("reshape", [value], shape=dims)

    def add(self, op: str, inputs: Sequence[str], **attributes: object) -> str:
        """A node of the graph; what it makes. Raises `Refused` if cards do not take it."""
        output = self._unused(self._label)
        node = Node(op, tuple(inputs), output, {"label": self._label, **attributes})
        try:
            node = Node(op, node.inputs, output, operators.checked(node))
            operands = [self._values[name] for name in inputs]
            made = operators.find(op).infer(node, operands, self._constants)
        except GraphError as error:
            raise Refused(f"no command takes it: {error}") from None
        self._values[output] = made
        if self._is_padded(node, operands):
            self._padded.add(output)
        self._nodes.append(node)
        self._made[self._label].append(output)
        return output

    def _is_padded(self, node: Node, operands: Sequence[Value]) -> bool:
        """Whether columns that nobody reads may lie in the rows of an output."""
        if node.op in _FRESH:
            return False
        joined = [value for value in operands if value.columns % _WIDEST]
        if node.op == "concat" or (node.op == "reshape" and self._is_merged(node, operands[0])):
            return bool(joined)
        return any(name in self._padded for name in node.inputs)

    @staticmethod
    def _is_merged(node: Node, x: Value) -> bool:
        return node.attributes["shape"][-1] > x.columns  # type: ignore[index]

    def even(self, value: str) -> str:
        """A value without columns that nobody reads: as others lie that it is added to."""
        *rows, columns = self.dims(value)
        bytes_ = self._values[value].format.nbytes == 1
        if value in self._padded and bytes_ and self.is_reasonable(prod(rows), columns**2):
            return self.copied(value, np.eye(columns, dtype=np.int8))
        return value

    def is_reasonable(self, rows: int, entries: int) -> bool:
        """Whether so many rows may be multiplied by a matrix of 0 and 1 to move their elements."""
        return rows * entries <= MOST_MOVED and entries <= self.config.dram_bytes // _SHARE

    def like(self, value: str) -> dict[str, object]:
        """Attributes of a node whose output has elements of a value."""
        made = self._values[value]
        found: dict[str, object] = {"format": made.format, "zero_point": made.zero_point}
        return found if made.scale is None else found | {"scale": made.scale}

    def copied(self, value: str, weight: np.ndarray) -> str:
        """[..., columns] times int8[made, columns] of 0 and 1, at most a 1 in each row of it."""
        count = len(weight)
        params = (np.zeros(count, np.int32), np.ones(count, np.float32))
        names = [self.add_constant(each) for each in (weight, *params)]
        return self.add("linear", [value, *names], **self.like(value))

    def add_constant(self, array: np.ndarray) -> str:
        """A constant of the graph."""
        name = self._unused(f"{self._label} constant")
        self._constants[name] = np.ascontiguousarray(array)
        self._values[name] = Value(name, array.shape, format_of(array.dtype))
        return name

    def _unused(self, name: str) -> str:
        """A name for a value of the graph: as given, or with a number behind it."""
        found, number = name, 1
        while found in self._values:
            found, number = f"{name} {number}", number + 1
        return found

    def define(self, name: str, value: str, order: Order) -> None:
        """What an ONNX node makes of a tensor."""
        self._hold(name, Held(value, layout.without_ones(order, self.shape(name))))

    def variant(self, name: str, other: str, make: Callable[["Builder", str], str]) -> str:
        """A tensor of the same shape whose every element `make` makes; its name for others."""
        form = self.either(name)
        self._variants[other] = name
        self._hold(other, Held(make(self, form.value), form.order))
        return other

    # Quantisation

    def zero_point(self, name: str, zero: str, what: str) -> int:
        """The zero point that a node says a tensor has. Raises `Refused` if others see another."""
        value = self.scalar(zero, f"the zero point of {what}") if zero else 0
        known = self.zero(name)
        if name in self.net.tensors and int(value) != known:
            raise Refused(f"takes {value} as zero point of {name}, where others take {known}")
        return int(value)

    def zero(self, name: str) -> int:
        """The element of a tensor that stands for zero."""
        return self.net.quantisation.get(name, (None, 0))[1]

    def scalar(self, name: str, what: str) -> np.generic:
        """A constant of one element."""
        array = self.constant(name, what)
        if array.size != 1:
            raise Refused(f"{what} differs along an axis")
        return array.reshape(-1)[0]

    def output(self, name: str, scale: str, zero: str) -> tuple[np.float32, dict[str, object]]:
        """The scale of a node's output, and the attributes of the graph node that makes it."""
        number = np.float32(self.scalar(scale, "the scale of the output"))
        zero_point = self.zero_point(name, zero, "the output")
        return number, {
            "format": self.format(name), "scale": float(number), "zero_point": zero_point,
        }  # fmt: skip

    def format(self, name: str) -> object:
        """The format of a tensor."""
        try:
            return format_of(self.net.tensors[name].dtype)
        except GraphError:
            raise Refused(f"makes {self.net.tensors[name].dtype}, which cards do not") from None

    # The end

    def finish(self, outputs: Sequence[str], seen: Sequence[str] = ()) -> CardStep:
        """The step that makes these tensors, and those `seen` as far as they are more than names.

        Raises `Refused` if an output comes from outside as it is, of which the second argument is
        the name.
        """
        ports = []
        brought = {port.value for port in self._inputs}
        inner = [name for name in seen if name in self._held and name not in outputs]
        inner = [name for name in inner if self._held[name][0].value not in brought]
        for name in (*outputs, *inner):
            form = self._held[name][0]
            if form.value in brought:
                raise Refused("only names anew what the host has", name)
            shape, dims = self.shape(name), self.dims(form.value)
            ones = (axis for axis in range(self.first, len(shape)) if axis not in form.order)
            axes = (*range(self.first), *form.order, *ones)
            ports.append(Port(name, form.value, self.net.tensors[name].dtype, shape, axes, dims))
        values = tuple(self._values[port.value] for port in self._inputs)
        return CardStep(
            tuple(self._inputs), tuple(ports), self._samples(), values, tuple(self._nodes),
            self._constants, {label: tuple(made) for label, made in self._made.items()},
        )  # fmt: skip

    def _samples(self) -> int:
        return self._inputs[0].shape[0] if self.by_rows else 1


def _size(shape: Sequence[int], axes: Order) -> int:
    return prod(shape[axis] for axis in axes)


def operand(node: onnx.NodeProto, place: int) -> str:
    """The name of an operand; none if it is left out."""
    return node.input[place] if place < len(node.input) else ""
