"""Readers ask for what they have room for, and pass every word on once, in order."""

import pytest
from amaranth.hdl import Assert, Assume, Cover, Mux, Signal

from halfdome.hdl.config import preset
from halfdome.hdl.memory.reader import ReadBuffer, SequentialReader
from tests.formal.prove import Spec
from tests.formal.rules import Scoreboard, answer_reads, fifo_is_sound, obey_stream_rules

CONFIG = preset("tiny")


def in_its_world(reader, depth):
    """A reader that keeps `depth` words, and the words that memory owes it."""
    spec = Spec(reader)
    dut = spec.dut
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "request", dut.port.request, Assert)
    obey_stream_rules(spec, "o", dut.o, Assert)
    return spec, answer_reads(spec, "port", dut.port, depth)


def keeps_its_promise(spec, path, due, depth):
    """States that a `ReadBuffer` takes every word it asked for; the words in it."""
    free, level = spec.inside(f"{path}free"), fifo_is_sound(spec, f"{path}fifo", depth + 1)
    response = spec.dut.port.response
    spec.m.d.comb += [
        Assert(free + due + level == depth),
        Assert(~response.valid | spec.inside(f"{path}fifo.w_rdy")),
        Cover((free == 0) & (level == 0) & response.valid),
        Cover(level == depth),
    ]
    return level


def test_read_buffer_never_refuses_a_word_it_asked_for(prove, narrow):
    depth = 5
    spec, due = in_its_world(ReadBuffer(CONFIG, depth), depth)
    dut, free = spec.dut, spec.inside("free")
    level = keeps_its_promise(spec, "", due, depth)
    spec.m.d.comb += [
        Assert(dut.empty == ((due == 0) & (level == 0))),
        # It asks as soon as there is room.
        Assert(dut.port.request.valid | ~dut.i.valid | (free <= dut.i.p.count_minus_1)),
    ]
    prove(spec, depth=10, induction=2)


@pytest.mark.slow
def test_read_buffer_passes_words_on_in_order(prove, narrow):
    spec, _ = in_its_world(ReadBuffer(CONFIG, 4), 4)
    response, o = spec.dut.port.response, spec.dut.o
    board = Scoreboard(
        spec,
        "words",
        4,
        put=response.valid,
        put_value=response.p,
        offered=o.valid,
        take=o.valid & o.ready,
        take_value=o.p,
    )
    spec.m.d.comb += Cover((board.level == 4) & o.valid)
    prove(spec, depth=10)


@pytest.mark.slow
def test_sequential_reader_asks_for_each_word_of_a_run_once(prove, narrow):
    depth = 4
    spec, due = in_its_world(SequentialReader(CONFIG, depth), depth)
    m, dut = spec.m, spec.dut
    request, line_bytes = dut.port.request, CONFIG.burst_words * CONFIG.bus_bytes
    keeps_its_promise(spec, "buffer.", due, depth)
    m.d.comb += Assume(dut.i.p.address % CONFIG.bus_bytes == 0)

    address, words = (Signal.like(dut.i.p[name], name=name) for name in ("address", "words"))
    count = request.p.count_minus_1 + 1
    end = (address % line_bytes) + count * CONFIG.bus_bytes
    left = Signal.like(words)  # after this cycle
    m.d.comb += left.eq(words - Mux(request.valid & request.ready, count, 0))
    m.d.sync += [address.eq(address + (words - left) * CONFIG.bus_bytes), words.eq(left)]
    with m.If(dut.i.valid & dut.i.ready):
        m.d.sync += [address.eq(dut.i.p.address), words.eq(dut.i.p.words)]
    m.d.comb += [
        Assert(spec.inside("cutter.address") == address),
        Assert(spec.inside("cutter.words") == words),
        Assert(address % CONFIG.bus_bytes == 0),
        Assert(dut.i.ready == (left == 0)),
        Assert(~request.valid | ((request.p.address == address) & (count <= words))),
        # To the end of the line or of the run, never beyond.
        Assert(~request.valid | (end == line_bytes) | ((end < line_bytes) & (count == words))),
        Cover(request.valid & request.ready & (words == 3) & (count == 1)),
        Cover(dut.i.valid & dut.i.ready & (words != 0)),
    ]
    prove(spec, depth=8, induction=2)
