"""A function of bytes that a command brings along as a table."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import TABLE_BYTES
from halfdome.hdl.config import CardConfig
from halfdome.hdl.once import Once
from halfdome.hdl.vector.unit import unit_members

_PART_BYTES = 4
"""What is written in a cycle, and the width of a copy of the table."""
_PARTS = TABLE_BYTES // _PART_BYTES
_BYTE_BITS = exact_log2(_PART_BYTES)


class _Copy(wiring.Component):
    """The table for one byte of a group.

    Members
    -------
    part, value : In, what is written where if `write`
    read : In(1), a byte comes
    i : In(8)
    o : Out(8), its entry, in the cycle after it came and until the next comes
    """

    def __init__(self):
        super().__init__(
            {
                "write": In(1),
                "part": In(range(_PARTS)),
                "value": In(8 * _PART_BYTES),
                "read": In(1),
                "i": In(8),
                "o": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8 * _PART_BYTES, depth=_PARTS, init=[])
        write, read = memory.write_port(), memory.read_port()
        place = Signal(_BYTE_BITS)
        m.d.comb += [
            write.en.eq(self.write),
            write.addr.eq(self.part),
            write.data.eq(self.value),
            read.en.eq(self.read),
            read.addr.eq(self.i[_BYTE_BITS:]),
            self.o.eq(read.data.word_select(place, 8)),
        ]
        with m.If(self.read):
            m.d.sync += place.eq(self.i[:_BYTE_BITS])
        return m


class ByteTable(wiring.Component):
    """Looks up every byte of a group in a table of `TABLE_BYTES`, `latency` enabled cycles long.

    Members
    -------
    *`unit_members()`, of `byte_lanes` bytes; o is table[i] byte by byte. `valid` only if `whole`
    start : In(1), forgets the table
    table : In(stream of bus words), the new one; taken until it is whole
    whole : Out(1), the table is there
    loads : Out(1), a part of it is written in this cycle

    A group a cycle; the table takes `load_cycles`, and is kept once for each byte of a group.
    """

    latency = 1
    load_cycles = _PARTS

    def __init__(self, config: CardConfig):
        self._bytes = config.byte_lanes
        self._word_bytes = config.bus_bytes
        super().__init__(
            unit_members(self._bytes)
            | {
                "start": In(1),
                "table": In(stream.Signature(8 * config.bus_bytes)),
                "whole": Out(1),
                "loads": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        part = Signal(range(self.load_cycles))
        value = Signal(8 * _PART_BYTES)
        in_word = part[: exact_log2(self._word_bytes // _PART_BYTES)]
        m.d.comb += [
            self.loads.eq(~self.whole & self.table.valid),
            self.table.ready.eq(~self.whole & in_word.all()),
            value.eq(self.table.p.word_select(in_word, 8 * _PART_BYTES)),
        ]
        with m.If(self.loads):
            m.d.sync += [part.eq(part + 1), self.whole.eq(part == self.load_cycles - 1)]
        with m.If(self.start):
            m.d.sync += [part.eq(0), self.whole.eq(0)]

        with m.If(self.enable):
            m.d.sync += self.o_valid.eq(self.valid)
        for k in range(self._bytes):
            copy = _Copy()
            m.submodules[f"copy_{k}"] = Once(copy)
            m.d.comb += [
                copy.write.eq(self.loads),
                copy.part.eq(part),
                copy.value.eq(value),
                copy.read.eq(self.valid),
                copy.i.eq(self.i.word_select(k, 8)),
                self.o.word_select(k, 8).eq(copy.o),
            ]
        return m
