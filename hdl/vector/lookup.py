"""A function of bytes that a command brings along as a table."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import TABLE_BYTES
from halfdome.hdl.config import CardConfig

_PART_BYTES = 4
"""What is written in a cycle, and the width of the memory: a narrow one is read by many bytes at
once without a wide choice behind each."""


class ByteTable(wiring.Component):
    """Looks up every byte of a bus word in a table of `TABLE_BYTES`.

    Members
    -------
    start : In(1), forgets the table
    table : In(stream of bus words), the new one; taken until it is whole
    whole : Out(1), the table is there
    loads : Out(1), a part of it is written in this cycle
    enable : In(1), words inside move on
    valid : In(1), a word comes; only if `whole` and `enable`
    i : In(8 * bus_bytes)
    o : Out(8 * bus_bytes), with `o_valid`: table[i] byte by byte, `latency` enabled cycles later

    A word a cycle; the table takes `load_cycles`.
    """

    latency = 1
    load_cycles = TABLE_BYTES // _PART_BYTES

    def __init__(self, config: CardConfig):
        self._bytes = config.bus_bytes
        word = 8 * config.bus_bytes
        super().__init__(
            {
                "start": In(1),
                "table": In(stream.Signature(word)),
                "whole": Out(1),
                "loads": Out(1),
                "enable": In(1),
                "valid": In(1),
                "i": In(word),
                "o": Out(word),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=8 * _PART_BYTES, depth=TABLE_BYTES // _PART_BYTES, init=[]
        )
        write = memory.write_port()
        part = Signal(range(self.load_cycles))
        in_word = part[: exact_log2(self._bytes // _PART_BYTES)]
        m.d.comb += [
            self.loads.eq(~self.whole & self.table.valid),
            self.table.ready.eq(~self.whole & in_word.all()),
            write.addr.eq(part),
            write.data.eq(self.table.p.word_select(in_word, 8 * _PART_BYTES)),
            write.en.eq(self.loads),
        ]
        with m.If(self.loads):
            m.d.sync += [part.eq(part + 1), self.whole.eq(part == self.load_cycles - 1)]
        with m.If(self.start):
            m.d.sync += [part.eq(0), self.whole.eq(0)]

        with m.If(self.enable):
            m.d.sync += self.o_valid.eq(self.valid)
        for k in range(self._bytes):
            byte = self.i.word_select(k, 8)
            read = memory.read_port()
            place = Signal(exact_log2(_PART_BYTES), name=f"place_{k}")
            m.d.comb += [
                read.addr.eq(byte[exact_log2(_PART_BYTES) :]),
                read.en.eq(self.valid),
                self.o.word_select(k, 8).eq(read.data.word_select(place, 8)),
            ]
            with m.If(self.valid):
                m.d.sync += place.eq(byte[: exact_log2(_PART_BYTES)])
        return m
