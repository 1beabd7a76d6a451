"""Packets leave and arrive whole; every read that is opened ends once; tags are never lost."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Mux, Signal, Value
from amaranth.lib import data

import halfdome.hdl.pcie.packet_buffer
import halfdome.hdl.pcie.replier
from halfdome.hdl.config import preset
from halfdome.hdl.pcie.completion_sender import CompletionSender
from halfdome.hdl.pcie.fetch_buffer import FetchBuffer
from halfdome.hdl.pcie.packet_buffer import PacketBuffer
from halfdome.hdl.pcie.payload_writer import PayloadWriter
from halfdome.hdl.pcie.replier import Replier
from halfdome.hdl.pcie.splitter import Splitter
from halfdome.hdl.pcie.tlp import HEADER_BYTES, CompletionHeader, RequestHeader, TlpType
from halfdome.hdl.pcie.window_writer import WindowWriter
from tests.formal.prove import Spec
from tests.formal.rules import (
    Scoreboard,
    answer_reads,
    fifo_is_sound,
    obey_packet_rules,
    obey_stream_rules,
)

CONFIG = preset("tiny")
BUS = CONFIG.bus_bytes

pytestmark = pytest.mark.slow


def test_splitter_pieces_are_the_transfer_and_fit_a_packet(prove):
    limit = 64
    spec = Spec(Splitter(CONFIG, limit))
    m, dut = spec.m, spec.dut
    i, o = dut.i, dut.o
    obey_stream_rules(spec, "i", i, Assume)
    obey_stream_rules(spec, "o", o, Assert)
    # What is left of the transfer whose pieces leave, and the one after it.
    # Of addresses the low bits will do: adders are the same all the way up.
    transfer = data.StructLayout({"address": 8, "destination": 8, "left": 32, "skip": 4})
    now, later, new = (Signal(transfer, name=name) for name in ("now", "later", "new"))
    running, queued = Signal(), Signal()
    given, taken = o.valid & o.ready, i.valid & i.ready & (i.p.bytes != 0)
    m.d.comb += [
        new.address.eq(i.p.address),
        new.destination.eq(i.p.destination),
        new.left.eq(i.p.bytes),
        new.skip.eq(0),
    ]
    with m.If(given):
        m.d.sync += [
            now.address.eq(now.address + o.p.bytes),
            now.destination.eq(now.destination + o.p.bytes),
            now.left.eq(now.left - o.p.bytes),
            now.skip.eq(now.skip + o.p.bytes),
        ]
    with m.If(given & o.p.last):
        m.d.sync += [now.eq(Mux(queued, later, new)), running.eq(queued | taken), queued.eq(0)]
    with m.Elif(taken & ~running):
        m.d.sync += [now.eq(new), running.eq(1)]
    with m.Elif(taken):
        m.d.sync += [later.eq(new), queued.eq(1)]
    end = (now.address % limit) + o.p.bytes
    m.d.comb += [
        Assert(~o.valid | running),
        Assert(~(taken & queued)),
        Assert(~o.valid | (o.p.address[:8] == now.address)),
        Assert(~o.valid | (o.p.destination[:8] == now.destination)),
        Assert(~o.valid | (o.p.skip == now.skip)),
        Assert(~o.valid | ((o.p.bytes != 0) & (end <= limit) & (o.p.bytes <= now.left))),
        Assert(~o.valid | (o.p.last == (o.p.bytes == now.left))),
        # A piece ends at the limit, with the transfer, or with the word it shares.
        Assert(~o.valid | o.p.last | (end == limit) | (now.skip + o.p.bytes == BUS)),
        Assert(dut.idle == ~running),
        Cover(o.valid & (o.p.skip != 0) & ~o.p.last),
        Cover(given & o.p.last & queued),
    ]
    # For induction: what the registers hold behind the piece at the exit.
    busy, ahead = spec.inside("busy"), Mux(o.valid, o.p.bytes, 0)
    rest = Signal(transfer)
    m.d.comb += [
        rest.address.eq(now.address + ahead),
        rest.destination.eq(now.destination + ahead),
        rest.left.eq(now.left - ahead),
        rest.skip.eq(now.skip + ahead),
        Assert(~queued | (o.valid & o.p.last & (later.left != 0))),
        Assert(~running | (now.left != 0)),
        Assert((now.skip == 0) | (now.address % limit == 0)),
        Assert((rest.skip == 0) | (rest.address % limit == 0) | ~busy),
    ]
    with m.If(queued):
        m.d.comb += rest.eq(later)
    with m.Else():
        m.d.comb += [Assert(running == (busy | o.valid)), Assert(~o.valid | (busy == ~o.p.last))]
    m.d.comb += [
        Assert(~queued | busy),
        Assert(~busy | (spec.inside("address")[:8] == rest.address)),
        Assert(~busy | (spec.inside("destination")[:8] == rest.destination)),
        Assert(~busy | ((spec.inside("remaining") == rest.left) & (rest.left != 0))),
        Assert(~busy | (spec.inside("skip") == rest.skip)),
    ]
    prove(spec, depth=5, induction=1)


def test_fetch_buffer_hands_over_what_was_asked_once(prove):
    config = SimpleNamespace(bus_bytes=2, max_read_request_bytes=8)
    spec = Spec(FetchBuffer(config))
    m, dut = spec.m, spec.dut
    asked, request, response = dut.port.request, dut.request, dut.port.response
    obey_stream_rules(spec, "asked", asked, Assume)
    obey_stream_rules(spec, "request", request, Assert)
    obey_stream_rules(spec, "response", response, Assert)
    words = asked.p.bytes >> 1
    collecting, due, failed = Signal(), Signal(3), Signal()
    place, value = spec.constant("place", 2), Signal(16)
    taken = asked.valid & asked.ready
    ended = response.valid & response.ready & response.p.last
    index = Signal(3)  # words handed over
    m.d.comb += [
        Assume(~asked.valid | ((words != 0) & (words <= 4) & ~asked.p.bytes[0])),
        Assume(~dut.done | collecting),
        Assume(~dut.write.valid | (collecting & (dut.write.p.address < 8))),
        Assert(~(request.valid & request.ready) | asked.ready),
        Assert(~request.valid | (request.p == asked.p)),
        Assert(~taken | (~collecting & (due == 0))),
    ]
    for byte in range(2):
        with m.If(dut.write.valid & (dut.write.p.address[1:3] == place)):
            with m.If(dut.write.p.strobe[byte]):
                m.d.sync += value.word_select(byte, 8).eq(dut.write.p.data.word_select(byte, 8))
    with m.If(taken):
        m.d.sync += [collecting.eq(1), due.eq(words), index.eq(0)]
    with m.If(dut.done):
        m.d.sync += [collecting.eq(0), failed.eq(dut.failed)]
    with m.If(response.valid & response.ready):
        m.d.sync += [due.eq(Mux(response.p.last, 0, due - 1)), index.eq(index + 1)]
    m.d.comb += [
        Assert(~response.valid | ((due != 0) & ~collecting)),
        Assert(~response.valid | (response.p.failed == failed)),
        Assert(~response.valid | (response.p.last == (failed | (due == 1)))),
        Assert(~(response.valid & ~failed & (index == place)) | (response.p.data == value)),
        Cover(ended & failed),
        Cover(ended & ~failed & (index == 3)),
    ]
    prove(spec, depth=12)


@pytest.fixture
def small_packets(monkeypatch):
    """No payload above 32 bytes."""
    monkeypatch.setattr(halfdome.hdl.pcie.packet_buffer, "MAX_PAYLOAD_BYTES", 32)


def packet_buffer():
    """A packet buffer, and of what enters it: the header's beats, the beats so far."""
    spec = Spec(PacketBuffer(CONFIG))
    m, dut = spec.m, spec.dut
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "o", dut.o, Assert)
    header = RequestHeader(dut.i.p.data[: HEADER_BYTES * 8])
    beats, said = Signal(4), Signal(4)  # of the packet, before this one
    expected = Signal(4)
    type_ = Value.cast(header.type)
    m.d.comb += [
        Assume((header.length >= 1) & (header.length <= 8)),
        expected.eq(Mux(beats == 0, Mux(type_[6], 1 + ((header.length + 3) >> 2), 1), said)),
    ]
    with m.If(dut.i.valid & dut.i.ready):
        m.d.sync += [
            said.eq(expected),
            beats.eq(Mux(dut.i.p.last, 0, Mux(beats == 5, 5, beats + 1))),
        ]
    return spec, beats, expected


