"""The command processor: from the submission rings to the engines and back to the host."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.command.checker import DescriptorChecker
from halfdome.hdl.command.completion import CompletionWriter
from halfdome.hdl.command.counters import COUNTER_WRITE, CounterBank
from halfdome.hdl.command.fetcher import CommandFetcher
from halfdome.hdl.command.merge import RoundRobinMerge
from halfdome.hdl.command.queues import FINISHED, CoreQueues
from halfdome.hdl.command.register_file import RegisterFile
from halfdome.hdl.command.reset import CoreResets, ResetSequence
from halfdome.hdl.command.statistics import TRAFFIC_BITS, Statistics
from halfdome.hdl.command.turns import RingTurns
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import engine_members
from halfdome.hdl.pcie.port import FetchPort, PcieControl, PostedWritePort
from halfdome.hdl.pcie.register_bus import RegisterBus
from halfdome.hdl.registers import TRAFFIC


class CommandProcessor(wiring.Component):
    """Fetches descriptors, checks them, runs each on its engine and writes its completion.

    Members
    -------
    registers : In(RegisterBus), BAR0
    fetch : Out(FetchPort), descriptors
    posted : Out(PostedWritePort), completions and interrupts
    engines : In(engine_members()).array(cores, engines)
    pcie : Out(PcieControl)
    urgent : Out(cores), see `RegisterFile`
    every name of `registers.TRAFFIC` : In(TRAFFIC_BITS), what this cycle adds

    Descriptors reach the queues of a core in the order of its ring: a full queue holds up all that
    follow in that ring, and nothing of other cores. So a host must not let the head of a full queue
    wait for a command behind it. Every descriptor completes exactly once. To restart the rings the
    host waits for STATUS idle first: commands still running would complete into the new ring. Or it
    resets the card, see `ResetSequence`, or one core, see `CoreResets`.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "registers": In(RegisterBus()),
                "fetch": Out(FetchPort(config)),
                "posted": Out(PostedWritePort(config)),
                "engines": In(wiring.Signature(engine_members())).array(config.cores, len(Engine)),
                "pcie": Out(PcieControl()),
                "urgent": Out(config.cores),
            }
            | {name: In(TRAFFIC_BITS) for name in TRAFFIC}
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.registers = registers = RegisterFile(config)
        m.submodules.statistics = statistics = Statistics(config)
        m.submodules.fetcher = fetcher = CommandFetcher(config)
        m.submodules.turns = turns = RingTurns(config)
        m.submodules.checker = checker = DescriptorChecker(config)
        m.submodules.counters = counters = CounterBank(config)
        m.submodules.signals = signals = RoundRobinMerge(COUNTER_WRITE, config.cores)
        m.submodules.finishes = finishes = RoundRobinMerge(FINISHED, config.cores)
        m.submodules.completion = completion = CompletionWriter(config)
        m.submodules.reset = reset = ResetSequence(config)
        m.submodules.core_resets = core_resets = CoreResets(config)

        flush = Signal(config.cores)
        m.d.comb += flush.eq(Mux(reset.flush, ~0, core_resets.flush))

        connect(m, flipped(self.registers), registers.bus)
        connect(m, registers.pcie, flipped(self.pcie))
        m.d.comb += [
            reset.request.eq(registers.reset),
            reset.idle.eq(registers.state.idle & (self.pcie.outstanding_reads == 0)),
            registers.state.resetting.eq(reset.flush),
            registers.clear.eq(reset.clear),
        ]
        connect(m, fetcher.fetch, flipped(self.fetch))
        connect(m, turns.o, checker.i)
        connect(m, signals.o, counters.i_signal)
        connect(m, finishes.o, completion.i)
        connect(m, completion.posted, flipped(self.posted))
        m.d.comb += [
            counters.i_host.p.eq(registers.counter_write.p),
            counters.i_host.valid.eq(registers.counter_write.valid | reset.counter_write.valid),
        ]
        with m.If(reset.counter_write.valid):
            m.d.comb += counters.i_host.p.eq(reset.counter_write.p)
        m.d.comb += [
            registers.fetch_failed.eq(fetcher.failed),
            registers.state.cq_tail.eq(completion.tail),
            registers.state.msix_pending.eq(completion.pending),
            registers.cycles.eq(statistics.cycles),
            registers.snapshot_cycles.eq(statistics.snapshot_cycles),
            registers.statistic_value.eq(statistics.value),
            registers.counter_value.eq(counters.value[config.cores]),
            counters.index[config.cores].eq(registers.counter_index),
            statistics.snapshot.eq(registers.snapshot),
            statistics.address.eq(self.registers.address),
            statistics.read.eq(registers.statistic_read),
            core_resets.request.eq(registers.core_reset),
            fetcher.enable.eq(registers.enable & ~flush),
            fetcher.urgent.eq(registers.urgent),
            self.urgent.eq(registers.urgent),
            fetcher.restart.eq(Mux(registers.restart, ~0, flush)),
            completion.ring.eq(registers.completion),
            completion.messages.eq(registers.messages),
            completion.error.eq(registers.error),
            completion.restart.eq(registers.restart | reset.flush),
            completion.flush.eq(reset.flush),
        ]
        m.d.comb += [
            statistics.traffic[number].eq(getattr(self, name))
            for number, name in enumerate(TRAFFIC)
        ]

        drained = core_resets.drained
        for core in range(config.cores):
            queues = CoreQueues(config)
            m.submodules[f"core{core}"] = queues
            state = registers.cores[core]
            connect(m, fetcher.o[core], turns.i[core])
            m.d.comb += [
                fetcher.ring[core].eq(registers.submission[core]),
                turns.room[core].eq(queues.room),
                queues.i.p.eq(checker.o.p),
                queues.cycle.eq(statistics.cycles),
                counters.index[core].eq(queues.index),
                queues.value.eq(counters.value[core]),
                queues.flush.eq(flush[core]),
                drained[core].eq(
                    fetcher.idle[core] & (checker.idle | (checker.o.p.core != core)) & queues.empty
                ),
                state.idle.eq(drained[core]),
                state.resetting.eq(core_resets.flush[core]),
                state.sq_head.eq(fetcher.head[core]),
            ]
            with m.If(checker.o.p.core == core):
                m.d.comb += [
                    queues.i.valid.eq(checker.o.valid),
                    checker.o.ready.eq(queues.i.ready),
                ]
            connect(m, queues.signal, signals.i[core])
            # A core that is reset tells nobody what ended meanwhile.
            m.d.comb += [
                finishes.i[core].p.eq(queues.finished.p),
                finishes.i[core].valid.eq(queues.finished.valid & ~flush[core]),
                queues.finished.ready.eq(finishes.i[core].ready | flush[core]),
            ]
            for engine in Engine:
                unit = self.engines[core][engine]
                connect(m, queues.command[engine], flipped(unit.command))
                connect(m, flipped(unit.result), queues.result[engine])
                m.d.comb += statistics.activity[core][engine].eq(unit.activity)
        m.d.comb += registers.state.idle.eq(
            drained.all() & ~signals.o.valid & ~finishes.o.valid & completion.idle
        )
        return m
