"""Maxima and averages over windows of 8-bit images."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from halfdome.hdl.commands import MOST_AVERAGED, MOST_TAPS, SCALE_EXPONENTS, ElementFormat
from halfdome.host import arguments
from halfdome.host.graph import operator
from halfdome.host.graph.operator import Constants, Operator, refuse
from halfdome.host.graph.products import window
from halfdome.host.graph.values import DTYPES, Value
from halfdome.sim.golden import pool

if TYPE_CHECKING:
    from halfdome.host.graph.graph import Node


_BYTES = (ElementFormat.UINT8, ElementFormat.INT8)


def windows(
    image: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:  # fmt: skip
    """Rows and columns of windows over an image; pads are top, left, bottom, right.

    Raises `ValueError` if a window may have all its elements outside of the image.
    """
    out = []
    for axis, side in enumerate(("height", "width")):
        size, before, after = image[axis], pads[axis], pads[axis + 2]
        reach = dilation[axis] * (kernel[axis] - 1)
        count = (size + before + after - reach - 1) // stride[axis] + 1
        if count < 1:
            raise ValueError(f"kernel={tuple(kernel)}: larger than the padded {side} {size}")
        last = (count - 1) * stride[axis] - before
        if before > reach or last >= size or (before and dilation[axis] > size):
            raise ValueError(
                f"pads={tuple(pads)}: a window lies outside of the {side} {size}, must be smaller "
                "than the kernel"
            )
        out.append(count)
    return out[0], out[1]


def fits_depthwise(
    image: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int],
    dilation: Sequence[int], *, weighted: bool = True,
) -> bool:  # fmt: skip
    """Whether cards take the windows of a convolution of each channel by itself, or the array has
    to: they hold so many weights, and a tap of every window lies inside of the image."""
    try:
        windows(image, kernel, stride, pads, dilation)
    except ValueError:
        return False
    return not weighted or kernel[0] * kernel[1] <= MOST_TAPS


def kernel_of(node: "Node") -> tuple[int, int]:
    """Rows and columns of a window."""
    return node.attributes["kernel"]  # type: ignore[return-value]


def _pooled(node: "Node", operands: Sequence[Value]) -> tuple[Value, tuple[int, ...]]:
    """x[..., height, width, channels] of 8 bits, and the shape of its windows."""
    operator.count(node, operands, 1)
    (x,) = operands
    operator.bytes_of(node, x, 4)
    if "kernel" not in node.attributes:
        raise refuse(node, "kernel: is missing, must be rows and columns of a window")
    stride, pads, dilation = window(node)
    try:
        out = windows(x.shape[-3:-1], kernel_of(node), stride, pads, dilation)
    except ValueError as error:
        raise refuse(node, str(error)) from None
    return x, (*x.shape[:-3], *out, x.shape[-1])


def _infer(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """Format, scale and zero point stay."""
    x, shape = _pooled(node, operands)
    return Value(node.output, shape, x.format, x.scale, x.zero_point)


def _max_pool(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    (x,) = operands
    stride, pads, dilation = window(node)
    out = windows(x.shape[-3:-1], kernel_of(node), stride, pads, dilation)
    made = [
        pool.max_pool(
            image, out=out, kernel=kernel_of(node), stride=(stride[0], stride[1]),
            pad=(pads[0], pads[1]), dilation=(dilation[0], dilation[1]),
        )
        for image in x.reshape(-1, *x.shape[-3:])
    ]  # fmt: skip
    return np.stack(made).reshape(*x.shape[:-3], *out, x.shape[-1])


def average_constants(node: "Node") -> dict[str, Any]:
    """Scales of an average, and whether taps outside of the image count."""
    return {
        "x_scale": float(operator.float_of(node, "x_scale", 1)),
        "y_scale": float(operator.float_of(node, "y_scale", 1)),
        "outside": bool(node.attributes.get("include_pads", False)),
    }


def _infer_average(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """8 bits to 8 bits."""
    _, shape = _pooled(node, operands)
    for name in ("x_scale", "y_scale"):
        scale = operator.float_of(node, name, 1)
        if not 2.0**SCALE_EXPONENTS.start <= scale < 2.0**SCALE_EXPONENTS.stop:
            raise refuse(node, f"{name}={scale}: must be from 2**-40 to below 2**40")
    if prod(kernel_of(node)) > MOST_AVERAGED:
        raise refuse(node, f"kernel={kernel_of(node)}: must have {MOST_AVERAGED} elements or fewer")
    return operator.made(node, shape, _BYTES)


def _average_pool(
    node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]
) -> np.ndarray:
    (x,) = operands
    stride, pads, dilation = window(node)
    out = windows(x.shape[-3:-1], kernel_of(node), stride, pads, dilation)
    about = average_constants(node)
    made = [
        pool.average_pool(
            image, out=out, kernel=kernel_of(node),
            dtype=DTYPES[operator.format_made(node, ElementFormat.UINT8)].type,
            stride=(stride[0], stride[1]), pad=(pads[0], pads[1]),
            dilation=(dilation[0], dilation[1]), outside=about["outside"],
            x_zero_point=values[0].zero_point, x_scale=np.float32(about["x_scale"]),
            y_scale=np.float32(about["y_scale"]), y_zero_point=operator.zero_point_of(node),
        )
        for image in x.reshape(-1, *x.shape[-3:])
    ]  # fmt: skip
    return np.stack(made).reshape(*x.shape[:-3], *out, x.shape[-1])


OPERATORS = {
    "average_pool": Operator(
        _infer_average,
        _average_pool,
        operator.OUTPUT
        | {
            "kernel": operator.wholes(2, 1, 255),
            "stride": operator.wholes(2, 1, 255),
            "pads": operator.wholes(4, 0, 255),
            "include_pads": arguments.flag,
            "x_scale": operator.number,
            "y_scale": operator.number,
        },
    ),
    "max_pool": Operator(
        _infer,
        _max_pool,
        operator.LABEL
        | {
            "kernel": operator.wholes(2, 1, 255),
            "stride": operator.wholes(2, 1, 255),
            "pads": operator.wholes(4, 0, 255),
            "dilation": operator.wholes(2, 1, 255),
        },
    ),
}
