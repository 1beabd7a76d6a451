"""From sums over windows to the bytes of their means."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.commands import MOST_AVERAGED
from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.params import PARAM_BYTES
from halfdome.hdl.once import Once
from halfdome.hdl.vector.cutter import TotalCutter, join
from halfdome.hdl.vector.fixed import TERM_BITS
from halfdome.hdl.vector.inplace import FixedToByte
from halfdome.hdl.vector.inverse import (
    QUOTIENT_CYCLES,
    inverse_bits,
    inverse_of,
    quotient,
)

COUNT_BITS = MOST_AVERAGED.bit_length()
TOTAL_BITS = TERM_BITS + COUNT_BITS
"""Of a signed sum of terms, in units of the last place of x's scale."""
_PRECISION = FLOAT32.precision
_FRACTION_BITS = _PRECISION + 1
"""Of a quotient from 1/4 on, all bits. A smaller one is as good as 0."""
_WHOLE_BITS = 9
"""From 2**9 on nothing but saturates, whatever the zero point."""
EXPONENT_BITS = 10
"""Of a place in fixed point, whatever the scales are."""

INVERSE = data.StructLayout(
    {"inverse": inverse_bits(COUNT_BITS), "exponent": range(COUNT_BITS + 1)}
)
"""Of a number of taps, as `inverse_of`."""