def test_packet_buffer_never_blocks_on_a_packet_it_waits_for(prove, small_packets):
    spec, beats, expected = packet_buffer()
    m, dut = spec.m, spec.dut
    depth = 4
    head, tail, consumed = (spec.inside(n) for n in ("head", "tail", "consumed"))
    whole, partial = (head - consumed)[:3], (tail - head)[:3]
    stored = Mux(beats < expected, beats, expected)
    m.d.comb += [
        Assert(whole + partial <= depth),
        # It holds the beats of the packet that is coming, as many as its header says.
        Assert(spec.inside("inside") == (beats != 0)),
        Assert(beats <= 5),
        Assert((beats == 0) | (partial == stored)),
        Assert((beats != 0) | (partial == 0)),
        Assert((beats == 0) | (spec.inside("expected_later") == expected - stored)),
        Assert((beats == 0) | (expected <= 3)),
        # Full, it has something to give.
        Assert(dut.i.ready | (whole != 0) | spec.inside("fetched") | dut.o.valid),
        Cover(~dut.i.ready & ~dut.o.ready),
        Cover(dut.o.valid & dut.o.p.malformed),
    ]
    prove(spec, depth=8, induction=2)


def test_packet_buffer_passes_whole_packets_on_and_cuts_malformed_ones(prove, small_packets):
    spec, _, _ = packet_buffer()
    m, dut = spec.m, spec.dut
    obey_packet_rules(spec, "o", dut.o, Assert)
    m.d.comb += [
        Cover(dut.o.valid & dut.o.p.malformed),
        Cover(dut.o.valid & dut.o.p.last & ~dut.o.p.first),
        Cover(dut.o.valid & dut.o.p.first & dut.o.p.last & ~dut.o.p.malformed),
    ]
    prove(spec, depth=12)


