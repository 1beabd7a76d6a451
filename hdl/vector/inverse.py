"""Division by multiplication: the rounded product with an inverse is the rounded quotient.

A significand over a divisor of `d` bits is never half way between two others: what it is off is a
whole number over twice the divisor, in units of the last place, and not 0. So an inverse of
`24 + d + 2` bits, rounded down, is near enough that no product lies on another side of a half than
the quotient, and none on it; whether something is left below it does not matter.
"""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import multiply, register

_BITS = FLOAT32.precision
QUOTIENT_CYCLES = 3


def inverse_bits(divisor_bits: int) -> int:
    """Bits of the inverse of a divisor of so many; the highest is a one."""
    return _BITS + divisor_bits + 2


def inverse_of(divisor: int, divisor_bits: int) -> tuple[int, int]:
    """The inverse, and the exponent of the least power of two that is not below the divisor: what
    the inverse is less than, in powers of two."""
    exponent = ceil_log2(divisor)
    return (1 << inverse_bits(divisor_bits) - 1 + exponent) // divisor, exponent


def quotient(m: Module, a: Value, inverse: Value, name: str) -> tuple[Value, Value]:
    """A significand over a divisor, whose inverse comes with it, as a significand and an exponent:
    0, 1 or 2, less the divisor's. Both have a leading one. `QUOTIENT_CYCLES` later."""
    product = multiply(m, a, inverse, f"{name}_product", cycles=QUOTIENT_CYCLES - 1)
    high = product[-1]
    top = Mux(high, product[-_BITS - 1 :], product[-_BITS - 2 : -1])  # and a bit to round by
    rounded, steps = Signal(_BITS + 1, name=f"{name}_rounded"), Signal(2, name=f"{name}_steps")
    over = rounded[-1]  # all other bits are zeros then
    m.d.comb += [rounded.eq(top[1:] + top[0]), steps.eq(high + over)]
    significand = Cat(rounded[: _BITS - 1], 1)
    return register(m, significand, name), register(m, steps, f"{name}_exponent")


class Inverse(wiring.Component):
    """The inverse of a significand, a bit a cycle.

    Members
    -------
    start : In(1), takes `divisor`
    divisor : In(24), its highest bit is a one
    o : Out(`inverse_bits(24)`), as `inverse_of`, when `known`
    is_power : Out(1), the divisor is a power of two: its exponent is 23, of all others 24
    known : Out(1), from `latency` cycles after `start` to the next
    """

    latency = 1 + inverse_bits(_BITS)

    def __init__(self):
        super().__init__(
            {
                "start": In(1),
                "divisor": In(_BITS),
                "o": Out(inverse_bits(_BITS)),
                "is_power": Out(1),
                "known": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        divisor, remainder = Signal(_BITS), Signal(_BITS + 1)
        rest = Signal(_BITS + 2)
        left = Signal(range(self.latency))
        fits = ~rest[-1]
        is_power = ~self.divisor[: _BITS - 1].any()
        m.d.comb += [rest.eq(remainder - divisor), self.known.eq(left == 0)]
        with m.If(~self.known):
            m.d.sync += [
                left.eq(left - 1),
                self.o.eq(Cat(fits, self.o)),
                remainder.eq(Mux(fits, rest, remainder) << 1),
            ]
        with m.If(self.start):
            m.d.sync += [
                left.eq(self.latency - 1),
                divisor.eq(self.divisor),
                self.is_power.eq(is_power),
                remainder.eq(Mux(is_power, 1 << _BITS - 1, 1 << _BITS)),
            ]
        return m
