"""Operators that move elements: most only name axes anew, others are products with 0 and 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from halfdome.host.frontend import layout
from halfdome.host.frontend.layout import Order, without_ones
from halfdome.host.frontend.net import attributes
from halfdome.host.frontend.reasons import reason
from halfdome.host.frontend.translate import MOST_MOVED, Builder, NotByRows, Refused, operand
from halfdome.host.frontend.translate_elements import rescaled
from halfdome.host.frontend.translate_products import per_channel

_MIDDLES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
"""How Resize finds an element's place, if the middle of one is that of all that it becomes."""


def reshape(builder: Builder, node: onnx.NodeProto) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze and Identity."""
    x, y = node.input[0], node.output[0]
    old, new = builder.shape(x), builder.shape(y)
    if prod(old) != prod(new):
        raise Refused(f"makes {list(new)} of {list(old)}, which have not as many elements")
    if builder.by_rows and old[0] != new[0]:
        raise NotByRows
    orders = builder.orders(x)
    ways = orders + [
        layout.gathered(order, old, new, last=last) for order in orders for last in (True, False)
    ]
    for order in sorted(ways, key=lambda way: builder.cost(x, way)):
        if (made := layout.reshaped(order, old, new)) is not None:
            builder.define(y, builder.ask(x, order).value, made)
            return


def transpose(builder: Builder, node: onnx.NodeProto) -> None:
    """Transpose: other names for the axes of what stays as it is."""
    x, y = node.input[0], node.output[0]
    shape = builder.shape(x)
    found = attributes(node).get("perm") or range(len(shape))[::-1]
    places = list(found)  # type: ignore[call-overload]
    if builder.by_rows and places[0] != 0:
        raise NotByRows
    form = builder.either(x)
    builder.define(y, form.value, tuple(places.index(axis) for axis in form.order))


def concat(builder: Builder, node: onnx.NodeProto) -> None:
    """Concat along any axis."""
    axis = attributes(node)["axis"]
    _concat(builder, list(node.input), node.output[0], int(axis))  # type: ignore[call-overload]


def qlinear_concat(builder: Builder, node: onnx.NodeProto) -> None:
    """com.microsoft's QLinearConcat, tensors of other scales rescaled before."""
    y = node.output[0]
    scale, made = builder.output(y, *node.input[:2])
    names = []
    for place in range(2, len(node.input), 3):
        name, x_scale, x_zero = node.input[place : place + 3]
        own = np.float32(builder.scalar(x_scale, "the scale of an operand"))
        zero_point = builder.zero_point(name, x_zero, "an operand")
        if own == scale and zero_point == made["zero_point"]:
            names.append(name)
        else:
            names.append(builder.variant(name, f"{name} as {y}", rescaled(own, made)))
    axis = attributes(node)["axis"]
    _concat(builder, names, y, int(axis))  # type: ignore[call-overload]


def _concat(builder: Builder, names: list[str], y: str, axis: int) -> None:
    shape = builder.shape(y)
    axis %= len(shape)
    if axis < builder.first:
        raise NotByRows
    sizes = [builder.shape(name) for name in names]
    ways = []
    for name in names:
        [order, *_] = builder.orders(name)
        ways.append(order if axis in order else _with(order, axis, builder, len(shape)))
    order = min(ways, key=lambda way: sum(map(builder.cost, names, _each(way, sizes))))
    at = order.index(axis)
    before, after = ([shape[each] for each in part] for part in (order[:at], order[at + 1 :]))
    values = []
    for name, own, size in zip(names, _each(order, sizes), sizes, strict=True):
        columns = size[axis] * prod(after)
        values.append(builder.shaped(builder.ask(name, own).value, (*before, columns)))
    builder.define(y, builder.add("concat", values), order)


def _with(order: Order, axis: int, builder: Builder, dims: int) -> Order:
    """An order with another axis, along which single elements are joined: channels of images last,
    others where they are in the tensor."""
    if builder.channels_last and dims == 4:
        return (*order, axis)
    at = next((place for place, each in enumerate(order) if each > axis), len(order))
    return (*order[:at], axis, *order[at:])


def _each(order: Order, sizes: Sequence[tuple[int, ...]]) -> list[Order]:
    return [without_ones(order, size) for size in sizes]


# Slices and pads


@dataclass(frozen=True)
class _Piece:
    """A tensor on its way: its value, the order of its axes and its sizes."""

    value: str
    order: Order
    shape: tuple[int, ...]

    def view(self, axis: int) -> tuple[int, int, int, int]:
        """Elements before the axis, of it, behind it, and of the last axis if that is another."""
        at = self.order.index(axis)
        before, after = (
            [self.shape[each] for each in part] for part in (self.order[:at], self.order[at + 1 :])
        )
        return prod(before), self.shape[axis], prod(after[:-1]), prod(after[-1:])

    @property
    def innermost(self) -> int | None:
        """The last axis in memory."""
        return self.order[-1] if self.order else None


