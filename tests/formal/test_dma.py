"""Blocks of rows are read and written word by word, each once and where it belongs."""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cover, Mux, Signal
from amaranth.utils import exact_log2

from halfdome.hdl.config import preset
from halfdome.hdl.dma.merge import RowMerger
from halfdome.hdl.dma.rows import RowReader, RowWriter
from tests.formal.prove import Spec
from tests.formal.rules import answer_reads, fifo_is_sound, obey_stream_rules

CONFIG = SimpleNamespace(bus_bytes=4, burst_words=4, address_bits=40, count_bits=32)
BUS = CONFIG.bus_bytes
ALL_BYTES = (1 << BUS) - 1
LOW = 10
"""Bits of an address that are compared: its adders are the same all the way up."""

pytestmark = pytest.mark.slow


class Walk:
    """A block walked row by row, as its descriptor says: where the next word is.

    Members
    -------
    address, words, rows : of the next word; words left in its row, rows left with it
    """

    def __init__(self, spec, i, *, taken, words):
        m = spec.m
        block, new = i.p, i.valid & i.ready
        row_words = (block.row_bytes + BUS - 1) >> exact_log2(BUS)
        self.address, self.words, self.rows = Signal(LOW), Signal(32), Signal(32)
        row, stride, length = Signal(LOW), Signal(LOW), Signal(32)
        m.d.comb += [
            Assume(block.address % BUS == 0),
            Assume(block.stride % BUS == 0),
            Assume((block.rows != 0) & (block.row_bytes != 0)),
            Assume(block.row_bytes < 1 << 31),
        ]
        with m.If(taken):
            m.d.sync += [
                self.address.eq(self.address + words * BUS),
                self.words.eq(self.words - words),
            ]
            with m.If(self.words == words):
                m.d.sync += self.rows.eq(self.rows - 1)
                with m.If(self.rows != 1):
                    m.d.sync += [
                        row.eq(row + stride),
                        self.address.eq(row + stride),
                        self.words.eq(length),
                    ]
        with m.If(new):
            m.d.sync += [
                self.address.eq(block.address),
                row.eq(block.address),
                stride.eq(block.stride),
                length.eq(row_words),
                self.words.eq(row_words),
                self.rows.eq(block.rows),
            ]
        # For induction: the component's registers mean the same.
        inside = spec.inside
        m.d.comb += [
            Assert(inside("words") == self.words),
            Assert((self.words == 0) == (self.rows == 0)),
            Assert((self.rows == 0) | (length != 0)),
            Assert((self.rows == 0) | (inside("rows") == self.rows)),
            Assert((self.rows == 0) | (inside("row_words") == length)),
            Assert((self.rows == 0) | (inside("stride")[:LOW] == stride)),
            Assert((self.rows == 0) | (inside("address")[:LOW] == self.address)),
            Assert((self.rows == 0) | (inside("next_row")[:LOW] == (row + stride)[:LOW])),
            Assert((self.address % BUS == 0) & (row % BUS == 0) & (stride % BUS == 0)),
        ]


def test_row_reader_asks_for_each_word_of_a_block_once(prove, narrow):
    depth, line = 4, CONFIG.burst_words * BUS
    spec = Spec(RowReader(CONFIG, depth))
    m, dut = spec.m, spec.dut
    request = dut.port.request
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "request", request, Assert)
    obey_stream_rules(spec, "o", dut.o, Assert)
    due = answer_reads(spec, "port", dut.port, depth)
    level = fifo_is_sound(spec, "buffer.fifo", depth + 1)
    count = request.p.count_minus_1 + 1
    asked = request.valid & request.ready
    walk = Walk(spec, dut.i, taken=asked, words=count)
    end = request.p.address % line + count * BUS
    m.d.comb += [
        Assert(spec.inside("buffer.free") + due + level == depth),
        Assert(dut.i.ready == (walk.rows == 0)),
        Assert(
            ~request.valid | ((request.p.address[:LOW] == walk.address) & (count <= walk.words))
        ),
        Assert(~request.valid | (end == line) | ((end < line) & (count == walk.words))),
        Cover(asked & (walk.rows == 2) & (walk.words == count) & (count == 1)),
    ]
    prove(spec, depth=6, induction=2)


def test_row_writer_writes_each_byte_of_a_block_once(prove):
    spec = Spec(RowWriter(CONFIG))
    m, dut = spec.m, spec.dut
    request, words = dut.port.request, dut.i_words
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "words", words, Assume)
    obey_stream_rules(spec, "request", request, Assert)
    written = request.valid & request.ready
    walk = Walk(spec, dut.i, taken=written, words=1)
    # The last word of a row has as many bytes as are left.
    tail, strobe = Signal(range(BUS)), Signal(BUS)
    with m.If(dut.i.valid & dut.i.ready):
        m.d.sync += tail.eq(dut.i.p.row_bytes % BUS)
    m.d.comb += strobe.eq(Mux((walk.words == 1) & (tail != 0), (1 << tail) - 1, ALL_BYTES))
    m.d.comb += [
        Assert(
            (walk.rows == 0)
            | (spec.inside("last_strobe") == Mux(tail == 0, ALL_BYTES, ((1 << tail) - 1)[:BUS]))
        ),
        Assert(written == (words.valid & words.ready)),
        Assert(~request.valid | (walk.rows != 0)),
        Assert(~request.valid | (request.p.address[:LOW] == walk.address)),
        Assert(~request.valid | (request.p.data == words.p)),
        Assert(~request.valid | (request.p.strobe == strobe)),
        Assert(dut.done == ((walk.rows == 0) & dut.port.idle)),
        Assert(dut.i.ready == (walk.rows == 0)),
        Cover(written & (walk.rows == 2) & (walk.words == 1) & (tail == 3)),
    ]
    prove(spec, depth=6, induction=1)


def test_row_merger_passes_each_descriptor_on_within_its_time(prove):
    config = preset("tiny")
    most = config.count_bits
    spec = Spec(RowMerger(config))
    m, dut = spec.m, spec.dut
    obey_stream_rules(spec, "i", dut.i, Assume)
    obey_stream_rules(spec, "o", dut.o, Assert)
    inside, age, bits, rows = Signal(), Signal(7), Signal(6), spec.inside("rows")
    taken, given = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    with m.If(taken):
        m.d.sync += [inside.eq(1), age.eq(0)]
    with m.If(given):
        m.d.sync += inside.eq(0)
    with m.If(inside & ~dut.o.valid):
        m.d.sync += age.eq(age + 1)
    # Significant bits of what is left of `rows`.
    for bit in range(most):
        with m.If(rows[bit]):
            m.d.comb += bits.eq(bit + 1)
    multiplying = spec.inside("fsm_state") == 2
    m.d.comb += [
        Assert(~(taken & inside)),
        Assert(~dut.o.valid | inside),
        Assert(dut.i.ready == ~inside),
        Assert(~multiplying | (age + bits <= most + 1)),
        Assert(multiplying | (age <= most + 3)),
        Assert((spec.inside("fsm_state") != 1) | (age == 0)),
        Cover(dut.o.valid & (age == 5)),
    ]
    prove(spec, depth=7, induction=2)
