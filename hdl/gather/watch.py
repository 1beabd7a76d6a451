"""Notices writes to the tables whose rows a cache may hold."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.axi_arbiter import dram_writes


class WriteWatch(wiring.Component):
    """Has the cache flushed before a command if DRAM was written since, near a table it may hold.

    Members
    -------
    start : In(1), a command begins
    table, rows, row_stride : In, of that command, while `start` is high
    writes : In(`dram_writes`)
    flush : Out(1), in the cycle of `start`
    busy : Out(1), the table's end is being computed: the command must not read rows yet

    It remembers the span from the lowest to the highest byte of every table since the last flush. A
    write into the span, or one that was in flight when a command began, whatever its address, makes
    the next command flush. A command thus sees every write that it was ordered after; within a
    command, rows written meanwhile may be seen old or new.
    """

    def __init__(self, config: CardConfig):
        self._address_bits = config.address_bits
        super().__init__(
            {
                "start": In(1),
                "table": In(config.address_bits),
                "rows": In(32),
                "row_stride": In(16),
                "writes": In(dram_writes(config)),
                "flush": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # table + rows * row_stride, in steps of one 16-bit multiplier or one adder of an address.
        steps = Signal(3)
        low_part, high_part = Signal(32), Signal(32)
        size, base, end = (Signal(self._address_bits, name=n) for n in ("size", "base", "end"))
        m.d.comb += self.busy.eq(steps.any())
        m.d.sync += [
            steps.eq(steps << 1 | self.start),
            low_part.eq(self.rows[:16] * self.row_stride),
            high_part.eq(self.rows[16:] * self.row_stride),
            size.eq(low_part + (high_part << 16)),
            end.eq(base + size),
        ]
        with m.If(self.start):
            m.d.sync += base.eq(self.table)

        held = Signal()
        lowest, highest = (Signal(self._address_bits, name=n) for n in ("lowest", "highest"))
        with m.If(steps[2]):
            m.d.sync += [
                held.eq(1),
                lowest.eq(Mux(held & (lowest < base), lowest, base)),
                highest.eq(Mux(held & (highest > end), highest, end)),
            ]

        written = Signal()
        inside = Signal()
        m.d.comb += [
            inside.eq(held & (self.writes.address >= lowest) & (self.writes.address < highest)),
            self.flush.eq(self.start & written),
        ]
        with m.If(self.start):
            m.d.sync += written.eq(self.writes.pending)
            with m.If(written):
                m.d.sync += held.eq(0)
        with m.If(self.writes.valid & (inside | self.start | self.busy)):
            m.d.sync += written.eq(1)
        return m
