"""Exact fp32 arithmetic of the card, on numpy arrays.

Every function rounds once, to nearest with ties to even, and returns the canonical quiet NaN
0x7fc00000 where the result is NaN, as the hardware does. Arguments broadcast.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

QUIET_NAN = np.uint32(0x7FC00000).view(np.float32)
"""The only NaN the card produces."""


def _canonical(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isnan(x), QUIET_NAN, x)


def add(a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
    """float32 `a + b`, as `halfdome.hdl.arith.add.FloatAdd`."""
    with np.errstate(all="ignore"):
        return _canonical(np.add(np.float32(a), np.float32(b)))


def multiply(a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
    """float32 `a * b`, as `halfdome.hdl.arith.mul.FloatMul`."""
    with np.errstate(all="ignore"):
        return _canonical(np.multiply(np.float32(a), np.float32(b)))


def divide(a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
    """float32 `a / b`, as `halfdome.hdl.arith.div.FloatDiv`."""
    with np.errstate(all="ignore"):
        return _canonical(np.divide(np.float32(a), np.float32(b)))


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> NDArray[np.float32]:
    """float32 `a * b + c` with a single rounding, as `halfdome.hdl.arith.fma.FloatFma`.

    The product of two float32 is exact in float64. The float64 sum is rounded to odd, by means of
    its exact error (Knuth's TwoSum), which makes the second rounding to float32 the only one that
    counts (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    with np.errstate(all="ignore"):
        product = np.multiply(np.float64(np.float32(a)), np.float64(np.float32(b)))
        product, addend = np.broadcast_arrays(product, np.float64(np.float32(c)))
        total = np.asarray(product + addend)
        back = total - product
        error = (product - (total - back)) + (addend - back)
        # Not exact and even: step to the odd neighbour on the side of the exact sum. For
        # infinities and NaN the error is NaN, or the sum is even with nothing to step to.
        bits = total.view(np.int64)
        step = np.where((error > 0) == (total > 0), 1, -1)
        inexact = np.isfinite(error) & np.isfinite(total) & (error != 0)
        odd = np.where(inexact & (bits & 1 == 0), bits + step, bits)
        return _canonical(odd.view(np.float64).astype(np.float32))


def int_to_float(x: ArrayLike) -> NDArray[np.float32]:
    """float32 of int32 `x`, as `halfdome.hdl.arith.convert.IntToFloat`."""
    return np.asarray(x, np.int32).astype(np.float32)


def narrow(x: ArrayLike) -> NDArray[np.float16]:
    """float16 of float32 `x`, as `halfdome.hdl.arith.convert.FloatNarrow`."""
    with np.errstate(all="ignore"):
        half = np.asarray(np.float32(x)).astype(np.float16)
    return np.where(np.isnan(half), np.uint16(0x7E00).view(np.float16), half)


def round_half_even_to_int(x: ArrayLike, width: int = 32) -> NDArray[np.int64]:
    """`x` (float32) as an integer of `width` bits, as `halfdome.hdl.arith.convert.FloatToInt`.

    Saturates; NaN gives 0. The result is int64, `width` at most 53.
    """
    limit = 2.0 ** (width - 1)
    with np.errstate(invalid="ignore"):  # A signalling NaN.
        exact = np.nan_to_num(np.float64(np.float32(x)), nan=0.0)
    return np.clip(np.rint(exact), -limit, limit - 1).astype(np.int64)


def quantise(
    x: ArrayLike, multiplier: ArrayLike, zero_point: ArrayLike = 0, floor: ArrayLike = 0
) -> NDArray[np.uint8]:
    """uint8 of float32 `x`, as `halfdome.hdl.arith.quantise.FloatToByte`.

    `max(floor, saturate(round_half_even(x * multiplier) + zero_point))`: the product is rounded to
    float32 first; `zero_point` and `floor` are 0 to 255; NaN counts as 0.
    """
    total = round_half_even_to_int(multiply(x, multiplier)) + np.asarray(zero_point, np.int64)
    return np.maximum(np.clip(total, 0, 255), np.asarray(floor, np.int64)).astype(np.uint8)


def quotient(x: ArrayLike, scale: ArrayLike, zero_point: ArrayLike = 0) -> NDArray[np.uint8]:
    """uint8 of float32 `x`, as `halfdome.hdl.arith.quotient.QuotientToByte`.

    `saturate(round_half_even(x / scale) + zero_point)`: the quotient is rounded to float32 first;
    NaN gives 0, as ONNX Runtime has it.
    """
    with np.errstate(all="ignore"):
        total = np.rint(divide(x, scale)) + np.asarray(zero_point, np.float32)
    return np.clip(np.nan_to_num(total, nan=0.0), 0, 255).astype(np.uint8)
