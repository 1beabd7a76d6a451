"""Floating-point division."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FloatFormat, FloatView
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.arith.round import RoundPack

_STEP_BITS = 2
"""Quotient bits of one stage: two subtractions in a row."""


class FloatDiv(wiring.Component):
    """o = a / b, rounded to nearest, ties to even. One in `interval` cycles, no flow control.

    IEEE 754 with subnormals and infinities. Every NaN result is `format.quiet_nan`, 0 / 0 and
    inf / inf included; x / 0 is infinite.

    Long division, two bits of the quotient a stage. The quotient of two significands has its
    leading 1 in the first or second bit, so two bits more than the precision, and whether anything
    remains, are enough to round.

    Parameters
    ----------
    format : FloatFormat
        Format of operands and result.
    rounding_stages : int
        The `stages` of `RoundPack`.
    normal_divisor : bool
        `b` is never subnormal.
    in_turns : bool
        Steps of the division take turns at one stage: a fifth of the area, and an `interval` of
        more than one cycle.

    Members
    -------
    a, b : In(format.width)
        Operands.
    start : In(1), only `in_turns`
        Operands come: not before `interval` cycles after others.
    o : Out(format.width)
        The quotient, `latency` cycles later.
    """

    def __init__(
        self, format: FloatFormat, rounding_stages: int = 1, *, normal_divisor: bool = False,
        in_turns: bool = False,
    ):  # fmt: skip
        self.format = format
        self._normal_divisor = normal_divisor
        self._rounding_stages = rounding_stages
        self._in_turns = in_turns
        self._stages = -(-(format.precision + 2) // _STEP_BITS)
        #: Cycles from operands to result.
        self.latency = 1 + self._stages + 1 + 1 + rounding_stages
        #: Cycles from operands to the next.
        self.interval = 1 + self._stages if in_turns else 1
        members = {"a": In(format.width), "b": In(format.width), "o": Out(format.width)}
        super().__init__(members | ({"start": In(1)} if in_turns else {}))

    def elaborate(self, platform):
        m = Module()
        precision = self.format.precision
        quotient_bits = self._stages * _STEP_BITS
        # Below the quotient there is room to move it down by a whole significand, for subnormals;
        # the two zeros above it allow for an exponent of -1.
        window_bits = 2 + quotient_bits + 1 + precision
        m.submodules.round = round = RoundPack(self.format, window_bits, self._rounding_stages)

        # Stage 1: decode and normalise. `scale` is the biased exponent of the first quotient bit.
        a, b = self.format.layout(self.a), self.format.layout(self.b)
        a_normal, a_scale = self._normalised(m, a, "a")
        b_normal, b_scale = b.significand, b.scale
        if not self._normal_divisor:
            b_normal, b_scale = self._normalised(m, b, "b")
        scale = Signal(signed(self.format.exponent_bits + 3))
        m.d.comb += scale.eq(a_scale - b_scale + self.format.bias)
        invalid = (a.is_zero & b.is_zero) | (a.is_infinite & b.is_infinite)
        about = Cat(
            scale, a.sign ^ b.sign, a.is_infinite | b.is_zero, a.is_nan | b.is_nan | invalid
        )
        if self._in_turns:
            kept = Signal.like(about)
            with m.If(self.start):
                m.d.sync += kept.eq(about)
        else:
            kept = register(m, about, "about", cycles=1 + self._stages)
        scale_1 = kept[: len(scale)].as_signed()
        sign, infinite, is_nan = register(m, kept[len(scale) :], "specials")

        # Stages 2 and on: remainder and divisor, first bit of the quotient first.
        dividend = Mux(b.is_infinite, 0, a_normal)
        divide = self._in_turn if self._in_turns else self._in_stages
        quotient, remainder = divide(m, dividend, b_normal)

        # Last stage before rounding: place the quotient, see `FloatMul`.
        exact = Cat(remainder.any(), quotient)
        low = Signal()
        down = Signal(signed(len(scale) + 1))
        headroom = Signal(len(round.headroom))
        window = Signal(window_bits)
        m.d.comb += [
            low.eq(scale_1 < -1),
            down.eq(scale_1 + (precision + 1)),
            headroom.eq(Mux(low, Mux(down < 0, 0, down), scale_1 + 1)),
            window.eq(Mux(low, exact, Cat(Const(0, precision), exact))),
        ]
        m.d.comb += [
            round.window.eq(register(m, window, "window")),
            round.headroom.eq(register(m, headroom, "headroom")),
            round.sign.eq(sign),
            round.zero_sign.eq(sign),
            round.is_infinite.eq(infinite),
            round.is_nan.eq(is_nan),
            self.o.eq(round.o),
        ]
        return m

    def _in_stages(self, m: Module, dividend: Value, divisor: Value) -> tuple[Value, Value]:
        """Quotient and remainder, `self._stages` cycles after the next one."""
        remainder: Value = register(m, dividend, "remainder_0")
        divisor = register(m, divisor, "divisor_0")
        quotient: Value = Const(0, 0)
        for stage in range(1, self._stages + 1):
            quotient, remainder = self._step(m, quotient, remainder, divisor, f"rest_{stage}")
            quotient = register(m, quotient, f"quotient_{stage}")
            remainder = register(m, remainder, f"remainder_{stage}")
            if stage < self._stages:
                divisor = register(m, divisor, f"divisor_{stage}")
        return quotient, remainder

    def _in_turn(self, m: Module, dividend: Value, divisor: Value) -> tuple[Value, Value]:
        """The same by one stage, of what came with `start`."""
        remainder = Signal(self.format.precision + 1)
        kept = Signal(self.format.precision)
        quotient = Signal(self._stages * _STEP_BITS)
        longer, rest = self._step(m, quotient, remainder, kept, "rest")
        m.d.sync += [quotient.eq(longer), remainder.eq(rest)]
        with m.If(self.start):
            m.d.sync += [remainder.eq(dividend), kept.eq(divisor)]
        return quotient, remainder

    def _step(
        self, m: Module, quotient: Value, remainder: Value, divisor: Value, name: str
    ) -> tuple[Value, Value]:
        """More bits of the quotient, and what remains."""
        precision = self.format.precision
        for step in range(_STEP_BITS):
            rest = Signal(precision + 2, name=f"{name}_{step}")
            m.d.comb += rest.eq(remainder - divisor)
            fits = ~rest[-1]
            quotient = Cat(fits, quotient)
            remainder = Cat(0, Mux(fits, rest[:precision], remainder[:precision]))
        return quotient, remainder

    def _normalised(self, m: Module, x: FloatView, name: str) -> tuple[Value, Value]:
        """The significand of `x` with its leading 1 on top, and the biased exponent of that bit."""
        precision = self.format.precision
        value: Value = x.significand
        steps = []
        for k in reversed(range((precision - 1).bit_length())):
            distance = 1 << k
            empty = Signal(name=f"{name}_empty_{k}")
            moved = Signal(precision, name=f"{name}_moved_{k}")
            m.d.comb += [
                empty.eq(~value[-distance:].any()),
                moved.eq(Mux(empty, value << distance, value)),
            ]
            value = moved
            steps.insert(0, empty)
        return value, x.scale - Cat(steps)
