"""Cuts row-aligned words into chunks of one element per lane."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.config import CardConfig
from hdl.gather.align import row_word
from hdl.gather.shape import row_shape


class RowUnpacker(wiring.Component):
    """From the words of a row to its chunks: `config.lanes` elements of 8 bits.

    Members
    -------
    shape : In(`row_shape`)
    i : In(stream of `row_word`)
    o : Out(stream of `8 * config.lanes` bits), element 0 in bits 7:0; beyond the row's last
        element the bits mean nothing

    Throughput is one chunk a cycle; one every two cycles where a chunk takes two words.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "shape": In(row_shape(config)),
                "i": In(stream.Signature(row_word(config))),
                "o": Out(stream.Signature(8 * config.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self._config.lanes
        word_bytes = self._config.bus_bytes
        # 8-bit chunks of twice the bus width are put together from two words.
        pairs = lanes > word_bytes
        word = Signal(max(lanes, word_bytes) * 8)
        full = Signal()
        chunk = Signal.like(self.shape.last_chunk)  # of the row
        part = Signal(range(2 * word_bytes // min(lanes, word_bytes)))  # of the word
        last_part = Signal.like(part)
        word_done = Signal()
        taken = Signal()
        nibbles = Cat(Cat(word[4 * lane : 4 * lane + 4], Cat(0, 0, 0, 0)) for lane in range(lanes))
        m.d.comb += [
            last_part.eq(
                Mux(self.shape.int4, 2 * word_bytes // lanes, max(1, word_bytes // lanes)) - 1
            ),
            word_done.eq((part == last_part) | (chunk == self.shape.last_chunk)),
            self.o.p.eq(Mux(self.shape.int4, nibbles, word[: 8 * lanes])),
            self.o.valid.eq(full),
            taken.eq(full & self.o.ready),
            self.i.ready.eq(~full | (taken & word_done)),
        ]
        with m.If(taken):
            m.d.sync += [
                part.eq(Mux(word_done, 0, part + 1)),
                chunk.eq(Mux(chunk == self.shape.last_chunk, 0, chunk + 1)),
                word.eq(Mux(self.shape.int4, word >> 4 * lanes, word >> 8 * lanes)),
                full.eq(~word_done),
            ]
        with m.If(self.i.valid & self.i.ready):
            if pairs:
                odd = Signal()
                m.d.sync += full.eq(self.shape.int4 | odd | self.i.p.last)
                with m.If(odd & ~self.shape.int4):
                    m.d.sync += [word[8 * word_bytes :].eq(self.i.p.data), odd.eq(0)]
                with m.Else():
                    m.d.sync += [
                        word.eq(self.i.p.data),
                        odd.eq(~self.shape.int4 & ~self.i.p.last),
                    ]
            else:
                m.d.sync += [word.eq(self.i.p.data), full.eq(1)]
        return m
