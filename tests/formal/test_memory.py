"""Memories and the ways to them answer each client what it asked, and only that."""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Mux, Signal

import halfdome.hdl.memory.axi_arbiter
from halfdome.hdl.config import preset
from halfdome.hdl.memory.axi_arbiter import AxiArbiter
from halfdome.hdl.memory.scratchpad import Scratchpad
from halfdome.hdl.memory.switch import ReadSwitch, WriteSwitch
from tests.formal.prove import Spec
from tests.formal.rules import Scoreboard, obey_stream_rules

CONFIG = preset("tiny").replace(cores=2, dram_bytes=1 << 16, scratchpad_bytes=4096)
SMALL = SimpleNamespace(
    bus_bytes=2, burst_words=4, scratchpad_bytes=16, scratchpad_banks=2, address_bits=40
)  # fmt: skip
"""Less than any card has: how many bytes a word or a memory has changes nothing in its control."""

pytestmark = pytest.mark.slow


def place_of(address):
    """Scratchpad 0, 1, DRAM (2) or nowhere (3)."""
    return Mux(address < 0x10000, 2, Mux(address < 0x11000, 0, Mux(address < 0x12000, 1, 3)))


def goes_to_its_place(spec, targets, place):
    """Each request of the client is offered to one target, unchanged."""
    request = spec.dut.client.request
    obey_stream_rules(spec, "client", request, Assume)
    for number, target in enumerate(targets):
        obey_stream_rules(spec, f"target{number}", target.request, Assert)
        there = request.valid & (place == number) & (target.request.p == request.p)
        spec.m.d.comb += [
            Assert(~target.request.valid | there),
            Assert(~(target.request.valid & target.request.ready) | request.ready),
            Cover(target.request.valid & target.request.ready),
        ]
    sent = Cat(target.request.valid & target.request.ready for target in targets).any()
    spec.m.d.comb += Assert(~(request.valid & request.ready & (place != 3)) | sent)


def test_read_switch_answers_in_order_from_the_right_memory(prove):
    spec = Spec(ReadSwitch(CONFIG, range(2)))
    m, dut = spec.m, spec.dut
    targets = [*dut.scratchpads, dut.dram]
    request, response = dut.client.request, dut.client.response
    found = place_of(request.p.address)
    goes_to_its_place(spec, targets, Mux(found == 3, 1, found))

    bursts, current = spec.inside("bursts"), spec.inside("current")
    owed = []
    for number, target in enumerate(targets):
        due = Signal(9, name=f"due{number}")
        answer = target.response
        ends = answer.valid & answer.p.last
        m.d.sync += due.eq(due + (target.request.valid & target.request.ready) - ends)
        m.d.comb += [
            Assume(~answer.valid | (due != 0)),
            # Only one memory owes anything, so that its order is the client's.
            Assert((due == 0) | ((number == current) & (due == bursts))),
            Assert(~answer.valid | (response.valid & (response.p == answer.p))),
            Cover(answer.valid & (due == 2)),
        ]
        owed.append(due)
    m.d.comb += [
        Assert(sum(owed) == bursts),
        Assert(~response.valid | Cat(target.response.valid for target in targets).any()),
        Assert(~request.valid | (bursts != 0) | Cat(t.request.valid for t in targets).any()),
    ]
    prove(spec, depth=6, induction=1)


def test_write_switch_writes_to_the_right_memory_or_none(prove):
    spec = Spec(WriteSwitch(CONFIG, range(2)))
    m, dut = spec.m, spec.dut
    targets = [*dut.scratchpads, dut.dram]
    request, place = dut.client.request, place_of(dut.client.request.p.address)
    goes_to_its_place(spec, targets, place)
    m.d.comb += [
        Assert(dut.client.idle == Cat(target.idle for target in targets).all()),
        Assert(~(request.valid & (place == 3)) | request.ready),
        Cover(request.valid & (place == 3)),
    ]
    prove(spec, depth=3, induction=1)


def axi_channel(axi, name, *fields):
    """A channel of AXI4 as a stream."""
    return SimpleNamespace(
        valid=getattr(axi, f"{name}valid"),
        ready=getattr(axi, f"{name}ready"),
        p=Cat(getattr(axi, name + field) for field in fields),
    )


