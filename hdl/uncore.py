"""All of a card but its cores: PCIe, the command processor and memory."""

from amaranth import Module, Mux, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.command.processor import CommandProcessor
from halfdome.hdl.command.queues import CoreQueues
from halfdome.hdl.config import CardConfig
from halfdome.hdl.core import READERS, WEIGHT_PORT, WRITERS, core_members
from halfdome.hdl.memory.axi import Axi4
from halfdome.hdl.memory.system import MemorySystem
from halfdome.hdl.pcie.endpoint import PcieEndpoint
from halfdome.hdl.pcie.tlp import rx_beat, tx_beat
from halfdome.hdl.registers import GATHER_WAITS


class Uncore(wiring.Component):
    """What the cores of a card share.

    Members
    -------
    rx, rx_np_ok, tx, axi : see `Card`
    every name of `core_members` : its other side, for each core

    With its cores at rest it repeats itself every `idle_period` cycles in every register but its
    cycle counts: only the lookup of the timeline counters that queues wait for goes round.
    """

    idle_period = CoreQueues.rotation

    def __init__(self, config: CardConfig):
        config.need_dram()
        self._config = config
        self._memory = MemorySystem(
            config,
            core_reads=len(READERS),
            core_writes=len(WRITERS),
            global_reads=1,
            global_writes=2,
        )
        super().__init__(
            {
                "rx": In(stream.Signature(rx_beat(config))),
                "rx_np_ok": Out(1),
                "tx": Out(stream.Signature(tx_beat(config))),
                "axi": Out(Axi4(config, self._memory.id_bits)),
            }
            | {
                name: member.flip().array(config.cores)
                for name, member in core_members(config).items()
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.pcie = pcie = PcieEndpoint(config)
        m.submodules.processor = processor = CommandProcessor(config)
        m.submodules.memory = memory = self._memory

        connect(m, flipped(self.rx), pcie.rx)
        connect(m, pcie.tx, flipped(self.tx))
        m.d.comb += self.rx_np_ok.eq(pcie.rx_np_ok)
        connect(m, memory.axi, flipped(self.axi))

        connect(m, pcie.registers, processor.registers)
        connect(m, processor.fetch, pcie.fetch)
        connect(m, processor.posted, pcie.posted[config.cores])
        connect(m, pcie.window_read, memory.global_reads[0])
        connect(m, pcie.window_write, memory.global_writes[0])
        connect(m, pcie.dma_write, memory.global_writes[1])
        connect(m, processor.pcie, pcie.control)
        m.d.comb += [
            memory.urgent.eq(processor.urgent),
            processor.pcie_read_bytes.eq(pcie.read_bytes),
            processor.pcie_write_bytes.eq(pcie.write_bytes),
            processor.dram_read_bytes.eq(memory.dram_read_bytes),
            processor.dram_write_bytes.eq(memory.dram_write_bytes),
        ]

        for index in range(config.cores):
            connect(m, flipped(self.dma[index]), pcie.dma_reads[index])
            connect(m, flipped(self.posted[index]), pcie.posted[index])
            for outer, inner in (
                (self.reads, memory.core_reads),
                (self.writes, memory.core_writes),
                (self.engines, processor.engines),
            ):
                for port, unit in zip(outer[index], inner[index], strict=True):
                    connect(m, flipped(port), unit)
        requests = [ports[WEIGHT_PORT].request for ports in self.reads]
        m.d.comb += [
            processor.weight_dram_bytes.eq(sum(self._asked(r, 1) for r in requests)),
            processor.weight_scratchpad_bytes.eq(sum(self._asked(r, 0) for r in requests)),
        ]
        for number, wait in enumerate(GATHER_WAITS):
            count = getattr(processor, f"gather_{wait}_cycles")
            m.d.comb += count.eq(sum(waits[number] for waits in self.gather_waits))
        if config.gather_cache_bytes:
            m.d.comb += [each.eq(memory.dram_writes) for each in self.dram_writes]
            m.d.comb += [
                processor.gather_cache_hits.eq(sum(self.gather_cache_hits)),
                processor.gather_cache_misses.eq(sum(self.gather_cache_misses)),
            ]
        return m

    def _asked(self, request, of_dram: int) -> Value:
        """Bytes that a read port asks DRAM, or a scratchpad, for in this cycle."""
        config = self._config
        in_dram = request.p.address < config.scratchpad_base
        taken = request.valid & request.ready & (in_dram == of_dram)
        return Mux(taken, (request.p.count_minus_1 + 1) << exact_log2(config.bus_bytes), 0)
