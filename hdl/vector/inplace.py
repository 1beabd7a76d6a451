"""Rounding fixed-point numbers as float32 rounds, in place: no number is shifted by another."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register

_BITS = FLOAT32.precision
_KEPT = _BITS + 1
"""Fraction bits of 1/2 and the one to round by."""


def below(m: Module, x: Value, count: int, name: str) -> Signal:
    """Which of the lowest `count` bits lie below the 24 that float32 keeps of `x`: ones from bit 0.

    Of a negative number, too: between it and its complement there is no power of two.
    """
    magnitude = Signal(len(x) - 1, name=f"{name}_magnitude")
    m.d.comb += magnitude.eq(x[:-1] ^ x[-1].replicate(len(x) - 1))
    ones = magnitude[_BITS:]
    distance = 1
    while distance < len(ones):
        ones = ones | (ones >> distance)
        distance *= 2
    low = Signal(count, name=f"{name}_below")
    m.d.comb += low.eq(ones)
    return low


def without(x: Value, low: Value) -> Value:
    """`x`, cleared where `low` has ones."""
    return x & ~Cat(low, 0).as_signed()


def last_is_odd(x: Value, low: Value) -> Value:
    """Whether the lowest bit that is kept is a one."""
    last = Cat(1, low) & ~Cat(low, 0)
    return (x[: len(low) + 1] & last).any()


class FixedToByte(wiring.Component):
    """o = saturate(round(float32(i))) of a fixed-point number, both roundings to even.

    Below 1/2 nothing is rounded to float32: all of that is 0. From 2**8 on everything saturates.

    Parameters
    ----------
    width, fraction_bits : int
        Of the number; at least 25 fraction bits.

    Members
    -------
    i : In(signed(width))
    is_int8 : In(1), o is int8, not uint8; constant while anything is inside
    o : Out(8), `latency` cycles later
    """

    latency = 2

    def __init__(self, width: int, fraction_bits: int):
        self._fraction_bits = fraction_bits
        super().__init__({"i": In(signed(width)), "is_int8": In(1), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        dropped = self._fraction_bits - _KEPT
        x = self.i[dropped:].as_signed()
        low = below(m, x, 10, "number")  # up to 2**8
        low = Cat(1, low[1:])
        up = last_is_odd(x, low) | self.i[:dropped].any()
        rounded = Signal(signed(len(x) + 1))
        m.d.comb += rounded.eq(without(x + low[1:] + up, low))
        rounded = register(m, rounded, "rounded")

        integer = rounded[_KEPT:].as_signed()
        half, rest = rounded[_KEPT - 1], rounded[: _KEPT - 1].any()
        offset = self.is_int8 << 7
        total = Signal(signed(len(integer) + 1))
        m.d.comb += total.eq(integer + (half & (rest | integer[0])) + offset)
        byte = Mux(total[-1], 0, Mux(total[8:-1].any(), 255, total[:8]))
        m.d.comb += self.o.eq(register(m, byte ^ offset, "byte"))
        return m
