"""Turns the array that delimits bags into checked bag lengths."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.gather.array import COUNT_BITS

BagLength = data.StructLayout({"length": COUNT_BITS, "negative": 1, "long": 1})
"""Rows of a bag; `length` means nothing if it is negative or longer than any array (`long`)."""


class BagLengths(wiring.Component):
    """From lengths, or from where bags start, to lengths.

    Members
    -------
    restart : In(1), the next element is that of bag 0; what is on offer is withdrawn
    offsets : In(1), elements are starts: a bag ends where the next starts, the last at `end`
    bags, end : In, of the command in progress
    i : In(stream of 64 bits), signed, one per bag
    o : Out(stream of `BagLength`), one per bag; bag 0 is `long` if it does not start at 0

    Throughput is one bag a cycle, latency one cycle; a start waits for the next one.

    Differences are exact as long as the bags before add up: what the reader of `o` checks.
    """

    latency = 1

    def __init__(self):
        super().__init__(
            {
                "restart": In(1),
                "offsets": In(1),
                "bags": In(COUNT_BITS),
                "end": In(COUNT_BITS),
                "i": In(stream.Signature(64)),
                "o": Out(stream.Signature(BagLength)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        left = Signal(COUNT_BITS)  # elements to come
        first = Signal()
        started = Signal()  # a bag's start is in `start`
        start = Signal(COUNT_BITS)
        start_bad = Signal()  # of bag 0, where only 0 is good

        high = self.i.p[COUNT_BITS:]
        negative, long = Signal(), Signal()
        difference = Signal(COUNT_BITS + 1)
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
                difference.eq(Mux(last, self.end, self.i.p[:COUNT_BITS]) - start),
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
