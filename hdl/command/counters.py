"""Timeline counters: the only order between queues, cards and the host."""

from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from halfdome.hdl.config import CardConfig

COUNTER_WRITE = data.StructLayout({"counter": 8, "value": 32})
"""Sets a counter that exists."""


class CounterBank(wiring.Component):
    """`config.counters` counters of 32 bits, 0 after reset.

    Members
    -------
    i_host : In(stream of `COUNTER_WRITE`, always ready), writes from PCIe; they go first
    i_signal : In(stream of `COUNTER_WRITE`), writes of finished commands
    index : In(8).array(cores + 1), what to read: one port a core, the last for the host
    value : Out(32).array(cores + 1), the counter of the last cycle's `index`

    A write can be read in the next cycle.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i_host": In(stream.Signature(COUNTER_WRITE, always_ready=True)),
                "i_signal": In(stream.Signature(COUNTER_WRITE)),
                "index": In(8).array(config.cores + 1),
                "value": Out(32).array(config.cores + 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # A power of two, so that no index reads outside.
        depth = 1 << ceil_log2(self._config.counters)
        m.submodules.memory = memory = Memory(shape=32, depth=depth, init=[])
        write = memory.write_port()
        m.d.comb += [
            self.i_signal.ready.eq(~self.i_host.valid),
            write.en.eq(self.i_host.valid | self.i_signal.valid),
            write.addr.eq(self.i_signal.p.counter),
            write.data.eq(self.i_signal.p.value),
        ]
        with m.If(self.i_host.valid):
            m.d.comb += [
                write.addr.eq(self.i_host.p.counter),
                write.data.eq(self.i_host.p.value),
            ]
        for index, value in zip(self.index, self.value, strict=True):
            read = memory.read_port()
            m.d.comb += [read.addr.eq(index), value.eq(read.data)]
        return m