def slice_(builder: Builder, node: onnx.NodeProto) -> None:
    """Slice, whose bounds are attributes in old models."""
    x, y = node.input[0], node.output[0]
    found = attributes(node)
    starts, ends, axes, steps = (
        _numbers(builder, node, place, found.get(name))
        for place, name in enumerate(("starts", "ends", "axes", "steps"), 1)
    )
    form, shape = builder.either(x), builder.shape(x)
    piece = _Piece(form.value, form.order, shape)
    count = len(starts)
    for axis, start, end, step in zip(
        axes or range(count), starts, ends, steps or [1] * count, strict=True
    ):
        taken = range(shape[axis])[_bounds(start, end, step)]
        piece = _pick(builder, piece, axis % len(shape), taken)
    builder.define(y, piece.value, piece.order)


def _bounds(start: int, end: int, step: int) -> slice:
    """As Python has them: the least number for `end` is before the first element."""
    return slice(start, None if step < 0 and end < -(1 << 30) else end, step)


def gather(builder: Builder, node: onnx.NodeProto) -> None:
    """Gather at constant places of one axis."""
    x, y = node.input[0], node.output[0]
    shape = builder.shape(x)
    axis = int(attributes(node).get("axis", 0)) % len(shape)  # type: ignore[call-overload]
    if builder.net.constant(node.input[1]) is None:
        raise Refused(reason("Gather", ""))
    places = builder.constant(node.input[1], "what it gathers")
    if places.ndim != 1:
        raise Refused("gathers by indices of another number of dimensions than one")
    if axis < builder.first:
        raise NotByRows
    form = builder.either(x)
    taken = [int(place) % shape[axis] for place in places]
    if axis not in form.order and len(taken) != 1:
        raise Refused("repeats what lies along an axis of one element")
    if len(set(np.diff(taken))) > 1:  # needs it last in memory
        form = builder.ask(x, (*(each for each in form.order if each != axis), axis))
    piece = _pick(builder, _Piece(form.value, form.order, shape), axis, taken)
    builder.define(y, piece.value, piece.order)


def split(builder: Builder, node: onnx.NodeProto) -> None:
    """Split: a slice for each output."""
    x = node.input[0]
    shape = builder.shape(x)
    axis = int(attributes(node).get("axis", 0)) % len(shape)  # type: ignore[call-overload]
    form = builder.either(x)
    start = 0
    for y in node.output:
        size = builder.shape(y)[axis]
        piece = _Piece(form.value, form.order, shape)
        piece = _pick(builder, piece, axis, range(start, start + size))
        builder.define(y, piece.value, piece.order)
        start += size


def pad(builder: Builder, node: onnx.NodeProto) -> None:
    """Pad with the zero point."""
    x, y = node.input[0], node.output[0]
    found = attributes(node)
    if found.get("mode", "constant") != "constant":
        raise Refused(f"pads by {found['mode']}: commands pad with zeros")
    pads = _numbers(builder, node, 1, found.get("pads"))
    value = found.get("value", 0)
    if name := operand(node, 2):
        value = builder.scalar(name, "what it pads with")
    if value != builder.zero(x):
        raise Refused("pads with another number than the zero point")
    form, shape = builder.either(x), builder.shape(x)
    axes = _numbers(builder, node, 3, None) or range(len(shape))
    piece = _Piece(form.value, form.order, shape)
    count = len(pads) // 2
    for axis, before, after in zip(axes, pads[:count], pads[count:], strict=True):
        piece = _extend(builder, piece, axis % len(shape), before, after)
    builder.define(y, piece.value, piece.order)


