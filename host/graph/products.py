"""Matrix products and convolutions of 8-bit tensors.

Totals are int32. An output of 8 bits is `saturate(round_half_even(float32(total + bias) *
multiplier) + zero_point)`, as ONNX Runtime's QLinearConv, QLinearMatMul and QGemm have it for
`multiplier` = x_scale * w_scale / y_scale.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from halfdome.hdl.commands import PRODUCT_FORMATS, ElementFormat
from halfdome.host import arguments
from halfdome.host.graph import operator
from halfdome.host.graph.operator import Constants, Operator, refuse
from halfdome.host.graph.values import DTYPES, Value
from halfdome.sim.golden import matmul
from halfdome.sim.golden.products import convolution

if TYPE_CHECKING:
    from halfdome.host.graph.graph import Node

_BYTES = (ElementFormat.UINT8, ElementFormat.INT8)


def _product(
    node: "Node", shape: tuple[int, ...], params: Sequence[Value], constants: Constants
) -> Value:
    """The output, with bias int32[n] and multiplier float32[n] if it has 8 bits."""
    made = operator.made(node, shape, PRODUCT_FORMATS)
    if (made.format is ElementFormat.INT32) != (not params):
        raise refuse(node, "bias and multiplier go with 8-bit outputs, and with these alone")
    expected = (ElementFormat.INT32, ElementFormat.FLOAT32)
    for value, kind in zip(params, expected, strict=bool(params)):
        operator.constant(node, value, constants)
        if value.format is not kind or value.shape != shape[-1:]:
            raise refuse(node, f"{value}: must be a {DTYPES[kind]} for each output channel")
    for value in params[1:]:
        scale = constants[value.name]
        if not (np.isfinite(scale) & (scale != 0)).all():
            raise refuse(node, f"{value.name}: must be finite and not zero")
    return made


def _weight(node: "Node", value: Value, dims: int, constants: Constants) -> None:
    operator.constant(node, value, constants)
    if value.format not in _BYTES or len(value.shape) != dims:
        raise refuse(node, f"{value}: must be 8 bits with {dims} dimensions")
    operator.fits(node, "weight_zero_point", value.format)


def weight_zero_point(node: "Node") -> int:
    """The weight that stands for zero."""
    return int(node.attributes.get("weight_zero_point", 0))


def _finished(node: "Node", total: np.ndarray, params: Sequence[np.ndarray]) -> np.ndarray:
    if not params:
        return total
    return matmul.requantise(
        total, *params, operator.zero_point_of(node), bool(node.attributes.get("relu", False)),
        DTYPES[operator.format_made(node, ElementFormat.UINT8)].type,
    )  # fmt: skip


# linear


def _infer_linear(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """x[..., k], weight[n, k], and for 8 bits bias and multiplier."""
    if len(operands) not in (2, 4):
        raise refuse(node, f"has {len(operands)} inputs")
    x, weight, *params = operands
    operator.bytes_of(node, x, 2)
    _weight(node, weight, 2, constants)
    if x.shape[-1] != weight.shape[1]:
        raise refuse(node, f"{weight} does not fit {x}")
    return _product(node, (*x.shape[:-1], weight.shape[0]), params, constants)


def _linear(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    x, weight, *params = operands
    total = matmul.product(x, weight.T, values[0].zero_point, weight_zero_point(node))
    return _finished(node, total, params)


# conv2d


def window(node: "Node") -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Stride, pads and dilation of a conv2d; pads are top, left, bottom, right."""
    stride, pads, dilation = (
        node.attributes.get(name, usual)
        for name, usual in (("stride", (1, 1)), ("pads", (0, 0, 0, 0)), ("dilation", (1, 1)))
    )
    return stride, pads, dilation  # type: ignore[return-value]


