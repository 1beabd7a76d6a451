"""Strided rows of card memory as one stream of words, out of memory and into it."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import ReadPort, WritePort, read_word
from halfdome.hdl.memory.reader import ReadBuffer


def block_layout(config: CardConfig) -> data.StructLayout:
    """`rows` rows of `row_bytes` bytes (both 1 or more), `stride` apart; all but sizes word
    aligned."""
    return data.StructLayout(
        {"address": config.address_bits, "stride": 32}
        | dict.fromkeys(("rows", "row_bytes"), config.count_bits)
    )


def words_of(config: CardConfig, row_bytes):
    """Bus words that a row starting on one occupies."""
    return (row_bytes + config.bus_bytes - 1) >> exact_log2(config.bus_bytes)


class RowReader(wiring.Component):
    """Streams the words of a block, prefetching across rows as far as there is room.

    Parameters
    ----------
    depth : int
        Words of prefetch.

    Members
    -------
    i : In(stream of `block_layout`)
    o : Out(stream of `read_word`), whole words; `last` ends a burst, not a row
    port : Out(ReadPort)

    The first request leaves in the cycle after `i` is taken, then one a cycle, of up to a line.
    """

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(block_layout(config))),
                "o": Out(stream.Signature(read_word(config))),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.buffer = buffer = ReadBuffer(config, self._depth)
        connect(m, buffer.port, flipped(self.port))
        connect(m, buffer.o, flipped(self.o))

        address = Signal(config.address_bits)
        next_row = Signal(config.address_bits)
        stride = Signal(32)
        rows = Signal(config.count_bits)
        words = Signal(config.count_bits)
        row_words = Signal(config.count_bits)
        to_line_end = Signal(range(config.burst_words + 1))
        count = Signal(range(config.burst_words + 1))
        word_index = address[exact_log2(config.bus_bytes) :]
        m.d.comb += [
            to_line_end.eq(config.burst_words - (word_index & (config.burst_words - 1))),
            count.eq(Mux(words < to_line_end, words, to_line_end)),
            buffer.i.p.address.eq(address),
            buffer.i.p.count_minus_1.eq(count - 1),
            buffer.i.valid.eq(words != 0),
            self.i.ready.eq(words == 0),
        ]
        with m.If(buffer.i.valid & buffer.i.ready):
            m.d.sync += [address.eq(address + count * config.bus_bytes), words.eq(words - count)]
            with m.If((words <= to_line_end) & (rows != 1)):
                m.d.sync += [
                    address.eq(next_row),
                    next_row.eq(next_row + stride),
                    words.eq(row_words),
                    rows.eq(rows - 1),
                ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                address.eq(self.i.p.address),
                next_row.eq(self.i.p.address + self.i.p.stride),
                stride.eq(self.i.p.stride),
                rows.eq(self.i.p.rows),
                words.eq(words_of(config, self.i.p.row_bytes)),
                row_words.eq(words_of(config, self.i.p.row_bytes)),
            ]
        return m


class RowWriter(wiring.Component):
    """Writes a stream of words into the rows of a block; no byte outside the rows changes.

    Members
    -------
    i : In(stream of `block_layout`)
    i_words : In(stream of bus words), each row starting in a new word
    port : Out(WritePort)
    done : Out(1), no words are missing and every written one can be seen

    Latency 0, one word a cycle.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(block_layout(config))),
                "i_words": In(stream.Signature(config.bus_bytes * 8)),
                "port": Out(WritePort(config)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        address = Signal(config.address_bits)
        next_row = Signal(config.address_bits)
        stride = Signal(32)
        rows = Signal(config.count_bits)
        words = Signal(config.count_bits)
        row_words = Signal(config.count_bits)
        last_strobe = Signal(config.bus_bytes)
        m.d.comb += [
            self.port.request.p.address.eq(address),
            self.port.request.p.data.eq(self.i_words.p),
            self.port.request.p.strobe.eq(Mux(words == 1, last_strobe, ~0)),
            self.port.request.valid.eq(self.i_words.valid & (words != 0)),
            self.i_words.ready.eq(self.port.request.ready & (words != 0)),
            self.i.ready.eq(words == 0),
            self.done.eq((words == 0) & self.port.idle),
        ]
        with m.If(self.port.request.valid & self.port.request.ready):
            m.d.sync += [address.eq(address + config.bus_bytes), words.eq(words - 1)]
            with m.If((words == 1) & (rows != 1)):
                m.d.sync += [
                    address.eq(next_row),
                    next_row.eq(next_row + stride),
                    words.eq(row_words),
                    rows.eq(rows - 1),
                ]
        with m.If(self.i.valid & self.i.ready):
            odd_bytes = self.i.p.row_bytes[: exact_log2(config.bus_bytes)]
            odd_strobe = ((1 << odd_bytes) - 1)[: config.bus_bytes]
            m.d.sync += [
                address.eq(self.i.p.address),
                next_row.eq(self.i.p.address + self.i.p.stride),
                stride.eq(self.i.p.stride),
                rows.eq(self.i.p.rows),
                words.eq(words_of(config, self.i.p.row_bytes)),
                row_words.eq(words_of(config, self.i.p.row_bytes)),
                last_strobe.eq(Mux(odd_bytes == 0, ~0, odd_strobe)),
            ]
        return m
