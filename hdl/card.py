"""The card: everything between two packet streams and card DRAM."""

from amaranth import Module, Mux, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.command.processor import CommandProcessor
from halfdome.hdl.command.queues import CoreQueues
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig
from halfdome.hdl.core import READ_PORTS, WEIGHT_PORT, WRITE_PORTS, Core
from halfdome.hdl.memory.axi import Axi4
from halfdome.hdl.memory.system import MemorySystem
from halfdome.hdl.once import Once
from halfdome.hdl.pcie.endpoint import PcieEndpoint
from halfdome.hdl.pcie.tlp import rx_beat, tx_beat
from halfdome.hdl.registers import GATHER_WAITS


class Card(wiring.Component):
    """One accelerator card, whole. Clock and reset are those of the domain `sync`.

    Its ports sit where the user side of a PCIe hard IP and of a DRAM controller would sit.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    rx : In(stream of `rx_beat`), packets to the card
    rx_np_ok : Out(1), the card has room for non-posted requests; hold them back while it is low,
        and let others pass
    tx : Out(stream of `tx_beat`), packets from the card
    axi : Out(Axi4), card DRAM

    A card that waits repeats itself every `idle_period` cycles in every register but its cycle
    counts: only the lookup of the timeline counters that queues wait for goes round.
    """

    idle_period = CoreQueues.rotation

    def __init__(self, config: CardConfig):
        config.need_dram()
        self.config = config
        self._memory = MemorySystem(
            config,
            core_reads=READ_PORTS,
            core_writes=WRITE_PORTS,
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
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
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
            processor.pcie_read_bytes.eq(pcie.read_bytes),
            processor.pcie_write_bytes.eq(pcie.write_bytes),
            processor.dram_read_bytes.eq(memory.dram_read_bytes),
            processor.dram_write_bytes.eq(memory.dram_write_bytes),
        ]

        cores = []
        for index in range(config.cores):
            core = Core(config)
            m.submodules[f"core_{index}"] = Once(core)
            cores.append(core)
            connect(m, core.dma, pcie.dma_reads[index])
            connect(m, core.posted, pcie.posted[index])
            for number in range(READ_PORTS):
                connect(m, core.reads[number], memory.core_reads[index][number])
            for number in range(WRITE_PORTS):
                connect(m, core.writes[number], memory.core_writes[index][number])
            for engine in Engine:
                outer = processor.engines[index][engine]
                inner = core.engines[engine]
                connect(m, outer.command, inner.command)
                connect(m, inner.result, outer.result)
                m.d.comb += outer.activity.eq(inner.activity)
        requests = [core.reads[WEIGHT_PORT].request for core in cores]
        m.d.comb += [
            processor.weight_dram_bytes.eq(sum(self._asked(r, 1) for r in requests)),
            processor.weight_scratchpad_bytes.eq(sum(self._asked(r, 0) for r in requests)),
        ]
        for number, wait in enumerate(GATHER_WAITS):
            count = getattr(processor, f"gather_{wait}_cycles")
            m.d.comb += count.eq(sum(core.gather_waits[number] for core in cores))
        if config.gather_cache_bytes:
            m.d.comb += [core.dram_writes.eq(memory.dram_writes) for core in cores]
            m.d.comb += [
                processor.gather_cache_hits.eq(sum(core.gather_cache_hits for core in cores)),
                processor.gather_cache_misses.eq(sum(core.gather_cache_misses for core in cores)),
            ]
        return m

    def _asked(self, request, of_dram: int) -> Value:
        """Bytes that a read port asks DRAM, or a scratchpad, for in this cycle."""
        config = self.config
        in_dram = request.p.address < config.scratchpad_base
        taken = request.valid & request.ready & (in_dram == of_dram)
        return Mux(taken, (request.p.count_minus_1 + 1) << exact_log2(config.bus_bytes), 0)
