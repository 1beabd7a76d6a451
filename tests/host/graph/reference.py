"""What a graph computes in plain numpy, written apart from the golden functions.

Sums of pooled rows are in float64: they may differ from the cards' in the last bits.
"""

from math import erf

import numpy as np

from halfdome.hdl.commands import ElementFormat, Function, RowFormat
from halfdome.host.graph.values import DTYPES


def run(graph, request):
    """Every value by name."""
    values = graph.constants | dict(request)
    for node in graph.nodes:
        operands = [values[name] for name in node.inputs]
        about = [graph.values[name] for name in node.inputs]
        values[node.output] = _OPERATORS[node.op](node.attributes, about, operands)
    return values


def fused_rows(raw, row_format, dim):
    """float64[rows, dim] that the rows of a table stand for."""
    raw = np.ascontiguousarray(raw).reshape(len(raw), -1).view(np.uint8)
    if row_format in (RowFormat.FLOAT16, RowFormat.FLOAT32):
        dtype = np.float16 if row_format is RowFormat.FLOAT16 else np.float32
        return raw.view(dtype).astype(np.float64)
    tail = raw[:, -row_format.tail_bytes :]
    tail = tail.copy().view(np.float32 if row_format.tail_bytes == 8 else np.float16)
    scale, bias = tail.astype(np.float64).T
    if row_format.element_bits == 4:
        q = np.stack([raw & 15, raw >> 4], axis=2).reshape(len(raw), -1)[:, :dim]
    else:
        q = raw[:, :dim]
    return q * scale[:, None] + bias[:, None]


def embedding_bag(how, about, operands):
    table, indices, lengths, *weights = operands
    row_format = RowFormat(how.get("row_format", RowFormat.INT8))
    elements = (about[0].row_bytes - row_format.tail_bytes) * 8 // row_format.element_bits
    rows = fused_rows(table, row_format, how.get("dim", elements))
    weight = weights[0].astype(np.float64) if weights else np.ones(len(indices))
    pooled = np.zeros((len(lengths), rows.shape[1]))
    ends = np.cumsum(lengths)
    for bag, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
        pooled[bag] = weight[start:end] @ rows[indices[start:end]]
        if how.get("mode") == "mean":
            pooled[bag] /= max(1, end - start)
    return quantised(pooled, how, ElementFormat.FLOAT32)


def quantised(x, how, default):
    """What a node writes of real numbers."""
    made = ElementFormat(how.get("format", default))
    x = x.astype(np.float32) * np.float32(how.get("multiplier", 1))
    if made.nbytes > 1:
        return x.astype(DTYPES[made])
    whole = np.rint(np.where(np.isnan(x), 0, x))
    return saturated(whole + how.get("zero_point", 0), made)


def saturated(x, made):
    limits = np.iinfo(DTYPES[made])
    return x.clip(limits.min, limits.max).astype(DTYPES[made])


def linear(how, about, operands):
    x, weight, *params = operands
    left = x.astype(np.int64) - about[0].zero_point
    sums = left @ (weight.astype(np.int64) - how.get("weight_zero_point", 0)).T
    if not params:
        return sums.astype(np.int32)
    bias, multiplier = params
    assert (bias.dtype, multiplier.dtype) == (np.int32, np.float32)
    assert np.abs(sums + bias).max(initial=0) < 2**31
    y = np.rint((sums + bias).astype(np.float32) * multiplier) + how.get("zero_point", 0)
    y = y.clip(how.get("zero_point", 0)) if how.get("relu") else y
    return saturated(y, ElementFormat(how.get("format", ElementFormat.UINT8)))


def pairs(how, about, operands):
    zero_point, products = about[0].zero_point, []
    for i, one in enumerate(operands):
        for other in operands[:i]:
            product = (one.astype(np.int64) - zero_point) * (other.astype(np.int64) - zero_point)
            products.append(product.sum(axis=1))
    return quantised(np.stack(products, axis=1), how, ElementFormat.UINT8)


