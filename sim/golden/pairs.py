"""Sums and products of two quantised tensors, as ONNX Runtime on x86 computes them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.sim.golden import floats, vector

_ONE = np.float32(1)


def add_inner(x: ArrayLike, ratio: np.float32, offset: np.float32) -> NDArray[np.float32]:
    """What an ADD_QUANTISED makes of bytes whose product the offset is added to: rounded once."""
    return floats.fma(np.asarray(x).astype(np.float32), ratio, offset)


def add(
    outer: NDArray[np.generic], outer_ratio: np.float32, inner: NDArray[np.generic],
    inner_ratio: np.float32, offset: np.float32, made: ElementFormat,
) -> NDArray[np.generic]:  # fmt: skip
    """`saturate(round(fma(outer, outer_ratio, fma(inner, inner_ratio, offset))))` of bytes as they
    are: QLinearAdd, whose zero points are all in `offset`."""
    first = add_inner(inner, inner_ratio, offset)
    return vector.encode(floats.fma(outer.astype(np.float32), outer_ratio, first), made, _ONE)


def multiply(
    a: NDArray[np.float32], b: NDArray[np.float32], multiplier: np.float32, zero_point: int,
    made: ElementFormat,
) -> NDArray[np.generic]:  # fmt: skip
    """`saturate(round(a * b * multiplier + zero_point))`, each step in float32: QLinearMul of
    numbers without zero points, its own inside the rounding."""
    product = floats.multiply(floats.multiply(a, b), multiplier)
    return vector.encode(floats.add(product, np.float32(zero_point)), made, _ONE)


def result(
    opcode: Opcode, v: dict[str, int], a: NDArray[np.uint8], b: NDArray[np.uint8]
) -> NDArray[np.generic]:
    """The output of a command: `v` holds its fields, a and b are bytes as they lie."""
    a_format, b_format, made = (ElementFormat(v[f"{name}_format"]) for name in "aby")
    if opcode is Opcode.MULTIPLY_QUANTISED:
        zero_point = int(vector.decode(np.uint8([v["y_zero_point"]]), made)[0])
        left = vector.decode(a, a_format, v["a_zero_point"])
        right = vector.decode(b, b_format, v["b_zero_point"])
        return multiply(left, right, vector.float_of(v["multiplier"]), zero_point, made)
    pairs = [
        (vector.decode(x, kind), vector.float_of(v[f"{name}_ratio"]))
        for name, x, kind in (("b", b, b_format), ("a", a, a_format))
    ]
    inner, outer = reversed(pairs) if v["flags"] & Flag.INNER_A else pairs
    return add(*outer, *inner, vector.float_of(v["offset"]), made)