def resize(builder: Builder, node: onnx.NodeProto) -> None:
    """Resize that repeats each element a whole number of times along axes."""
    x, y = node.input[0], node.output[0]
    shape, made = builder.shape(x), builder.shape(y)
    if not _is_repeated(builder, node, shape, made):
        raise Refused("makes elements of several, or repeats some more often than others")
    form = builder.either(x)
    if builder.channels_last and len(shape) == 4:  # rows that are whole pixels are joined
        order = tuple(axis for axis in (0, 2, 3, 1) if axis >= builder.first)
        form = builder.ask(x, without_ones(order, shape))
    piece = _Piece(form.value, form.order, shape)
    for axis, (size, wanted) in enumerate(zip(shape, made, strict=True)):
        piece = _repeat(builder, piece, axis, wanted // size)
    builder.define(y, piece.value, piece.order)


def _is_repeated(
    builder: Builder, node: onnx.NodeProto, shape: Sequence[int], made: Sequence[int]
) -> bool:  # fmt: skip
    """Whether each element of an output is the nearest in whole parts of an axis."""
    found = attributes(node)
    places = str(found.get("coordinate_transformation_mode", "half_pixel"))
    rounding = str(found.get("nearest_mode", "round_prefer_floor"))
    begins = (places, rounding) == ("asymmetric", "floor")
    middles = places in _MIDDLES and rounding.startswith("round")
    if found.get("mode", "nearest") != "nearest" or not (begins or middles) or found.get("axes"):
        return False
    if any(wanted % size for size, wanted in zip(shape, made, strict=True)):
        return False
    if not operand(node, 2):  # sizes are given
        return True
    scales = builder.constant(operand(node, 2), "a scale of it").tolist()
    return scales == [wanted // size for size, wanted in zip(shape, made, strict=True)]


def _repeat(builder: Builder, piece: _Piece, axis: int, count: int) -> _Piece:
    """Each element of one axis so many times: rows joined with themselves."""
    if count == 1:
        return piece
    if axis < builder.first:
        raise NotByRows
    size = piece.shape[axis]
    if axis not in piece.order:
        raise Refused("repeats what lies along an axis of one element")
    if axis == piece.innermost:
        return _pick(builder, piece, axis, np.repeat(range(size), count).tolist())
    before, _, between, last = piece.view(axis)
    row = builder.shaped(piece.value, (before, size, between * last))
    return _changed(piece, builder.add("concat", [row] * count), axis, size * count)


def _numbers(builder: Builder, node: onnx.NodeProto, place: int, given: object) -> list[int]:
    """A list of whole numbers, which newer models have as an operand."""
    if name := operand(node, place):
        return [int(each) for each in builder.constant(name, "a bound of it").reshape(-1)]
    return list(given) if given else []  # type: ignore[call-overload]


def _pick(builder: Builder, piece: _Piece, axis: int, taken: Sequence[int]) -> _Piece:
    """The elements of one axis at these places."""
    size = piece.shape[axis]
    if list(taken) == list(range(size)):
        return piece
    if axis < builder.first:
        raise NotByRows
    before, size, between, last = piece.view(axis)
    if axis == piece.innermost:
        weight = np.zeros((len(taken), size), np.int8)
        weight[range(len(taken)), taken] = 1
        value = _product(builder, piece, axis, weight)
    else:
        steps = set(np.diff(taken)) or {1}
        step = int(min(steps))
        if len(steps) > 1 or step < 1:
            raise Refused("takes places that are not evenly apart of an axis not last in memory")
        taps = size - (len(taken) - 1) * step
        _reasonable(before * between * last * taps * len(taken))
        image = builder.shaped(piece.value, (before, size, between, last))
        value = per_channel(
            builder, image, (taps, 1), np.float32(1), taken[0], stride=(step, 1),
            **builder.like(image),
        )  # fmt: skip
    return _changed(piece, value, axis, len(taken))


def _extend(builder: Builder, piece: _Piece, axis: int, before: int, after: int) -> _Piece:
    """One axis longer at both ends."""
    if not before and not after:
        return piece
    if min(before, after) < 0:
        raise Refused("pads by less than nothing")
    if axis < builder.first:
        raise NotByRows
    if axis not in piece.order:
        piece = _Piece(piece.value, (axis, *piece.order), piece.shape)
    first, size, between, last = piece.view(axis)
    made = before + size + after
    if axis == piece.innermost:
        weight = np.zeros((made, size), np.int8)
        weight[range(before, before + size), range(size)] = 1
        return _changed(piece, _product(builder, piece, axis, weight), axis, made)
    _reasonable(first * between * last * made)
    image = builder.shaped(piece.value, (first, size, between, last))
    value = per_channel(
        builder, image, (1, 1), np.float32(1), 0, pads=(before, 0, after, 0), **builder.like(image)
    )
    return _changed(piece, value, axis, made)


def _product(builder: Builder, piece: _Piece, axis: int, weight: np.ndarray) -> str:
    """The last axis in memory times a matrix of 0 and 1."""
    before, size, *_ = piece.view(axis)
    _reasonable(before * weight.size)
    if not builder.is_reasonable(before, weight.size):
        raise Refused(f"would take a matrix of {weight.size} entries, for which cards lack room")
    return builder.copied(builder.shaped(piece.value, (before, size)), weight)


def _changed(piece: _Piece, value: str, axis: int, size: int) -> _Piece:
    shape = (*piece.shape[:axis], size, *piece.shape[axis + 1 :])
    return _Piece(value, without_ones(piece.order, shape), shape)


def _reasonable(products: int) -> None:
    if products > MOST_MOVED:
        raise Refused(f"would take {products} products with 0 and 1 to move elements")
