"""Turns lookups into row addresses and reads of row data."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from hdl.config import ADDRESS_BITS, CardConfig
from hdl.gather.interleave import CONTEXTS, ContextLookup
from hdl.gather.shape import row_shape
from hdl.memory.port import ReadPort, read_word
from hdl.memory.reader import SequentialReader


def row_tag(config: CardConfig) -> data.StructLayout:
    """What accompanies a row: where it starts in its first bus word, and its lookup."""
    return data.StructLayout(
        {
            "offset": range(config.bus_bytes),
            "weight": 32,
            "row": 1,
            "last": 1,
            "context": range(CONTEXTS),
        }
    )


class RowFetcher(wiring.Component):
    """Reads the bus words that a row touches, with many rows in flight.

    Members
    -------
    table, row_stride : In, of the command in progress
    shape : In(`row_shape`)
    i : In(stream of `ContextLookup`)
    tags : Out(stream of `row_tag`), one per lookup, in order
    words : Out(stream of `read_word`), the words of every tag with `row` set, in order
    port : Out(ReadPort)

    There is room for `config.gather_outstanding` lines. A row takes one cycle more than it has
    bursts, a lookup without a row one cycle.
    """

    address_latency = 3
    """Cycles from a lookup to its address: multiply, sum of products, table base."""

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "table": In(ADDRESS_BITS),
                "row_stride": In(16),
                "shape": In(row_shape(config)),
                "i": In(stream.Signature(ContextLookup)),
                "tags": Out(stream.Signature(row_tag(config))),
                "words": Out(stream.Signature(read_word(config))),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        word_bits = exact_log2(config.bus_bytes)
        depth = config.gather_outstanding * config.burst_words
        m.submodules.reader = reader = SequentialReader(config, depth=depth)
        connect(m, reader.port, flipped(self.port))
        connect(m, reader.o, flipped(self.words))
        layout = row_tag(config)
        m.submodules.tags = tags = SyncFIFOBuffered(width=layout.size, depth=depth)
        m.d.comb += [
            self.tags.p.eq(data.View(layout, tags.r_data)),
            self.tags.valid.eq(tags.r_rdy),
            tags.r_en.eq(self.tags.ready),
        ]

        # table + index * row_stride, in steps of one 16-bit multiplier or one 40-bit adder.
        step = Signal()
        lookups = [self.i.p] + [Signal(ContextLookup, name=f"lookup_{i}") for i in (1, 2, 3)]
        valids = [self.i.valid] + [Signal(name=f"valid_{i}") for i in (1, 2, 3)]
        low = Signal(32)
        high = Signal(32)
        product = Signal(ADDRESS_BITS)
        address = Signal(ADDRESS_BITS)
        index = self.i.p.lookup.index
        m.d.comb += self.i.ready.eq(step)
        with m.If(step):
            for stage in range(self.address_latency):
                m.d.sync += [
                    lookups[stage + 1].eq(lookups[stage]),
                    valids[stage + 1].eq(valids[stage]),
                ]
            m.d.sync += [
                low.eq(index[:16] * self.row_stride),
                high.eq(index[16:] * self.row_stride),
                product.eq(low + (high << 16)),
                address.eq(self.table + product),
            ]

        located = lookups[-1]
        offset = address[:word_bits]
        tag = Signal(layout)
        m.d.comb += [
            tag.offset.eq(offset),
            tag.weight.eq(located.lookup.weight),
            tag.row.eq(located.lookup.row),
            tag.last.eq(located.lookup.last),
            tag.context.eq(located.context),
            tags.w_data.eq(tag),
            reader.i.p.address.eq(address & ~(config.bus_bytes - 1)),
            reader.i.p.words.eq(
                (self.shape.row_bytes + offset + (config.bus_bytes - 1)) >> word_bits
            ),
            reader.i.valid.eq(valids[-1] & located.lookup.row & tags.w_rdy),
            tags.w_en.eq(valids[-1] & (reader.i.ready | ~located.lookup.row)),
            step.eq(~valids[-1] | (tags.w_rdy & tags.w_en)),
        ]
        return m
