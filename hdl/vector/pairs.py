"""Sums and products of quantised bytes with the roundings of float32, in fixed point."""

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
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
    TERM_BITS,
    WINDOW_BITS,
)
from halfdome.hdl.vector.inplace import FixedToByte, below, last_is_odd, without
from halfdome.hdl.vector.unit import unit_members


def _placed(product: Value, high: Value) -> Value:
    """A product in the window."""
    return Mux(high, product << COARSE, product) << BELOW_RATIO


class PairLane(wiring.Component):
    """One ADD_QUANTISED or MULTIPLY_QUANTISED of bytes a cycle, as `halfdome.sim.golden.pairs`.

    In fixed point: of sums that are exact, the bits below the 24 that float32 keeps are found by
    the sum's leading bit, rounded off and cleared in place; no number is ever shifted by another.
    The last sum is rounded so, and then to an integer. Below 1/2 it need not be: all of that is 0.

    Members
    -------
    constants : In(`CONSTANTS`), constant while anything is inside
    a, b : In(8)
    term : Out(signed(TERM_BITS)), of an AVERAGE: what a stands for, `term_latency` cycles later
    o : Out(8), `latency` cycles later
    """

    latency = 9
    term_latency = 6

    def __init__(self):
        super().__init__(
            {
                "constants": In(CONSTANTS),
                "a": In(8),
                "b": In(8),
                "term": Out(signed(TERM_BITS)),
                "o": Out(8),
            }
        )

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
        low = below(m, total, WINDOW_BITS - 1 - FLOAT32.precision, "total")
        odd = register(m, low[0] & last_is_odd(total, low), "odd")
        low = register(m, low, "low")
        total = register(m, total, "total_5")
        rounded = Signal(signed(WINDOW_BITS))
        m.d.comb += rounded.eq(without(total + low[1:] + odd, low))
        rounded = register(m, rounded, "rounded")
        m.d.comb += self.term.eq(rounded[BELOW_RATIO:])

        # Cycle 7: the other product, or the zero point. Cycles 8 and 9: to a byte.
        addend = register(m, second[: len(first)].as_signed(), "addend", cycles=3)
        zero_point = self._decoded(constants.y_zero_point, constants.y_int8, 0)
        whole = Signal(signed(WINDOW_BITS))
        m.d.comb += whole.eq(
            rounded
            + Mux(multiplies, zero_point << FRACTION_BITS, _placed(addend, constants.outer.high))
        )
        m.submodules.to_byte = to_byte = FixedToByte(WINDOW_BITS, FRACTION_BITS)
        m.d.comb += [
            to_byte.i.eq(register(m, whole, "whole")),
            to_byte.is_int8.eq(constants.y_int8),
            self.o.eq(to_byte.o),
        ]
        return m

    def _decoded(self, byte, is_int8, zero_point):
        """The number that a byte stands for."""
        flip = is_int8 << 7
        return ((byte ^ flip) - (zero_point ^ flip))[:9].as_signed()


class BytePairs(wiring.Component):
    """`byte_lanes` elements of an ADD_QUANTISED or MULTIPLY_QUANTISED a cycle.

    Members
    -------
    *`unit_members()`, of `byte_lanes` bytes: a group leaves `latency` enabled cycles after it came
    second : In(8 * byte_lanes), comes with `i`; its first byte alone counts if b is BROADCAST
    constants : In(`CONSTANTS`), constant while anything is inside
    terms : Out(byte_lanes x signed(TERM_BITS)), of an AVERAGE: what the bytes of a group stand for,
        `term_latency` enabled cycles after it came, whatever `valid` was
    """

    latency = PairLane.latency
    term_latency = PairLane.term_latency

    def __init__(self, config: CardConfig):
        self._bytes = config.byte_lanes
        super().__init__(
            unit_members(self._bytes)
            | {
                "second": In(8 * self._bytes),
                "constants": In(CONSTANTS),
                "terms": Out(data.ArrayLayout(signed(TERM_BITS), self._bytes)),
            }
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
                self.terms[k].eq(lane.term),
                self.o.word_select(k, 8).eq(lane.o),
            ]
        return m
