"""Every descriptor ends once, in its queue's order, after its wait and behind its signal."""

from functools import partial
from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value
from amaranth.lib import data, wiring

import halfdome.hdl.command.checker
import halfdome.hdl.command.queues
from halfdome.hdl.command.completion import MESSAGE_BYTES, CompletionWriter
from halfdome.hdl.command.counters import CounterBank
from halfdome.hdl.command.queues import CoreQueues, EngineQueue
from halfdome.hdl.commands import Engine, Status
from halfdome.hdl.descriptors import COMPLETION, COMPLETION_BYTES, HEADER, layout
from halfdome.hdl.engine import WAIT
from tests.formal.prove import Spec
from tests.formal.rules import Scoreboard, fifo_is_sound, obey_stream_rules

HEADER_BYTES = 16
CONFIG = SimpleNamespace(cores=1, counters=2, queue_depth=2, bus_bytes=16)
HEAD = layout(HEADER, HEADER_BYTES)

pytestmark = pytest.mark.slow


@pytest.fixture
def headers(monkeypatch):
    """Descriptors of a header alone: queues look at nothing else."""
    for module in (halfdome.hdl.command.queues, halfdome.hdl.command.checker):
        monkeypatch.setattr(module, "DESCRIPTOR_BITS", HEADER_BYTES * 8)
    monkeypatch.setattr(
        halfdome.hdl.command.queues, "layout", partial(layout, size_bytes=HEADER_BYTES)
    )


def engine_queue():
    """A queue, an engine that runs one command at a time, and counters that answer lookups."""
    spec = Spec(EngineQueue(CONFIG))
    m, dut = spec.m, spec.dut
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "result", dut.result, Assume)
    for name in ("command", "signal", "finished"):
        obey_stream_rules(spec, name, getattr(dut, name), Assert)
    running, waited, counter, answered = Signal(), Signal(), Signal(8), Signal()
    started, ended = dut.command.valid & dut.command.ready, dut.result.valid & dut.result.ready
    m.d.sync += [
        running.eq((running | started) & ~ended),
        waited.eq(dut.waiting),
        counter.eq(dut.counter),
        answered.eq(dut.looked_up),
    ]
    m.d.comb += [
        Assume(~dut.flush),
        Assume(~dut.result.valid | running),
        Assume(~(dut.command.ready & running)),
        Assume(~dut.looked_up | (waited & ~answered)),
        Assert(~(dut.command.valid & running)),
        # The wait that asked is still what is waited for when the answer comes.
        Assert(~dut.looked_up | (counter == dut.counter)),
        Cover(ended),
    ]
    return spec, running


def test_every_descriptor_of_a_queue_is_accounted_for(prove, headers):
    spec, running = engine_queue()
    m, dut = spec.m, spec.dut
    level = fifo_is_sound(spec, "fifo", CONFIG.queue_depth)
    signal_due, finished_due = dut.signal.valid, spec.inside("finished_due")
    inside = Signal(4)
    m.d.sync += inside.eq(
        inside + (dut.i.valid & dut.i.ready) - (dut.finished.valid & dut.finished.ready)
    )
    m.d.comb += [
        Assert(inside == level + running + finished_due),
        Assert(dut.empty == (inside == 0)),
        Assert(spec.inside("fsm_state") == running),
        Assert(~signal_due | finished_due),
        Assert(~(dut.signal.valid & dut.finished.valid)),
        Cover(inside == CONFIG.queue_depth + 2),
    ]
    # Nothing starts before both its counters allowed it.
    header = data.View(HEAD, dut.command.p)
    second = data.View(WAIT, spec.inside("fifo.r_data")[len(dut.command.p) :][: WAIT.size])
    waits, allowed = Signal(2), Signal(2)
    leaves = spec.inside("r_en") & spec.inside("fifo.r_rdy")
    in_turn = waits[0] & ~allowed[0]
    value = Mux(in_turn, header.wait_value, second.value)
    reached = dut.looked_up & ((dut.value - value)[31] == 0)
    with m.If(leaves):
        m.d.sync += allowed.eq(0)
    with m.Elif(reached):
        m.d.sync += allowed.eq(allowed | Mux(in_turn, 1, 2))
    m.d.comb += [
        waits[0].eq(header.wait_counter < CONFIG.counters),
        waits[1].eq(second.counter < CONFIG.counters),
        Assert(~leaves | ((waits & ~allowed) == 0)),
        Assert(spec.inside("released") == allowed),
        Cover(leaves & (allowed == 3) & (dut.value == 0)),
        Cover(leaves & (allowed == 2)),
        Cover(leaves & (allowed == 0)),
    ]
    prove(spec, depth=9, induction=2)


