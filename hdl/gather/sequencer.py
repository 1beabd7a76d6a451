"""Walks the bags of a command and checks lengths and indices on the way."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.commands import IndexMode, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import Result
from halfdome.hdl.gather.array import count_bits
from halfdome.hdl.gather.lengths import bag_length

FLOAT_ONE = 0x3F800000


def lookup(config: CardConfig) -> data.StructLayout:
    """One step of a bag: read a row and add it (`row`), end the bag (`last`), or both. No table has
    more rows than card memory has bytes."""
    index = min(32, config.address_bits)
    return data.StructLayout({"index": index, "weight": 32, "row": 1, "last": 1})


class BagSequencer(wiring.Component):
    """From lengths and indices to lookups, bag after bag, up to the first bad length or index.

    Members
    -------
    i : In(stream of {bags, rows, index_count, mode, weighted, pruned}), one per command
    lengths : In(stream of `bag_length`)
    indices : In(stream of 64 bits), signed
    weights : In(stream of 32 bits), taken only if `weighted`
    o : Out(stream of `lookup`); a bag has exactly one `last`, rows that do not count are left out
    result : Out(stream of `Result`), after the command's last lookup

    Throughput is one lookup a cycle and one more cycle a bag.

    Nothing of a bag is sent before its length is known to be good. Checks happen in the order of
    the arrays, so that the first fault is the one reported. Lookups sent before it stand; the bag
    with a bad index gets no `last`.
    """

    def __init__(self, config: CardConfig):
        self._bits = bits = count_bits(config)
        job = data.StructLayout(
            {
                "bags": bits,
                "rows": 32,
                "index_count": bits,
                "mode": IndexMode,
                "weighted": 1,
                "pruned": 1,
            }
        )
        super().__init__(
            {
                "i": In(stream.Signature(job)),
                "lengths": In(stream.Signature(bag_length(config))),
                "indices": In(stream.Signature(64)),
                "weights": In(stream.Signature(32)),
                "o": Out(stream.Signature(lookup(config))),
                "result": Out(stream.Signature(Result)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self._bits
        job = Signal(self.i.p.shape())
        bag = Signal(bits)
        unclaimed = Signal(bits)  # indices that no bag so far has claimed
        remaining = Signal(bits)  # indices left in this bag
        position = Signal(bits)
        skipped = Signal(bits)
        result = Signal(Result)

        rows_bits = len(self.o.p.index)
        length = self.lengths.p
        index = self.indices.p
        present = Signal()
        counts = Signal()  # the row is to be added
        bad = Signal()
        fatal = Signal()
        last = Signal()
        sends = Signal()
        advance = Signal()
        m.d.comb += [
            present.eq(self.indices.valid & (self.weights.valid | ~job.weighted)),
            counts.eq(~index[rows_bits:].any() & (index[:rows_bits] < job.rows[:rows_bits])),
            bad.eq(~counts & ~(job.pruned & index.all())),
            fatal.eq(bad & (job.mode == IndexMode.FATAL)),
            last.eq(remaining == 1),
            sends.eq(counts | (last & ~fatal)),
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
                    m.d.sync += [remaining.eq(length.length), result.detail.eq(bag)]
                    with m.If(length.negative):
                        m.d.sync += result.status.eq(Status.BAD_LENGTH)
                        m.next = "DONE"
                    with m.Elif(length.long | (length.length > unclaimed)):
                        m.d.sync += result.status.eq(Status.LENGTH_MISMATCH)
                        m.next = "DONE"
                    with m.Elif(length.length == 0):
                        m.d.comb += [self.o.valid.eq(1), self.lengths.ready.eq(self.o.ready)]
                        with m.If(self.o.ready):
                            m.d.sync += bag.eq(bag + 1)
                    with m.Else():
                        m.d.comb += self.lengths.ready.eq(1)
                        m.d.sync += unclaimed.eq(unclaimed - length.length)
                        m.next = "ROWS"

            with m.State("ROWS"):
                m.d.comb += [
                    self.o.p.index.eq(index),
                    self.o.p.weight.eq(Mux(job.weighted, self.weights.p, Const(FLOAT_ONE, 32))),
                    self.o.p.row.eq(counts),
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
