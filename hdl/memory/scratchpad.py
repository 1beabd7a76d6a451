"""The scratchpad of a core: banks of SRAM that many ports share."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.arbiter import RoundRobin, index_bits
from halfdome.hdl.memory.port import ReadPort, WritePort


class Scratchpad(wiring.Component):
    """Banked SRAM, interleaved by bus word; each bank serves one read and one write a cycle.

    Addresses are taken modulo `scratchpad_bytes`. Ports that meet in a bank take turns, word by
    word; ports in different banks do not disturb each other.

    Members
    -------
    reads : In(ReadPort).array(read_ports)
    writes : In(WritePort).array(write_ports)

    The first word of an uncontended read comes `latency` cycles after its request is taken, then
    one word a cycle, bursts back to back. A write that is not contended can be read by a request
    taken in the next cycle. A word waits for at most one word of each other port.
    """

    latency = 3

    def __init__(self, config: CardConfig, read_ports: int, write_ports: int):
        self._config = config
        self._word_bits = exact_log2(config.bus_bytes)
        self._bank_bits = exact_log2(config.scratchpad_banks)
        self._index_bits = exact_log2(config.scratchpad_bytes) - self._word_bits
        super().__init__(
            {
                "reads": In(ReadPort(config)).array(read_ports),
                "writes": In(WritePort(config)).array(write_ports),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        depth = 1 << (self._index_bits - self._bank_bits)
        read_ports, write_ports = [], []
        for number in range(config.scratchpad_banks):
            m.submodules[f"bank{number}"] = bank = Memory(
                shape=config.bus_bytes * 8, depth=depth, init=[]
            )
            read_ports.append(bank.read_port())
            write_ports.append(bank.write_port(granularity=8))
        if len(self.reads):
            self._serve_reads(m, read_ports)
        if len(self.writes):
            self._serve_writes(m, write_ports)
        return m

    def _word_index(self, address):
        return address[self._word_bits : self._word_bits + self._index_bits]

    def _turns(self, m, name, valid, index):
        """One picker per bank over the ports that want it, and per port whether it got its turn."""
        granted = [0] * len(index)
        turns = []
        for number in range(self._config.scratchpad_banks):
            m.submodules[f"{name}_turn{number}"] = turn = RoundRobin(len(index))
            wants = [
                v & (i[: self._bank_bits] == number) for v, i in zip(valid, index, strict=True)
            ]
            m.d.comb += [turn.requests.eq(Cat(wants)), turn.advance.eq(1)]
            granted = [g | turn.grant[port] for port, g in enumerate(granted)]
            turns.append(turn)
        return turns, granted

    def _serve_reads(self, m, bank_ports):
        config = self._config
        ports = range(len(self.reads))
        # What is left of each port's burst.
        active = [Signal(name=f"read{p}_active") for p in ports]
        index = [Signal(self._index_bits, name=f"read{p}_index") for p in ports]
        left = [Signal(index_bits(config.burst_words), name=f"read{p}_left") for p in ports]
        turns, granted = self._turns(m, "read", active, index)

        for bank_port, turn in zip(bank_ports, turns, strict=True):
            m.d.comb += bank_port.en.eq(turn.requests.any())
            with m.Switch(turn.index):
                for p in ports:
                    with m.Case(p):
                        m.d.comb += bank_port.addr.eq(index[p][self._bank_bits :])

        for p, port in enumerate(self.reads):
            got = Signal(name=f"read{p}_got")
            last = Signal(name=f"read{p}_last")
            m.d.comb += [
                got.eq(granted[p]),
                last.eq(left[p] == 0),
                port.request.ready.eq(~active[p] | (got & last)),
            ]
            with m.If(got):
                m.d.sync += [index[p].eq(index[p] + 1), left[p].eq(left[p] - 1)]
            with m.If(port.request.ready):
                m.d.sync += [
                    active[p].eq(port.request.valid),
                    index[p].eq(self._word_index(port.request.p.address)),
                    left[p].eq(port.request.p.count_minus_1),
                ]
            # The bank's data is there a cycle after its turn.
            fetched = Signal(name=f"read{p}_fetched")
            fetched_last = Signal(name=f"read{p}_fetched_last")
            bank = Signal(self._bank_bits, name=f"read{p}_bank")
            m.d.sync += [
                fetched.eq(got),
                fetched_last.eq(last),
                bank.eq(index[p][: self._bank_bits]),
                port.response.valid.eq(fetched),
                port.response.p.last.eq(fetched_last),
            ]
            with m.If(fetched):
                with m.Switch(bank):
                    for number, bank_port in enumerate(bank_ports):
                        with m.Case(number):
                            m.d.sync += port.response.p.data.eq(bank_port.data)

    def _serve_writes(self, m, bank_ports):
        ports = range(len(self.writes))
        payloads = [port.request.p for port in self.writes]
        # One word of each port waits here for its bank.
        held = [Signal.like(p, name=f"write{k}") for k, p in enumerate(payloads)]
        active = [Signal(name=f"write{k}_active") for k in ports]
        index = [self._word_index(p.address) for p in held]
        turns, granted = self._turns(m, "write", active, index)

        for bank_port, turn in zip(bank_ports, turns, strict=True):
            with m.Switch(turn.index):
                for k in ports:
                    with m.Case(k):
                        m.d.comb += [
                            bank_port.addr.eq(index[k][self._bank_bits :]),
                            bank_port.data.eq(held[k].data),
                        ]
                        with m.If(turn.requests.any()):
                            m.d.comb += bank_port.en.eq(held[k].strobe)

        for k, port in enumerate(self.writes):
            m.d.comb += [
                port.request.ready.eq(~active[k] | granted[k]),
                port.idle.eq(~active[k]),
            ]
            with m.If(port.request.ready):
                m.d.sync += [active[k].eq(port.request.valid), held[k].eq(port.request.p)]