def test_descriptors_of_a_queue_end_in_order_each_after_its_signal(prove, headers):
    spec, _ = engine_queue()
    m, dut = spec.m, spec.dut
    head = data.View(HEAD, dut.i.p.descriptor)
    sent, last = Signal(), Signal(dut.signal.p.shape())
    done = dut.finished.valid & dut.finished.ready
    with m.If(dut.signal.valid & dut.signal.ready):
        m.d.sync += [sent.eq(1), last.eq(dut.signal.p)]
        m.d.comb += Assert(~sent)
    with m.If(done):
        m.d.sync += sent.eq(0)
    signals = head.signal_counter < CONFIG.counters
    signal = Cat(head.signal_counter, head.signal_value)
    board = Scoreboard(
        spec,
        "descriptors",
        CONFIG.queue_depth + 2,
        put=dut.i.valid & dut.i.ready,
        put_value=Cat(head.id, signals, Mux(signals, signal, 0)),
        take=done,
        take_value=Cat(dut.finished.p.id, sent, Mux(sent, last, 0)),
    )
    runs = (dut.i.p.status == Status.OK) & (head.opcode[:4] != 0xF)
    Scoreboard(
        spec,
        "commands",
        CONFIG.queue_depth,
        put=dut.i.valid & dut.i.ready & runs,
        put_value=dut.i.p.descriptor,
        offered=dut.command.valid,
        take=dut.command.valid & dut.command.ready,
        take_value=dut.command.p,
    )
    m.d.comb += [Cover(done & sent), Cover(done & ~sent & (board.level == 2))]
    prove(spec, depth=7)


class Cut(wiring.Component):
    """A component without contents."""

    def elaborate(self, platform):
        return Module()


def test_waiting_queues_look_up_their_counters_in_turn(prove, monkeypatch, headers):
    queues = []

    def cut_queue(config):
        queues.append(Cut(EngineQueue(config).signature))
        return queues[-1]

    monkeypatch.setattr(halfdome.hdl.command.queues, "EngineQueue", cut_queue)
    spec = Spec(CoreQueues(CONFIG))
    m, dut = spec.m, spec.dut
    pick = spec.constant("pick", range(len(Engine)))
    for number, queue in enumerate(queues):
        spec.cut(f"queue{number}", queue)
    engine = Value.cast(dut.i.p.engine)
    m.d.comb += [Assume(pick < len(Engine)), Assume(engine < len(Engine))]
    waiting, looked_up, index = Signal(), Signal(), Signal(8)
    chosen = engine == pick
    for number, queue in enumerate(queues):
        with m.If(pick == number):
            m.d.comb += [
                waiting.eq(queue.waiting),
                looked_up.eq(queue.looked_up),
                index.eq(queue.counter),
                Assert(queue.i.valid == (dut.i.valid & chosen)),
                Assert(~chosen | (dut.i.ready == queue.i.ready)),
                Assert(dut.room[number] == queue.i.ready),
                Assert(~dut.empty | queue.empty),
                Assert(queue.value == dut.value),
            ]
    before, asked, answered, wait = Signal(), Signal(), Signal(), Signal(4)
    m.d.sync += [before.eq(waiting), asked.eq(dut.index == index), answered.eq(looked_up)]
    with m.If(waiting & ~looked_up):
        m.d.sync += wait.eq(wait + 1)
    with m.Else():
        m.d.sync += wait.eq(0)
    turn, late = spec.inside("turn"), len(Engine)
    behind = Mux(turn > pick, turn - pick, late + turn - pick)[:3]  # cycles since its last turn
    m.d.comb += [
        Assert(~looked_up | (before & asked & ~answered)),
        Assert(turn < late),
        Assert(wait <= Mux(looked_up, late, Mux(turn == pick, late, behind) - 1)),
        # Then a cycle for its answer, and one to start.
        Assert(wait + 2 <= dut.lookup_latency),
        Cover(looked_up & (wait == late)),
    ]
    prove(spec, depth=7, induction=2)


def test_counters_read_what_was_last_written(prove):
    spec = Spec(CounterBank(SimpleNamespace(cores=1, counters=3)))
    m, dut = spec.m, spec.dut
    place = spec.constant("place", 2)
    obey_stream_rules(spec, "signal", dut.i_signal, Assume)
    value, hits = Signal(32), Signal()
    for write in (dut.i_signal, dut.i_host):
        with m.If(write.valid & write.ready & (write.p.counter[:2] == place)):
            m.d.sync += [value.eq(write.p.value), hits.eq(1)]
    m.d.comb += Assert(dut.i_signal.ready == ~dut.i_host.valid)
    for number, (index, read) in enumerate(zip(dut.index, dut.value, strict=True)):
        asked = Signal(name=f"asked{number}")
        expected = Signal(32, name=f"expected{number}")
        m.d.sync += [asked.eq(index[:2] == place), expected.eq(value)]
        m.d.comb += [Assert(~asked | (read == expected)), Cover(asked & hits & (read == 7))]
    prove(spec, depth=6)


