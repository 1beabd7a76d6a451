"""Descriptors are fetched within their ring, checked by every rule, and passed on once."""

from functools import partial
from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value
from amaranth.lib import data, wiring

import halfdome.hdl.command.checker
import halfdome.hdl.command.fetcher
import halfdome.hdl.pcie.port
from halfdome.hdl.command.checker import DescriptorChecker
from halfdome.hdl.command.fetcher import CommandFetcher
from halfdome.hdl.command.range_checker import RangeChecker
from halfdome.hdl.command.rules import Operand, Rule
from halfdome.hdl.commands import (
    DESCRIPTOR_BYTES,
    EXTENSION,
    HEADER,
    NO_COUNTER,
    Opcode,
    Status,
    layout,
)
from halfdome.hdl.config import preset
from halfdome.hdl.engine import WAIT
from tests.formal.prove import Spec
from tests.formal.rules import fifo_is_sound, obey_stream_rules

PAGE_BYTES = 4096
HEADER_BYTES = 16

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("bus_bytes", [16, 128])
def test_fetcher_reads_only_valid_descriptors_and_only_with_room(prove, monkeypatch, bus_bytes):
    # A bit for every 16 bytes: descriptors are moved whole.
    words = data.StructLayout({"data": bus_bytes // 16, "last": 1, "failed": 1})
    monkeypatch.setattr(halfdome.hdl.pcie.port, "fetch_response", lambda config: words)
    monkeypatch.setattr(halfdome.hdl.command.fetcher, "DESCRIPTOR_BITS", DESCRIPTOR_BYTES // 16)
    limit, batch = 128, 2
    config = SimpleNamespace(bus_bytes=bus_bytes, max_read_request_bytes=limit)
    spec = Spec(CommandFetcher(config))
    m, dut = spec.m, spec.dut
    request, response = dut.fetch.request, dut.fetch.response
    obey_stream_rules(spec, "request", request, Assert)
    obey_stream_rules(spec, "response", response, Assume)
    obey_stream_rules(spec, "o", dut.o, Assert)

    # The host: a ring of a fixed size; its tail only moves on, but for a restart.
    page, log_size = spec.constant("page", 6), spec.constant("log_size", 4)
    adds, tail, size, mask = spec.free("adds", 12), Signal(12), Signal(13), Signal(12)
    ahead = Signal(12)
    m.d.comb += [
        Assume((log_size >= 1) & (log_size <= 12)),
        size.eq(1 << log_size),
        mask.eq(size - 1),
        ahead.eq((tail - dut.head) & mask),
        Assume(adds + ahead <= mask),
        Assume(dut.ring.base == page * DESCRIPTOR_BYTES),
        Assume(dut.ring.size == size),
        Assume(dut.ring.tail == tail),
        Assume(~(dut.restart & dut.ring.enable)),
        Assert((dut.head & ~mask) == 0),
        Assert((tail & ~mask) == 0),
    ]
    m.d.sync += tail.eq(Mux(dut.restart, 0, (tail + adds) & mask))

    # The first slot that is brought after a restart is told apart.
    first = Signal(init=1)
    with m.If(dut.restart):
        m.d.sync += first.eq(1)
    with m.Elif(spec.inside("w_en")):
        m.d.sync += first.eq(0)
    m.d.comb += Assert(~spec.inside("w_en") | (spec.inside("w_data")[-1] == first))

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
        Cover(dut.failed),
    ]
    level = spec.inside("fifo.level")
    m.d.comb += [
        Assert(~spec.inside("w_en") | spec.inside("fifo.w_rdy")),
        Assert(~spec.inside("w_en") | (ahead != 0)),
        Assert(~dut.idle | (level == 0)),
        Cover(level == (2 if bus_bytes == 16 else 2 * batch)),
    ]
    if bus_bytes == 128:
        prove(spec, depth=12)
        return
    # For induction: what is still to come has room, and is valid unless the ring was restarted.
    fifo_is_sound(spec, "fifo", 2 * batch)
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
    prove(spec, depth=14, induction=2)


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
    table = [lambda d, e: d[100], lambda d, e: d[64:68] == 5, lambda d, e: (d[56:64] == 1) & e[9]]

    def few_rules(descriptor, extension, config):
        return [
            Rule(broken(descriptor, extension), Status.BAD_FORMAT, place)
            for place, broken in enumerate(table)
        ]

    def few_operands(descriptor, config):
        one = Operand(descriptor[:8], 0, 0, 1, 1, 7)
        return {Opcode.COPY: [one, one], Opcode.STORE: [one]}

    monkeypatch.setattr(halfdome.hdl.command.checker, "rules", few_rules)
    monkeypatch.setattr(halfdome.hdl.command.checker, "operands", few_operands)
    bits = HEADER_BYTES * 8
    monkeypatch.setattr(halfdome.hdl.command.checker, "DESCRIPTOR_BITS", bits)
    monkeypatch.setattr(halfdome.hdl.command.fetcher, "DESCRIPTOR_BITS", bits)
    monkeypatch.setattr(
        halfdome.hdl.command.checker, "layout", partial(layout, size_bytes=HEADER_BYTES)
    )
    spec = Spec(DescriptorChecker(preset("tiny")))
    m, dut, ranges = spec.m, spec.dut, cuts[0]
    spec.cut("ranges", ranges)
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "o", dut.o, Assert)

    # The range checker: a verdict, whichever, for each operand.
    due, inside, operands = Signal(4), Signal(), Signal(4)
    taken, given = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    descriptor, extension = Signal(bits), Signal(bits)
    half, outside, detail = Signal(), Signal(), Signal(8)
    extended = data.View(layout(HEADER, HEADER_BYTES), dut.i.p.bits).extension == 1
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
        m.d.sync += [outside.eq(0), operands.eq(0)]
    with m.If(half & dut.i.valid & dut.i.p.first):
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
    for rule in reversed(few_rules(descriptor, extension, None)):
        with m.If(rule.broken):
            m.d.comb += [expected.status.eq(rule.status), expected.detail.eq(rule.detail)]
    said = Cat(dut.o.p.status, dut.o.p.detail)
    m.d.comb += [
        Assert(dut.idle == (~inside | (half & ~dut.i.valid))),
        Assert(~(taken & inside & ~half)),
        # Of a command of two slots, both are of one ring.
        Assert(~(taken & half & dut.i.p.first)),
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
