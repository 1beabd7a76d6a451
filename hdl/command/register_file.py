"""The registers of BAR0 (`halfdome.hdl.registers`) but for the arrays, counters and statistics."""

from amaranth import Cat, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl import registers
from halfdome.hdl.command import completion, fetcher
from halfdome.hdl.command.counters import COUNTER_WRITE
from halfdome.hdl.command.statistics import COUNT_BITS
from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.port import READ_EVENTS, REQUEST_EVENTS, PcieControl
from halfdome.hdl.pcie.register_bus import RegisterBus

STATE = data.StructLayout(
    {
        "idle": 1,
        "resetting": 1,
        "cq_tail": 12,
        "msix_pending": len(registers.MSIX_VECTORS),
    }
)
"""What the registers show of the command processor."""
CORE_STATE = data.StructLayout({"idle": 1, "resetting": 1, "sq_head": 12})
"""What they show of each core."""

_RING_SIZES = [1 << bits for bits in range(1, 13)]


class RegisterFile(wiring.Component):
    """Decodes register accesses and holds what the host writes.

    Members
    -------
    bus : In(RegisterBus)
    submission : Out(`fetcher.RING`).array(cores)
    enable : Out(cores), submission rings that run
    urgent : Out(cores), cores that go before others; none if there is one
    completion : Out(`completion.RING`)
    messages : Out(`completion.MESSAGES`)
    restart : Out(1), CONTROL bit 0 goes from 0 to 1 in this cycle: all rings are at their start
    reset : Out(1), CONTROL bit 1 is written
    core_reset : Out(cores), bit 1 of the core's CORE_CONTROL is written
    clear : In(1), registers are as after power-on in the next cycle
    error : Out(1), pulse: something went wrong of which no completion tells
    fetch_failed : In(cores), stops the submission ring until a restart
    state : In(`STATE`)
    cores : In(`CORE_STATE`).array(cores); while a core is `resetting` its ring is at its start
    pcie : Out(PcieControl), its events are counted
    counter_write : Out(stream of `COUNTER_WRITE`, always ready)
    counter_index, counter_value : a read port of the `CounterBank`
    snapshot, snapshot_cycles, statistic_read, statistic_value : to `Statistics`, whose `address`
        is the bus address
    cycles : In(48)

    Reads answer in the next cycle, 0 where there is no register. Writes take effect in the next
    cycle. Doorbells beyond the ring, or that consume completions not yet written, are counted and
    change nothing.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "bus": In(RegisterBus()),
                "submission": Out(fetcher.RING).array(config.cores),
                "enable": Out(config.cores),
                "urgent": Out(config.cores),
                "completion": Out(completion.RING),
                "messages": Out(completion.MESSAGES),
                "restart": Out(1),
                "reset": Out(1),
                "core_reset": Out(config.cores),
                "clear": In(1),
                "error": Out(1),
                "fetch_failed": In(config.cores),
                "state": In(STATE),
                "cores": In(CORE_STATE).array(config.cores),
                "pcie": Out(PcieControl()),
                "counter_write": Out(stream.Signature(COUNTER_WRITE, always_ready=True)),
                "counter_index": Out(8),
                "counter_value": In(32),
                "cycles": In(COUNT_BITS),
                "snapshot": Out(1),
                "snapshot_cycles": In(COUNT_BITS),
                "statistic_read": Out(1),
                "statistic_value": In(COUNT_BITS),
            }
        )

        # Not called ..._cycles, which is for what counts them.
        timeout = registers.default_completion_timeout_cycles(config)
        self._completion_timeout = Signal(32, init=timeout, name="completion_timeout")
        self._bus_master = Signal(init=1, name="bus_master")
        vectors = [{"masked": 1}] * len(registers.MSIX_VECTORS)
        self._messages = Signal(completion.MESSAGES, init=vectors, name="messages")
        self._function_mask = Signal(name="function_mask")
        self._run = Signal(name="run")
        self._stopped = Signal(config.cores, name="stopped")  # by a fetch that failed

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        in_registers = bus.address[10:] == 0
        in_counters = (bus.address[10:] == registers.COUNTER_BASE >> 10) & (
            bus.address[2:10] < self._config.counters
        )
        in_statistics = bus.address >= registers.ACTIVITY_BASE
        m.d.comb += [
            self.counter_index.eq(bus.address[2:10]),
            self.counter_write.p.counter.eq(bus.address[2:10]),
            self.counter_write.p.value.eq(bus.write_data),
            self.counter_write.valid.eq(bus.write & in_counters),
            self.statistic_read.eq(bus.read & in_statistics),
            self.snapshot.eq(bus.read & (bus.address == registers.offset("CYCLES_LO"))),
        ]

        rejected = Signal()
        m.d.comb += [
            self.enable.eq(Mux(self._run, ~self._stopped, 0)),
            self.pcie.completion_timeout.eq(self._completion_timeout),
            self.pcie.bus_master.eq(self._bus_master & ~self.state.resetting),
            self.pcie.discard.eq(self.state.resetting),
            self.pcie.reset.eq(self.clear),
            self.error.eq(
                rejected
                | (self.fetch_failed.any() & ~self.restart)
                | self.pcie.events.dropped_request
            ),
        ]
        for own, shown in zip(self._messages, self.messages, strict=True):
            m.d.comb += [shown.eq(own), shown.masked.eq(own.masked | self._function_mask)]
        with m.If(bus.write & in_registers):
            self._write(m, rejected)
        m.d.sync += self._stopped.eq(self._stopped | self.fetch_failed)
        with m.If(self.restart):
            m.d.sync += self.completion.head.eq(0)
        for number, core in enumerate(self.cores):
            with m.If(self.restart | core.resetting):
                m.d.sync += [self.submission[number].tail.eq(0), self._stopped[number].eq(0)]

        events = {
            f"{name.upper()}S": self.pcie.events[name] for name in REQUEST_EVENTS + READ_EVENTS
        } | {"REJECTED_DOORBELLS": rejected}
        counts = {name: Signal(32, name=name.lower()) for name in events}
        for name, event in events.items():
            with m.If(event):
                m.d.sync += counts[name].eq(counts[name] + 1)

        with m.If(self.clear):
            held = (
                *self.submission, self.urgent, self.completion, self._messages, self._function_mask,
                self._run, self._completion_timeout, self._bus_master, self._stopped,
                *counts.values(),
            )  # fmt: skip
            m.d.sync += [Value.cast(each).eq(Value.cast(each).init) for each in held]

        values = self._constants() | self._settings() | counts
        values["STATUS"] = Cat(self.state.idle, self._stopped.any(), self.state.resetting)
        value = Signal(32)
        counted = Signal()
        statistic = Signal()
        high = Signal()
        with m.If(bus.read):
            m.d.sync += [
                value.eq(0),
                counted.eq(in_counters),
                statistic.eq(in_statistics),
                high.eq(bus.address[2]),
            ]
            with m.Switch(bus.address):
                for register in registers.REGISTERS:
                    with m.Case(register.offset):
                        m.d.sync += value.eq(values[register.name])
                for core in range(self._config.cores):
                    shown = self._of_core(core)
                    for register in registers.CORE_REGISTERS:
                        with m.Case(registers.offset(register.name, core)):
                            m.d.sync += value.eq(shown[register.name])
        half = Mux(high, self.statistic_value[32:], self.statistic_value[:32])
        m.d.comb += bus.read_data.eq(Mux(counted, self.counter_value, Mux(statistic, half, value)))
        return m

    def _constants(self) -> dict[str, int]:
        config_hash = int(self._config.hash, 16)
        return {
            "ID": registers.IDENTIFICATION,
            "VERSION": registers.INTERFACE_VERSION,
            "CONFIG_HASH_LO": config_hash & 0xFFFF_FFFF,
            "CONFIG_HASH_HI": config_hash >> 32,
        }

    def _settings(self) -> dict[str, ValueLike]:
        ring, state = self.completion, self.state
        vectors = {}
        for prefix, message in zip(registers.MSIX_VECTORS, self._messages, strict=True):
            vectors[f"{prefix}_ADDRESS_LO"] = message.address[:32]
            vectors[f"{prefix}_ADDRESS_HI"] = message.address[32:]
            vectors[f"{prefix}_DATA"] = message.data
            vectors[f"{prefix}_CONTROL"] = message.masked
        return vectors | {
            "CONTROL": self._run,
            "CYCLES_LO": self.cycles[:32],
            "CYCLES_HI": self.snapshot_cycles[32:],
            "CQ_BASE_LO": ring.base[:32],
            "CQ_BASE_HI": ring.base[32:],
            "CQ_SIZE": ring.size,
            "CQ_HEAD": ring.head,
            "CQ_TAIL": state.cq_tail,
            "QUARANTINED_TAGS": self.pcie.quarantined_tags,
            "OUTSTANDING_READS": self.pcie.outstanding_reads,
            "COMPLETION_TIMEOUT_CYCLES": self._completion_timeout,
            "BUS_MASTER": self._bus_master,
            "MSIX_PENDING": state.msix_pending,
            "MSIX_FUNCTION_MASK": self._function_mask,
        }

    def _of_core(self, core: int) -> dict[str, ValueLike]:
        ring, state = self.submission[core], self.cores[core]
        return {
            "SQ_BASE_LO": ring.base[:32],
            "SQ_BASE_HI": ring.base[32:],
            "SQ_SIZE": ring.size,
            "SQ_TAIL": ring.tail,
            "SQ_HEAD": state.sq_head,
            "SQ_PRIORITY": self.urgent[core],
            "CORE_CONTROL": 0,
            "CORE_STATUS": Cat(state.idle, self._stopped[core], state.resetting),
        }

    def _write(self, m: Module, rejected: Signal):
        """The write accesses; any register but these ignores them."""
        ring = self.completion
        value = self.bus.write_data
        is_size = Cat(value == size for size in _RING_SIZES).any()
        # What the host says it has consumed must have been written.
        consumed = ((value - ring.head) & (ring.size - 1))[:12]
        written = ((self.state.cq_tail - ring.head) & (ring.size - 1))[:12]
        with m.Switch(self.bus.address):
            with m.Case(registers.offset("CONTROL")):
                m.d.comb += self.reset.eq(value[1])
                with m.If(~value[1] & ~self.state.resetting):
                    m.d.comb += self.restart.eq(value[0] & ~self._run)
                    m.d.sync += self._run.eq(value[0])
            for core, submission in enumerate(self.submission):
                with m.Case(registers.offset("CORE_CONTROL", core)):
                    m.d.comb += self.core_reset[core].eq(value[1])
                with m.Case(registers.offset("SQ_TAIL", core)):
                    with m.If(value < submission.size):
                        m.d.sync += submission.tail.eq(value)
                    with m.Else():
                        m.d.comb += rejected.eq(1)
                if self._config.cores > 1:
                    with m.Case(registers.offset("SQ_PRIORITY", core)):
                        m.d.sync += self.urgent[core].eq(value[0])
            with m.Case(registers.offset("CQ_HEAD")):
                with m.If((value < ring.size) & (consumed <= written)):
                    m.d.sync += ring.head.eq(value)
                with m.Else():
                    m.d.comb += rejected.eq(1)
            rings = [("CQ", 0, ring)]
            rings += [("SQ", core, submission) for core, submission in enumerate(self.submission)]
            for prefix, core, target in rings:
                with m.Case(registers.offset(f"{prefix}_BASE_LO", core)):
                    with m.If(~self._run):
                        m.d.sync += target.base[6:32].eq(value[6:])
                with m.Case(registers.offset(f"{prefix}_BASE_HI", core)):
                    with m.If(~self._run):
                        m.d.sync += target.base[32:].eq(value)
                with m.Case(registers.offset(f"{prefix}_SIZE", core)):
                    with m.If(~self._run & is_size):
                        m.d.sync += target.size.eq(value)
            with m.Case(registers.offset("COMPLETION_TIMEOUT_CYCLES")):
                m.d.sync += self._completion_timeout.eq(value)
            with m.Case(registers.offset("BUS_MASTER")):
                m.d.sync += self._bus_master.eq(value[0])
            with m.Case(registers.offset("MSIX_FUNCTION_MASK")):
                m.d.sync += self._function_mask.eq(value[0])
            for name, message in zip(registers.MSIX_VECTORS, self._messages, strict=True):
                with m.Case(registers.offset(f"{name}_ADDRESS_LO")):
                    m.d.sync += message.address[2:32].eq(value[2:])
                with m.Case(registers.offset(f"{name}_ADDRESS_HI")):
                    m.d.sync += message.address[32:].eq(value)
                with m.Case(registers.offset(f"{name}_DATA")):
                    m.d.sync += message.data.eq(value)
                with m.Case(registers.offset(f"{name}_CONTROL")):
                    m.d.sync += message.masked.eq(value[0])