def test_packet_buffer_passes_the_beats_of_good_packets_on_in_order(prove, small_packets):
    spec, beats, expected = packet_buffer()
    m, i, o = spec.m, spec.dut.i, spec.dut.o
    m.d.comb += Assume(i.p.last == (beats + 1 == expected))
    board = Scoreboard(
        spec,
        "beats",
        6,  # four in memory, one fetched, one at the exit
        put=i.valid & i.ready,
        put_value=Cat(i.p.data[-4:], i.p.last, i.p.bar),
        offered=o.valid,
        take=o.valid & o.ready,
        take_value=Cat(o.p.data[-4:], o.p.last, o.p.bar),
    )
    m.d.comb += [Assert(~o.valid | ~o.p.malformed), Cover((board.level == 6) & o.valid)]
    prove(spec, depth=12)


def test_replier_takes_reads_whatever_becomes_of_their_answers(prove, narrow, monkeypatch):
    """And answers each once, in order."""
    queue, in_flight, words = 3, 2, 4
    sizes = {"READ_QUEUE": queue, "READS_IN_FLIGHT": in_flight, "PREFETCH_BYTES": words * BUS}
    for name, value in sizes.items():
        monkeypatch.setattr(halfdome.hdl.pcie.replier, name, value)
    spec = Spec(Replier(CONFIG))
    m, dut = spec.m, spec.dut
    i, o = dut.i, dut.o
    obey_stream_rules(spec, "i", i, Assume)
    obey_stream_rules(spec, "o", o, Assert)
    obey_stream_rules(spec, "request", dut.window_read.request, Assert)
    answer_reads(spec, "window", dut.window_read, words)
    level = fifo_is_sound(spec, "waiting", queue)
    taken, given = i.valid & i.ready, o.valid & o.ready
    waiting = Signal(range(queue + 1))
    m.d.sync += waiting.eq(waiting + taken - dut.started)
    inside = Signal()
    with m.If(given):
        m.d.sync += inside.eq(~o.p.last)
    header = CompletionHeader(o.p.data[: HEADER_BYTES * 8])
    here = header.byte_count + header.lower_address[:2]
    ends = given & ~inside & ((header.status != 0) | (here <= header.length << 2))
    Scoreboard(
        spec, "tags", queue + in_flight + 1, put=taken, put_value=i.p.tag, take=ends,
        take_value=header.tag,
    )  # fmt: skip
    m.d.comb += [
        Assume(~i.valid | ((i.p.bytes != 0) & (i.p.bytes <= 3 * BUS))),
        Assume(~i.valid | (i.p.value[:2] == i.p.lower_address[:2])),
        Assume(~i.valid | i.p.from_window | (i.p.bytes <= 8)),
        Assume(~i.valid | (i.p.status == 0) | ~i.p.from_window),
        Assert(waiting == level),
        Assert(i.ready | (waiting >= queue - 1)),
        Assert(~dut.started | (waiting != 0)),
        Cover((waiting == queue) & o.valid),
        Cover(ends & (header.status == 0) & (waiting == 2)),
    ]
    prove(spec, depth=9)


