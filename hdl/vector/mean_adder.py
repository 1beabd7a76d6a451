"""Sums over windows, each addition rounded to float32, in fixed point."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.once import Once
from halfdome.hdl.vector.fixed import TERM_BITS
from halfdome.hdl.vector.inplace import below, last_is_odd, without
from halfdome.hdl.vector.mean import COUNT_BITS, TOTAL_BITS
from halfdome.hdl.vector.walker import line_groups


class _SumLane(wiring.Component):
    """The sums of one byte of a group, for each group of a line.

    Members
    -------
    term : In(signed(TERM_BITS))
    place, first, store : In, what sum it goes to, or begins; not the same twice in a row
    o : Out(signed(TOTAL_BITS)), the sum with it, `latency` cycles later
    """

    latency = 1

    def __init__(self, config: CardConfig):
        self._places = line_groups(config)
        super().__init__(
            {
                "term": In(signed(TERM_BITS)),
                "place": In(range(self._places)),
                "first": In(1),
                "store": In(1),
                "o": Out(signed(TOTAL_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = max(2, self._places)
        m.submodules.sums = sums = Memory(shape=TOTAL_BITS, depth=depth, init=[])
        read, write = sums.read_port(domain="comb"), sums.write_port()
        total = Signal(signed(TOTAL_BITS))
        m.d.comb += [
            read.addr.eq(self.place),
            total.eq(Mux(self.first, 0, read.data.as_signed()) + self.term),
        ]
        total = register(m, total, "total_1")
        low = below(m, total, TOTAL_BITS - 1 - FLOAT32.precision, "total")
        odd = low[0] & last_is_odd(total, low)
        m.d.comb += [
            self.o.eq(without(total + low[1:] + odd, low)),
            write.addr.eq(register(m, self.place, "place_1")),
            write.data.eq(self.o),
            write.en.eq(register(m, self.store, "store_1")),
        ]
        return m


class MeanAdder(wiring.Component):
    """Takes the groups of a window's taps, and gives as many groups of sums as one tap has.

    Members
    -------
    valid : In(1), a group comes; none of the same place as the one in the cycle before
    place, first, last : In, of its `tap_group`
    count : In(COUNT_BITS), is handed on
    terms : In(byte_lanes x signed(TERM_BITS)), what its bytes stand for, `term_delay` cycles later
    o : Out(byte_lanes x signed(TOTAL_BITS)), with `o_valid` and `o_count`: `latency` cycles after a
        group of the last tap

    A group a cycle.
    """

    def __init__(self, config: CardConfig, term_delay: int):
        self._config = config
        self._delay = term_delay
        self.latency = term_delay + _SumLane.latency
        super().__init__(
            {
                "valid": In(1),
                "place": In(range(line_groups(config))),
                "first": In(1),
                "last": In(1),
                "count": In(COUNT_BITS),
                "terms": In(data.ArrayLayout(signed(TERM_BITS), config.byte_lanes)),
                "o": Out(data.ArrayLayout(signed(TOTAL_BITS), config.byte_lanes)),
                "o_valid": Out(1),
                "o_count": Out(COUNT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        place, first, last = (
            register(m, getattr(self, name), name, cycles=self._delay)
            for name in ("place", "first", "last")
        )
        valid = Signal(self.latency)
        m.d.sync += valid.eq(Cat(self.valid, valid))
        m.d.comb += [
            self.o_valid.eq(valid[-1] & register(m, last, "last_sum")),
            self.o_count.eq(register(m, self.count, "count", cycles=self.latency)),
        ]
        for k in range(self._config.byte_lanes):
            lane = _SumLane(self._config)
            m.submodules[f"lane_{k}"] = Once(lane)
            m.d.comb += [
                lane.term.eq(self.terms[k]),
                lane.place.eq(place),
                lane.first.eq(first),
                lane.store.eq(valid[self._delay - 1]),
                self.o[k].eq(lane.o),
            ]
        return m
