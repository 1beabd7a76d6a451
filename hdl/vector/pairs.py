"""Sums and products of quantised bytes with the roundings of float32, in fixed point."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.once import EnableInserter, Once
from halfdome.hdl.vector.fixed import (
    BELOW_RATIO,
    COARSE,
    CONSTANTS,
    FRACTION_BITS,
    WINDOW_BITS,
)
from halfdome.hdl.vector.unit import unit_members

_BITS = FLOAT32.precision


def _placed(product: Value, high: Value) -> Value:
    """A product in the window."""
    return Mux(high, product << COARSE, product) << BELOW_RATIO


def _below(m: Module, x: Value, count: int, name: str) -> Signal:
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
    below = Signal(count, name=f"{name}_below")
    m.d.comb += below.eq(ones)
    return below


def _without(x: Value, below: Value) -> Value:
    """`x`, cleared there."""
    return x & ~Cat(below, 0).as_signed()


def _last_is_odd(x: Value, below: Value) -> Value:
    """Whether the lowest bit that is kept is a one."""
    last = Cat(1, below) & ~Cat(below, 0)
    return (x[: len(below) + 1] & last).any()


class PairLane(wiring.Component):
    """One ADD_QUANTISED or MULTIPLY_QUANTISED of bytes a cycle, as `halfdome.sim.golden.pairs`.

    In fixed point: of sums that are exact, the bits below the 24 that float32 keeps are found by
    the sum's leading bit, rounded off and cleared in place; no number is ever shifted by another.
    The last sum is rounded so, and then to an integer. Below 1/2 it need not be: all of that is 0.

    Members
    -------
    constants : In(`CONSTANTS`), constant while anything is inside
    a, b : In(8)
    o : Out(8), `latency` cycles later
    """

    latency = 9

    def __init__(self):
        super().__init__({"constants": In(CONSTANTS), "a": In(8), "b": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        constants = self.constants
        multiplies = constants.multiplies

        # Cycle 1: numbers of 9 bits. Cycles 2 and 3: both products, the second one of the first.
        a = self._decoded(self.a, constants.a_int8, constants.a_zero_point)
        b = self._decoded(self.b, constants.b_int8, constants.b_zero_point)
        inner = register(m, Mux(constants.inner_a, a, b), "inner")
        outer = register(m, Mux(constants.inner_a, b, a), "outer")
        outer_2 = register(m, outer, "outer_2")
        first = register(m, inner * Mux(multiplies, outer, constants.inner.value), "first")
        left = Signal(signed(18))
        m.d.comb += left.eq(Mux(multiplies, first, outer_2))
        first_3 = register(m, first, "first_3")
        second = register(m, left * constants.outer.value, "second")

        # Cycle 4: what is rounded to float32 first. Cycles 5 and 6: rounded.
        total = Signal(signed(WINDOW_BITS))
        m.d.comb += total.eq(
            _placed(
                Mux(multiplies, second, first_3),
                Mux(multiplies, constants.outer.high, constants.inner.high),
            )
            + Mux(multiplies, 0, constants.offset)
        )
        total = register(m, total, "total")
        below = _below(m, total, WINDOW_BITS - 1 - _BITS, "total")
        odd = register(m, below[0] & _last_is_odd(total, below), "odd")
        below = register(m, below, "below")
        total = register(m, total, "total_5")
        rounded = Signal(signed(WINDOW_BITS))
        m.d.comb += rounded.eq(_without(total + below[1:] + odd, below))
        rounded = register(m, rounded, "rounded")

        # Cycle 7: the other product, or the zero point.
        addend = register(m, second[: len(first)].as_signed(), "addend", cycles=3)
        zero_point = self._decoded(constants.y_zero_point, constants.y_int8, 0)
        whole = Signal(signed(WINDOW_BITS))
        m.d.comb += whole.eq(
            rounded
            + Mux(multiplies, zero_point << FRACTION_BITS, _placed(addend, constants.outer.high))
        )
        self._finish(m, register(m, whole, "whole"))
        return m

    def _decoded(self, byte, is_int8, zero_point):
        """The number that a byte stands for."""
        flip = is_int8 << 7
        return ((byte ^ flip) - (zero_point ^ flip))[:9].as_signed()

    def _finish(self, m, whole):
        """Cycle 8: rounded to float32, as far as what is above 1/2. Cycle 9: to a byte."""
        kept = _BITS + 1  # fraction bits of 1/2 and the one to round by
        dropped = FRACTION_BITS - kept
        x = whole[dropped:].as_signed()
        below = _below(m, x, 10, "whole")  # up to 2**8; what is beyond is cut off
        below = Cat(1, below[1:])
        up = _last_is_odd(x, below) | whole[:dropped].any()
        rounded = Signal(signed(len(x) + 1))
        m.d.comb += rounded.eq(_without(x + below[1:] + up, below))
        rounded = register(m, rounded, "final")

        integer = rounded[kept:].as_signed()
        half, rest = rounded[kept - 1], rounded[: kept - 1].any()
        offset = self.constants.y_int8 << 7
        total = Signal(signed(len(integer) + 1))
        m.d.comb += total.eq(integer + (half & (rest | integer[0])) + offset)
        byte = Mux(total[-1], 0, Mux(total[8:-1].any(), 255, total[:8]))
        m.d.comb += self.o.eq(register(m, byte ^ offset, "byte"))


class BytePairs(wiring.Component):
    """`byte_lanes` elements of an ADD_QUANTISED or MULTIPLY_QUANTISED a cycle.

    Members
    -------
    *`unit_members()`, of `byte_lanes` bytes: a group leaves `latency` enabled cycles after it came
    second : In(8 * byte_lanes), comes with `i`; its first byte alone counts if b is BROADCAST
    constants : In(`CONSTANTS`), constant while anything is inside
    """

    latency = PairLane.latency

    def __init__(self, config: CardConfig):
        self._bytes = config.byte_lanes
        super().__init__(
            unit_members(self._bytes) | {"second": In(8 * self._bytes), "constants": In(CONSTANTS)}
        )

    def elaborate(self, platform):
        m = Module()
        leaves = self.valid
        with m.If(self.enable):
            for cycle in range(self.latency):
                late = Signal(name=f"leaves_{cycle}")
                m.d.sync += late.eq(leaves)
                leaves = late
        m.d.comb += self.o_valid.eq(leaves)
        for k in range(self._bytes):
            lane = PairLane()
            m.submodules[f"lane_{k}"] = EnableInserter(self.enable)(Once(lane))
            b = self.second.word_select(k, 8)
            m.d.comb += [
                lane.constants.eq(self.constants),
                lane.a.eq(self.i.word_select(k, 8)),
                lane.b.eq(Mux(self.constants.broadcast, self.second[:8], b)),
                self.o.word_select(k, 8).eq(lane.o),
            ]
        return m
