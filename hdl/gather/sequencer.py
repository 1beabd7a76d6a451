"""Walks the bags of a command and checks lengths and indices on the way."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.commands import IndexMode, Status
from hdl.engine import Result

FLOAT_ONE = 0x3F800000


Lookup = data.StructLayout({"index": 32, "weight": 32, "row": 1, "last": 1})
"""One step of a bag: read a row and add it (`row`), end the bag (`last`), or both."""


class BagSequencer(wiring.Component):
    """From lengths and indices to lookups, bag after bag, up to the first bad length or index.

    Members
    -------
    i : In(stream of {bags, rows, index_count, mode, weighted}), one per command
    lengths, indices, weights : In(stream of 32 bits); weights are taken only if `weighted`
    o : Out(stream of `Lookup`); a bag has exactly one `last`, rows that do not count are left out
    result : Out(stream of `Result`), after the command's last lookup

    Throughput is one lookup a cycle and one more cycle a bag.

    Nothing of a bag is sent before its length is known to be good. Checks happen in the order of
    the arrays, so that the first fault is the one reported. Lookups sent before it stand; the bag
    with a bad index gets no `last`.
    """

    def __init__(self):
        job = data.StructLayout(
            {"bags": 32, "rows": 32, "index_count": 32, "mode": IndexMode, "weighted": 1}
        )
        super().__init__(
            {
                "i": In(stream.Signature(job)),
                "lengths": In(stream.Signature(32)),
                "indices": In(stream.Signature(32)),
                "weights": In(stream.Signature(32)),
                "o": Out(stream.Signature(Lookup)),
                "result": Out(stream.Signature(Result)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = Signal(self.i.p.shape())
        bag = Signal(32)
        unclaimed = Signal(32)  # indices that no bag so far has claimed
        remaining = Signal(32)  # indices left in this bag
        position = Signal(32)
        skipped = Signal(32)
        result = Signal(Result)

        length = self.lengths.p
        index = self.indices.p
        present = Signal()
        bad = Signal()
        fatal = Signal()
        last = Signal()
        sends = Signal()
        advance = Signal()
        m.d.comb += [
            present.eq(self.indices.valid & (self.weights.valid | ~job.weighted)),
            bad.eq(index[31] | (index >= job.rows)),
            fatal.eq(bad & (job.mode == IndexMode.FATAL)),
            last.eq(remaining == 1),
            sends.eq(~bad | (last & ~fatal)),
            self.result.p.eq(result),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [
                        job.eq(self.i.p),
                        unclaimed.eq(self.i.p.index_count),
                        bag.eq(0),
                        position.eq(0),
                        skipped.eq(0),
                    ]
                    m.next = "LENGTH"

            with m.State("LENGTH"):
                m.d.comb += self.o.p.last.eq(1)
                with m.If(bag == job.bags):
                    m.d.sync += [
                        result.status.eq(Mux(unclaimed == 0, Status.OK, Status.LENGTH_MISMATCH)),
                        result.detail.eq(Mux(unclaimed == 0, skipped, bag)),
                    ]
                    m.next = "DONE"
                with m.Elif(self.lengths.valid):
                    m.d.sync += [remaining.eq(length), result.detail.eq(bag)]
                    with m.If(length[31]):
                        m.d.sync += result.status.eq(Status.BAD_LENGTH)
                        m.next = "DONE"
                    with m.Elif(length > unclaimed):
                        m.d.sync += result.status.eq(Status.LENGTH_MISMATCH)
                        m.next = "DONE"
                    with m.Elif(length == 0):
                        m.d.comb += [self.o.valid.eq(1), self.lengths.ready.eq(self.o.ready)]
                        with m.If(self.o.ready):
                            m.d.sync += bag.eq(bag + 1)
                    with m.Else():
                        m.d.comb += self.lengths.ready.eq(1)
                        m.d.sync += unclaimed.eq(unclaimed - length)
                        m.next = "ROWS"

            with m.State("ROWS"):
                m.d.comb += [
                    self.o.p.index.eq(index),
                    self.o.p.weight.eq(Mux(job.weighted, self.weights.p, Const(FLOAT_ONE, 32))),
                    self.o.p.row.eq(~bad),
                    self.o.p.last.eq(last),
                    self.o.valid.eq(present & sends),
                    advance.eq(present & Mux(sends, self.o.ready, ~fatal)),
                    self.indices.ready.eq(advance),
                    self.weights.ready.eq(advance & job.weighted),
                ]
                with m.If(advance):
                    m.d.sync += [remaining.eq(remaining - 1), position.eq(position + 1)]
                    with m.If(bad & (job.mode == IndexMode.WARN)):
                        m.d.sync += skipped.eq(skipped + 1)
                    with m.If(last):
                        m.d.sync += bag.eq(bag + 1)
                        m.next = "LENGTH"
                with m.If(present & fatal):
                    m.d.sync += [
                        result.status.eq(Status.BAD_INDEX),
                        result.detail.eq(position),
                    ]
                    m.next = "DONE"

            with m.State("DONE"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(self.result.ready):
                    m.next = "IDLE"
        return m
