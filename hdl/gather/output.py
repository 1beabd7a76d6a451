"""Writes pooled rows to memory, at any byte."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.convert import byte_group
from halfdome.hdl.memory.port import write_request


class BagWriter(wiring.Component):
    """Shifts the bytes of pooled rows to where they belong and writes them as bus words.

    Members
    -------
    restart : In(1), the next row of context `c` is that of bag `c`
    output, output_stride : In, of the command in progress
    i : In(stream of `byte_group`), row after row
    o : Out(stream of `write_request`), strobing only the rows' own bytes
    idle : Out(1), everything taken has been offered and accepted

    Bag `b`, of context `b % config.gather_contexts`, goes to `output + b * output_stride`.
    Throughput is one group or one word a cycle; a row takes one cycle for each bus word that it
    touches, or more.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "restart": In(1),
                "output": In(config.address_bits),
                "output_stride": In(16),
                "i": In(stream.Signature(byte_group(config))),
                "o": Out(stream.Signature(write_request(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word_bytes, address_bits = self._config.bus_bytes, self._config.address_bits
        word_bits = exact_log2(word_bytes)
        # A group in its place within two words: its bytes, rotated so far that they stand over and
        # over again in the words, and which of those are the group.
        placed = Signal(
            data.StructLayout(
                {
                    "word": address_bits - word_bits,
                    "data": len(self.i.p.data),
                    "strobe": data.ArrayLayout(word_bytes, 2),
                    "last": 1,
                }
            )
        )
        placed_valid, merges = Signal(), Signal()

        # Where the group goes: a row starts at its context's address, a stride of as many bags as
        # there are contexts from that context's row before.
        first = Signal(init=1)
        follows = Signal(address_bits)
        start = Signal(address_bits)
        at = Signal(address_bits)
        takes = Signal()
        m.d.comb += [
            at.eq(Mux(first, start, follows)),
            self.i.ready.eq(~placed_valid | merges),
            takes.eq(self.i.valid & self.i.ready),
        ]
        contexts = self._config.gather_contexts
        for context in range(contexts):
            address = Signal(address_bits, name=f"address_{context}")
            with m.If(self.i.p.context == context):
                m.d.comb += start.eq(address)
                with m.If(takes & first):
                    m.d.sync += address.eq(address + (self.output_stride * contexts))
            with m.If(self.restart):
                m.d.sync += address.eq(self.output + self.output_stride * context)
        offset = at[:word_bits]
        nbytes = len(self.i.p.data) // 8
        rotated = [self.i.p.data.word_select(byte, 8) for byte in range(nbytes)]
        for bit in range(exact_log2(nbytes)):
            distance = 1 << bit
            rotated = [
                Mux(offset[bit], rotated[byte - distance], rotated[byte]) for byte in range(nbytes)
            ]
        ones = Cat(self.i.p.count > byte for byte in range(nbytes))
        with m.If(merges):
            m.d.sync += placed_valid.eq(0)
        with m.If(takes):
            m.d.sync += [
                first.eq(self.i.p.last),
                follows.eq(at + self.i.p.count),
                placed_valid.eq(1),
                placed.word.eq(at[word_bits:]),
                placed.data.eq(Cat(rotated)),
                Cat(*placed.strobe).eq(ones << offset),
                placed.last.eq(self.i.p.last),
            ]

        # Words fill up with group after group; what goes beyond a word starts the next.
        held = Signal(8 * word_bytes)
        held_strobe = Signal(word_bytes)
        flush = Signal()  # `held` is the end of a row
        free, beyond, ends = Signal(), Signal(), Signal()
        word = placed.word
        merged = Cat(
            Mux(
                placed.strobe[0][byte],
                placed.data.word_select(byte % nbytes, 8),
                held.word_select(byte, 8),
            )
            for byte in range(word_bytes)
        )
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            beyond.eq(placed.strobe[1].any()),
            ends.eq(beyond | placed.strobe[0][-1] | placed.last),
            merges.eq(placed_valid & free & ~flush),
            self.idle.eq(~(placed_valid | flush | self.o.valid)),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(flush & free):
            m.d.sync += [
                flush.eq(0),
                held_strobe.eq(0),
                self.o.valid.eq(1),
                self.o.p.address.eq(self.o.p.address + word_bytes),
                self.o.p.data.eq(held),
                self.o.p.strobe.eq(held_strobe),
            ]
        with m.Elif(merges):
            with m.If(ends):
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.p.address.eq(Cat(Const(0, word_bits), word)),
                    self.o.p.data.eq(merged),
                    self.o.p.strobe.eq(held_strobe | placed.strobe[0]),
                    held.eq(placed.data.replicate(word_bytes // nbytes)),
                    held_strobe.eq(placed.strobe[1]),
                    flush.eq(beyond & placed.last),
                ]
            with m.Else():
                m.d.sync += [
                    held.eq(merged),
                    held_strobe.eq(held_strobe | placed.strobe[0]),
                ]
        return m
