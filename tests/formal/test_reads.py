"""Every PCIe read that is opened ends once; tags, and what a client waits for, are never lost."""

import pytest
from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal, Value
from amaranth.lib import wiring

import hdl.pcie.requester
from hdl.config import preset
from hdl.pcie.reassembler import FETCH_TAG, Reassembler
from hdl.pcie.requester import Requester
from hdl.pcie.tlp import CompletionHeader, TlpType
from tests.formal.prove import Spec
from tests.formal.rules import fifo_is_sound, obey_packet_rules, obey_stream_rules

CONFIG = preset("tiny")
TAGS = CONFIG.dma_tags

pytestmark = pytest.mark.slow


class Cut(wiring.Component):
    """A component without contents."""

    def elaborate(self, platform):
        return Module()


def reassembler():
    """A reassembler, which reads are open and of how many bytes; completions may say anything."""
    spec = Spec(Reassembler(CONFIG, 2))
    m, dut = spec.m, spec.dut
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "memory", dut.memory, Assert)
    opened, retired = dut.opened, dut.retired
    between = obey_packet_rules(spec, "i", dut.i, Assume)
    in_use = Signal(TAGS)
    opens = Mux(opened.valid, 1 << opened.p.tag, 0)[:TAGS]
    closes = Mux(retired.valid, 1 << retired.p.tag, 0)[:TAGS]
    m.d.sync += in_use.eq((in_use | opens) & ~closes)
    m.d.comb += [
        # A tag is opened again only after it was retired.
        Assume((opens & in_use) == 0),
        # Only what was opened is retired, once.
        Assert((closes & ~in_use) == 0),
    ]
    return spec, in_use, between


def test_every_opened_read_retires_once_whatever_completions_say(prove):
    spec, in_use, between = reassembler()
    m, dut = spec.m, spec.dut
    is_open, valid = spec.inside("open"), spec.inside("valid")
    ending, packet = spec.inside("ending"), spec.inside("packet")
    beat = spec.inside("beat")
    bus = CONFIG.bus_bytes * 8
    beat_is_first, beat_is_last = beat[bus], beat[bus + 1]
    tag_bits = 2
    going = Signal()  # between a packet's header and its last beat
    take = spec.inside("take")
    with m.If(take & valid):
        m.d.sync += going.eq(~beat_is_last)
    due = Mux((going & ending) | dut.retired.valid, 1 << packet[:tag_bits], 0)[:TAGS]
    m.d.comb += [
        # A tag is in use while it is open, or while its last packet is on its way through.
        Assert(in_use == (is_open | due)),
        Assert((is_open & due) == 0),
        Assert(~valid | (beat_is_first == ~going)),
        Assert(between == Mux(valid, beat_is_last, ~going)),
        Assert(~(going & dut.retired.valid)),
        Cover(dut.retired.valid & dut.retired.p.failed),
        Cover(dut.retired.valid & ~dut.retired.p.failed & (in_use == 3)),
        Cover(dut.unexpected_completion),
    ]
    prove(spec, depth=6, induction=2)


def requester(monkeypatch):
    """A requester whose reassembler retires what was opened, in any order."""
    cuts = []

    def cut_reassembler(config, clients):
        cuts.append(Cut(Reassembler(config, clients).signature))
        return cuts[-1]

    monkeypatch.setattr(hdl.pcie.requester, "Reassembler", cut_reassembler)
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
    closes = retired.valid & (retired.p.tag == tag)
    m.d.sync += in_use.eq((in_use | opens) & ~closes)
    m.d.comb += [
        Assume(~closes | in_use),
        Assert(~(opens & in_use)),
        Assert(~opens | ((tag == FETCH_TAG) == spec.inside("fetcher.request__valid"))),
        Cover(opens & (tag == 2)),
    ]
    # Tags go round: the first comes back when every one has been used.
    again = Signal()
    with m.If(closes):
        m.d.sync += again.eq(1)
    m.d.comb += Cover(again & opens & (tag == 1))
    prove(spec, depth=10)


def test_tags_and_reads_in_flight_are_conserved(prove, monkeypatch):
    spec, opened, retired = requester(monkeypatch)
    m, dut = spec.m, spec.dut
    opens = opened.valid & ~spec.inside("fetcher.request__valid")
    closes = retired.valid & (retired.p.tag != FETCH_TAG)
    flights = []
    for number, port in enumerate(dut.reads):
        reads, inside = Signal(3, name=f"reads{number}"), f"splitter_{number}"
        my_close = closes & (retired.p.client == number)
        m.d.sync += reads.eq(reads + (opens & (opened.p.client == number)) - my_close)
        idle = spec.inside(f"{inside}.idle") & ~spec.inside("pieces.held")[number]
        m.d.comb += [
            Assume(~my_close | (reads != 0)),
            Assert(spec.inside(f"in_flight_{number}") == reads),
            # Idle only when nothing of the client is anywhere.
            Assert(~port.idle | ((reads == 0) & idle)),
            Cover(port.idle & port.failed),
        ]
        flights.append(reads)
    level, fresh = fifo_is_sound(spec, "free_tags", TAGS), spec.inside("fresh_tag")
    m.d.comb += [
        # A DMA tag is in use, in the queue of free ones, or was never used.
        Assert(sum(flights) + level + (TAGS - fresh) == TAGS - 1),
        Assert((fresh >= 1) & (fresh <= TAGS)),
        Assert(~closes | spec.inside("free_tags.w_rdy")),
        Cover(sum(flights) == TAGS - 1),
    ]
    prove(spec, depth=8, induction=2)


def test_no_byte_of_a_refused_completion_or_beyond_its_read_is_written(prove):
    spec, in_use, _ = reassembler()
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
        Assume(~opened.valid | (opened.p.tag != FETCH_TAG)),
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
        Assert(~mine | in_use.bit_select(tag, 1)),
        Assert(~mine | ((write.p.address >= start) & (write.p.address % bus == 0))),
        Assert(~mine | (write.p.address + strobes <= start + size)),
        Assert((write.p.strobe & (write.p.strobe + 1)) == 0),
        Cover(mine & (write.p.address == start + 16) & (strobes == 3)),
    ]
    prove(spec, depth=6)
