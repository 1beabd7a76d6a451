"""Sums of products over windows, each channel by itself."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.array import OPERAND_BITS
from halfdome.hdl.once import Once
from halfdome.hdl.vector.walker import line_groups

TOTAL_BITS = 25
"""Of a signed sum: of `MOST_TAPS` products, or of 255 x 255 operands."""


class _SumLane(wiring.Component):
    """The sums of one byte of a group, for each group of a line.

    Members
    -------
    x, w : In(8), w one cycle after x
    x_int8, w_int8, x_zero_point, w_zero_point, ones : In, constant while groups come
    place, first, store : In, `latency` cycles after x: what sum it goes to, or begins
    o : Out(signed(TOTAL_BITS)), the sum with it, in that cycle
    """

    latency = 3

    def __init__(self, config: CardConfig):
        self._places = line_groups(config)
        super().__init__(
            {
                "x": In(8),
                "w": In(8),
                "x_int8": In(1),
                "w_int8": In(1),
                "x_zero_point": In(8),
                "w_zero_point": In(8),
                "ones": In(1),
                "place": In(range(self._places)),
                "first": In(1),
                "store": In(1),
                "o": Out(signed(TOTAL_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.sums = sums = Memory(shape=TOTAL_BITS, depth=max(2, self._places), init=[])
        read, write = sums.read_port(domain="comb"), sums.write_port()

        def operand(byte, zero_point, is_int8):
            number, zero = (Cat(v, v[7] & is_int8).as_signed() for v in (byte, zero_point))
            return (number - zero)[:OPERAND_BITS].as_signed()

        x = register(m, operand(self.x, self.x_zero_point, self.x_int8), "x", cycles=2)
        w = operand(self.w, self.w_zero_point, self.w_int8)
        weight = register(m, Mux(self.ones, 1, w), "weight")
        product = register(m, x * weight, "product")
        before = Signal(signed(TOTAL_BITS))
        m.d.comb += [
            read.addr.eq(self.place),
            before.eq(Mux(self.first, 0, read.data)),
            self.o.eq(before + product),
            write.addr.eq(self.place),
            write.data.eq(self.o),
            write.en.eq(self.store),
        ]
        return m


class WindowAdder(wiring.Component):
    """Takes the groups of a window's taps, and gives as many groups of sums as one tap has.

    Members
    -------
    x_int8, w_int8, x_zero_point, w_zero_point, ones : In, constant while groups come
    valid : In(1), a group comes
    first, last : In(1), of a window's first tap; of its last
    place : In(range(line_groups)), the group's number in the tap
    ends : In(1), with the last group of a last tap: is handed on
    x : In(8 * byte_lanes)
    w : In(8 * byte_lanes), in the cycle after x
    o : Out(byte_lanes x signed(TOTAL_BITS)), with `o_valid`, `o_place` and `o_ends`: `latency`
        cycles after a group of the last tap

    A group a cycle.
    """

    latency = _SumLane.latency

    def __init__(self, config: CardConfig):
        self._config = config
        self._bytes = config.byte_lanes
        places, word = range(line_groups(config)), 8 * config.byte_lanes
        super().__init__(
            {
                "x_int8": In(1),
                "w_int8": In(1),
                "x_zero_point": In(8),
                "w_zero_point": In(8),
                "ones": In(1),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "place": In(places),
                "ends": In(1),
                "x": In(word),
                "w": In(word),
                "o": Out(data.ArrayLayout(signed(TOTAL_BITS), config.byte_lanes)),
                "o_valid": Out(1),
                "o_place": Out(places),
                "o_ends": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        settings = ("x_int8", "w_int8", "x_zero_point", "w_zero_point", "ones")
        delay = self.latency
        place, first, last, ends = (
            register(m, getattr(self, name), name, cycles=delay)
            for name in ("place", "first", "last", "ends")
        )
        valid = Signal(delay)
        m.d.sync += valid.eq(Cat(self.valid, valid))
        m.d.comb += [
            self.o_valid.eq(valid[-1] & last),
            self.o_place.eq(place),
            self.o_ends.eq(ends),
        ]
        for k in range(self._bytes):
            lane = _SumLane(self._config)
            m.submodules[f"lane_{k}"] = Once(lane)
            m.d.comb += [
                *(getattr(lane, name).eq(getattr(self, name)) for name in settings),
                lane.x.eq(self.x.word_select(k, 8)),
                lane.w.eq(self.w.word_select(k, 8)),
                lane.place.eq(place),
                lane.first.eq(first),
                lane.store.eq(valid[-1]),
                self.o[k].eq(lane.o),
            ]
        return m
