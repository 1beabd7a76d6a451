"""fp32 divided by a scale, to uint8: the quotient is rounded to fp32, then to a whole number.

Only whole numbers near 0..255 are told apart, so the long division gives ten bits: the quotient
down to its half. Whether it is exactly a half, after it was rounded to fp32, the remainder says.
"""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register

_PRECISION = FLOAT32.precision
_WHOLE_BITS = 9
"""A quotient of 2**8 or more saturates; below, the exponents differ by 8 at the most."""
_STEPS = _WHOLE_BITS + 1
_STEPS_A_STAGE = 2


class QuotientToByte(wiring.Component):
    """o = saturate(round(i / scale) + zero_point). One in `interval` cycles, no flow control.

    The quotient is rounded to fp32, then to an integer, both to nearest, ties to even; the sum
    saturates to 0..255. Infinities saturate, NaN gives 0.

    Parameters
    ----------
    in_turns : bool
        Steps of the division take turns at one stage, and `interval` is more than one cycle.

    Members
    -------
    start : In(1), only `in_turns`
        A number comes: not before `interval` cycles after another.
    i : In(32)
        The number, fp32.
    scale : In(32)
        Positive and normal; constant while anything is inside.
    zero_point : In(8)
        The output that stands for zero; constant while anything is inside.
    o : Out(8)
        The result, `latency` cycles later.
    """

    latency = 1 + _STEPS // _STEPS_A_STAGE + 3

    def __init__(self, *, in_turns: bool = False):
        self._in_turns = in_turns
        #: Cycles from a number to the next.
        self.interval = 1 + _STEPS // _STEPS_A_STAGE if in_turns else 1
        members = {"i": In(32), "scale": In(32), "zero_point": In(8), "o": Out(8)}
        super().__init__(members | ({"start": In(1)} if in_turns else {}))

    def elaborate(self, platform):
        m = Module()
        i, scale = FLOAT32.layout(self.i), FLOAT32.layout(self.scale)
        divisor = scale.significand

        # Stage 1: the exponents' difference, plus 1 as the first bit of the quotient is a half.
        shift = Signal(signed(FLOAT32.exponent_bits + 2))
        m.d.comb += shift.eq(i.scale - scale.scale + 1)
        below, above = shift < 0, shift > _WHOLE_BITS
        places = Mux(below, 0, shift)[: _STEPS.bit_length()]
        dividend = Mux(below, 0, i.significand)
        stages = _STEPS // _STEPS_A_STAGE
        beyond = register(m, above | i.is_infinite, "beyond", cycles=stages + 3)
        is_nan = register(m, i.is_nan, "is_nan", cycles=stages + 3)
        sign = register(m, i.sign, "sign", cycles=stages + 3)

        divide = self._in_turn if self._in_turns else self._in_stages
        quotient, remainder = divide(m, places, dividend, divisor)

        # The quotient is whole + half / 2 + remainder / (2 * divisor). As fp32 it is half a whole
        # number if it is no further from that than half a step, which is `step` remainders.
        half, whole = quotient[0], quotient[1:]
        step = Signal(_WHOLE_BITS)
        for bit in range(_WHOLE_BITS):  # the last assignment wins: the highest bit
            with m.If(whole[bit]):
                m.d.comb += step.eq(divisor[_PRECISION - 1 - bit :])
        step_1 = register(m, step, "step")
        over = register(m, remainder[:_PRECISION], "over")
        under = register(m, (divisor - remainder)[: _PRECISION + 1], "under")
        half_1, whole_1 = register(m, half, "half"), register(m, whole, "whole")

        # A half goes to the even neighbour.
        odd = whole_1[0]
        up = Mux(half_1, odd | (over > step_1), odd & (under <= step_1))
        magnitude = register(m, whole_1 + up, "magnitude")

        total = Signal(signed(_WHOLE_BITS + 3))
        result = Signal(8)
        m.d.comb += total.eq(self.zero_point + Mux(sign, -magnitude, magnitude))
        with m.If(is_nan):
            m.d.comb += result.eq(0)
        with m.Elif(beyond):
            m.d.comb += result.eq((~sign).replicate(8))
        with m.Else():
            m.d.comb += result.eq(Mux(total < 0, 0, Mux(total > 255, 255, total)))
        m.d.comb += self.o.eq(register(m, result, "result"))
        return m

    def _in_stages(self, m: Module, places: Value, remainder: Value, divisor: Value):
        """Long division from the highest bit that the exponents leave: quotient and remainder."""
        places, remainder = register(m, places, "places"), register(m, remainder, "remainder_0")
        quotient: Value = Const(0, 0)
        stages = _STEPS // _STEPS_A_STAGE
        for stage in range(1, stages + 1):
            place = Const(_STEPS - 1 - (stage - 1) * _STEPS_A_STAGE, range(_STEPS))
            quotient, remainder = _divided(
                m, quotient, remainder, divisor, places, place, f"rest_{stage}"
            )
            quotient = register(m, quotient, f"quotient_{stage}")
            remainder = register(m, remainder, f"remainder_{stage}")
            if stage < stages:
                places = register(m, places, f"places_{stage}")
        return quotient, remainder

    def _in_turn(self, m: Module, places: Value, dividend: Value, divisor: Value):
        """The same by one stage, of what came with `start`."""
        kept, place = Signal.like(places), Signal(range(_STEPS))
        quotient, remainder = Signal(_STEPS), Signal(_PRECISION + 1)
        longer, rest = _divided(m, quotient, remainder, divisor, kept, place, "rest")
        m.d.sync += [
            quotient.eq(longer), remainder.eq(rest), place.eq(place - _STEPS_A_STAGE),
        ]  # fmt: skip
        with m.If(self.start):
            m.d.sync += [kept.eq(places), remainder.eq(dividend), place.eq(_STEPS - 1)]
        return quotient, remainder


def _divided(
    m: Module, quotient: Value, remainder: Value, divisor: Value, places: Value, place: Value,
    name: str,
) -> tuple[Value, Value]:  # fmt: skip
    """More bits of a quotient from bit `place` on, and what remains, below twice the divisor; bits
    from `places` on are zero."""
    for step in range(_STEPS_A_STAGE):
        rest = Signal(_PRECISION + 2, name=f"{name}_{step}")
        m.d.comb += rest.eq(remainder - divisor)
        reached = places >= place - step
        fits = reached & ~rest[-1]
        left = Mux(fits, rest[: _PRECISION + 1], remainder)
        quotient = Cat(fits, quotient)
        remainder = Mux(reached & (place != step), left << 1, left)[: _PRECISION + 1]
    return quotient, remainder
