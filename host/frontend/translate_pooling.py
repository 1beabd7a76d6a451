"""Operators that find maxima over windows."""

import numpy as np
import onnx

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
    value = builder.add(
        "max_pool", [image], kernel=kernel, stride=stride, dilation=dilation,
        pads=(top, left, below, beside),
    )  # fmt: skip
    if builder.dims(value)[-3:-1] != out:
        raise Refused(f"has {list(out)} windows, where cards have {builder.dims(value)[-3:-1]}")
    builder.define(y, value, order)
