"""Every PCIe read that is opened ends once; tags, and what a client waits for, are never lost."""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal, Value
from amaranth.lib import wiring

import halfdome.hdl.pcie.reassembler
import halfdome.hdl.pcie.requester
from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.config import preset
from halfdome.hdl.pcie.reassembler import Reassembler
from halfdome.hdl.pcie.requester import Requester
from halfdome.hdl.pcie.timer import CompletionTimer
from halfdome.hdl.pcie.tlp import CompletionHeader, TlpType
from tests.formal.prove import Spec
from tests.formal.rules import fifo_is_sound, obey_packet_rules, obey_stream_rules

CONFIG = preset("tiny")
TAGS = CONFIG.dma_tags

pytestmark = pytest.mark.slow


class Cut(wiring.Component):
    """A component without contents."""

    def elaborate(self, platform):
        return Module()


def reassembler(monkeypatch):
    """A reassembler, which tags are in use and in quarantine; completions may say anything.

    Timeouts come at any time.
    """
    cuts = []

    def cut_timer(tags):
        cuts.append(Cut(CompletionTimer(tags).signature))
        return cuts[-1]

    monkeypatch.setattr(halfdome.hdl.pcie.reassembler, "CompletionTimer", cut_timer)
    spec = Spec(Reassembler(CONFIG, 2))
    spec.cut("timer", cuts[0])
    m, dut = spec.m, spec.dut
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "memory", dut.memory, Assert)
    opened, retired = dut.opened, dut.retired
    between = obey_packet_rules(spec, "i", dut.i, Assume)
    # Opened and not ended; sent; ended but not freed, for good or for a while.
    in_use, sent, held, drains = (
        Signal(TAGS, name=name) for name in ("in_use", "has_left", "held", "drains")
    )

    def these(condition, tag):
        return Mux(condition, 1 << tag, 0)[:TAGS]

    opens, leaves = these(opened.valid, opened.p.tag), these(dut.sent.valid, dut.sent.p)
    ends = these(retired.valid & retired.p.ends, retired.p.tag)
    frees = these(retired.valid & retired.p.frees, retired.p.tag)
    marks = these(retired.valid & retired.p.drains, retired.p.tag)
    m.d.sync += [
        in_use.eq((in_use | opens) & ~ends),
        sent.eq((sent | leaves) & ~ends),
        held.eq((held | ends) & ~frees),
        drains.eq((drains | (marks & ends)) & ~frees),
    ]
    timer = cuts[0]
    m.d.comb += [
        # A tag is opened again only after it was freed, and sent once.
        Assume((opens & (in_use | held)) == 0),
        Assume((leaves & ~(in_use & ~sent)) == 0),
        Assume(~timer.expired | timer.watched.bit_select(timer.tag, 1)),
        # Only what has left ends, once; only what ends or has ended is freed, once.
        Assert((ends & ~(in_use & sent)) == 0),
        Assert((frees & ~(ends | held)) == 0),
        Assert((in_use & held) == 0),
        # Both ends of a quarantine say the same about it.
        Assert(~retired.valid | retired.p.ends | ((marks != 0) == ((drains & frees) != 0))),
        Assert(~(retired.valid & retired.p.ends & retired.p.frees & retired.p.drains)),
    ]
    return spec, SimpleNamespace(in_use=in_use, sent=sent, held=held, drains=drains), between


