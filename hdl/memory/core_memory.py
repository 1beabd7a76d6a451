"""The memory of one core: its scratchpad, and the way of its engines to DRAM."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.memory.scratchpad import Scratchpad
from halfdome.hdl.memory.switch import ReadSwitch, WriteSwitch


class CoreMemory(wiring.Component):
    """Routes each port of a core's engines to the core's scratchpad or to DRAM.

    Parameters
    ----------
    read_ports, write_ports : int
        Ports of the engines.
    card_reads, card_writes : int
        Ports through which clients outside the core reach its scratchpad.
    core : int
        Number of the core.

    Members
    -------
    reads : In(ReadPort).array(read_ports)
    writes : In(WritePort).array(write_ports)
    card_reads : In(ReadPort).array(card_reads), scratchpad only
    card_writes : In(WritePort).array(card_writes), scratchpad only
    dram_reads : Out(ReadPort).array(read_ports)
    dram_writes : Out(WritePort).array(write_ports)

    Latency is the scratchpad's; a read that changes to the other memory waits for the earlier ones.
    """

    def __init__(
        self,
        config: CardConfig,
        read_ports: int,
        write_ports: int,
        *,
        card_reads: int = 0,
        card_writes: int = 0,
        core: int = 0,
    ):
        self._config = config
        self._cores = range(core, core + 1)
        super().__init__(
            {
                "reads": In(ReadPort(config)).array(read_ports),
                "writes": In(WritePort(config)).array(write_ports),
                "card_reads": In(ReadPort(config)).array(card_reads),
                "card_writes": In(WritePort(config)).array(card_writes),
                "dram_reads": Out(ReadPort(config)).array(read_ports),
                "dram_writes": Out(WritePort(config)).array(write_ports),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.scratchpad = scratchpad = Scratchpad(
            self._config,
            len(self.reads) + len(self.card_reads),
            len(self.writes) + len(self.card_writes),
        )
        kinds = (
            ("read", ReadSwitch, self.reads, self.card_reads, self.dram_reads, scratchpad.reads),
            ("write", WriteSwitch, self.writes, self.card_writes, self.dram_writes,
             scratchpad.writes),
        )  # fmt: skip
        for name, switch_class, ports, card_ports, dram_ports, scratchpad_ports in kinds:
            for number, (port, dram) in enumerate(zip(ports, dram_ports, strict=True)):
                m.submodules[f"{name}{number}"] = switch = switch_class(self._config, self._cores)
                connect(m, flipped(port), switch.client)
                connect(m, switch.dram, flipped(dram))
                connect(m, switch.scratchpads[0], scratchpad_ports[number])
            for number, port in enumerate(card_ports, len(ports)):
                connect(m, flipped(port), scratchpad_ports[number])
        return m
