"""Cuts row-aligned words into chunks of one element per lane."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.align import row_word
from halfdome.hdl.gather.shape import ElementWidth, row_shape

ELEMENT_BITS = 32
"""Width of an element in a chunk: that of the widest, narrower ones have zeros above."""


class RowUnpacker(wiring.Component):
    """From the words of a row to its chunks: `config.lanes` elements of up to 32 bits.

    Members
    -------
    shape : In(`row_shape`)
    i : In(stream of `row_word`)
    o : Out(stream of `32 * config.lanes` bits), element 0 in bits 31:0; beyond the row's last
        element the bits mean nothing

    Throughput is one chunk a cycle, or one word a cycle where a chunk takes several.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "shape": In(row_shape(config)),
                "i": In(stream.Signature(row_word(config))),
                "o": Out(stream.Signature(ELEMENT_BITS * config.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self._config.lanes
        word_bits = 8 * self._config.bus_bytes
        chunk_bits = {width: lanes * width.bits for width in ElementWidth}
        most_words = max(1, max(chunk_bits.values()) // word_bits)
        buffer = Signal(word_bits * most_words)
        full = Signal()
        slot = Signal(range(max(2, most_words)))  # of the next word in `buffer`
        last_slot = Signal.like(slot)
        # Where the next chunk is in a word, in chunks of the narrowest elements.
        place = Signal(exact_log2(max(1, word_bits // min(chunk_bits.values()))))
        ends = Signal(len(place) + 1)  # where the one after it would be
        chunk = Signal.like(self.shape.last_chunk)  # of the row
        done = Signal()  # with this chunk, what the buffer holds of the row
        taken = Signal()
        m.d.comb += [
            done.eq(ends[-1] | (chunk == self.shape.last_chunk)),
            self.o.valid.eq(full),
            taken.eq(full & self.o.ready),
            self.i.ready.eq(~full | (taken & done)),
        ]
        # A chunk of the widest elements, then a half of what was chosen each time.
        within, rest = buffer, place  # and what tells where in it
        with m.Switch(self.shape.width):
            for width, bits in sorted(chunk_bits.items(), reverse=True):
                if bits < word_bits:
                    within = within[:word_bits].word_select(rest[width.value :], bits)
                    rest = rest[: width.value]
                zeros = Const(0, ELEMENT_BITS - width.bits)
                elements = [
                    Cat(within.word_select(lane, width.bits), zeros) for lane in range(lanes)
                ]
                with m.Case(width):
                    m.d.comb += [
                        ends.eq(place + min(1 << width.value, 1 << len(place))),
                        last_slot.eq(max(1, bits // word_bits) - 1),
                        self.o.p.eq(Cat(elements)),
                    ]

        with m.If(taken):
            m.d.sync += [place.eq(ends), chunk.eq(chunk + 1), full.eq(~done)]
            with m.If(done):
                m.d.sync += place.eq(0)
            with m.If(chunk == self.shape.last_chunk):
                m.d.sync += chunk.eq(0)
        with m.If(self.i.valid & self.i.ready):
            complete = (slot == last_slot) | self.i.p.last
            m.d.sync += [full.eq(complete), slot.eq(slot + 1)]
            with m.If(complete):
                m.d.sync += slot.eq(0)
            for number in range(most_words):
                with m.If(slot == number):
                    m.d.sync += buffer.word_select(number, word_bits).eq(self.i.p.data)
        return m