def test_axi_reads_return_to_the_port_that_asked(prove):
    spec = Spec(AxiArbiter(SMALL, [3], [1]))
    m, dut, axi = spec.m, spec.dut, spec.dut.axi
    pick = spec.constant("pick", 2)
    m.d.comb += [Assume(pick < 3), Assume(axi.rid < 3)]
    for number, port in enumerate(dut.reads):
        obey_stream_rules(spec, f"read{number}", port.request, Assume)
    obey_stream_rules(spec, "ar", axi_channel(axi, "ar", "id", "addr", "len"), Assert)

    due = Signal(8)  # bursts that memory owes the port
    taken = axi.arvalid & axi.arready & (axi.arid == pick)
    answers = axi.rvalid & (axi.rid == pick)
    m.d.sync += due.eq(due + taken - (answers & axi.rlast))
    m.d.comb += [Assume(~answers | (due != 0)), Assume(~due.all())]

    asked, request, response = Signal(), Signal(42), Signal(18)
    for number, port in enumerate(dut.reads):
        with m.If(pick == number):
            m.d.comb += [
                asked.eq(port.request.valid & port.request.ready),
                request.eq(port.request.p),
                response.eq(Cat(port.response.valid, port.response.p)),
            ]
    mine = axi.arid == pick
    board = Scoreboard(
        spec,
        "requests",
        1,
        put=asked,
        put_value=request,
        offered=axi.arvalid & mine,
        take=taken,
        take_value=Cat(axi.araddr, axi.arlen[:2]),
    )
    board.lies_in((axi.arvalid & mine, Cat(axi.araddr, axi.arlen[:2])))
    beat, beat_is_mine = Signal(17), Signal()
    m.d.sync += [beat.eq(Cat(axi.rdata, axi.rlast)), beat_is_mine.eq(answers)]
    m.d.comb += [
        Assert(axi.rready),
        Assert(~axi.arvalid | ((axi.arid < 3) & (axi.arlen < SMALL.burst_words))),
        Assert(response[0] == beat_is_mine),
        Assert(~response[0] | (response[1:] == beat)),
        Cover(response[0] & (pick == 2) & (due == 2)),
    ]
    prove(spec, depth=6, induction=2)


def test_axi_writes_pair_address_and_data_and_are_idle_when_answered(prove, monkeypatch):
    monkeypatch.setattr(halfdome.hdl.memory.axi_arbiter, "OUTSTANDING_WRITES", 3)
    spec = Spec(AxiArbiter(SMALL, [1], [2]))
    m, dut, axi = spec.m, spec.dut, spec.dut.axi
    pick = spec.constant("pick")
    for number, port in enumerate(dut.writes):
        obey_stream_rules(spec, f"write{number}", port.request, Assume)
    obey_stream_rules(spec, "aw", axi_channel(axi, "aw", "id", "addr"), Assert)
    obey_stream_rules(spec, "w", axi_channel(axi, "w", "data", "strb", "last"), Assert)

    # Address and data of a write, in whichever order they leave.
    addressed, written = axi.awvalid & axi.awready, axi.wvalid & axi.wready
    address, word = Cat(axi.awid, axi.awaddr), Cat(axi.wdata, axi.wstrb)
    early_address, early_word = Signal(len(address)), Signal(len(word))
    address_first, word_first = Signal(), Signal()
    pair = (addressed | address_first) & (written | word_first)
    m.d.sync += [
        address_first.eq((addressed | address_first) & ~pair),
        word_first.eq((written | word_first) & ~pair),
    ]
    with m.If(addressed):
        m.d.sync += early_address.eq(address)
    with m.If(written):
        m.d.sync += early_word.eq(word)
    m.d.comb += [
        Assert(~(address_first & word_first)),
        Assert(~(addressed & address_first)),
        Assert(~(written & word_first)),
    ]
    left = Cat(Mux(address_first, early_address, address), Mux(word_first, early_word, word))

    port, idle, asked = Signal(40 + 16 + 2), Signal(), Signal()
    for number, write in enumerate(dut.writes):
        with m.If(pick == number):
            m.d.comb += [
                port.eq(write.request.p),
                idle.eq(write.idle),
                asked.eq(write.request.valid & write.request.ready),
            ]
    chosen = spec.inside("write_arbiter.o__valid")
    slot = spec.inside("write_arbiter.o__payload")
    mine = slot[-1] == pick
    board = Scoreboard(
        spec, "writes", 1, put=asked, put_value=port, take=pair & mine, take_value=left[1:]
    )
    board.lies_in((chosen & mine, slot[:-1]))

    answered = axi.bvalid & (axi.bid == pick)
    due = Signal(2)  # answers that memory owes the port
    m.d.sync += due.eq(due + (pair & mine) - answered)
    m.d.comb += [
        Assume(~answered | (due != 0)),
        Assert(~pair | (left[0] == slot[-1])),
        Assert(spec.inside("address_taken") == address_first),
        Assert(spec.inside("data_taken") == word_first),
        Assert(~(address_first | word_first) | chosen),
        Assert(~address_first | (early_address == Cat(slot[-1], slot[:40]))),
        Assert(~word_first | (early_word == slot[40:-1])),
        Assert(axi.bready & (axi.awlen == 0) & axi.wlast),
        Assert(idle == ((due == 0) & (board.level == 0))),
        Cover(address_first & (due == 2)),
        Cover(word_first & (pick == 1)),
        Cover((due == 3) & ~idle),
    ]
    for number in range(2):
        waiting = spec.inside(f"write{number}_waiting")
        with m.If(pick == number):
            m.d.comb += Assert(waiting == board.level + due)
    prove(spec, depth=6, induction=2)


