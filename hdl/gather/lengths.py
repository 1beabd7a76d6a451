"""Turns the array that delimits bags into checked bag lengths."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.array import count_bits


def bag_length(config: CardConfig) -> data.StructLayout:
    """Rows of a bag; `length` means nothing if it is negative or longer than any array (`long`)."""
    return data.StructLayout({"length": count_bits(config), "negative": 1, "long": 1})


class BagLengths(wiring.Component):
    """From lengths, or from where bags start, to lengths.

    Members
    -------
    restart : In(1), the next element is that of bag 0; what is on offer is withdrawn
    offsets : In(1), elements are starts: a bag ends where the next starts, the last at `end`
    bags, end : In, of the command in progress
    i : In(stream of 64 bits), signed, one per bag
    o : Out(stream of `bag_length`), one per bag; bag 0 is `long` if it does not start at 0

    Throughput is one bag a cycle, latency one cycle; a start waits for the next one.

    Differences are exact as long as the bags before add up: what the reader of `o` checks.
    """

    latency = 1

    def __init__(self, config: CardConfig):
        self._bits = bits = count_bits(config)
        super().__init__(
            {
                "restart": In(1),
                "offsets": In(1),
                "bags": In(bits),
                "end": In(bits),
                "i": In(stream.Signature(64)),
                "o": Out(stream.Signature(bag_length(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self._bits
        left = Signal(bits)  # elements to come
        first = Signal()
        started = Signal()  # a bag's start is in `start`
        start = Signal(bits)
        start_bad = Signal()  # of bag 0, where only 0 is good

        high = self.i.p[bits:]
        negative, long = Signal(), Signal()
        difference = Signal(bits + 1)
        free = Signal()
        m.d.comb += [
            negative.eq(self.i.p[-1]),
            long.eq(~negative & high.any()),
            free.eq(~self.o.valid | self.o.ready),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        with m.If(self.restart):
            m.d.sync += [left.eq(self.bags), first.eq(1), started.eq(0), self.o.valid.eq(0)]
        with m.Elif(~self.offsets):
            m.d.comb += self.i.ready.eq(free)
            with m.If(self.i.valid & free):
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.p.length.eq(self.i.p),
                    self.o.p.negative.eq(negative),
                    self.o.p.long.eq(long),
                ]
        with m.Else():
            last = started & (left == 0)
            m.d.comb += [
                self.i.ready.eq((~started | free) & ~last),
                difference.eq(Mux(last, self.end, self.i.p[:bits]) - start),
            ]
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += [
                    started.eq(1),
                    first.eq(0),
                    left.eq(left - 1),
                    start.eq(self.i.p),
                    start_bad.eq(first & self.i.p.any()),
                ]
            with m.If(started & free & (last | self.i.valid)):
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.p.length.eq(difference),
                    self.o.p.negative.eq(
                        ~start_bad & Mux(last, difference[-1], negative | (~long & difference[-1]))
                    ),
                    self.o.p.long.eq(start_bad | (long & ~last)),
                ]
                with m.If(last):
                    m.d.sync += started.eq(0)
        return m