def test_completions_hold_the_bytes_that_were_asked_for(prove):
    """Of each answer one doubleword, whichever, is followed from memory to the link."""
    limit = 2 * BUS
    spec = Spec(CompletionSender(SimpleNamespace(bus_bytes=BUS, max_payload_bytes=limit)))
    m, dut = spec.m, spec.dut
    i, words, o = dut.i, dut.words, dut.o
    for name, stream, kind in (("i", i, Assume), ("words", words, Assume), ("o", o, Assert)):
        obey_stream_rules(spec, name, stream, kind)
    m.d.comb += [
        Assume(~i.valid | (i.p.from_window & (i.p.status == 0) & (i.p.bytes != 0))),
        Assume(~i.valid | (i.p.value[:12] + i.p.bytes <= 4096)),
        Assume(~i.valid | (i.p.value[:7] == i.p.lower_address)),
    ]
    # The answer under way; its completions that have left whole, and the one that is leaving.
    asked, asking, inside = Signal(), Signal.like(i.p), Signal()
    done, at, chunk, size = Signal(13), Signal(13), Signal(13), Signal(13)  # bytes
    sent, number, read = Signal(5), Signal(11), Signal(9)  # doublewords, from memory on; words
    given, taken = o.valid & o.ready, words.valid & words.ready
    ends = given & inside & o.p.last
    m.d.comb += [
        at.eq(asking.value[:12] + done),
        chunk.eq(Mux(limit - at[:5] < asking.bytes - done, limit - at[:5], asking.bytes - done)),
        size.eq(at[:2] + chunk),
        number.eq(((asking.value[:4] + done) >> 2) + sent),
    ]
    m.d.sync += read.eq(read + taken)
    with m.If(i.valid & i.ready):
        m.d.sync += [asked.eq(1), asking.eq(i.p), done.eq(0), read.eq(0)]
    with m.If(given):
        m.d.sync += [inside.eq(~o.p.last), sent.eq(Mux(inside, sent + 4, 0))]
    with m.If(ends):
        m.d.sync += [done.eq(done + chunk), asked.eq(done + chunk != asking.bytes)]
    place, value = spec.constant("place", 11), spec.constant("value", 32)
    m.d.comb += Assume((read != place[2:]) | (words.p.data.word_select(place[:2], 32) == value))
    header = CompletionHeader(o.p.data[: HEADER_BYTES * 8])
    with m.If(given & ~inside):
        m.d.comb += [
            Assert(Value.cast(header.type) == TlpType.COMPLETION_DATA),
            Assert(header.tag == asking.tag),
            Assert(header.byte_count == (asking.bytes - done)[:12]),
            Assert(header.lower_address == Mux(done == 0, asking.lower_address, 0)),
            Assert(header.length == (size + 3) >> 2),
        ]
    with m.If(given & inside):
        m.d.comb += Assert(o.p.last == (4 * (sent + 4) >= size))
        for lane in range(4):
            here = (4 * (sent + lane) < size) & (number + lane == place)
            m.d.comb += Assert(~here | (o.p.data.word_select(lane, 32) == value))
    all_words = (asking.value[:4] + asking.bytes + BUS - 1) >> 4
    m.d.comb += [
        Assert(~(o.valid | taken) | asked),
        Assert(~ends | (done + chunk != asking.bytes) | (read + taken == all_words)),
        Cover(ends & (done != 0) & (done + chunk == asking.bytes) & (asking.value[2:4] == 3)),
    ]
    # For induction: what the registers hold.
    answer, left, before = (spec.inside(name) for name in ("answer", "left", "before"))
    answer, skip = i.p.shape()(answer), at[2:4]
    kept = inside & (skip != 0) & (read == place[2:] + 1)
    m.d.comb += [
        Assert(spec.inside("fsm_state") == Mux(inside, 2, asked)),
        Assert(asked | ~inside),
        Assert(~asked | (done < asking.bytes)),
        Assert(~asked | (asking.value[:12] + asking.bytes <= 4096)),
        Assert(~asked | (asking.value[:7] == asking.lower_address)),
        Assert(~asked | (done == 0) | (at[:5] == 0)),
        Assert(~asked | (answer.from_window & (answer.status == 0))),
        Assert(~asked | ((answer.value[:5] == at[:5]) & (answer.tag == asking.tag))),
        Assert(~asked | (answer.bytes == asking.bytes - done)),
        Assert(~asked | (answer.lower_address == Mux(done == 0, asking.lower_address, 0))),
        Assert(~asked | inside | (read == (asking.value[:4] + done) >> 4)),
        Assert(~inside | (read == (number >> 2) + (skip != 0))),
        Assert(~inside | ((4 * sent < size) & (left == size - 4 * sent) & (sent[:2] == 0))),
        Assert(~kept | (before.word_select((place - skip)[:2], 32) == value)),
    ]
    prove(spec, depth=6, induction=1)


