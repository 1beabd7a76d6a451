"""Convolutions and matrix products."""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx

from halfdome.hdl.commands import ElementFormat
from halfdome.host.frontend.layout import without_ones
from halfdome.host.frontend.net import attributes
from halfdome.host.frontend.stems import laid_out
from halfdome.host.frontend.steps import Windows
from halfdome.host.frontend.translate import Builder, NotByRows, Refused, operand

_LARGEST = 255
"""Elements of a window along one of its axes."""
_INT32 = {"format": ElementFormat.INT32}


def _weight_zero_point(builder: Builder, name: str) -> int:
    zeros = builder.constant(name, "the zero point of the weights") if name else np.zeros(1, int)
    if zeros.size == 0 or (zeros != zeros.reshape(-1)[0]).any():
        raise Refused("zero points of the weights differ by channel")
    return int(zeros.reshape(-1)[0])


def _multiplier(
    builder: Builder, x_scale: str, w_scale: str, y_scale: np.float32, count: int
) -> np.ndarray:
    """float32[count]: `(x_scale * w_scale) / y_scale` for each output channel."""
    x = np.float32(builder.scalar(x_scale, "the scale of x"))
    w = builder.constant(w_scale, "the scale of the weights").astype(np.float32).reshape(-1)
    with np.errstate(all="ignore"):
        found = np.broadcast_to((x * w) / y_scale, (count,)).astype(np.float32)
    return finite(found)


def finite(multiplier: np.ndarray) -> np.ndarray:
    """Refuses scales that commands do not take."""
    if not (np.isfinite(multiplier) & (multiplier != 0)).all():
        raise Refused("a ratio of its scales is zero or not finite")
    return multiplier


# Convolutions


def qlinear_conv(builder: Builder, node: onnx.NodeProto) -> None:
    """QLinearConv of one or two dimensions."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.input[:8]
    weight = builder.constant(w, "the weight")
    builder.zero_point(x, x_zero, "x")
    scale, made = builder.output(node.output[0], y_scale, y_zero)
    count = len(weight)
    bias = np.zeros(count, np.int32)
    if name := operand(node, 8):
        bias = builder.constant(name, "the bias")
    params = (bias, _multiplier(builder, x_scale, w_scale, scale, count))
    made |= {"weight_zero_point": _weight_zero_point(builder, w_zero)}
    _conv(builder, node, x, weight, params, made)


def conv_integer(builder: Builder, node: onnx.NodeProto) -> None:
    """ConvInteger: sums in int32."""
    x, w = node.input[:2]
    weight = builder.constant(w, "the weight")
    builder.zero_point(x, operand(node, 2), "x")
    zero = _weight_zero_point(builder, operand(node, 3))
    _conv(builder, node, x, weight, (), _INT32 | {"weight_zero_point": zero})


def _conv(
    builder: Builder, node: onnx.NodeProto, x: str, weight: np.ndarray,
    params: Sequence[np.ndarray], made: dict[str, object],
) -> None:  # fmt: skip
    shape, found = builder.shape(x), attributes(node)
    dims = weight.ndim - 2
    if dims not in (1, 2):
        raise Refused(f"a convolution of {dims} dimensions: commands have windows of two")
    window = {
        "stride": along_two(found.get("strides"), dims, 1),
        "dilation": along_two(found.get("dilations"), dims, 1),
    }
    kernel, sizes = (along_two(each, dims, 1) for each in (weight.shape[2:], shape[2:]))
    window["pads"] = pads_of(found, dims, sizes, kernel, window["stride"], window["dilation"])
    within(kernel)
    groups = int(found.get("group", 1))  # type: ignore[call-overload]
    order = tuple(axis for axis in (0, *range(2, len(shape)), 1) if axis >= builder.first)
    tiles = weight.reshape(*weight.shape[:2], *kernel).transpose(0, 2, 3, 1)
    image, axes = None, ()
    if dims == 2 and groups == 1:
        channels = shape[1], len(tiles)
        axes = laid_out(builder.config, kernel, sizes, channels, window)
    if axes:
        image = builder.in_windows(x, order, Windows(axes, builder.zero(x)))
    if image is not None:
        left = dims - len(axes)
        tiles = tiles.reshape(len(tiles), *kernel[:left], *(1,) * len(axes), -1)
        top, _, bottom, _ = window["pads"]
        window = {
            name: (*window[name][:left], *(1,) * len(axes)) for name in ("stride", "dilation")
        } | {"pads": (top, 0, bottom, 0) if left else (0,) * 4}
    else:
        lead = shape[builder.first : 1]
        image = builder.had(x, without_ones(order, shape), (*lead, *sizes, shape[1]))
    operands = [image, *(builder.add_constant(each) for each in (tiles, *params))]
    value = builder.add("conv2d", operands, groups=groups, **window, **made)
    builder.define(node.output[0], value, order)


def within(kernel: Sequence[int]) -> None:
    """Refuses windows that commands do not have."""
    if max(kernel) > _LARGEST:
        raise Refused(f"a window of {max(kernel)} elements, where commands have {_LARGEST}")


def along_two(given: object, dims: int, usual: int) -> tuple[int, ...]:
    """Sizes of a window's two axes: of one dimension, the height is `usual`."""
    values = tuple(given) if given else (1,) * dims  # type: ignore[arg-type, var-annotated]
    return (usual,) * (2 - dims) + values


