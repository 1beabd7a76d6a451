"""Descriptors are fetched within their ring, checked by every rule, and passed on once."""

from functools import partial
from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value
from amaranth.lib import data, wiring

import halfdome.hdl.command.checker
import halfdome.hdl.command.fetcher
import halfdome.hdl.command.turns
import halfdome.hdl.pcie.port
from halfdome.hdl.command.checker import DescriptorChecker
from halfdome.hdl.command.fetcher import CommandFetcher
from halfdome.hdl.command.range_checker import RangeChecker
from halfdome.hdl.command.rules.rule import Operand, Rule
from halfdome.hdl.command.turns import RingTurns, queue_of
from halfdome.hdl.commands import Engine, Opcode, Status
from halfdome.hdl.config import preset
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, EXTENSION, HEADER, NO_COUNTER, layout
from halfdome.hdl.engine import WAIT
from tests.formal.prove import Spec
from tests.formal.rules import fifo_is_sound, obey_stream_rules, wait_in_turn

PAGE_BYTES = 4096
HEADER_BYTES = 16

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("bus_bytes", "cores"), [(16, 1), (16, 2), (128, 1), (128, 2)])
def test_fetcher_reads_only_valid_descriptors_and_only_with_room(
    prove, monkeypatch, bus_bytes, cores
):
    # A bit for every 16 bytes: descriptors are moved whole.
    words = data.StructLayout({"data": bus_bytes // 16, "last": 1, "failed": 1})
    monkeypatch.setattr(halfdome.hdl.pcie.port, "fetch_response", lambda config: words)
    monkeypatch.setattr(halfdome.hdl.command.fetcher, "DESCRIPTOR_BITS", DESCRIPTOR_BYTES // 16)
    monkeypatch.setattr(halfdome.hdl.command.fetcher, "is_extended", lambda bits: bits[0])
    limit, batch = 128, 2
    config = SimpleNamespace(bus_bytes=bus_bytes, max_read_request_bytes=limit, cores=cores)
    spec = Spec(CommandFetcher(config))
    m, dut = spec.m, spec.dut
    request, response = dut.fetch.request, dut.fetch.response
    obey_stream_rules(spec, "request", request, Assert)
    obey_stream_rules(spec, "response", response, Assume)

    # The host: a ring of a fixed size a core; its tail only moves on, but for a restart.
    page, log_size = spec.constant("page", 6), spec.constant("log_size", 4)
    size, mask = Signal(13), Signal(12)
    m.d.comb += [
        Assume((log_size >= 1) & (log_size <= 12)),
        size.eq(1 << log_size),
        mask.eq(size - 1),
        Assume((dut.restart & dut.enable) == 0),
    ]
    aheads, levels = [], []
    for core, (ring, head) in enumerate(zip(dut.ring, dut.head, strict=True)):
        adds, tail, ahead = spec.free(f"adds{core}", 12), Signal(12), Signal(12)
        m.d.comb += [
            ahead.eq((tail - head) & mask),
            Assume(adds + ahead <= mask),
            Assume(ring.base == page * DESCRIPTOR_BYTES),
            Assume(ring.size == size),
            Assume(ring.tail == tail),
            Assert((head & ~mask) == 0),
            Assert((tail & ~mask) == 0),
        ]
        m.d.sync += tail.eq(Mux(dut.restart[core], 0, (tail + adds) & mask))
        aheads.append(ahead)
        levels.append(spec.inside(f"fifo{core}.level"))
        followed = _offers_whole_commands(spec, core)
        if bus_bytes == 128:
            m.d.comb += Cover(followed)

    # The bus: answers one read at a time, whole or with a failure.
    due, asked = Signal(6), Signal()
    taken, answered = request.valid & request.ready, response.valid & response.ready
    words = request.p.bytes // bus_bytes
    m.d.comb += [
        Assume(~response.valid | (due != 0)),
        Assume(response.p.last == ((due == 1) | response.p.failed)),
        Assume(~response.p.failed | ~asked),
        Assert(~(request.valid & (due != 0))),
    ]
    with m.If(answered):
        m.d.sync += [due.eq(Mux(response.p.last, 0, due - 1)), asked.eq(1)]
    with m.If(taken):
        m.d.sync += [due.eq(words), asked.eq(0)]

    address, end = request.p.address, Signal(14)
    m.d.comb += [
        end.eq((address % PAGE_BYTES) + request.p.bytes),
        Assert(~request.valid | ((request.p.bytes != 0) & (request.p.bytes <= limit))),
        Assert(
            ~request.valid | ((address % bus_bytes == 0) & (words * bus_bytes == request.p.bytes))
        ),
        Assert(~request.valid | (end <= PAGE_BYTES)),
        Cover(taken & (end == PAGE_BYTES) & (request.p.bytes == limit)),
        Cover(dut.failed[cores - 1]),
    ]
    # What is read is of one ring, and goes on with that ring alone.
    core, brought = spec.inside("core"), spec.inside("brought")
    ahead, level = Signal(12), Signal(4)
    m.d.comb += Assert(core < cores)
    for number in range(cores):
        written, mine = spec.inside(f"fifo{number}.w_port__en"), core == number
        with m.If(mine):
            m.d.comb += [ahead.eq(aheads[number]), level.eq(levels[number])]
        m.d.comb += [
            Assert(written == (brought & mine)),
            Assert(~written | (aheads[number] != 0)),
            Assert(~dut.failed[number] | mine),
            Assert(~dut.idle[number] | (levels[number] <= 1)),
            Cover(levels[number] == (2 if bus_bytes == 16 else 2 * batch)),
        ]
    if bus_bytes == 128:
        prove(spec, depth=12 + cores)
        return
    # For induction: what is still to come has room, and is valid unless the ring was restarted.
    for number in range(cores):
        fifo_is_sound(spec, f"fifo{number}", 2 * batch)
    state, count, position = (spec.inside(n) for n in ("fsm_state", "count", "position"))
    planned, requesting, receiving = (state == n for n in (1, 2, 3))
    missing = count - (position >> 2)
    m.d.comb += [
        Assert(receiving == (due != 0)),
        Assert(requesting == request.valid),
        Assert(receiving | (position == 0)),
        Assert(~receiving | ((due + position == 4 * count) & (asked == (position != 0)))),
        Assert(~(requesting | receiving) | ((count != 0) & (count <= batch))),
        Assert(~requesting | (count <= (PAGE_BYTES - spec.inside("address") % PAGE_BYTES) >> 6)),
        Assert(spec.inside("address") % DESCRIPTOR_BYTES == 0),
        Assert(~planned | (level <= batch)),
        Assert(~requesting | (level + count <= 2 * batch)),
        Assert(~receiving | (level + missing <= 2 * batch)),
        Assert(~planned | (spec.inside("run") != 0)),
    ]
    valid = ~spec.inside("discard")
    m.d.comb += [
        Assert(~(planned & valid) | (spec.inside("run") <= ahead)),
        Assert(~(requesting & valid) | (count <= ahead)),
        Assert(~(receiving & valid) | (missing <= ahead)),
    ]
    # A ring that has something to fetch, and room, sees at most one read of each other before, if
    # it is urgent or none is. What others see is proven of `UrgentFirst`.
    pick, urgent = spec.constant("pick", range(max(2, cores))), spec.constant("urgent", cores)
    m.d.comb += Assume((pick < cores) & (dut.urgent == urgent))
    mine, is_urgent = core == pick, urgent.bit_select(core, 1)
    for kind, name in ((is_urgent, "turn.first.above"), (~is_urgent, "turn.other.above")):
        above = spec.inside(name)
        m.d.comb += Assert(~kind | (above == ~((2 << core) - 1)[:cores]))
    m.d.comb += Assert(is_urgent | (spec.inside("turn.passed") == 0))
    wait_in_turn(
        spec, "pick", cores,
        requested=spec.inside("wanted").bit_select(pick, 1)
        & (urgent.bit_select(pick, 1) | ~urgent.any()),
        served=mine,
        other=~mine & receiving & answered & response.p.last,
        distance=Mux(pick >= core, pick - core, cores + pick - core),
    )  # fmt: skip
    prove(spec, depth=14, induction=2)


def _offers_whole_commands(spec, core):
    """What is refused stays offered, and a first slot is followed by its second: but for a
    restart. Returns whether the second of two has just been taken."""
    m, o, restart = spec.m, spec.dut.o[core], spec.dut.restart[core]
    refused, kept, inside, followed = Signal(), Signal(len(o.p)), Signal(), Signal()
    m.d.sync += [
        refused.eq(o.valid & ~o.ready),
        kept.eq(o.p),
        inside.eq(o.valid & o.ready & ~inside & o.p[0]),
        followed.eq(o.valid & o.ready & inside),
    ]
    m.d.comb += [
        # Who takes the first slot takes the second in the next cycle.
        Assume(~inside | o.ready),
        Assert(~refused | restart | (o.valid & (o.p == kept)), src_loc_at=1),
        Assert(~inside | restart | o.valid, src_loc_at=1),
        Assert(spec.inside(f"second{core}") == inside, src_loc_at=1),
        Assert(~inside | (spec.inside(f"fifo{core}.level") != 0) | restart, src_loc_at=1),
    ]
    return followed


def _is_extended(bits):
    return data.View(layout(HEADER, HEADER_BYTES), bits).extension == 1


class Cut(wiring.Component):
    """A component without contents."""

    def elaborate(self, platform):
        return Module()


def test_checker_passes_each_descriptor_on_once_with_the_first_rule_it_breaks(prove, monkeypatch):
    cuts = []

    def cut_ranges(config):
        cuts.append(Cut(RangeChecker(config).signature))
        return cuts[-1]

    cut_ranges.latency = RangeChecker.latency
    monkeypatch.setattr(halfdome.hdl.command.checker, "RangeChecker", cut_ranges)
    # The rules themselves are simulated: comparing 64 bytes of fields says nothing of control.
    table = [
        lambda d, e, core: d[100],
        lambda d, e, core: d[64:68] == 5 + core,
        lambda d, e, core: (d[56:64] == 1) & e[9],
    ]

    def few_rules(descriptor, extension, core, config, engines):
        return [
            Rule(broken(descriptor, extension, core), Status.BAD_FORMAT, place)
            for place, broken in enumerate(table)
        ]

    def few_operands(descriptor, config, engines):
        one = Operand(descriptor[:8], 1, 0, 1, 0, 1, 7)
        return {Opcode.COPY: [one, one], Opcode.STORE: [one]}

    monkeypatch.setattr(halfdome.hdl.command.checker, "rules", few_rules)
    monkeypatch.setattr(halfdome.hdl.command.checker, "operands", few_operands)
    bits = HEADER_BYTES * 8
    monkeypatch.setattr(halfdome.hdl.command.checker, "DESCRIPTOR_BITS", bits)
    monkeypatch.setattr(halfdome.hdl.command.turns, "DESCRIPTOR_BITS", bits)
    for module in (halfdome.hdl.command.checker, halfdome.hdl.command.turns):
        monkeypatch.setattr(module, "layout", partial(layout, size_bytes=HEADER_BYTES))
    monkeypatch.setattr(halfdome.hdl.command.checker, "is_extended", _is_extended)
    spec = Spec(DescriptorChecker(preset("tiny").replace(cores=2)))
    m, dut, ranges = spec.m, spec.dut, cuts[0]
    spec.cut("ranges", ranges)
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "o", dut.o, Assert)

    # The range checker: a verdict, whichever, for each operand.
    due, inside, operands = Signal(4), Signal(), Signal(4)
    taken, given = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    descriptor, extension = Signal(bits), Signal(bits)
    core, half, outside, detail = Signal(), Signal(), Signal(), Signal(8)
    extended = _is_extended(dut.i.p.bits)
    m.d.sync += due.eq(due + ranges.i.valid - ranges.o.valid)
    m.d.comb += Assume(~ranges.o.valid | (due != 0))
    with m.If(ranges.o.valid & ranges.o.p.outside & ~outside):
        m.d.sync += [outside.eq(1), detail.eq(ranges.o.p.detail)]
    with m.If(ranges.o.valid):
        m.d.sync += operands.eq(operands + 1)
    with m.If(taken & half):
        m.d.sync += [extension.eq(dut.i.p.bits), half.eq(0)]
    with m.Elif(taken):
        m.d.sync += [descriptor.eq(dut.i.p.bits), inside.eq(1), half.eq(extended)]
        m.d.sync += [core.eq(dut.i.p.core), outside.eq(0), operands.eq(0)]
    with m.If(half & ~dut.i.valid):  # the ring was restarted
        m.d.sync += [inside.eq(0), half.eq(0)]
    with m.If(given):
        m.d.sync += inside.eq(0)

    second = Signal(WAIT)
    fields = data.View(layout(EXTENSION, HEADER_BYTES), extension)
    with_second = data.View(layout(HEADER, HEADER_BYTES), descriptor).extension == 1
    m.d.comb += [
        second.counter.eq(Mux(with_second, fields.second_wait_counter, NO_COUNTER)),
        second.value.eq(fields.second_wait_value),
    ]

    verdict = data.StructLayout({"status": Status, "detail": 8})
    expected = Signal(verdict)
    with m.If(outside):
        m.d.comb += [expected.status.eq(Status.BAD_RANGE), expected.detail.eq(detail)]
    for rule in reversed(few_rules(descriptor, extension, core, None, None)):
        with m.If(rule.broken):
            m.d.comb += [expected.status.eq(rule.status), expected.detail.eq(rule.detail)]
    said = Cat(dut.o.p.status, dut.o.p.detail)
    m.d.comb += [
        # Of a command of two slots, both are of one ring.
        Assume(~(taken & half) | (dut.i.p.core == core)),
        Assert(dut.idle == ~inside),
        Assert(dut.idle | (dut.o.p.core == core)),
        Assert(~(taken & inside & ~half)),
        Cover(half & ~dut.i.valid),
        Assert(~dut.o.valid | (inside & ~half & (due == 0))),
        Assert(~dut.o.valid | (dut.o.p.descriptor == descriptor)),
        Assert(~dut.o.valid | (dut.o.p.second.counter == second.counter)),
        Assert(~dut.o.valid | ~with_second | (dut.o.p.second.value == second.value)),
        Assert(~dut.o.valid | (said == Value.cast(expected))),
        Cover(dut.o.valid & (dut.o.p.status == Status.OK) & (operands == 2)),
        Cover(dut.o.valid & (dut.o.p.status == Status.BAD_RANGE)),
        Cover(dut.o.valid & with_second & (operands == 1)),
    ]
    prove(spec, depth=9)


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_rings_pass_whole_commands_in_turn_for_which_their_queues_have_room(
    prove, monkeypatch, cores
):
    bits, depth = HEADER_BYTES * 8, 2
    monkeypatch.setattr(halfdome.hdl.command.turns, "DESCRIPTOR_BITS", bits)
    monkeypatch.setattr(
        halfdome.hdl.command.turns, "layout", partial(layout, size_bytes=HEADER_BYTES)
    )
    monkeypatch.setattr(halfdome.hdl.command.turns, "is_extended", _is_extended)
    spec = Spec(RingTurns(SimpleNamespace(cores=cores)))
    m, dut = spec.m, spec.dut
    o = dut.o
    pick, engine = spec.constant("pick", range(max(2, cores))), spec.constant("engine", 3)
    m.d.comb += Assume((pick < cores) & (engine < len(Engine)))

    # Each slot passes once, unchanged, and a second one right behind its first.
    passed, passes = Signal(cores), Signal()
    half, whose = Signal(), Signal(2)
    first = _is_extended(o.p.bits) & ~half
    m.d.comb += [passes.eq(o.valid & o.ready), passed.eq(Cat(i.valid & i.ready for i in dut.i))]
    m.d.sync += [half.eq(passes & first), whose.eq(o.p.core)]
    m.d.comb += [
        Assert(~o.valid | o.ready),
        Assert(passed == Mux(passes, 1 << o.p.core, 0)),
        Assert(~half | (o.p.core == whose)),
        Assert(spec.inside("second") == half),
        Cover(half & passes),
    ]
    for number, i in enumerate(dut.i):
        refused, kept = Signal(name=f"refused{number}"), Signal(bits, name=f"kept{number}")
        m.d.sync += [refused.eq(i.valid & ~i.ready), kept.eq(i.p)]
        m.d.comb += [
            Assume(~refused | ~i.valid | (i.p == kept)),
            Assert(~passed[number] | (o.p.bits == i.p)),
            Assert(~(half & (whose == number) & i.valid & o.ready) | passed[number]),
        ]

    # The checker holds one command, for any time; of all queues one is watched, which may take
    # commands away at any time.
    holds, target, mine = Signal(), Signal(3), Signal()
    gives, takes = spec.free("gives"), spec.free("takes")
    level, put = Signal(range(depth + 1)), Signal()
    m.d.comb += [
        Assume(o.ready == (~holds | half)),
        Assume(~(gives & (~holds | half))),
        Assume(~takes | (level != 0)),
        Assert(level <= depth),
        put.eq(gives & mine & (target == engine)),
        Assert(~put | (level != depth)) if cores > 1 else Cover(put & (level == depth)),
        Cover(put & (level == depth - 1) & takes),
    ]
    m.d.sync += level.eq(level + (put & (level != depth)) - takes)
    with m.If(passes & ~half):
        m.d.sync += [holds.eq(1), target.eq(queue_of(o.p.bits)), mine.eq(o.p.core == pick)]
    with m.If(gives | (half & ~o.valid)):  # the ring was restarted
        m.d.sync += holds.eq(0)
    for number in range(cores):
        with m.If(pick == number):
            m.d.comb += Assume(dut.room[number].bit_select(engine, 1) == (level != depth))
    if cores > 1:
        m.d.comb += Assert(~(holds & mine & (target == engine)) | (level != depth))

    # A command that may pass sees at most one of each other core before it.
    core = spec.inside("core")
    m.d.comb += Assert(core < cores)
    whole = passes & ~first
    wait_in_turn(
        spec, "pick", cores,
        requested=spec.inside("fits").bit_select(pick, 1),
        served=whole & (core == pick),
        other=whole & (core != pick),
        distance=Mux(pick >= core, pick - core, cores + pick - core),
    )  # fmt: skip
    m.d.comb += Cover(whole & (core == cores - 1))
    prove(spec, depth=8, induction=2)