def test_window_writer_puts_every_enabled_byte_in_its_place(prove):
    spec = Spec(WindowWriter(CONFIG))
    m, dut = spec.m, spec.dut
    i, payload, o = dut.i, dut.payload, dut.o
    for name, stream, kind in (("i", i, Assume), ("payload", payload, Assume), ("o", o, Assert)):
        obey_stream_rules(spec, name, stream, kind)
    place, value = spec.constant("place", 10), Signal(32)  # a doubleword of the span
    words, beats = Signal(9), Signal(9)  # of memory, and of payload, before this one
    skip, taken, given = i.p.address[2:4], payload.valid & payload.ready, o.valid & o.ready
    needed = (i.p.dwords + 3) >> 2
    ends = i.valid & i.ready
    seen, latest = Signal(), Signal(32)
    m.d.comb += [
        seen.eq(payload.valid & (beats == place[2:])),
        latest.eq(Mux(seen, payload.p.word_select(place[:2], 32), value)),
    ]
    m.d.sync += value.eq(latest)
    with m.If(ends):
        m.d.sync += [words.eq(0), beats.eq(0)]
    with m.Else():
        m.d.sync += [words.eq(words + given), beats.eq(beats + taken)]
    m.d.comb += [
        Assume(~i.valid | ((i.p.dwords != 0) & (i.p.dwords <= 1024))),
        Assert(~taken | (beats < needed)),
        Assert(~ends | given),
        Assert(~ends | (beats + taken == needed)),
        Assert(~o.valid | (o.p.address[:4] == 0)),
        Assert(~o.valid | (o.p.address[4:] == (i.p.address[4:] + words)[:36])),
        Cover(ends & (skip == 3) & (words == 2) & ~taken),
    ]
    for lane in range(4):
        number = Signal(13, name=f"number_{lane}")  # of the doubleword here; before the span: large
        enables = Signal(4, name=f"enables_{lane}")
        strobe, data_ = o.p.strobe.word_select(lane, 4), o.p.data.word_select(lane, 32)
        m.d.comb += [number.eq((words << 2) + lane - skip), enables.eq(0b1111)]
        with m.If(number >= i.p.dwords):
            m.d.comb += enables.eq(0)
        with m.Elif(number == 0):
            m.d.comb += enables.eq(i.p.first_be)
        with m.Elif(number == i.p.dwords - 1):
            m.d.comb += enables.eq(i.p.last_be)
        m.d.comb += [
            Assert(~o.valid | (strobe == enables)),
            Assert(~o.valid | (strobe == 0) | (number != place) | (data_ == latest)),
            Assert(~ends | (lane != 3) | (number + 1 >= i.p.dwords)),
        ]
    # For induction: what the registers hold.
    inside, before = spec.inside("inside"), spec.inside("before")
    lane = (place[:2] + skip)[:2]
    kept = inside & (beats == place[2:] + 1) & (place[:2] + skip >= 4)
    m.d.comb += [
        Assert(inside == (words != 0)),
        Assert(beats == Mux(words < needed, words, needed)),
        Assert(~inside | i.valid),
        Assert(~inside | (spec.inside("next_index") == (i.p.address[4:] + words)[:36])),
        Assert(~inside | (spec.inside("left_later") == skip + i.p.dwords - (words << 2))),
        Assert(~inside | (spec.inside("left_later") != 0)),
        Assert(~inside | (skip + i.p.dwords > words << 2)),
        Assert(~kept | (before.word_select(lane, 32) == value)),
    ]
    prove(spec, depth=6, induction=2)


