"""The functions of the vector engine as piecewise parabolas: segments, coefficients, exponentials.

A float is 2**k times a mantissa in [1, 2). TANH and GELU cut every octave of |x| into `SEGMENTS`
segments, SIGMOID reads TANH at x / 2, EXP cuts [0, 1), RECIPROCAL and RSQRT cut the mantissa (RSQRT
for both parities of k). A segment's parabola passes through the function at both its ends and its
middle, so that values at segment ends are exact to the last bit of a coefficient, neighbours meet,
and exp(0) = 1/1 = 1. Its error is at most h**3 |f'''| / (72 sqrt(3)) on a segment of width h.

Largest errors, coefficients and arithmetic included, on the whole of fp32; the tests measure them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from halfdome.hdl.commands import Function

MAX_ERROR: dict[Function, tuple[float, float]] = {
    Function.SIGMOID: (0.0, 3e-7),
    Function.TANH: (6e-7, 0.0),
    Function.EXP: (6e-7, 4.5e-45),
    Function.GELU: (0.0, 8e-7),
    Function.RECIPROCAL: (2.5e-7, 4.5e-45),
    Function.RSQRT: (6e-7, 0.0),
}
"""Relative and absolute part of the largest error: |y - f(x)| <= relative * |f(x)| + absolute."""

SEGMENTS = 32
"""Segments of an octave, or of [0, 1) for EXP."""
RECIPROCAL_SEGMENTS = 64
"""Segments of the mantissa for RECIPROCAL, the most curved of all."""
DISTANCE_BITS = 17
"""Bits of the distance from a segment's start, in parts of the segment."""
FRACTION_BITS = 26
"""Fraction bits of coefficients and value."""
C0_BITS, C1_BITS, C2_BITS = FRACTION_BITS + 2, 24, 18
"""Widths of the coefficients: unsigned below 4, signed, signed."""

TANH_LEAST, TANH_TOP = -10, 3
"""Octaves of |x| that TANH reads: below, tanh(x) is x; from 2**TOP on it is 1 in fp32."""
GELU_LEAST, GELU_TOP = -6, 3
"""Octaves of |x| that GELU reads; the least serves all below, where erf is proportional to x."""
EXP_LEAST, EXP_MOST = -104, 88
"""floor(x) for which EXP is neither 0 nor infinity."""


class Row(NamedTuple):
    """value = c0 + distance * (c1 + distance * c2), in units of 2**-FRACTION_BITS."""

    c0: int
    c1: int
    c2: int


def _segment(f: Callable[[float], float], start: float, width: float) -> Row:
    first, middle, last = (f(start + part * width) * 2**FRACTION_BITS for part in (0.0, 0.5, 1.0))
    row = Row(
        round(first), round(-3 * first + 4 * middle - last), round(2 * (first - 2 * middle + last))
    )
    if not (
        0 <= row.c0 < 1 << C0_BITS
        and abs(row.c1) < 1 << C1_BITS - 1
        and abs(row.c2) < 1 << C2_BITS - 1
    ):
        raise ValueError(f"{row}: does not fit {C0_BITS}, {C1_BITS} and {C2_BITS} bits")
    return row


def _cut(f: Callable[[float], float], start: float, end: float, count: int) -> list[Row]:
    width = (end - start) / count
    return [_segment(f, start + i * width, width) for i in range(count)]


def octave_scale(k: int) -> int:
    """The power of two that a value of octave `k` of TANH or GELU is to be multiplied by."""
    return min(k, 0)


def _octave(f: Callable[[float], float], k: int) -> list[Row]:
    scale = 2.0 ** -octave_scale(k)
    return _cut(lambda x: scale * f(x), 2.0**k, 2.0 ** (k + 1), SEGMENTS)


def _erf(x: float) -> float:
    return math.erf(x / math.sqrt(2))


TANH_ROWS = [row for k in range(TANH_LEAST, TANH_TOP) for row in _octave(math.tanh, k)]
# erf(x / sqrt(2)) = x sqrt(2 / pi) (1 - x**2 / 6 + ...): in the least octave the first term.
GELU_ROWS = _cut(lambda x: math.sqrt(2 / math.pi) * x, 1.0, 2.0, SEGMENTS) + [
    row for k in range(GELU_LEAST + 1, GELU_TOP) for row in _octave(_erf, k)
]
EXP_ROWS = _cut(math.exp, 0.0, 1.0, SEGMENTS)
RECIPROCAL_ROWS = _cut(lambda x: 1 / x, 1.0, 2.0, RECIPROCAL_SEGMENTS)
RSQRT_ROWS = [
    row for x in (1.0, 2.0) for row in _cut(lambda x: 1 / math.sqrt(x), x, 2 * x, SEGMENTS)
]

_PARTS = (
    (Function.TANH, TANH_ROWS),
    (Function.GELU, GELU_ROWS),
    (Function.EXP, EXP_ROWS),
    (Function.RECIPROCAL, RECIPROCAL_ROWS),
    (Function.RSQRT, RSQRT_ROWS),
)
ROWS: list[Row] = [row for _, rows in _PARTS for row in rows] + [Row(1 << FRACTION_BITS, 0, 0)]
"""Every function's segments, one after another; the last row is the constant 1."""
ONE = len(ROWS) - 1
"""The row that is 1 everywhere."""
BASE: dict[Function, int] = {
    function: sum(len(rows) for _, rows in _PARTS[:position])
    for position, (function, _) in enumerate(_PARTS)
}
"""First row of each function; SIGMOID uses those of TANH."""


def _float32_bits(x: float) -> int:
    """The nearest fp32, as its bits: x is positive and below the largest one."""
    exponent = max(math.frexp(x)[1] - 1, -126)
    return round(math.ldexp(x, 23 - exponent)) + (exponent + 126 << 23)


EXPONENTIALS: list[int] = [_float32_bits(math.exp(n)) for n in range(EXP_LEAST, EXP_MOST + 1)]
"""fp32 bits of e**n for n from EXP_LEAST to EXP_MOST."""