def pads_of(
    found: dict[str, object], dims: int, sizes: Sequence[int], kernel: Sequence[int],
    stride: Sequence[int], dilation: Sequence[int],
) -> tuple[int, ...]:  # fmt: skip
    """Top, left, bottom, right."""
    automatic = found.get("auto_pad", "NOTSET")
    if automatic in ("NOTSET", "VALID"):
        given = found.get("pads") if automatic == "NOTSET" else None
        pads = tuple(given) if given else (0,) * 2 * dims  # type: ignore[arg-type, var-annotated]
        none = (0,) * (2 - dims)
        return (*none, *pads[:dims], *none, *pads[dims:])
    before, after = [], []
    for size, taps, step, spread in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-size // step) - 1) * step + (taps - 1) * spread + 1 - size, 0)
        half = total // 2
        first = half if automatic == "SAME_UPPER" else total - half
        before.append(first)
        after.append(total - first)
    return (*before, *after)


def global_average(builder: Builder, node: onnx.NodeProto) -> None:
    """QLinearGlobalAveragePool: each channel convolved with ones."""
    x, x_scale, x_zero, y_scale, y_zero = node.input[:5]
    shape = builder.shape(x)
    if attributes(node).get("channels_last", 0) or len(shape) != 4:
        raise Refused("an average over other axes than the height and width of images")
    builder.zero_point(x, x_zero, "x")
    scale, made = builder.output(node.output[0], y_scale, y_zero)
    with np.errstate(all="ignore"):
        count = np.float32(shape[2] * shape[3])
        ratio = np.float32(builder.scalar(x_scale, "the scale of x")) / (scale * count)
    order = tuple(axis for axis in (0, 2, 3, 1) if axis >= builder.first)
    image = builder.had(x, without_ones(order, shape), [shape[axis] for axis in order])
    value = per_channel(builder, image, shape[2:], finite(np.float32(ratio)), **made)
    builder.define(node.output[0], value, order)


def per_channel(
    builder: Builder, image: str, kernel: Sequence[int], multiplier: np.float32,
    tap: int | None = None, **attributes: object,
) -> str:  # fmt: skip
    """[..., height, width, channels] convolved channel by channel with ones, or with one `tap`."""
    within(kernel)
    channels = builder.dims(image)[-1]
    weight = np.zeros((channels, prod(kernel)), np.int8)
    weight[:, slice(None) if tap is None else tap] = 1
    operands = (
        weight.reshape(channels, *kernel, 1), np.zeros(channels, np.int32),
        np.full(channels, multiplier, np.float32),
    )  # fmt: skip
    names = [builder.add_constant(each) for each in operands]
    return builder.add("conv2d", [image, *names], groups=channels, **attributes)


# Matrix products


