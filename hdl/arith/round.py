"""The end of every floating-point pipeline: normalise, round, pack."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from halfdome.hdl.arith.format import FloatFormat
from halfdome.hdl.arith.pipeline import register

_GROUP = 8  # Bits by which the first stage shifts; the second shifts by less.


def _shift_left(m, window, distance, shifts, keep, name):
    """The top `keep` bits, or all if there are no more, of `window` shifted left by `distance` if
    it `shifts`; and whether any of the others, at most `distance`, is set."""
    dropped = max(0, len(window) - keep)
    shifted = Signal(len(window) - dropped, name=f"{name}_window")
    m.d.comb += shifted.eq(
        Mux(shifts, Cat(Const(0, distance), window[:-distance])[dropped:], window[dropped:])
    )
    return shifted, ~shifts & window[:dropped].any()


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
    stages : int
        Cycles from the window in whole groups to the packed number: 1, or 2 for a faster clock.

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

    def __init__(self, format: FloatFormat, window_bits: int, stages: int = 1):
        self.latency = 1 + stages
        self._stages = stages
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

        # Stage 1: shift by whole groups. The one bit of `limit` moves along with the window and
        # marks the group in which the headroom ends: that one must not leave at the top.
        window = Signal(width)
        limit = Signal(groups)
        m.d.comb += [
            window.eq(Cat(Const(0, width - self.window_bits), self.window)),
            limit.eq(Const(1 << groups - 1, groups) >> self.headroom[3:]),
        ]
        skip = Signal(range(groups))
        dropped = []
        for k in reversed(range(len(skip))):
            count, skipped = 1 << k, Signal(name=f"group_{k}_skipped")
            bits = count * _GROUP
            m.d.comb += skipped.eq(~(window[-bits:].any() | limit[-count:].any()))
            keep = precision + bits  # what the next shifts may still bring to the top
            window, below = _shift_left(m, window, bits, skipped, keep, f"group_{k}")
            dropped.append(below)
            moved = Signal(groups, name=f"group_{k}_limit")
            m.d.comb += moved.eq(Mux(skipped, limit << count, limit))
            limit = moved
            m.d.comb += skip[k].eq(skipped)
        coarse = register(m, window, "coarse")
        below_1 = register(m, Cat(dropped).any(), "below_1")
        room = register(m, (self.headroom - Cat(Const(0, 3), skip))[: len(self.headroom)], "room")
        at_limit = register(m, limit[-1], "at_limit")
        is_zero = ~self.window.any()
        special = self.is_nan | self.is_infinite
        special_1 = register(m, special, "special")
        is_nan_1 = register(m, self.is_nan, "is_nan_1")
        is_zero_1 = register(m, is_zero & ~special, "is_zero_1")
        sign = Mux(is_zero & ~self.is_infinite, self.zero_sign, self.sign) & ~self.is_nan
        sign_1 = register(m, sign, "sign_1")

        # Stage 2: shift by less than a group, round, pack.
        lead = Signal(_GROUP)
        half = Signal(4)
        pair = Signal(2)
        step = Signal(3)
        last = Mux(at_limit, Const(1 << _GROUP - 1, _GROUP) >> room[:3], 0)
        m.d.comb += [
            lead.eq(coarse[-_GROUP:] | last),
            half.eq(Mux(lead[4:].any(), lead[4:], lead[:4])),
            pair.eq(Mux(half[2:].any(), half[2:], half[:2])),
            step.eq(Cat(~pair[1], ~half[2:].any(), ~lead[4:].any())),
        ]
        top, dropped = coarse, [below_1]
        for k in reversed(range(3)):
            keep = precision + (1 << k)
            top, below = _shift_left(m, top, 1 << k, step[k], keep, f"step_{k}")
            dropped.append(below)
        exponent = Signal(len(room))
        m.d.comb += exponent.eq(room - step)

        # Here `stages` of 2 cut the way.
        cut = self._stages - 1
        fine = register(m, top, "fine", cycles=cut)
        below = register(m, Cat(dropped).any(), "below", cycles=cut)
        exponent = register(m, exponent, "exponent", cycles=cut)
        special_2 = register(m, special_1, "special_2", cycles=cut)
        is_nan_2 = register(m, is_nan_1, "is_nan_2", cycles=cut)
        is_zero_2 = register(m, is_zero_1, "is_zero_2", cycles=cut)
        sign_2 = register(m, sign_1, "sign_2", cycles=cut)
        significand, guard = fine[1:], fine[0]
        # The leading bit adds 1 to the exponent, so that it comes out as 0 for subnormals, and a
        # carry out of the significand moves on to the next exponent by itself.
        packed = Signal(len(room) + self.format.significand_bits)
        m.d.comb += packed.eq(
            Cat(Const(0, self.format.significand_bits), exponent)
            + significand
            + (guard & (below | significand[0]))
        )
        overflow = packed[self.format.significand_bits :] >= (1 << self.format.exponent_bits) - 1
        magnitude = Signal(self.format.width - 1)
        with m.If(is_zero_2):
            m.d.comb += magnitude.eq(0)
        with m.Elif(special_2 | overflow):
            m.d.comb += magnitude.eq(
                self.format.infinity | is_nan_2 << self.format.significand_bits - 1
            )
        with m.Else():
            m.d.comb += magnitude.eq(packed)
        m.d.comb += self.o.eq(register(m, Cat(magnitude, sign_2), "result"))
        return m
