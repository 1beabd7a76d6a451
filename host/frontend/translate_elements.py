"""Sums and products element by element, and the way from and to floating point."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx

from halfdome.hdl.commands import TABLE_BYTES, ElementFormat
from halfdome.host.frontend.functions import SCALES, Unsteady, table
from halfdome.host.frontend.layout import Order, plain, without_ones
from halfdome.host.frontend.translate import Builder, NotByRows, Refused, operand
from halfdome.host.frontend.translate_products import finite
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import DTYPES, Value
from halfdome.sim.golden import floats

_MULTIPLY = "multiply_quantised"
_FURTHEST = float(1 << 30)
"""What a sum or product may reach before it is rounded: ONNX Runtime converts to int32 without a
limit, where cards saturate. Twice as far it wraps; between lies what rounding adds on the way."""


def quantise_linear(builder: Builder, node: onnx.NodeProto) -> None:
    """QuantizeLinear with one scale."""
    x, scale = node.input[:2]
    number, made = builder.output(node.output[0], scale, operand(node, 2))
    form = builder.either(x)
    value = builder.add("quantise", [form.value], **made | {"scale": float(number)})
    builder.define(node.output[0], value, form.order)


def dequantise_linear(builder: Builder, node: onnx.NodeProto) -> None:
    """DequantizeLinear of 8 bits with one scale."""
    x, scale = node.input[:2]
    form = builder.either(x)
    if builder.net.tensors[x].dtype.itemsize != 1:
        raise Refused(f"{builder.net.tensors[x].dtype}: commands make floats of 8 bits")
    if builder.net.tensors[node.output[0]].dtype != np.float32:
        raise Refused(f"makes {builder.net.tensors[node.output[0]].dtype}, commands float32")
    number = finite(np.float32(builder.scalar(scale, "the scale of x")))
    builder.zero_point(x, operand(node, 2), "x")
    made = {"format": ElementFormat.FLOAT32, "scale": float(number)}
    value = builder.add("affine", [form.value], **made)
    builder.define(node.output[0], value, form.order)


def rescaled(scale: np.float32, made: dict[str, object]) -> Callable[[Builder, str], str]:
    """Makes 8 bits of one scale those of another: (q - zero point) * scale, then QuantizeLinear."""
    real = {"format": ElementFormat.FLOAT32, "scale": float(finite(scale))}
    nodes = [Node("affine", ("x",), "f", real), Node("quantise", ("f",), "y", made)]

    def make(builder: Builder, value: str) -> str:
        about = builder.like(value)
        kind = ElementFormat(about["format"])
        x = Value("x", (1, TABLE_BYTES), kind, zero_point=int(about["zero_point"]))  # type: ignore[call-overload]
        every = np.arange(TABLE_BYTES, dtype=np.uint8).view(DTYPES[kind])
        [entries] = Graph([x], ["y"], nodes, {}).run({"x": every[None]})["y"]
        return builder.add("lookup", [value, builder.add_constant(entries)], **made)

    return make


def qlinear_function(builder: Builder, node: onnx.NodeProto) -> None:
    """com.microsoft's QLinearSigmoid and QLinearLeakyRelu."""
    for place, what in ((1, "the scale of x"), (2, "the zero point of x")):
        if name := operand(node, place):
            builder.scalar(name, what)
    _function(builder, node, [node], operand(node, 3), operand(node, 4))


def byte_function(builder: Builder, node: onnx.NodeProto) -> None:
    """Whatever makes bytes of bytes of one tensor."""
    nodes = builder.net.inside(node)
    at = SCALES[nodes[-1].op_type]
    _function(builder, node, nodes, *(operand(nodes[-1], place) for place in (at, at + 1)))


def _function(
    builder: Builder, node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto], scale: str, zero: str
) -> None:
    """A lookup of what ONNX Runtime makes of all bytes."""
    x, y = node.input[0], node.output[0]
    _, made = builder.output(y, scale, zero)
    form = builder.either(x)
    try:
        entries = table(builder.net, x, nodes)
    except Unsteady as error:
        raise Refused(str(error)) from None
    value = builder.add("lookup", [form.value, builder.add_constant(entries)], **made)
    builder.define(y, value, form.order)


