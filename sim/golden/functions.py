"""The functions of the vector engine, bit for bit, from the same tables as the hardware."""

import numpy as np
from numpy.typing import NDArray

from halfdome.hdl.commands import Function
from halfdome.hdl.vector import tables
from halfdome.hdl.vector.tables import BASE, DISTANCE_BITS, FRACTION_BITS, ONE
from halfdome.sim.golden.floats import QUIET_NAN, fma

_C0, _C1, _C2 = np.array(tables.ROWS, np.int64).T
_EXPONENTIALS = np.array(tables.EXPONENTIALS, np.uint32).view(np.float32)
_DISTANCE_MASK = (1 << DISTANCE_BITS) - 1
_OCTAVE_SHIFT = 23 - 5  # of the mantissa, to the number of one of 32 segments
_INFINITY = np.float32(np.inf)


def parabola(row: NDArray[np.int64], distance: NDArray[np.int64]) -> NDArray[np.float32]:
    """Value of table rows at distances from their start, as float32: rounded, half up."""
    inner = _C1[row] + (distance * _C2[row] >> DISTANCE_BITS)
    fixed = _C0[row] + (distance * inner >> DISTANCE_BITS)
    drop = 2 + (fixed >= 1 << FRACTION_BITS) + (fixed >= 2 << FRACTION_BITS)
    rounded = fixed + (1 << drop - 1) >> drop
    return np.ldexp(rounded.astype(np.float32), drop - FRACTION_BITS)


def _number(sign, exponent, fraction=0) -> NDArray[np.float32]:
    """float32 from its fields, arrays of int64."""
    return (sign << 31 | exponent << 23 | fraction).astype(np.uint32).view(np.float32)


def _odd(k, base: int, least: int, mantissa) -> tuple[NDArray, NDArray]:
    """Row and distance in octave `k` of TANH or GELU."""
    row = base + (k - least) * tables.SEGMENTS + (mantissa >> _OCTAVE_SHIFT)
    return row, mantissa >> 1 & _DISTANCE_MASK


def _exp(bits, sign, exponent, mantissa):
    significand = mantissa | np.where(exponent > 0, 1 << 23, 0)
    magnitude = significand << 7 >> np.clip(133 - exponent, 0, 31)
    fixed = np.where(sign, -magnitude, magnitude) + 2 >> 2  # 22 fraction bits
    whole = np.where(exponent > 133, np.where(sign, -128, 127), fixed >> 22)
    power = _EXPONENTIALS[np.clip(whole - tables.EXP_LEAST, 0, len(_EXPONENTIALS) - 1)]
    power = np.where(whole < tables.EXP_LEAST, np.float32(0), power)
    power = np.where(whole > tables.EXP_MOST, _INFINITY, power)
    row = BASE[Function.EXP] + (fixed >> DISTANCE_BITS & tables.SEGMENTS - 1)
    return row, fixed & _DISTANCE_MASK, power, np.float32(-0.0)


def _tanh(bits, sign, exponent, mantissa):
    k = np.clip(exponent - 127, tables.TANH_LEAST - 1, tables.TANH_TOP)
    row, distance = _odd(k, BASE[Function.TANH], tables.TANH_LEAST, mantissa)
    inside = (k >= tables.TANH_LEAST) & (k < tables.TANH_TOP)
    factor = np.where(
        k < tables.TANH_LEAST, bits.view(np.float32), _number(sign, 127 + np.minimum(k, 0))
    )
    return np.where(inside, row, ONE), distance, factor, np.float32(-0.0)


def _sigmoid(bits, sign, exponent, mantissa):
    k = np.clip(exponent - 128, tables.TANH_LEAST - 1, tables.TANH_TOP)
    row, distance = _odd(k, BASE[Function.TANH], tables.TANH_LEAST, mantissa)
    inside = (k >= tables.TANH_LEAST) & (k < tables.TANH_TOP)
    quarter = np.where(exponent > 2, _number(sign, exponent - 2, mantissa), np.float32(0))
    factor = np.where(k < tables.TANH_LEAST, quarter, _number(sign, 126 + np.minimum(k, 0)))
    return np.where(inside, row, ONE), distance, factor, np.float32(0.5)


def _gelu(bits, sign, exponent, mantissa):
    k = np.clip(exponent - 127, tables.GELU_LEAST, tables.GELU_TOP)
    row, distance = _odd(k, BASE[Function.GELU], tables.GELU_LEAST, mantissa)
    large = k >= tables.GELU_TOP
    scale = exponent - 1 + np.minimum(exponent - 127, 0)
    factor = np.where(large | (scale <= 0), np.float32(0), _number(0, scale, mantissa))
    half = np.where(exponent > 1, _number(sign, exponent - 1, mantissa), np.float32(0))
    beyond = np.where(sign, np.float32(0), bits.view(np.float32))
    return np.where(large, ONE, row), distance, factor, np.where(large, beyond, half)


def _reciprocal(bits, sign, exponent, mantissa):
    row = BASE[Function.RECIPROCAL] + (mantissa >> DISTANCE_BITS)
    factor = np.where(exponent == 254, _number(sign, 0, 1 << 22), _number(sign, 254 - exponent))
    return _ends(row, mantissa & _DISTANCE_MASK, factor, sign, exponent)


def _rsqrt(bits, sign, exponent, mantissa):
    odd = 1 - (exponent & 1)
    row = BASE[Function.RSQRT] + odd * tables.SEGMENTS + (mantissa >> _OCTAVE_SHIFT)
    factor = _number(0, 191 - (exponent + 1 >> 1))
    factor = np.where((sign == 1) & (exponent > 0), QUIET_NAN, factor)
    row, distance, factor, addend = _ends(
        row, mantissa >> 1 & _DISTANCE_MASK, factor, sign, exponent
    )
    return row, distance, np.where((sign == 1) & (exponent == 255), QUIET_NAN, factor), addend


def _ends(row, distance, factor, sign, exponent):
    """RECIPROCAL and RSQRT of zeros, subnormals and infinities."""
    zero, infinite = exponent == 0, exponent == 255
    factor = np.where(zero, _number(sign, 255), factor)
    factor = np.where(infinite, _number(sign, 0), factor)
    return np.where(zero | infinite, ONE, row), distance, factor, np.float32(-0.0)


_FUNCTIONS = {
    Function.SIGMOID: _sigmoid,
    Function.TANH: _tanh,
    Function.EXP: _exp,
    Function.GELU: _gelu,
    Function.RECIPROCAL: _reciprocal,
    Function.RSQRT: _rsqrt,
}


def apply(function: Function, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`function` of every element: within `halfdome.hdl.vector.tables.MAX_ERROR` of the true value.

    IDENTITY and RELU are exact. NaN gives `QUIET_NAN`.
    """
    x = np.where(np.isnan(x), QUIET_NAN, np.asarray(x, np.float32))
    if function is Function.IDENTITY:
        return x
    if function is Function.RELU:
        return np.where(np.signbit(x), np.float32(0), x)
    bits = x.view(np.uint32)
    fields = bits.astype(np.int64)
    with np.errstate(all="ignore"):
        row, distance, factor, addend = _FUNCTIONS[function](
            bits, fields >> 31, fields >> 23 & 0xFF, fields & 0x7F_FFFF
        )
        y = fma(parabola(row, distance), factor, addend)
    return np.where(np.isnan(x), QUIET_NAN, y)