def qlinear_matmul(builder: Builder, node: onnx.NodeProto) -> None:
    """QLinearMatMul with weights, or of two tensors of the request."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.input[:8]
    builder.zero_point(a, a_zero, "a")
    scale, made = builder.output(node.output[0], y_scale, y_zero)
    weight = builder.net.constant(b)
    if weight is None:
        builder.zero_point(b, b_zero, "b")
        builder.scalar(b_scale, "the scale of b")
        [multiplier] = _multiplier(builder, a_scale, b_scale, scale, 1)
        _batch(builder, node, a, b, made | {"multiplier": float(multiplier)})
        return
    weight = _matrix(builder, a, weight)
    count = weight.shape[1]
    params = (np.zeros(count, np.int32), _multiplier(builder, a_scale, b_scale, scale, count))
    made |= {"weight_zero_point": _weight_zero_point(builder, b_zero)}
    _linear(builder, node, a, weight.T, params, made)


def matmul_integer(builder: Builder, node: onnx.NodeProto) -> None:
    """MatMulInteger: sums in int32."""
    a, b = node.input[:2]
    builder.zero_point(a, operand(node, 2), "a")
    weight = builder.net.constant(b)
    if weight is None:
        builder.zero_point(b, operand(node, 3), "b")
        _batch(builder, node, a, b, dict(_INT32))
        return
    zero = _weight_zero_point(builder, operand(node, 3))
    weight = _matrix(builder, a, weight).T
    _linear(builder, node, a, weight, (), _INT32 | {"weight_zero_point": zero})


def qgemm(builder: Builder, node: onnx.NodeProto) -> None:
    """com.microsoft's QGemm with weights."""
    a, a_scale, a_zero, b, b_scale, b_zero = node.input[:6]
    found = attributes(node)
    if not operand(node, 7):
        raise Refused("a product with an output in floating point")
    weight = builder.constant(b, "the weight")
    weight = weight if found.get("transB", 0) else weight.T
    count = len(weight)
    builder.zero_point(a, a_zero, "a")
    scale, made = builder.output(node.output[0], node.input[7], operand(node, 8))
    alpha = np.float32(found.get("alpha", 1.0))
    factor = alpha * np.float32(builder.scalar(a_scale, "the scale of a"))
    scales = builder.constant(b_scale, "the scale of the weights").astype(np.float32).reshape(-1)
    with np.errstate(all="ignore"):
        ratio = np.broadcast_to((factor * scales) / scale, (count,)).astype(np.float32)
    bias = np.zeros(count, np.int32)
    if name := operand(node, 6):
        given = builder.constant(name, "the bias")
        if given.size != 1 and (given.size, given.shape[-1]) != (count, count):
            raise Refused("a bias that differs by row")
        bias = np.broadcast_to(given.reshape(-1), (count,)).astype(np.int32)
    made |= {"weight_zero_point": _weight_zero_point(builder, b_zero)}
    transposed = bool(found.get("transA", 0))
    _linear(builder, node, a, weight, (bias, finite(ratio)), made, first=transposed)


def _matrix(builder: Builder, a: str, weight: np.ndarray) -> np.ndarray:
    """A constant right operand, [k, n]."""
    if weight.ndim < 2 or weight.ndim > max(2, len(builder.shape(a))):
        raise Refused(f"weights of {weight.ndim} dimensions")
    if prod(weight.shape[:-2]) != 1:
        raise Refused("a batch of constant weights: a command has one matrix of them")
    return weight.reshape(weight.shape[-2:])


def _linear(
    builder: Builder, node: onnx.NodeProto, a: str, weight: np.ndarray,
    params: Sequence[np.ndarray], made: dict[str, object], *, first: bool = False,
) -> None:  # fmt: skip
    """Contracts the last axis of `a`, or the `first` of its two, with weight [n, k]."""
    shape = builder.shape(a)
    axis = 0 if first else len(shape) - 1
    if axis < builder.first:
        raise NotByRows
    ways = [
        (*(each for each in order if each != axis), *((axis,) if shape[axis] != 1 else ()))
        for order in builder.orders(a)
    ]
    order = min(ways, key=lambda way: builder.cost(a, way))
    others = [each for each in order if each != axis]
    x = builder.had(a, order, (*(shape[each] for each in others), shape[axis]))
    names = [builder.add_constant(each) for each in (weight, *params)]
    value = builder.add("linear", [x, *names], **made)
    if first:  # of [k, m] and [n, k]: what was axis 1 is axis 0 now
        others = [0 for _ in others]
    last = len(builder.shape(node.output[0])) - 1
    builder.define(node.output[0], value, (*others, last))


def _batch(builder: Builder, node: onnx.NodeProto, a: str, b: str, made: dict[str, object]) -> None:
    """[..., m, k] times [..., k, n], both of the request."""
    left, right = builder.shape(a), builder.shape(b)
    rank = max(len(left), len(right))
    if min(len(left), len(right)) < 2:
        raise Refused("a product with a vector of the request")
    if builder.by_rows and (len(left) != len(right) or rank < 3 or left[0] != right[0]):
        raise NotByRows
    *lead, k, n = range(builder.first, len(right))
    straight, turned = (without_ones((*lead, *last), right) for last in ((k, n), (n, k)))
    transposed = builder.cost(b, turned) < builder.cost(b, straight)
    dims = []
    for shape in (left, right):
        sizes = (1,) * (rank - len(shape)) + shape
        dims.append(list(sizes[builder.first :]))
    if transposed:
        dims[1][-2:] = dims[1][:-3:-1]
    operands = [
        builder.had(a, without_ones(range(builder.first, len(left)), left), dims[0]),
        builder.had(b, turned if transposed else straight, dims[1]),
    ]
    value = builder.add("batch_matmul", operands, transposed=transposed, **made)
    builder.define(node.output[0], value, tuple(range(builder.first, rank)))