def test_completions_fill_the_ring_and_are_announced(prove):
    spec = Spec(CompletionWriter(CONFIG))
    m, dut = spec.m, spec.dut
    request, word = dut.posted.request, dut.posted.data
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "request", request, Assert)
    obey_stream_rules(spec, "data", word, Assert)

    # The host: a ring of a fixed size, whose entries it consumes once they are written.
    base, log_size = spec.constant("base", 64), spec.constant("log_size", 4)
    consumes, head, tail = spec.free("consumes", 12), Signal(12), Signal(12)
    size, phase = Signal(13), Signal(init=1)
    mask, filled = Signal(12), Signal(12)
    taken = dut.i.valid & dut.i.ready
    m.d.comb += [
        Assume((log_size >= 1) & (log_size <= 12)),
        size.eq(1 << log_size),
        mask.eq(size - 1),
        filled.eq((tail - head) & mask),
        Assume(consumes <= filled),
        Assume(dut.ring.base == base),
        Assume(dut.ring.size == size),
        Assume(dut.ring.head == head),
        Assume(~dut.restart & ~dut.flush),
    ]
    m.d.sync += head.eq((head + consumes) & mask)
    with m.If(taken):
        m.d.sync += [tail.eq((tail + 1) & mask), phase.eq(phase ^ (((tail + 1) & mask) == 0))]
    m.d.comb += [
        Assert(dut.tail == tail),
        Assert(spec.inside("phase") == phase),
        Assert((head & ~mask) == 0),
        Assert((tail & ~mask) == 0),
        # One slot stays free.
        Assert(~taken | (filled != mask)),
        Cover((filled == mask) & dut.i.valid & (log_size == 1)),
        Cover(taken & ~phase),
    ]

    # What goes out: one word a request, an entry as it came or the message.
    expected, address = Signal(layout(COMPLETION, COMPLETION_BYTES)), Signal(64)
    entry, asked = Signal(), Signal()
    with m.If(taken):
        m.d.sync += [
            expected.id.eq(dut.i.p.id),
            expected.status.eq(dut.i.p.result.status),
            expected.phase.eq(phase),
            expected.detail.eq(dut.i.p.result.detail),
            expected.start_cycle.eq(dut.i.p.start_cycle),
            expected.end_cycle.eq(dut.i.p.end_cycle),
            address.eq(base + tail * COMPLETION_BYTES),
            entry.eq(1),
        ]
    with m.If(request.valid & request.ready):
        m.d.sync += asked.eq(1)
    with m.If(word.valid & word.ready):
        m.d.sync += [asked.eq(0), entry.eq(0)]
    is_entry = request.p.bytes == COMPLETION_BYTES
    busy = request.valid | word.valid
    m.d.comb += [
        Assert(word.valid == asked),
        Assert(~(request.valid & asked)),
        Assert(~entry | busy),
        Assert(~busy | (is_entry == entry)),
        Assert(~busy | is_entry | (request.p.bytes == MESSAGE_BYTES)),
        # The largest ring's offsets have 16 bits, the adder is the same above.
        Assert(~(busy & entry) | (request.p.address[:20] == address[:20])),
        Assert(~(busy & entry) | (word.p == Value.cast(expected))),
    ]

    # Nothing written stays unannounced, nothing is announced twice. Errors have a vector of their
    # own, which goes the same way.
    due, pending = spec.inside("due")[0], dut.pending[0]
    m.d.comb += [Assume(~dut.error), Assert(spec.inside("due")[1] == 0), Assert(~dut.pending[1])]
    owed = Signal()
    message_goes = request.valid & request.ready & ~is_entry
    with m.If(message_goes):
        m.d.sync += owed.eq(0)
    with m.If(taken):
        m.d.sync += owed.eq(1)
    leaving = request.valid & ~is_entry
    m.d.comb += [
        Assert(~message_goes | owed),
        Assert(owed == (due | pending | leaving)),
        Assert(~dut.idle | ~owed | pending),
        Assert(~(leaving & (due | pending))),
        Assert(~dut.idle | dut.posted.idle),
        Cover(message_goes),
        Cover(pending & dut.idle),
        Cover(pending & ~dut.messages[0].masked),
    ]
    prove(spec, depth=7, induction=2)