def scratchpad():
    """A scratchpad of two banks, two ports each way, in its world."""
    spec = Spec(Scratchpad(SMALL, 2, 2))
    for kind in ("reads", "writes"):
        for number, port in enumerate(getattr(spec.dut, kind)):
            obey_stream_rules(spec, f"{kind}{number}", port.request, Assume)
    return spec


def test_scratchpad_answers_as_many_words_as_were_asked(prove):
    spec = scratchpad()
    m, dut = spec.m, spec.dut
    for number, port in enumerate(dut.reads):
        name = f"read{number}"
        request, response = port.request, port.response
        due = Signal(4, name=f"{name}_due")
        asked = Mux(request.valid & request.ready, request.p.count_minus_1 + 1, 0)
        m.d.sync += due.eq(due + asked - response.valid)
        left = Mux(spec.inside(f"{name}_active"), spec.inside(f"{name}_left") + 1, 0)
        m.d.comb += [
            Assert(due == left + spec.inside(f"{name}_fetched") + response.valid),
            Cover((due == 6) & response.valid),
        ]
        # A word waits for one word of the other port at most.
        silent = Signal(3, name=f"{name}_silent")
        with m.If(response.valid | (due == 0)):
            m.d.sync += silent.eq(0)
        with m.Else():
            m.d.sync += silent.eq(silent + 1)
        m.d.comb += Assert(silent <= dut.latency)
    for number, port in enumerate(dut.writes):
        request, refused = port.request, Signal(2, name=f"write{number}_refused")
        m.d.sync += refused.eq(Mux(request.valid & ~request.ready, refused + 1, 0))
        m.d.comb += [Assert(refused <= 1), Cover(refused == 1)]
    prove(spec, depth=8, induction=6)


def test_scratchpad_reads_what_was_last_written(prove):
    spec = scratchpad()
    m, dut = spec.m, spec.dut
    place = spec.constant("place", 3)  # a word, whichever
    offset = spec.constant("offset", 2)  # a word of a burst, whichever
    read, writes = dut.reads[0], dut.writes
    hits = [w.request.valid & w.request.ready & (w.request.p.address[1:4] == place) for w in writes]
    # Of two ports that write one word at once either may be last, so only one does.
    m.d.comb += Assume(~hits[1])
    value = Signal(16)
    with m.If(hits[0]):
        for byte in range(2):
            with m.If(writes[0].request.p.strobe[byte]):
                m.d.sync += value.word_select(byte, 8).eq(
                    writes[0].request.p.data.word_select(byte, 8)
                )

    watching, ahead, last, due = Signal(), Signal(4), Signal(), Signal(4)
    asked = read.request.valid & read.request.ready
    count = Mux(asked, read.request.p.count_minus_1 + 1, 0)
    after = due - read.response.valid
    m.d.sync += due.eq(after + count)
    arrives = watching & read.response.valid & (ahead == 0)
    with m.If(watching & read.response.valid):
        m.d.sync += ahead.eq(ahead - 1)
    with m.If(hits[0] | arrives):
        m.d.sync += watching.eq(0)
    word = read.request.p.address[1:4] + offset
    watch = spec.free("watch")
    with m.If(watch & ~watching & asked & writes[0].idle & ~hits[0] & (offset < count)):
        m.d.sync += [
            watching.eq(word[:3] == place),
            ahead.eq(after + offset),
            last.eq(offset + 1 == count),
        ]
    m.d.comb += [
        Assert(~arrives | (read.response.p.data == value)),
        Assert(~arrives | (read.response.p.last == last)),
        Cover(arrives & (offset == 1) & (value == 0x1234)),
    ]
    prove(spec, depth=9)
