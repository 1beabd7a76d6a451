"""A hot-row cache that forgets what is written to."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.gather.cache import RowCache
from halfdome.hdl.gather.watch import WriteWatch
from halfdome.hdl.memory.axi_arbiter import dram_writes
from halfdome.hdl.memory.port import ReadPort


class WatchedCache(wiring.Component):
    """`RowCache` in front of a gather engine's rows, and the `WriteWatch` that has it flushed.

    Members
    -------
    client : In(ReadPort)
    memory : Out(ReadPort)
    start : In(1), a command begins
    command : In, fields of a GATHER, while `start` is high
    writes : In(`dram_writes`)
    hit, miss : Out(1), see `RowCache`
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "client": In(ReadPort(config)),
                "memory": Out(ReadPort(config)),
                "start": In(1),
                "command": In(layout(fields(Opcode.GATHER))),
                "writes": In(dram_writes(config)),
                "hit": Out(1),
                "miss": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cache = cache = RowCache(self._config)
        m.submodules.watch = watch = WriteWatch(self._config)
        connect(m, flipped(self.client), cache.client)
        connect(m, cache.memory, flipped(self.memory))
        m.d.comb += [
            watch.start.eq(self.start),
            watch.table.eq(self.command.table),
            watch.rows.eq(self.command.rows),
            watch.row_stride.eq(self.command.row_stride),
            watch.writes.eq(self.writes),
            cache.flush.eq(watch.flush),
            cache.hold.eq(watch.busy),
            self.hit.eq(cache.hit),
            self.miss.eq(cache.miss),
        ]
        return m