def qlinear_add(builder: Builder, node: onnx.NodeProto) -> None:
    """com.microsoft's QLinearAdd, its zero points inside the rounding."""
    a, a_scale, a_zero, b, b_scale, b_zero, c_scale, c_zero = _operands(node)
    scale, made = builder.output(node.output[0], c_scale, c_zero)
    zeros = [builder.zero_point(a, a_zero, "a"), builder.zero_point(b, b_zero, "b")]
    with np.errstate(all="ignore"):
        ratios = [
            finite(np.float32(builder.scalar(each, "the scale of an operand")) / scale)
            for each in (a_scale, b_scale)
        ]
        inner = ratios[1] * np.float32(zeros[1])
        whole = floats.fma(ratios[0], np.float32(zeros[0]), inner)
        offset = np.float32(made["zero_point"]) - whole  # type: ignore[arg-type]
    _within_int32(255 * sum(abs(float(each)) for each in ratios) + abs(float(offset)))
    made |= {
        "a_ratio": float(ratios[0]), "b_ratio": float(ratios[1]), "offset": float(offset),
    }  # fmt: skip
    _pair(builder, node, "add_quantised", a, b, zeros, made)


def qlinear_mul(builder: Builder, node: onnx.NodeProto) -> None:
    """com.microsoft's QLinearMul."""
    a, a_scale, a_zero, b, b_scale, b_zero, c_scale, c_zero = _operands(node)
    scale, made = builder.output(node.output[0], c_scale, c_zero)
    zeros = [builder.zero_point(a, a_zero, "a"), builder.zero_point(b, b_zero, "b")]
    left, right = (
        np.float32(builder.scalar(each, "the scale of an operand")) for each in (a_scale, b_scale)
    )
    with np.errstate(all="ignore"):
        ratio = finite(np.float32((left * right) / scale))
    _within_int32(255 * 255 * abs(float(ratio)) + 255)
    _pair(builder, node, _MULTIPLY, a, b, zeros, made | {"multiplier": float(ratio)})


def _within_int32(reach: float) -> None:
    """Refuses results, so far from zero at most, that ONNX Runtime's int32 does not hold."""
    if not reach < _FURTHEST:
        raise Refused("its scales make results that int32 does not hold before they are 8 bits")


def _operands(node: onnx.NodeProto) -> tuple[str, ...]:
    return tuple(operand(node, place) for place in range(8))


def _pair(
    builder: Builder, node: onnx.NodeProto, op: str, a: str, b: str, zeros: list[int],
    made: dict[str, object],
) -> None:  # fmt: skip
    shape = builder.shape(node.output[0])
    for name, other, place in ((b, a, 1), (a, b, 0)):
        if builder.net.is_constant(name):
            value, order = _with_constant(builder, op, other, name, zeros[place], shape)
            break
    else:
        value, order = _with_tensor(builder, op, a, b, shape)
    if op != _MULTIPLY and builder.net.is_constant(a):  # the constant comes second, as it is told
        swapped = {"a_ratio": made["b_ratio"], "b_ratio": made["a_ratio"], "inner": "a"}
        made |= swapped
    builder.define(node.output[0], builder.add(op, value, **made), order)


def _with_constant(
    builder: Builder, op: str, x: str, name: str, zero: int, shape: tuple[int, ...]
) -> tuple[list[str], Order]:
    """Operands, of which one is constant: a row for the last axes, along which it differs."""
    own = builder.shape(x)
    array = builder.constant(name, "a constant")
    skipped = len(shape) - len(own)  # leading axes that the constant brings
    array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if builder.by_rows and (skipped or array.shape[0] != 1):
        raise NotByRows
    form = builder.either(x)
    order = tuple(axis + skipped for axis in form.order)
    spread = tuple(axis for axis in plain(shape, builder.first) if axis not in order)
    sizes = [shape[axis] for axis in order]
    tensor = form.value
    if spread:
        columns = prod(shape[axis] for axis in spread)
        tensor = builder.shaped(tensor, (*sizes, 1))
        tensor = builder.copied(tensor, np.ones((columns, 1), np.int8))
        order += spread
        sizes += [shape[axis] for axis in spread]
    ones = tuple(axis for axis in range(len(shape)) if axis not in order)
    array = array.transpose((*ones, *order)).reshape([array.shape[axis] for axis in order] or [1])
    # The row begins where the constant first differs, but for what lies in one row anyhow.
    begin = next((at for at, size in enumerate(array.shape) if size != 1), max(len(sizes) - 1, 0))
    if spread:
        begin = min(begin, len(sizes) - len(spread))
    sizes = sizes or [1]
    row = np.broadcast_to(array[(0,) * begin], sizes[begin:]).reshape(-1)
    if op == _MULTIPLY:  # a constant has no zero point of its own
        row = (row.astype(np.int32) - zero).astype(np.float32)
    tensor = builder.shaped(tensor, (*sizes[:begin], prod(sizes[begin:])))
    return [tensor, builder.add_constant(row)], order