def test_every_opened_read_retires_once_whatever_completions_say(prove, monkeypatch):
    spec, tags, between = reassembler(monkeypatch)
    m, dut = spec.m, spec.dut
    is_open, valid = spec.inside("table.open"), spec.inside("valid")
    quarantined, draining = spec.inside("table.quarantined"), spec.inside("table.draining")
    timed_out, record = spec.inside("timed_out"), dut.retired.p
    beat = spec.inside("beat")
    bus = CONFIG.bus_bytes * 8
    beat_is_first, beat_is_last = beat[bus], beat[bus + 1]
    going = Signal()  # between a packet's header and its last beat
    take = spec.inside("take")
    with m.If(take & valid & ~timed_out):
        m.d.sync += going.eq(~beat_is_last)
    soon = (going & spec.inside("retires")) | dut.retired.valid
    ends_soon = Mux(soon & record.ends, 1 << record.tag, 0)[:TAGS]
    frees_soon = Mux(soon & record.frees, 1 << record.tag, 0)[:TAGS]
    completion = valid & ~timed_out
    m.d.comb += [
        # A read is in flight while it is open, or while its last packet is on its way through.
        Assert((tags.in_use & tags.sent) == (is_open | ends_soon)),
        Assert((tags.sent & ~tags.in_use) == 0),
        Assert((is_open & ends_soon) == 0),
        # A tag is in quarantine from its read's last packet to that which frees it.
        Assert((tags.held | ends_soon) == (quarantined | frees_soon)),
        Assert((quarantined & (frees_soon | is_open)) == 0),
        Assert((draining & ~quarantined) == 0),
        Assert(
            (tags.drains | Mux(record.drains, ends_soon, 0))
            == (draining | Mux(record.drains, frees_soon & ~ends_soon, 0))
        ),
        Assert(~soon | record.ends | record.frees),
        Assert(~(soon & record.ends & record.frees & record.drains)),
        Assert(~completion | (beat_is_first == ~going)),
        Assert(~(valid & timed_out & going)),
        Assert(spec.inside("between") == Mux(completion, beat_is_last, ~going)),
        Assert(between == spec.inside("between")),
        Assert(~(going & dut.retired.valid)),
        Cover(dut.retired.valid & record.ends & (record.failure != ReadFailure.NONE)),
        Cover(dut.retired.valid & (record.failure == ReadFailure.NONE) & (tags.in_use == 3)),
        Cover(dut.retired.valid & (record.failure == ReadFailure.TIMED_OUT)),
        Cover(dut.retired.valid & record.frees & ~record.ends & ~record.drains),
        Cover(dut.retired.valid & record.frees & ~record.ends & record.drains),
        Cover(dut.events.unexpected_completion),
    ]
    prove(spec, depth=6, induction=2)


def requester(monkeypatch):
    """A requester whose reassembler retires what was opened, in any order."""
    cuts = []

    def cut_reassembler(config, clients):
        cuts.append(Cut(Reassembler(config, clients).signature))
        return cuts[-1]

    monkeypatch.setattr(halfdome.hdl.pcie.requester, "Reassembler", cut_reassembler)
    spec = Spec(Requester(CONFIG, 2))
    spec.cut("reassembler", cuts[0])
    for number, port in enumerate(spec.dut.reads):
        obey_stream_rules(spec, f"read{number}", port.request, Assume)
    obey_stream_rules(spec, "fetch", spec.dut.fetch.request, Assume)
    obey_stream_rules(spec, "requests", spec.dut.requests, Assert)
    return spec, cuts[0].opened, cuts[0].retired


def test_a_tag_in_use_is_not_given_out(prove, monkeypatch):
    spec, opened, retired = requester(monkeypatch)
    m, tag, in_use = spec.m, spec.constant("tag", 2), Signal()
    opens = opened.valid & (opened.p.tag == tag)
    closes = retired.valid & retired.p.frees & (retired.p.tag == tag)
    m.d.sync += in_use.eq((in_use | opens) & ~closes)
    m.d.comb += [
        Assume(~closes | in_use),
        Assert(~(opens & in_use)),
        Cover(opens & (tag == 2)),
    ]
    # Tags go round: the first comes back when every one has been used.
    again = Signal()
    with m.If(closes):
        m.d.sync += again.eq(1)
    m.d.comb += Cover(again & opens & (tag == 0))
    prove(spec, depth=10)


