"""Turns lookups into row addresses and reads of row data."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.interleave import context_lookup
from halfdome.hdl.gather.shape import max_row_bytes, row_shape
from halfdome.hdl.memory.port import ReadPort, read_word


def row_tag(config: CardConfig) -> data.StructLayout:
    """What accompanies a row: where it starts in its first bus word, and its lookup."""
    return data.StructLayout(
        {
            "offset": range(config.bus_bytes),
            "weight": 32,
            "row": 1,
            "last": 1,
            "context": range(config.gather_contexts),
        }
    )


class RowFetcher(wiring.Component):
    """Reads the bus words that a row touches, with many rows in flight.

    Members
    -------
    table, row_stride : In, of the command in progress
    shape : In(`row_shape`)
    i : In(stream of `context_lookup`)
    tags : Out(stream of `row_tag`), one per lookup, in order
    words : Out(stream of `read_word`), the words of every tag with `row` set, in order
    waiting : Out(1), words that were asked for have not been taken from `words`
    port : Out(ReadPort)

    Up to `config.gather_outstanding` bursts are in flight or wait in `words`. A row takes as many
    cycles as it has bursts, a lookup without a row one cycle.
    """

    address_latency = 3
    """Cycles from a lookup to its address: multiply, sum of products, table base."""

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "table": In(config.address_bits),
                "row_stride": In(16),
                "shape": In(row_shape(config)),
                "i": In(stream.Signature(context_lookup(config))),
                "tags": Out(stream.Signature(row_tag(config))),
                "words": Out(stream.Signature(read_word(config))),
                "waiting": Out(1),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        word_bits = exact_log2(config.bus_bytes)
        layout = row_tag(config)
        m.submodules.tags = tags = SyncFIFOBuffered(
            width=layout.size, depth=config.gather_outstanding
        )
        m.d.comb += [
            self.tags.p.eq(data.View(layout, tags.r_data)),
            self.tags.valid.eq(tags.r_rdy),
            tags.r_en.eq(self.tags.ready),
        ]

        # table + index * row_stride, in steps of one 16-bit multiplier or one adder of an address.
        step = Signal()
        lookups = [self.i.p] + [Signal(self.i.p.shape(), name=f"lookup_{i}") for i in (1, 2, 3)]
        valids = [self.i.valid] + [Signal(name=f"valid_{i}") for i in (1, 2, 3)]
        low = Signal(32)
        high = Signal(32)
        product = Signal(config.address_bits)
        address = Signal(config.address_bits)
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
        free = Signal()
        words = Signal(range(max_row_bytes(config) // config.bus_bytes + 3))
        m.d.comb += [
            tag.offset.eq(offset),
            tag.weight.eq(located.lookup.weight),
            tag.row.eq(located.lookup.row),
            tag.last.eq(located.lookup.last),
            tag.context.eq(located.context),
            tags.w_data.eq(tag),
            words.eq((self.shape.row_bytes + offset + (config.bus_bytes - 1)) >> word_bits),
            tags.w_en.eq(valids[-1] & (free | ~located.lookup.row)),
            step.eq(~valids[-1] | (tags.w_rdy & tags.w_en)),
        ]
        starts = step & valids[-1] & located.lookup.row
        self._read(m, address[word_bits:], words, starts, free)
        return m

    def _read(self, m, start: Value, words: Value, starts: Value, free: Signal) -> None:
        """Reads `words` words from word number `start` at `starts`, which needs `free`."""
        config = self._config
        burst_words = config.burst_words
        request, response = self.port.request, self.port.response
        layout = read_word(config)
        outstanding = config.gather_outstanding
        # One entry more than is promised, see `ReadBuffer`.
        m.submodules.queue = queue = SyncFIFOBuffered(
            width=layout.size, depth=outstanding * burst_words + 1
        )
        m.d.comb += [
            queue.w_data.eq(response.p),
            queue.w_en.eq(response.valid),
            self.words.p.eq(data.View(layout, queue.r_data)),
            self.words.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.words.ready),
        ]

        number = Signal.like(start)
        left = Signal.like(words)
        to_line_end = Signal(range(burst_words + 1))
        count = Signal.like(to_line_end)
        last = Signal()
        credit = Signal(range(outstanding + 1), init=outstanding)
        asked, returned = Signal(), Signal()
        m.d.comb += [
            to_line_end.eq(burst_words - (number & (burst_words - 1))),
            last.eq(left <= to_line_end),
            count.eq(Mux(last, left, to_line_end)),
            request.p.address.eq(number << exact_log2(config.bus_bytes)),
            request.p.count_minus_1.eq(count - 1),
            request.valid.eq((left != 0) & (credit != 0)),
            asked.eq(request.valid & request.ready),
            returned.eq(self.words.valid & self.words.ready & self.words.p.last),
            free.eq((left == 0) | (asked & last)),
            self.waiting.eq((left != 0) | (credit != outstanding)),
        ]
        m.d.sync += credit.eq(credit - asked + returned)
        with m.If(starts):
            m.d.sync += [number.eq(start), left.eq(words)]
        with m.Elif(asked):
            m.d.sync += [number.eq(number + count), left.eq(left - count)]