def _with_tensor(
    builder: Builder, op: str, a: str, b: str, shape: tuple[int, ...]
) -> tuple[list[str], Order]:
    """Operands that the request brings or leads to, of which one may be spread over the other."""
    sizes = {name: builder.shape(name) for name in (a, b)}
    if builder.by_rows and any(len(each) != len(shape) for each in sizes.values()):
        raise NotByRows
    wide = {
        name: (1,) * (len(shape) - len(each)) + each for name, each in sizes.items()
    }  # with all axes of the output
    spread = {
        name: [axis for axis in plain(shape) if each[axis] == 1] for name, each in wide.items()
    }
    if not spread[a] and not spread[b]:
        return _alike(builder, a, b, sizes, shape)
    if spread[a] and spread[b]:
        raise Refused("spreads each operand over the other")
    large, small = (b, a) if spread[a] else (a, b)
    axes = spread[small]
    if builder.by_rows and 0 in axes:
        raise NotByRows
    ways = [
        (*(axis for axis in order if axis not in axes), *(axis for axis in order if axis in axes))
        for order in _wide_orders(builder, large, sizes, shape)
    ]
    order = min(ways, key=lambda way: builder.cost(large, _own(way, sizes[large], shape)))
    kept = tuple(axis for axis in order if axis not in axes)
    rows, columns = [shape[axis] for axis in kept], prod(shape[axis] for axis in axes)
    big = builder.had(large, _own(order, sizes[large], shape), (*rows, columns))
    little = builder.had(small, _own(kept, sizes[small], shape), (*rows, 1))
    if op != _MULTIPLY:
        little = builder.copied(little, np.ones((columns, 1), np.int8))
    found = {large: big, small: little}
    # The larger comes first in a multiplication, which does not mind.
    return [found[name] for name in ((large, small) if op == _MULTIPLY else (a, b))], order


def _alike(
    builder: Builder, a: str, b: str, sizes: dict[str, tuple[int, ...]], shape: tuple[int, ...]
) -> tuple[list[str], Order]:
    ways = [way for name in (a, b) for way in _wide_orders(builder, name, sizes, shape)]
    order = min(
        ways, key=lambda way: sum(builder.cost(x, _own(way, sizes[x], shape)) for x in (a, b))
    )
    left, right = (builder.ask(name, _own(order, sizes[name], shape)).value for name in (a, b))
    if left != right:  # what is the same lies alike
        left, right = builder.even(left), builder.even(right)
    if builder.dims(left)[-1] < builder.dims(right)[-1]:  # rows become longer for nothing
        left = builder.shaped(left, builder.dims(right))
    return [left, builder.shaped(right, builder.dims(left))], order


def _wide_orders(
    builder: Builder, name: str, sizes: dict[str, tuple[int, ...]], shape: tuple[int, ...]
) -> list[Order]:
    """Orders of a tensor by axes of the output."""
    skipped = len(shape) - len(sizes[name])
    return [tuple(axis + skipped for axis in order) for order in builder.orders(name)]


def _own(order: Order, own: tuple[int, ...], shape: tuple[int, ...]) -> Order:
    """An order of the output's axes by axes of the operand."""
    skipped = len(shape) - len(own)
    return without_ones([axis - skipped for axis in order if axis >= skipped], own)