def _out(node: "Node", x: tuple[int, ...], kernel: Sequence[int]) -> tuple[int, ...]:
    """Rows and columns of pixels of a conv2d."""
    stride, pads, dilation = window(node)
    return tuple(
        (x[axis - 3] + pads[axis] + pads[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1)
        // stride[axis]
        + 1
        for axis in (0, 1)
    )


def _infer_conv2d(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """x[..., height, width, channels], weight[n, rows, columns, channels / groups]."""
    if len(operands) not in (2, 4):
        raise refuse(node, f"has {len(operands)} inputs")
    x, weight, *params = operands
    operator.bytes_of(node, x, 4)
    _weight(node, weight, 4, constants)
    groups = int(node.attributes.get("groups", 1))
    n, *kernel, k = weight.shape
    if k * groups != x.shape[-1] or n % groups or 0 in weight.shape:
        raise refuse(node, f"{weight} with groups={groups} does not fit {x}")
    out = _out(node, x.shape, kernel)
    if min(out) < 1:
        pads = window(node)[1]
        raise refuse(node, f"{weight}: its window is larger than {x} with pads={pads}")
    return _product(node, (*x.shape[:-3], *out, n), params, constants)


def _conv2d(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    x, weight, *params = operands
    stride, pads, dilation = window(node)
    groups = int(node.attributes.get("groups", 1))
    images, kernel = x.reshape(-1, *x.shape[-3:]), weight.transpose(1, 2, 3, 0)
    each, made = x.shape[-1] // groups, len(weight) // groups
    out = _out(node, x.shape, weight.shape[1:3])
    totals = [
        convolution(
            image[:, :, g * each : (g + 1) * each], kernel[..., g * made : (g + 1) * made],
            out=out, stride=stride, pad=pads[:2], dilation=dilation,
            x_zero_point=values[0].zero_point, w_zero_point=weight_zero_point(node),
        )
        for image in images
        for g in range(groups)
    ]  # fmt: skip
    by_group = np.stack(totals).reshape(len(images), groups, *out, made)
    total = np.moveaxis(by_group, 1, -2).reshape(*x.shape[:-3], *out, len(weight))
    return _finished(node, total, params)


# batch_matmul


def is_transposed(node: "Node") -> bool:
    """Whether a batch_matmul has its second operand as n rows of k."""
    return bool(node.attributes.get("transposed", False))


def _infer_batch(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """x[..., m, k], w[..., k, n], or [..., n, k] if `transposed`; leading axes broadcast."""
    operator.count(node, operands, 2)
    x, w = operands
    for value in operands:
        operator.bytes_of(node, value, 3)
    w_shape = (*w.shape[:-2], *(w.shape[:-3:-1] if is_transposed(node) else w.shape[-2:]))
    if x.shape[-1] != w_shape[-2] or x.shape[0] != w.shape[0]:
        raise refuse(node, f"{w} does not fit {x}")
    try:
        leading = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    except ValueError:
        raise refuse(node, f"{w} does not fit {x}") from None
    return operator.made(node, (*leading, x.shape[-2], w_shape[-1]), PRODUCT_FORMATS)


def _batch(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    x, w = operands
    if is_transposed(node):
        w = w.swapaxes(-1, -2)
    total = matmul.product(x, w, values[0].zero_point, values[1].zero_point)
    return _requantised_alike(node, total)


def _requantised_alike(node: "Node", total: np.ndarray) -> np.ndarray:
    """With one multiplier for all channels, and no bias; sums as they are stay so."""
    if operator.format_made(node, ElementFormat.UINT8) is ElementFormat.INT32:
        return total
    count = total.shape[-1]
    multiplier = np.full(count, operator.float_of(node, "multiplier", 1), np.float32)
    return _finished(node, total, (np.zeros(count, np.int32), multiplier))


# pairs


def _infer_pairs(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """Segments [rows, dim], all of one 8-bit format and zero point."""
    operator.count(node, operands, 2, 1 << 12)
    first = operands[0]
    for value in operands:
        alike = (value.shape, value.format, value.zero_point)
        if alike != (first.shape, first.format, first.zero_point) or first.format.nbytes != 1:
            raise refuse(node, f"{value}: must be 8 bits, of shape and zero point of {first}")
    if len(first.shape) != 2:
        raise refuse(node, f"{first}: must have 2 dimensions")
    count = len(operands)
    return operator.made(node, (first.shape[0], count * (count - 1) // 2), _BYTES)


def _pairs(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    stacked, zero_point = np.stack(operands, axis=1), values[0].zero_point
    total = matmul.product(stacked, stacked.transpose(0, 2, 1), zero_point, zero_point)
    return matmul.triangle(_requantised_alike(node, total))


_WEIGHTED = operator.OUTPUT | {
    "relu": arguments.flag, "weight_zero_point": operator.zero_point,
}  # fmt: skip
OPERATORS = {
    "linear": Operator(_infer_linear, _linear, _WEIGHTED, constant_from=1),
    "conv2d": Operator(
        _infer_conv2d,
        _conv2d,
        _WEIGHTED
        | {
            "stride": operator.wholes(2, 1, 255),
            "pads": operator.wholes(4, 0, 255),
            "dilation": operator.wholes(2, 1, 255),
            "groups": operator.whole(1),
        },
        constant_from=1,
    ),
    "batch_matmul": Operator(
        _infer_batch,
        _batch,
        operator.OUTPUT | {"multiplier": operator.number, "transposed": arguments.flag},
    ),
    "pairs": Operator(_infer_pairs, _pairs, operator.OUTPUT | {"multiplier": operator.number}),
}