def _real(value, x):
    return x.astype(np.float64) - (value.zero_point if x.dtype.itemsize == 1 else 0)


def _vector(combine):
    def operator(how, about, operands):
        x = combine(how, *(_real(value, x) for value, x in zip(about, operands, strict=True)))
        x = _FUNCTIONS[Function(how.get("function", 0))](x)
        return quantised(x, how, ElementFormat.FLOAT32)

    return operator


_FUNCTIONS = {
    Function.IDENTITY: lambda x: x,
    Function.RELU: lambda x: x.clip(0),
    Function.SIGMOID: lambda x: 0.5 + 0.5 * np.tanh(x / 2),
    Function.TANH: np.tanh,
    Function.EXP: np.exp,
    Function.GELU: lambda x: x / 2 * (1 + np.vectorize(erf)(x / np.sqrt(2))),
    Function.RECIPROCAL: lambda x: 1 / x,
    Function.RSQRT: lambda x: 1 / np.sqrt(x),
}


def max_pool(how, about, operands):
    """Every window by itself."""
    (x,) = operands
    (kernel, stride, dilation), (top, left, bottom, right) = (
        [how.get(name, (1, 1)) for name in ("kernel", "stride", "dilation")],
        how.get("pads", (0, 0, 0, 0)),
    )  # fmt: skip
    lead = [(0, 0)] * (x.ndim - 3)
    low = np.iinfo(x.dtype).min
    full = np.pad(x, [*lead, (top, bottom), (left, right), (0, 0)], constant_values=low)
    reach = [(taps - 1) * step + 1 for taps, step in zip(kernel, dilation, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(full, reach, axis=(-3, -2))
    return views[..., :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]].max((-2, -1))


def average_pool(how, about, operands):
    """Every window by itself, and every tap."""
    (x,) = operands
    (top, left, bottom, right), kernel = how.get("pads", (0, 0, 0, 0)), how["kernel"]
    stride, f = how.get("stride", (1, 1)), np.float32
    rows = range(-top, x.shape[-3] + bottom - kernel[0] + 1, stride[0])
    columns = range(-left, x.shape[-2] + right - kernel[1] + 1, stride[1])
    floats = (x.astype(np.int32) - about[0].zero_point).astype(f) * f(how["x_scale"])
    made = np.zeros((*x.shape[:-3], len(rows), len(columns), x.shape[-1]), f)
    for y, row in enumerate(rows):
        for z, column in enumerate(columns):
            inside = [
                (j, k)
                for j in range(row, row + kernel[0])
                for k in range(column, column + kernel[1])
                if 0 <= j < x.shape[-3] and 0 <= k < x.shape[-2]
            ]
            for j, k in inside:
                made[..., y, z, :] += floats[..., j, k, :]
            count = kernel[0] * kernel[1] if how.get("include_pads") else len(inside)
            made[..., y, z, :] /= f(count)
    limits = np.iinfo(DTYPES[how.get("format", ElementFormat.UINT8)])
    shifted = made / f(how["y_scale"]) + f(how.get("zero_point", 0))
    return np.rint(shifted).clip(limits.min, limits.max).astype(limits.dtype)


_OPERATORS = {
    "embedding_bag": embedding_bag,
    "linear": linear,
    "pairs": pairs,
    "affine": _vector(lambda how, a: a * how.get("scale", 1) + how.get("shift", 0)),
    "add": _vector(lambda how, a, b: a + b * how.get("scale", 1)),
    "multiply": _vector(lambda how, a, b: a * b + how.get("shift", 0)),
    "clamp": _vector(lambda how, a: a.clip(how.get("low", -np.inf), how.get("high", np.inf))),
    "max_pool": max_pool,
    "average_pool": average_pool,
    "lookup": lambda how, about, operands: operands[1][operands[0].astype(int) % 256],
    "concat": lambda how, about, operands: np.concatenate(operands, axis=1),
}
