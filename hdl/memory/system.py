"""All memory of a card: the scratchpads, the clients' ways to them, and DRAM behind AXI4."""

from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.axi import Axi4
from halfdome.hdl.memory.axi_arbiter import AxiArbiter, dram_writes
from halfdome.hdl.memory.core_memory import CoreMemory
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.memory.switch import ReadSwitch, WriteSwitch


def _groups(cores: int, of_core: int, of_card: int) -> tuple[int, ...]:
    """Ports that take turns with each other: those of each core, and the card's. The card's are
    with those of an only core."""
    return (of_core + of_card,) if cores == 1 else (*[of_core] * cores, of_card)


class MemorySystem(wiring.Component):
    """Serves the ports of every core and of the card's own clients.

    A port of core `c` reaches DRAM and the scratchpad of core `c`; a port of the card (`global_*`:
    the BAR2 window, PCIe reads) reaches DRAM and every scratchpad. DRAM is shared fairly between
    the cores, and the card's own clients, however many ports of each ask; urgent cores go first,
    and with them the card's clients, which bring and take what those have over PCIe.

    Parameters
    ----------
    core_reads, core_writes : int
        Ports of each core.
    global_reads, global_writes : int
        Ports of the card.

    Members
    -------
    core_reads : In(ReadPort).array(cores, core_reads)
    core_writes : In(WritePort).array(cores, core_writes)
    global_reads : In(ReadPort).array(global_reads)
    global_writes : In(WritePort).array(global_writes)
    urgent : In(cores), see `UrgentFirst`; no matter of an only core
    axi : Out(Axi4), whose IDs are `ids`, of `id_bits` bits
    dram_read_bytes, dram_write_bytes : Out, bytes that DRAM answered and took in this cycle
    dram_writes : Out(`dram_writes`)

    See `Scratchpad` and `AxiArbiter` for latencies.
    """

    def __init__(
        self,
        config: CardConfig,
        core_reads: int,
        core_writes: int,
        global_reads: int,
        global_writes: int,
    ):
        self._config = config
        self._arbiter = AxiArbiter(
            config,
            _groups(config.cores, core_reads, global_reads),
            _groups(config.cores, core_writes, global_writes),
        )
        self.ids = self._arbiter.ids
        self.id_bits = self._arbiter.id_bits
        super().__init__(
            {
                "core_reads": In(ReadPort(config)).array(config.cores, core_reads),
                "core_writes": In(WritePort(config)).array(config.cores, core_writes),
                "global_reads": In(ReadPort(config)).array(global_reads),
                "global_writes": In(WritePort(config)).array(global_writes),
                "urgent": In(config.cores),
                "axi": Out(Axi4(config, self.id_bits)),
                "dram_read_bytes": Out(range(config.bus_bytes + 1)),
                "dram_write_bytes": Out(range(config.bus_bytes + 1)),
                "dram_writes": Out(dram_writes(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.arbiter = arbiter = self._arbiter
        connect(m, arbiter.axi, flipped(self.axi))
        m.d.comb += [
            arbiter.urgent.eq(Cat(self.urgent, self.urgent.any())),
            self.dram_read_bytes.eq(arbiter.read_bytes),
            self.dram_write_bytes.eq(arbiter.write_bytes),
            self.dram_writes.eq(arbiter.dram_writes),
        ]

        cores = []
        dram_reads, dram_writes = iter(arbiter.reads), iter(arbiter.writes)
        for number in range(config.cores):
            reads, writes = self.core_reads[number], self.core_writes[number]
            m.submodules[f"core{number}"] = core = CoreMemory(
                config,
                len(reads),
                len(writes),
                card_reads=len(self.global_reads),
                card_writes=len(self.global_writes),
                core=number,
            )
            cores.append(core)
            for client, port in zip([*reads, *writes], [*core.reads, *core.writes], strict=True):
                connect(m, flipped(client), port)
            for port in core.dram_reads:
                connect(m, port, next(dram_reads))
            for port in core.dram_writes:
                connect(m, port, next(dram_writes))

        for number, client in enumerate(self.global_reads):
            m.submodules[f"global_read{number}"] = switch = ReadSwitch(config, range(config.cores))
            connect(m, flipped(client), switch.client)
            connect(m, switch.dram, next(dram_reads))
            for core, port in zip(cores, switch.scratchpads, strict=True):
                connect(m, port, core.card_reads[number])
        for number, client in enumerate(self.global_writes):
            m.submodules[f"global_write{number}"] = switch = WriteSwitch(
                config, range(config.cores)
            )
            connect(m, flipped(client), switch.client)
            connect(m, switch.dram, next(dram_writes))
            for core, port in zip(cores, switch.scratchpads, strict=True):
                connect(m, port, core.card_writes[number])
        return m