def test_payload_writer_puts_every_byte_in_its_place(prove):
    config = replace(CONFIG, bus_bytes=128)  # wider than the boundary
    bus = config.bus_bytes
    spec = Spec(PayloadWriter(config))
    m, dut = spec.m, spec.dut
    i, o = dut.i, dut.o
    obey_stream_rules(spec, "i", i, Assume)
    obey_stream_rules(spec, "o", o, Assert)
    # The payload in hand, and how many of its bytes went before this word.
    good, start, size, before = Signal(), Signal(40), Signal(13), Signal(13)
    taken, given = i.valid & i.ready, o.valid & o.ready
    with m.If(taken):
        m.d.sync += before.eq(before + bus)
    with m.If(dut.start):
        m.d.sync += [good.eq(dut.good), start.eq(dut.destination), size.eq(dut.bytes), before.eq(0)]
    # A byte of memory, and whether it is of this word.
    lane, place = spec.constant("lane", 7), spec.constant("place", 7)
    number = Signal(40)
    target = Signal(40)
    written = Signal()  # the byte at `place` of this word, already
    writes = given & (o.p.address == target[7:] << 7) & o.p.strobe.bit_select(target[:7], 1)
    m.d.comb += [
        number.eq(o.p.address + lane - start - before),
        target.eq(start + before + place),
    ]
    m.d.sync += written.eq((written | writes) & ~taken)
    needed = good & (before + place < size)
    m.d.comb += [
        Assume(~(dut.start & i.valid)),
        Assume(~dut.start | ((dut.destination[:6] == 0) & (dut.bytes <= 4096))),
        Assume(~i.valid | (before < size)),
        Assert(~o.valid | (i.valid & good & (o.p.address[:7] == 0))),
        # Nothing but this word's bytes, each where it belongs, once.
        Assert(
            ~(o.valid & o.p.strobe.bit_select(lane, 1))
            | (
                (number < bus)
                & (before + number < size)
                & (o.p.data.word_select(lane, 8) == i.p.word_select(number[:7], 8))
            )
        ),
        Assert(~(written & writes)),
        # None is forgotten.
        Assert(~taken | ((written | writes) == needed)),
        Cover(taken & written & (before != 0)),
        Cover(taken & writes & (start[6] == 1) & (before != 0)),
        Cover(taken & ~good),
    ]
    # For induction: what the registers hold.
    second_half = spec.inside("second_half")
    m.d.comb += [
        Assert(spec.inside("writing") == good),
        Assert(start[:6] == 0),
        Assert(size <= 4096),
        Assert(before[:7] == 0),
        Assert(spec.inside("address") == (start + before)[:40]),
        Assert(~good | (spec.inside("left") == (size - before)[:13])),
        Assert(spec.inside("upper") == start[6]),
        Assert(~second_half | (i.valid & good & start[6] & (size - before > 64))),
        Assert(written == (second_half & (place < 64))),
    ]
    prove(spec, depth=6, induction=1)
