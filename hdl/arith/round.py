"""The end of every floating-point pipeline: normalise, round, pack."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hdl.arith.format import FloatFormat
from hdl.arith.pipeline import register

_GROUP = 8  # Bits by which the first stage shifts; the second shifts by less.


class RoundPack(wiring.Component):
    """Rounds an exact result to nearest, ties to even, and packs it. One result a cycle.

    The result comes as a window of bits whose leading 1 may be anywhere; bits further down than
    the window are represented by their OR in its bit 0. The window is shifted left until its top
    bit is 1, but at most by `headroom`: then the number is subnormal. Because the caller places
    the window, no right shift is needed here.

    Parameters
    ----------
    format : FloatFormat
        Format of the result.
    window_bits : int
        Width of the window.

    Members
    -------
    window : In(window_bits)
        Magnitude of the result. All zero: the result is exactly zero.
    headroom : In(headroom_bits)
        Biased exponent of the window's top bit, minus 1.
    sign : In(1)
        Sign of the result if the window is not zero.
    zero_sign : In(1)
        Sign of the result if the window is zero.
    is_infinite, is_nan : In(1)
        The result is infinite with `sign`, or the canonical quiet NaN, whatever the window.
    o : Out(format.width)
        The number, `latency` cycles later. Overflow gives infinity.
    """

    latency = 2

    def __init__(self, format: FloatFormat, window_bits: int):
        self.format = format
        self.window_bits = window_bits
        headroom_bits = max(format.exponent_bits + 2, bits_for(format.bias + window_bits))
        super().__init__(
            {
                "window": In(window_bits),
                "headroom": In(headroom_bits),
                "sign": In(1),
                "zero_sign": In(1),
                "is_infinite": In(1),
                "is_nan": In(1),
                "o": Out(format.width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        precision = self.format.precision
        groups = -(-max(self.window_bits, precision + _GROUP) // _GROUP)
        width = groups * _GROUP

        # Stage 1: shift by whole groups. `skip` is the first group that holds a 1, or in which
        # the headroom ends.
        window = Signal(width)
        m.d.comb += window.eq(Cat(Const(0, width - self.window_bits), self.window))
        in_use = [
            window[width - _GROUP * (g + 1) : width - _GROUP * g].any() for g in range(groups)
        ]
        headroom_groups = self.headroom[3:]
        skip = Signal(range(groups))
        first = groups - 1
        for g in reversed(range(groups - 1)):
            first = Mux(in_use[g] | (headroom_groups == g), g, first)
        m.d.comb += skip.eq(first)
        shifted = window
        for k in reversed(range(len(skip))):
            distance = _GROUP << k
            if distance < width:
                shifted = Mux(skip[k], Cat(Const(0, distance), shifted[:-distance]), shifted)
        coarse = register(m, shifted, "coarse")
        room = register(m, (self.headroom - Cat(Const(0, 3), skip))[: len(self.headroom)], "room")
        at_limit = register(m, headroom_groups == skip, "at_limit")
        is_zero = register(m, ~self.window.any(), "is_zero")
        is_infinite = register(m, self.is_infinite, "is_infinite_1")
        is_nan = register(m, self.is_nan, "is_nan_1")
        sign = register(m, Mux(self.window.any(), self.sign, self.zero_sign), "sign_1")
        sign_infinite = register(m, self.sign, "sign_infinite")

        # Stage 2: shift by less than a group, round, pack.
        step = Signal(3)
        first = _GROUP - 1
        for j in reversed(range(_GROUP - 1)):
            first = Mux(coarse[width - 1 - j] | (at_limit & (room[:3] == j)), j, first)
        m.d.comb += step.eq(first)
        top = coarse[width - (precision + _GROUP) :]
        for k in reversed(range(3)):
            top = Mux(step[k], Cat(Const(0, 1 << k), top[: -(1 << k)]), top)
        fine = Signal(precision + _GROUP)
        m.d.comb += fine.eq(top)
        significand, guard = fine[_GROUP:], fine[_GROUP - 1]
        sticky = coarse[: width - (precision + _GROUP)].any() | fine[: _GROUP - 1].any()
        # The leading bit adds 1 to the exponent, so that it comes out as 0 for subnormals, and a
        # carry out of the significand moves on to the next exponent by itself.
        exponent = Signal(len(room))
        packed = Signal(len(room) + self.format.significand_bits)
        m.d.comb += [
            exponent.eq(room - step),
            packed.eq(
                Cat(Const(0, self.format.significand_bits), exponent)
                + significand
                + (guard & (sticky | significand[0]))
            ),
        ]
        overflow = packed[self.format.significand_bits :] >= (1 << self.format.exponent_bits) - 1
        magnitude = Signal(self.format.width - 1)
        m.d.comb += magnitude.eq(packed)
        with m.If(is_zero):
            m.d.comb += magnitude.eq(0)
        with m.Elif(overflow):
            m.d.comb += magnitude.eq(self.format.infinity)
        with m.If(is_nan):
            m.d.comb += magnitude.eq(self.format.quiet_nan)
        with m.Elif(is_infinite):
            m.d.comb += magnitude.eq(self.format.infinity)
        result_sign = ~is_nan & Mux(is_infinite, sign_infinite, sign)
        m.d.comb += self.o.eq(register(m, Cat(magnitude, result_sign), "result"))
        return m
