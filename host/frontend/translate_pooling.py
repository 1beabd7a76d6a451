"""Operators that find maxima and averages over windows."""

from math import prod
from typing import Any

import numpy as np
import onnx

from halfdome.hdl.commands import MOST_AVERAGED
from halfdome.host.frontend.layout import without_ones
from halfdome.host.frontend.net import attributes
from halfdome.host.frontend.translate import Builder, Refused
from halfdome.host.frontend.translate_products import along_two, pads_of, within


def max_pool(builder: Builder, node: onnx.NodeProto) -> None:
    """MaxPool of 8 bits, of one or two dimensions."""
    x, y = node.input[0], node.output[0]
    shape, found = builder.shape(x), attributes(node)
    dims = len(shape) - 2
    if builder.net.tensors[x].dtype not in (np.uint8, np.int8):
        raise Refused(f"{x} is {builder.net.tensors[x].dtype}; cards find maxima of 8 bits")
    if len(node.output) > 1 and node.output[1]:
        raise Refused("tells where maxima are, which cards do not")
    if dims not in (1, 2):
        raise Refused(f"maxima over {dims} dimensions: commands have windows of two")
    image, order, about = _windows(builder, x, y, found, dims)
    value = builder.add("max_pool", [image], **about)
    _expect(builder, value, y, dims)
    builder.define(y, value, order)


def average_pool(builder: Builder, node: onnx.NodeProto) -> None:
    """QLinearAveragePool, of one or two dimensions."""
    (x, x_scale, x_zero, y_scale, y_zero), y = node.input[:5], node.output[0]
    found, dims = attributes(node), len(builder.shape(x)) - 2
    if found.get("channels_last", 0) or dims not in (1, 2):
        raise Refused("an average over other axes than the height and width of images")
    if found.get("ceil_mode", 0):
        raise Refused("has windows that end beyond the padded image")
    builder.zero_point(x, x_zero, "x")
    scale, made = builder.output(y, y_scale, y_zero)
    image, order, about = _windows(builder, x, y, found, dims)
    if (taps := prod(about["kernel"])) > MOST_AVERAGED:
        raise Refused(f"a window of {taps} elements, where averages have {MOST_AVERAGED}")
    value = builder.add(
        "average_pool", [image], x_scale=float(builder.scalar(x_scale, "the scale of x")),
        y_scale=float(scale), include_pads=bool(found.get("count_include_pad", 0)), **about, **made,
    )  # fmt: skip
    _expect(builder, value, y, dims)
    builder.define(y, value, order)


def _windows(
    builder: Builder, x: str, y: str, found: dict[str, Any], dims: int
) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    """An image, its order of axes, and the attributes of its windows."""
    shape = builder.shape(x)
    kernel, stride, dilation = (
        along_two(found.get(name), dims, 1) for name in ("kernel_shape", "strides", "dilations")
    )
    within(kernel)
    sizes, out = (along_two(each[2:], dims, 1) for each in (shape, builder.shape(y)))
    top, left, *_ = pads_of(found, dims, sizes, kernel, stride, dilation)
    # What the last window needs: `ceil_mode` may ask for more than the pads, others for less.
    below, beside = (
        max(0, (count - 1) * step + (taps - 1) * spread + 1 - size - before)
        for count, step, taps, spread, size, before in zip(
            out, stride, kernel, dilation, sizes, (top, left), strict=True
        )
    )
    order = tuple(axis for axis in (0, *range(2, len(shape)), 1) if axis >= builder.first)
    image = builder.had(
        x, without_ones(order, shape), (*shape[builder.first : 1], *sizes, shape[1])
    )
    about = {"kernel": kernel, "stride": stride, "pads": (top, left, below, beside)}
    return image, order, about | ({} if dilation == (1, 1) else {"dilation": dilation})


def _expect(builder: Builder, value: str, y: str, dims: int) -> None:
    """Refuses another number of windows than a tensor of the model has."""
    out, made = along_two(builder.shape(y)[2:], dims, 1), builder.dims(value)[-3:-1]
    if made != out:
        raise Refused(f"has {list(out)} windows, where cards have {made}")
