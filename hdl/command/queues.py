"""What waits in front of the engines: one in-order queue each, started by timeline counters."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.command.checker import checked_descriptor
from halfdome.hdl.command.counters import COUNTER_WRITE
from halfdome.hdl.command.merge import RoundRobinMerge
from halfdome.hdl.commands import Engine, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import HEADER, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS, WAIT, Result

FINISHED = data.StructLayout({"id": 16, "result": Result, "start_cycle": 32, "end_cycle": 32})
"""A finished command, as its completion tells the host."""

_ABOUT = data.StructLayout({"id": 16, "signals": 1, "signal": COUNTER_WRITE})
"""What is kept of a descriptor while its engine runs."""

_FENCE = 0xF  # low nibble of an opcode


class EngineQueue(wiring.Component):
    """Holds up to `config.queue_depth` commands and runs them in order, one at a time.

    The head starts once its counter minus its wait value is 0 or more as a signed number, and then
    likewise its second counter: both at some time, not at the same. Fences
    and bad descriptors then end at once; anything else ends when the engine says so. At the end
    the signal goes out first, then the completion.

    Members
    -------
    i : In(stream of `checked_descriptor`)
    command, result : to the engine, see `engine_members`
    cycle : In(32), the card's cycle counter
    waiting : Out(1), the head waits for counter `counter`
    counter : Out(8)
    looked_up : In(1), `value` is what `counter` was while `waiting`, one cycle ago
    value : In(32)
    signal : Out(stream of `COUNTER_WRITE`)
    finished : Out(stream of `FINISHED`)
    flush : In(1), descriptors that no engine was offered end without running; none signals
    empty : Out(1), no descriptor here or in the engine
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(checked_descriptor(config))),
                "command": Out(stream.Signature(DESCRIPTOR_BITS)),
                "result": In(stream.Signature(Result)),
                "cycle": In(32),
                "waiting": Out(1),
                "counter": Out(8),
                "looked_up": In(1),
                "value": In(32),
                "signal": Out(stream.Signature(COUNTER_WRITE)),
                "finished": Out(stream.Signature(FINISHED)),
                "flush": In(1),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        entry = data.StructLayout(
            {"descriptor": DESCRIPTOR_BITS, "second": WAIT, "status": Status, "detail": 8}
        )
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=entry.size, depth=config.queue_depth)
        head = data.View(entry, fifo.r_data)
        header = data.View(layout(HEADER), head.descriptor)
        m.d.comb += [
            fifo.w_data.eq(
                Cat(self.i.p.descriptor, self.i.p.second, self.i.p.status, self.i.p.detail)
            ),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
        ]

        # Wait. Counters that do not exist (NO_COUNTER among them) are not waited for or set.
        waits = Signal(2)
        released = Signal(2)
        awaited = Signal(WAIT)
        go = Signal()
        offered = Signal()
        dropped = Signal()
        difference = Signal(32)
        first = waits[0] & ~released[0]
        m.d.comb += [
            waits[0].eq(header.wait_counter < config.counters),
            waits[1].eq(head.second.counter < config.counters),
            self.waiting.eq(fifo.r_rdy & (waits & ~released).any()),
            awaited.counter.eq(Mux(first, header.wait_counter, head.second.counter)),
            awaited.value.eq(Mux(first, header.wait_value, head.second.value)),
            self.counter.eq(awaited.counter),
            difference.eq(self.value - awaited.value),
            dropped.eq(self.flush & ~offered),
            go.eq(fifo.r_rdy & (~(waits & ~released).any() | dropped)),
        ]
        # What was looked up may have been dropped since, and nothing that waits needs it then.
        with m.If(self.looked_up & ~difference[31] & ~self.flush):
            m.d.sync += released.eq(released | Cat(first, ~first))
        with m.If(fifo.r_en):
            m.d.sync += released.eq(0)

        # Report.
        signal_due = Signal()
        finished_due = Signal()
        free = Signal()
        m.d.comb += [
            free.eq(~signal_due & ~finished_due),
            self.signal.valid.eq(signal_due),
            self.finished.valid.eq(finished_due & ~signal_due),
        ]
        with m.If(self.signal.ready):
            m.d.sync += signal_due.eq(0)
        with m.If(self.finished.valid & self.finished.ready):
            m.d.sync += finished_due.eq(0)

        about = Signal(_ABOUT)
        running = Signal(_ABOUT)
        ending = Signal(_ABOUT)
        start_cycle = Signal(32)
        result = Signal(Result)
        ended = Signal()
        m.d.comb += [
            about.id.eq(header.id),
            about.signals.eq(header.signal_counter < config.counters),
            about.signal.counter.eq(header.signal_counter),
            about.signal.value.eq(header.signal_value),
        ]

        # Run.
        needs_engine = Signal()
        m.d.comb += [
            needs_engine.eq((head.status == Status.OK) & (header.opcode[:4] != _FENCE) & ~dropped),
            self.command.p.eq(head.descriptor),
        ]
        m.d.sync += offered.eq(self.command.valid & ~self.command.ready)
        with m.FSM() as fsm:
            with m.State("HEAD"):
                m.d.comb += [
                    ending.eq(about),
                    result.status.eq(head.status),
                    result.detail.eq(head.detail),
                    self.command.valid.eq(go & needs_engine),
                ]
                with m.If(go & ~needs_engine & free):
                    m.d.comb += [fifo.r_en.eq(1), ended.eq(1)]
                with m.If(self.command.valid & self.command.ready):
                    m.d.comb += fifo.r_en.eq(1)
                    m.d.sync += [running.eq(about), start_cycle.eq(self.cycle)]
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [ending.eq(running), result.eq(self.result.p)]
                m.d.comb += self.result.ready.eq(free)
                with m.If(self.result.valid & free):
                    m.d.comb += ended.eq(1)
                    m.next = "HEAD"
        with m.If(ended):
            m.d.sync += [
                self.finished.p.id.eq(ending.id),
                self.finished.p.result.eq(result),
                self.finished.p.start_cycle.eq(Mux(fsm.ongoing("RUN"), start_cycle, self.cycle)),
                self.finished.p.end_cycle.eq(self.cycle),
                self.signal.p.eq(ending.signal),
                signal_due.eq(ending.signals & ~self.flush),
                finished_due.eq(1),
            ]

        m.d.comb += self.empty.eq((fifo.level == 0) & free & fsm.ongoing("HEAD"))
        return m