class _MeanLane(wiring.Component):
    """A total over two divisors, and a zero point, as a byte: rounded to float32 after each step.

    Members
    -------
    total : In(signed(TOTAL_BITS)), of 24 bits and zeros below
    inverse, exponent : In, `divisor_delay` cycles later: the first divisor's inverse, and how far
        left a quotient goes in fixed point if the total's highest bit was a one
    y_inverse : In, the other divisor's, constant while anything is inside
    zero_point : In(signed(9)), is_int8 : In(1), likewise
    o : Out(8), `latency` cycles after the total
    """

    divisor_delay = 3
    latency = divisor_delay + 2 * QUOTIENT_CYCLES + 2 + FixedToByte.latency

    def __init__(self):
        super().__init__(
            {
                "total": In(signed(TOTAL_BITS)),
                "inverse": In(inverse_bits(COUNT_BITS)),
                "exponent": In(signed(EXPONENT_BITS)),
                "y_inverse": In(inverse_bits(_PRECISION)),
                "zero_point": In(signed(9)),
                "is_int8": In(1),
                "o": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Cycle 1: the magnitude. Cycles 2 and 3: its leading one is brought to the top.
        sign = self.total[-1]
        magnitude = Signal(TOTAL_BITS - 1)
        m.d.comb += magnitude.eq(Mux(sign, -self.total, self.total))
        value = register(m, magnitude, "magnitude_1")
        value, coarse = self._lift(m, value, (32, 16, 8), "coarse")
        value, fine = self._lift(m, value[-_PRECISION - 7 :], (4, 2, 1), "fine")
        lifted = Cat(fine, register(m, coarse, "coarse_2"))
        significand = value[-_PRECISION:]

        # Two quotients: significands, and the exponent of what they stand for.
        mean, mean_steps = quotient(m, significand, self.inverse, "mean")
        scaled, scaled_steps = quotient(m, mean, self.y_inverse, "scaled")
        start = Signal(signed(EXPONENT_BITS))
        place = Signal(signed(EXPONENT_BITS))
        m.d.comb += [
            start.eq(self.exponent - lifted),
            place.eq(
                register(m, start, "start", cycles=2 * QUOTIENT_CYCLES)
                + register(m, mean_steps, "mean_steps", cycles=QUOTIENT_CYCLES)
                + scaled_steps
            ),
        ]
        is_zero = register(m, ~significand[-1], "is_zero", cycles=2 * QUOTIENT_CYCLES)
        sign = register(m, sign, "sign", cycles=self.divisor_delay + 2 * QUOTIENT_CYCLES + 1)

        # In fixed point, then with the zero point, then a byte.
        least_over = _WHOLE_BITS + _FRACTION_BITS
        fixed = Signal(least_over + 1)
        with m.If(~is_zero & (place > least_over - _PRECISION)):
            m.d.comb += fixed.eq(1 << least_over)
        with m.Elif(~is_zero & (place >= 0)):
            m.d.comb += fixed.eq(scaled << place[: (least_over - _PRECISION).bit_length()])
        fixed = register(m, fixed, "fixed_1")
        whole = Signal(signed(least_over + 3))
        m.d.comb += whole.eq(Mux(sign, -fixed, fixed) + (self.zero_point << _FRACTION_BITS))
        m.submodules.to_byte = to_byte = FixedToByte(len(whole), _FRACTION_BITS)
        m.d.comb += [
            to_byte.i.eq(register(m, whole, "whole_1")),
            to_byte.is_int8.eq(self.is_int8),
            self.o.eq(to_byte.o),
        ]
        return m

    def _lift(self, m: Module, value: Value, distances: tuple[int, ...], name: str):
        """Shifted left by each distance at whose top are zeros only; which those were, lowest
        first. In the next cycle."""
        lifted = Signal(len(distances), name=f"{name}_lifted")
        for place, distance in enumerate(distances):
            empty = Signal(name=f"{name}_empty_{distance}")
            moved = Signal(len(value), name=f"{name}_moved_{distance}")
            m.d.comb += [
                empty.eq(~value[-distance:].any()),
                moved.eq(Mux(empty, value << distance, value)),
                lifted[len(distances) - 1 - place].eq(empty),
            ]
            value = moved
        return register(m, value, name), register(m, lifted, f"{name}_steps")


class MeanScaler(wiring.Component):
    """Makes means of groups of sums, as many a cycle as a word holds parameters of a DEPTHWISE, or
    fewer if a group is smaller.

    Members
    -------
    y_inverse : In, of the significand of y's scale
    exponent : In(signed(EXPONENT_BITS)), of x's scale less that of y's and of the inverse
    ready : In(1), both are there. They and the others below are constant while groups come
    zero_point : In(signed(9)), is_int8 : In(1), of the bytes
    i : In(byte_lanes x signed(TOTAL_BITS)), a group of sums if `valid`; only into `room`
    count : In(COUNT_BITS), of how many terms each is
    taken : Out(1), a group has made room for another
    busy : Out(1), a group waits or is being taken
    o : Out(8 * byte_lanes), with `o_valid`: `latency` cycles after a group that waits for no other

    A group takes `parts` cycles.
    """

    def __init__(self, config: CardConfig):
        self._bytes = config.byte_lanes
        self._columns = min(config.bus_bytes // PARAM_BYTES, self._bytes)
        self._cutter = TotalCutter(
            TOTAL_BITS, totals=self._bytes, columns=self._columns, room=2 * config.burst_words,
            tag=data.StructLayout({"count": COUNT_BITS}),
        )  # fmt: skip
        self.room, self.parts = self._cutter.room, self._cutter.parts
        self.latency = self._cutter.latency + (self.parts - 1) + _MeanLane.latency
        super().__init__(
            {
                "y_inverse": In(inverse_bits(_PRECISION)),
                "exponent": In(signed(EXPONENT_BITS)),
                "ready": In(1),
                "zero_point": In(signed(9)),
                "is_int8": In(1),
                "i": In(data.ArrayLayout(signed(TOTAL_BITS), self._bytes)),
                "count": In(COUNT_BITS),
                "valid": In(1),
                "taken": Out(1),
                "busy": Out(1),
                "o": Out(8 * self._bytes),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cutter = cutter = self._cutter
        m.d.comb += [
            cutter.i.eq(self.i),
            cutter.tag.count.eq(self.count),
            cutter.valid.eq(self.valid),
            cutter.ready.eq(self.ready),
            self.taken.eq(cutter.taken),
            self.busy.eq(cutter.busy),
        ]

        m.submodules.inverses = inverses = Memory(
            shape=INVERSE,
            depth=MOST_AVERAGED + 1,
            init=[
                dict(zip(INVERSE.members, inverse_of(max(1, count), COUNT_BITS), strict=True))
                for count in range(MOST_AVERAGED + 1)
            ],
        )
        read = inverses.read_port()
        # The memory's cycle is the last of the delay, beside the one in which a part is chosen.
        count = register(m, cutter.head.count, "count", cycles=_MeanLane.divisor_delay)
        # Of a total's highest bit: what it is worth, and where that is in fixed point.
        highest = (TOTAL_BITS - 2) + (_FRACTION_BITS - (_PRECISION - 1))
        exponent = Signal(signed(EXPONENT_BITS))
        m.d.comb += [
            read.addr.eq(count),
            exponent.eq(self.exponent - read.data.exponent + highest),
        ]
        outputs = []
        for column in range(self._columns):
            lane = _MeanLane()
            m.submodules[f"lane_{column}"] = Once(lane)
            m.d.comb += [
                lane.total.eq(cutter.o[column]),
                lane.inverse.eq(read.data.inverse),
                lane.exponent.eq(exponent),
                lane.y_inverse.eq(self.y_inverse),
                lane.zero_point.eq(self.zero_point),
                lane.is_int8.eq(self.is_int8),
            ]
            outputs.append(lane.o)

        delay = 1 + _MeanLane.latency
        valid, last = Signal(delay), Signal(delay)
        m.d.sync += [valid.eq(Cat(cutter.takes, valid)), last.eq(Cat(cutter.taken, last))]
        m.d.comb += [
            self.o.eq(join(m, Cat(outputs), valid[-1], self.parts)),
            self.o_valid.eq(last[-1]),
        ]
        return m
