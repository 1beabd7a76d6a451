"""Clients ask for what they have room for; memories answer each what it asked, and only that."""

import pytest
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import data

import hdl.memory.port
import hdl.memory.reader
from hdl.config import preset
from hdl.memory.reader import ReadBuffer
from tests.formal.prove import Spec
from tests.formal.rules import Scoreboard, answer_reads, fifo_is_sound, obey_stream_rules

CONFIG = preset("tiny").replace(dram_bytes=1 << 16, scratchpad_bytes=4096)


@pytest.fixture
def narrow(monkeypatch):
    """Words of four bits: data is moved whole, so that width proves nothing."""
    word = data.StructLayout({"data": 4, "last": 1})
    for module in (hdl.memory.port, hdl.memory.reader):
        monkeypatch.setattr(module, "read_word", lambda config: word)


def read_buffer(depth):
    """A `ReadBuffer` in its world, and the words it waits for."""
    spec = Spec(ReadBuffer(CONFIG, depth))
    dut = spec.dut
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "request", dut.port.request, Assert)
    obey_stream_rules(spec, "o", dut.o, Assert)
    return spec, answer_reads(spec, "port", dut.port, depth)


def test_read_buffer_never_refuses_a_word_it_asked_for(prove, narrow):
    depth = 5
    spec, due = read_buffer(depth)
    m, dut, free = spec.m, spec.dut, spec.inside("free")
    level = fifo_is_sound(spec, "fifo", depth + 1)
    m.d.comb += [
        Assert(free + due + level == depth),
        Assert(~dut.port.response.valid | spec.inside("fifo.w_rdy")),
        Assert(dut.empty == ((due == 0) & (level == 0))),
        # It neither waits for nothing nor holds a word back.
        Assert(dut.port.request.valid | ~dut.i.valid | (free < CONFIG.burst_words)),
        Cover((free == 0) & (due == 0)),
        Cover((free == 0) & (level == 0) & dut.port.response.valid),
    ]
    prove(spec, depth=10, induction=2)


def test_read_buffer_passes_words_on_in_order(prove, narrow):
    spec, _ = read_buffer(4)
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