class CoreQueues(wiring.Component):
    """The queues of one core.

    The heads that wait look up their counters in turn, so that one starts at most
    `lookup_latency` cycles after its counter is written.

    Members
    -------
    i : In(stream of `checked_descriptor`), of this core
    command, result : arrays over `Engine`, to the engines, see `engine_members`
    cycle : In(32), the card's cycle counter
    index : Out(8), counter to look up
    value : In(32), the counter of the last cycle's `index`
    signal : Out(stream of `COUNTER_WRITE`)
    finished : Out(stream of `FINISHED`)
    flush : In(1), descriptors that no engine was offered end without running; none signals
    room : Out(len(Engine)), the queues that take one more
    empty : Out(1), no descriptor here or in an engine

    A full queue holds up the descriptors behind it, whatever queue they are for.
    """

    rotation = len(Engine)
    """Cycles of one round of lookups."""
    lookup_latency = rotation + 2

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(checked_descriptor(config))),
                "command": Out(stream.Signature(DESCRIPTOR_BITS)).array(len(Engine)),
                "result": In(stream.Signature(Result)).array(len(Engine)),
                "cycle": In(32),
                "index": Out(8),
                "value": In(32),
                "signal": Out(stream.Signature(COUNTER_WRITE)),
                "finished": Out(stream.Signature(FINISHED)),
                "flush": In(1),
                "room": Out(len(Engine)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.signals = signals = RoundRobinMerge(COUNTER_WRITE, len(Engine))
        m.submodules.finishes = finishes = RoundRobinMerge(FINISHED, len(Engine))
        connect(m, signals.o, flipped(self.signal))
        connect(m, finishes.o, flipped(self.finished))

        turn = Signal(range(len(Engine)))
        m.d.sync += turn.eq(turn + 1)
        with m.If(turn == self.rotation - 1):
            m.d.sync += turn.eq(0)

        empty = Signal(len(Engine))
        m.d.comb += self.empty.eq(empty.all() & ~signals.o.valid & ~finishes.o.valid)
        for engine in Engine:
            queue = EngineQueue(self._config)
            m.submodules[engine.name.lower()] = queue
            connect(m, queue.command, flipped(self.command[engine]))
            connect(m, flipped(self.result[engine]), queue.result)
            connect(m, queue.signal, signals.i[engine])
            connect(m, queue.finished, finishes.i[engine])
            m.d.comb += [
                queue.i.p.eq(self.i.p),
                queue.cycle.eq(self.cycle),
                queue.value.eq(self.value),
                queue.flush.eq(self.flush),
                self.room[engine].eq(queue.i.ready),
                empty[engine].eq(queue.empty),
            ]
            with m.If(self.i.p.engine == engine):
                m.d.comb += [queue.i.valid.eq(self.i.valid), self.i.ready.eq(queue.i.ready)]
            m.d.sync += queue.looked_up.eq(0)
            with m.If(turn == engine):
                m.d.comb += self.index.eq(queue.counter)
                m.d.sync += queue.looked_up.eq(queue.waiting)
        return m
