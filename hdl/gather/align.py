"""Shifts rows that start at any byte into words that start at the row's first byte."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.rows import row_tag
from halfdome.hdl.gather.shape import TAIL_BYTES, Factors, row_shape
from halfdome.hdl.memory.port import read_word


def row_word(config: CardConfig) -> data.StructLayout:
    """A word of a row, the row's first byte in bits 7:0 of the first; `last` ends its elements."""
    return data.StructLayout({"data": config.bus_bytes * 8, "last": 1})


def row_tail(config: CardConfig) -> data.StructLayout:
    """A row's tag and its last eight bytes, which end with scale and bias."""
    return data.StructLayout({"raw": TAIL_BYTES * 8, "tag": row_tag(config)})


def _bytes_from(m: Module, value: Value, first: Value, count: int, name: str) -> Value:
    """`count` bytes from byte `first` on; far steps come first, so that few bytes take the near."""
    for bit in reversed(range(len(first))):
        step = 1 << bit
        near = Signal(8 * (count + step - 1), name=f"{name}_{step}")
        m.d.comb += near.eq(Mux(first[bit], value[8 * step :], value))
        value = near
    return value


class RowAligner(wiring.Component):
    """From bus words at any byte offset to row-aligned words and the row's tail.

    Members
    -------
    shape : In(`row_shape`)
    tags : In(stream of `row_tag`)
    words : In(stream of `read_word`), the bus words of tags with `row` set
    o : Out(stream of `row_word`), the words that hold elements
    tail : Out(stream of `row_tail`), one per tag: with the row's last word, or with its first if
        the row has neither scale nor bias; then, and without `row`, `raw` means nothing

    Throughput is one bus word a cycle while rows follow each other.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "shape": In(row_shape(config)),
                "tags": In(stream.Signature(row_tag(config))),
                "words": In(stream.Signature(read_word(config))),
                "o": Out(stream.Signature(row_word(config))),
                "tail": Out(stream.Signature(row_tail(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word_bytes = self._config.bus_bytes
        shape = self.shape
        active = Signal()  # a row's first bus word is in `held`
        tag = Signal(row_tag(self._config))
        tail_tag = Signal(row_tag(self._config))
        number = Signal(len(self.shape.last_word) + 1)  # of the next row word
        held = Signal(word_bytes * 8)
        previous = Signal(word_bytes * 8)
        current = Signal(word_bytes * 8)

        # The tail ends at byte `last_byte` of the row's last word, which is then in `current`.
        window = Cat(previous[-8 * (TAIL_BYTES - 1) :], current)
        m.d.comb += [
            self.o.p.data.eq(current),
            self.tail.p.raw.eq(_bytes_from(m, window, shape.last_byte, TAIL_BYTES, "tail_from")),
            self.tail.p.tag.eq(tail_tag),
        ]

        final = Signal()
        takes_word = Signal()
        step = Signal()
        load_row = Signal()
        load_end = Signal()
        tail_free = Signal()
        tail_last = Signal()  # the row ends with scale and bias
        shifted = _bytes_from(m, Cat(held, self.words.p.data), tag.offset, word_bytes, "row_from")
        m.d.comb += [
            final.eq(number == shape.last_word),
            takes_word.eq(~final | (tag.offset + shape.last_byte >= word_bytes)),
            tail_last.eq(shape.factors != Factors.NONE),
            tail_free.eq(~self.tail.valid | self.tail.ready),
            step.eq(
                active
                & (~takes_word | self.words.valid)
                & (~self.o.valid | self.o.ready)
                & (tail_free | ~tail_last)
            ),
            # The next row's first word may come with this row's last step.
            load_row.eq(
                (~active | (step & final & ~takes_word))
                & self.tags.valid
                & self.tags.p.row
                & self.words.valid
                & (tail_free | tail_last)
            ),
            load_end.eq(~active & self.tags.valid & ~self.tags.p.row & tail_free),
            self.tags.ready.eq(load_row | load_end),
            self.words.ready.eq((step & takes_word) | load_row),
        ]

        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.tail.ready):
            m.d.sync += self.tail.valid.eq(0)
        with m.If(step):
            m.d.sync += [
                previous.eq(current),
                current.eq(shifted),
                held.eq(self.words.p.data),
                number.eq(number + 1),
                self.o.valid.eq(number <= shape.last_data_word),
                self.o.p.last.eq(number == shape.last_data_word),
            ]
            with m.If(final):
                m.d.sync += active.eq(0)
                with m.If(tail_last):
                    m.d.sync += [self.tail.valid.eq(1), tail_tag.eq(tag)]
        with m.If(load_row):
            m.d.sync += [
                active.eq(1),
                tag.eq(self.tags.p),
                number.eq(0),
                held.eq(self.words.p.data),
            ]
        with m.If(load_end | (load_row & ~tail_last)):
            m.d.sync += [self.tail.valid.eq(1), tail_tag.eq(self.tags.p)]
        return m