def test_tags_and_reads_in_flight_are_conserved(prove, monkeypatch):
    spec, opened, retired = requester(monkeypatch)
    m, dut = spec.m, spec.dut
    ends, frees = retired.valid & retired.p.ends, retired.valid & retired.p.frees
    held, drains = Signal(3), Signal(3)  # tags in quarantine, and those that time will free
    enters, leaves = ends & ~frees, frees & ~ends
    m.d.sync += [
        held.eq(held + enters - leaves),
        drains.eq(drains + (enters & retired.p.drains) - (leaves & retired.p.drains)),
    ]
    fetches = Signal()
    fetch_ends = ends & (retired.p.client == 2)
    with m.If(opened.valid & (opened.p.client == 2)):
        m.d.sync += fetches.eq(1)
    with m.Elif(fetch_ends):
        m.d.sync += fetches.eq(0)
    flights = [fetches]
    for number, port in enumerate(dut.reads):
        reads, inside = Signal(3, name=f"reads{number}"), f"splitter_{number}"
        my_close = ends & (retired.p.client == number)
        m.d.sync += reads.eq(reads + (opened.valid & (opened.p.client == number)) - my_close)
        idle = spec.inside(f"{inside}.idle") & ~spec.inside("pieces.held")[number]
        m.d.comb += [
            Assume(~my_close | (reads != 0)),
            Assert(spec.inside(f"in_flight_{number}") == reads),
            # Idle only when nothing of the client is anywhere.
            Assert(~port.idle | ((reads == 0) & idle)),
            Cover(port.idle & (port.failure == ReadFailure.TIMED_OUT)),
        ]
        flights.append(reads)
    level, fresh = fifo_is_sound(spec, "free_tags", TAGS), spec.inside("fresh_tag")
    m.d.comb += [
        # What a reassembler retires is in flight or in quarantine.
        Assume(~retired.valid | ends | frees),
        Assume(~ends | (retired.p.client <= 2)),
        Assume(~fetch_ends | fetches),
        Assume(~leaves | (Mux(retired.p.drains, drains, held - drains) != 0)),
        # A tag is in flight, in quarantine, in the queue of free ones, or was never used.
        Assert(sum(flights) + held + level + (TAGS - fresh) == TAGS),
        Assert(fresh <= TAGS),
        Assert(dut.outstanding == sum(flights)),
        Assert(dut.quarantined == held),
        Assert((spec.inside("draining") == drains) & (drains <= held)),
        Assert(spec.inside("free") == level + (TAGS - fresh)),
        Assert(spec.inside("fetch_open") == fetches),
        Assert(~(opened.valid & (opened.p.client == 2) & fetches)),
        Assert(~fetches | (spec.inside("fetcher.fsm_state") == 1)),
        Assert(~(fetches & spec.inside("refused"))),
        # DMA reads leave one tag to the fetch.
        Assert(fetches | (spec.inside("free") != 0) | (held != 0)),
        Assert(~frees | spec.inside("free_tags.w_rdy")),
        Cover(sum(flights) == TAGS),
        Cover((held == 2) & (drains == 1)),
    ]
    prove(spec, depth=8, induction=2)


def test_no_byte_of_a_refused_completion_or_beyond_its_read_is_written(prove, monkeypatch):
    spec, tags, _ = reassembler(monkeypatch)
    m, dut = spec.m, spec.dut
    opened, write, bus = dut.opened, dut.memory, CONFIG.bus_bytes
    tag = spec.constant("tag", 2)
    # What was asked for under the tag; addresses of a few bits, as the rest is the same adder.
    start, size = Signal(10), Signal(8)
    m.d.comb += [
        Assume(opened.p.destination % bus == 0),
        Assume(opened.p.destination < 512),
        Assume(opened.p.lower_address % bus == 0),
        Assume((opened.p.bytes != 0) & (opened.p.bytes <= 96)),
        Assume(~opened.valid | (opened.p.client != 2)),
    ]
    with m.If(opened.valid & (opened.p.tag == tag)):
        m.d.sync += [start.eq(opened.p.destination), size.eq(opened.p.bytes)]
    # Of which packet the beats in hand are, and whether its header condemns it.
    header = CompletionHeader(dut.i.p.data)
    bad, bad_now, number, number_now = Signal(), Signal(), Signal(8), Signal(8)
    with m.If(dut.i.valid & dut.i.ready):
        m.d.sync += [bad_now.eq(bad), number_now.eq(number)]
        with m.If(dut.i.p.first):
            m.d.sync += [
                bad.eq(
                    header.poisoned
                    | (Value.cast(header.status) != 0)
                    | (Value.cast(header.type) != TlpType.COMPLETION_DATA)
                    | dut.i.p.malformed
                ),
                number.eq(header.tag),
            ]
    with m.If(dut.i.valid & dut.i.ready & ~dut.i.p.first):
        m.d.sync += [bad_now.eq(bad), number_now.eq(number)]
    strobes = sum(write.p.strobe)
    mine = write.valid & (number_now == tag)
    m.d.comb += [
        Assert(~(write.valid & bad_now)),
        Assert(~mine | tags.in_use.bit_select(tag, 1)),
        Assert(~mine | ((write.p.address >= start) & (write.p.address % bus == 0))),
        Assert(~mine | (write.p.address + strobes <= start + size)),
        Assert((write.p.strobe & (write.p.strobe + 1)) == 0),
        Cover(mine & (write.p.address == start + 16) & (strobes == 3)),
    ]
    prove(spec, depth=6)
