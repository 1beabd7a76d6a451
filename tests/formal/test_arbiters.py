"""Arbiters grant one, in turn; merged streams lose, repeat and reorder nothing."""

import pytest
from amaranth.hdl import Array, Assert, Assume, Cat, Cover, Mux, Signal, Value
from amaranth.lib import data

from halfdome.hdl.command.merge import RoundRobinMerge
from halfdome.hdl.memory.arbiter import (
    URGENT_TURNS,
    NextTurn,
    RoundRobin,
    StreamArbiter,
    UrgentFirst,
)
from halfdome.hdl.memory.hold_back import READS_BESIDE, HoldBack
from halfdome.hdl.pcie.mux import PacketMux
from tests.formal.prove import Spec
from tests.formal.rules import Scoreboard, obey_stream_rules, wait_in_turn


def distance_to(n, next_in_turn, pick):
    """Requests served before `pick` if all are up, `next_in_turn` first."""
    return Mux(pick >= next_in_turn, pick - next_in_turn, n + pick - next_in_turn)[: n.bit_length()]


@pytest.mark.parametrize("n", [1, 3, 5])
def test_round_robin_grants_one_request_in_turn(prove, n):
    spec = Spec(RoundRobin(n))
    m, dut = spec.m, spec.dut
    pick = spec.constant("pick", range(n))
    m.d.comb += Assume(pick < n)
    granted = dut.grant.bit_select(pick, 1)
    m.d.comb += [
        Assert((dut.grant & (dut.grant - 1)) == 0),
        Assert((dut.grant & ~dut.requests) == 0),
        Assert(dut.requests.any() == dut.grant.any()),
        Assert(~granted | (dut.index == pick)),
    ]
    # The mask is all ones from the next in turn upwards.
    above = spec.inside("above")
    m.d.comb += Assert((~above & (~above + 1)) == 0)
    wait_in_turn(
        spec,
        "pick",
        n,
        requested=dut.requests.bit_select(pick, 1),
        served=granted & dut.advance,
        other=dut.grant.any() & dut.advance & ~granted,
        distance=distance_to(n, sum(~above[i] for i in range(n)), pick),
    )
    m.d.comb += Cover(granted & dut.advance & (pick == n - 1))
    prove(spec, depth=n + 2, induction=1)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_urgent_requests_go_first_and_no_other_waits_for_more_than_a_bound(prove, n):
    spec = Spec(UrgentFirst(n))
    m, dut = spec.m, spec.dut
    pick, urgent = spec.constant("pick", range(n)), spec.constant("urgent", n)
    m.d.comb += Assume((pick < n) & (dut.urgent == urgent))
    mine, kind = Signal(n), Signal(n)
    taken = Signal(n)
    m.d.comb += [
        mine.eq(1 << pick),
        kind.eq(Mux((urgent & mine).any(), urgent, ~urgent)),
        taken.eq(Mux(dut.advance, dut.grant, 0)),
        Assert((dut.grant & (dut.grant - 1)) == 0),
        Assert((dut.grant & ~dut.requests) == 0),
        Assert(dut.requests.any() == dut.grant.any()),
        Assert(~(dut.grant & mine).any() | (dut.index == pick)),
    ]
    # Among those of its kind a request waits for its turn.
    aboves = {name: spec.inside(f"{name}.above") for name in ("first", "other")}
    for above in aboves.values():
        m.d.comb += Assert((~above & (~above + 1)) == 0)
    above = Mux((urgent & mine).any(), aboves["first"], aboves["other"])
    wait_in_turn(
        spec,
        "pick",
        n,
        requested=(dut.requests & mine).any(),
        served=(taken & mine).any(),
        other=(taken & kind & ~mine).any(),
        distance=distance_to(n, sum(~above[i] for i in range(n)), pick),
    )
    # Urgent ones that another one sees pass before one of its kind, or since it came; and that
    # passed since such a one was taken.
    seen, since = Signal(range(URGENT_TURNS + 2)), Signal(range(URGENT_TURNS + 1))
    passed = spec.inside("passed")
    with m.If((taken & ~urgent).any() | ~(dut.requests & mine & ~urgent).any()):
        m.d.sync += seen.eq(0)
    with m.Elif(taken.any()):
        m.d.sync += seen.eq(seen + 1)
    with m.If((taken & ~urgent).any()):
        m.d.sync += since.eq(0)
    with m.Elif(taken.any() & (since != URGENT_TURNS)):
        m.d.sync += since.eq(since + 1)
    overtaken = (dut.requests & urgent).any() & (dut.grant & ~urgent).any()
    m.d.comb += [
        Assert(seen <= URGENT_TURNS),
        Assert(~overtaken | (since == URGENT_TURNS)),
        Assert((passed <= since) & (seen <= passed)),
        Cover(overtaken & dut.advance),
        Cover((dut.grant & urgent & mine).any() & (dut.requests & ~urgent).any()),
    ]
    prove(spec, depth=URGENT_TURNS + 3, induction=1)


def test_ports_are_held_back_only_beside_urgent_reads_and_never_for_others_reads(prove):
    spec = Spec(HoldBack([1, 2, 1]))
    m, dut = spec.m, spec.dut
    flights = []
    for group, size in enumerate((1, 2, 1)):
        flight, taken, ended = Signal(11), dut.taken[group], dut.ended[group]
        m.d.sync += flight.eq(flight + taken - ended)
        m.d.comb += [
            Assume((flight != 0) | ~ended),
            Assume((flight != size * 255) | ~taken),
            Assert(flight == spec.inside(f"flight{group}")),
            Assert(flight <= size * 255),
        ]
        flights.append(flight)
    beside = Cat((flight != 0) & dut.urgent[group] for group, flight in enumerate(flights)).any()
    for group, flight in enumerate(flights):
        many = (flight > READS_BESIDE) & ~dut.urgent[group]
        m.d.comb += [
            Assert(dut.held[group] == (many & beside)),
            Assert(~dut.held[group] | (flight > 1)),  # it waits for its own
        ]
    m.d.comb += Cover(dut.held == 0b101)
    prove(spec, depth=READS_BESIDE + 4, induction=1)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_next_turn_is_of_the_nearest_request_behind_the_last(prove, n):
    spec = Spec(NextTurn(n))
    m, dut = spec.m, spec.dut
    pick = spec.constant("pick", range(n))
    first = Mux(dut.last == n - 1, 0, dut.last + 1)
    asked = dut.requests.bit_select(pick, 1)
    m.d.comb += [
        Assume((pick < n) & (dut.last < n)),
        Assert(~dut.requests.any() | dut.requests.bit_select(dut.index, 1)),
        Assert(~asked | (distance_to(n, first, dut.index) <= distance_to(n, first, pick))),
        Cover(asked & (dut.index == pick) & (dut.last == pick)),
    ]
    prove(spec, depth=1, induction=1)


def merged_in_order(spec, pick, mine, *, payload, slots):
    """The streams of a merge obey the rules; what input `pick` sends comes out in order.

    `mine` says that what is on `o` came from that input, `slots` where its payloads are.
    """
    m, inputs, o = spec.m, spec.dut.i, spec.dut.o
    m.d.comb += Assume(pick < len(inputs))
    for number, i in enumerate(inputs):
        obey_stream_rules(spec, f"i{number}", i, Assume)
    obey_stream_rules(spec, "o", o, Assert)
    taken, picked = Signal(len(inputs)), Signal(Value.cast(inputs[0].p).shape())
    m.d.comb += taken.eq(Cat(i.valid & i.ready for i in inputs))
    with m.Switch(pick):
        for number, i in enumerate(inputs):
            with m.Case(number):
                m.d.comb += picked.eq(i.p)
    board = Scoreboard(
        spec,
        "picked",
        len(slots),
        put=taken.bit_select(pick, 1),
        put_value=picked,
        offered=o.valid & mine,
        take=o.valid & o.ready & mine,
        take_value=payload,
    )
    board.lies_in(*slots)
    m.d.comb += Cover((board.level == len(slots)) & (pick == len(inputs) - 1))


def requests_of(spec, pick):
    """Whether `pick` asks, is served, and another one is: never two at once."""
    inputs = spec.dut.i
    valid = Cat(i.valid for i in inputs).bit_select(pick, 1)
    taken = Cat(i.valid & i.ready for i in inputs)
    spec.m.d.comb += Assert((taken & (taken - 1)) == 0)
    served = taken.bit_select(pick, 1)
    return {"requested": valid, "served": served, "other": taken.any() & ~served}


def test_stream_arbiter_keeps_every_inputs_order_and_waits_in_turn(prove):
    spec = Spec(StreamArbiter(8, 3))
    pick, o = spec.constant("pick", 2), spec.dut.o
    mine = o.p.index == pick
    merged_in_order(spec, pick, mine, payload=o.p.p, slots=[(o.valid & mine, o.p.p)])
    above = spec.inside("turn.above")
    spec.m.d.comb += Assert((~above & (~above + 1)) == 0)
    distance = distance_to(3, sum(~above[i] for i in range(3)), pick)
    wait_in_turn(spec, "pick", 3, **requests_of(spec, pick), distance=distance)
    prove(spec, depth=6, induction=1)


@pytest.mark.slow
def test_stream_arbiter_of_groups_keeps_every_inputs_order(prove):
    spec = Spec(StreamArbiter(8, 2, 2))
    pick, o = spec.constant("pick", 2), spec.dut.o
    mine = o.p.index == pick
    group = Array(spec.inside(f"group{g}.o__payload") for g in range(2))[pick[1]]
    group_valid = Array(spec.inside(f"group{g}.o__valid") for g in range(2))[pick[1]]
    slots = [(o.valid & mine, o.p.p), (group_valid & (group[8] == pick[0]), group[:8])]
    merged_in_order(spec, pick, mine, payload=o.p.p, slots=slots)
    prove(spec, depth=8, induction=1)


def test_round_robin_merge_keeps_every_inputs_order_and_waits_in_turn(prove):
    spec = Spec(RoundRobinMerge(8, 3))
    pick, o, served = spec.constant("pick", 2), spec.dut.o, spec.inside("served")
    mine = served == pick
    spec.m.d.comb += Assert(served < 3)
    merged_in_order(spec, pick, mine, payload=o.p, slots=[(o.valid & mine, o.p)])
    distance = distance_to(3, Mux(served == 2, 0, served + 1), pick)
    wait_in_turn(spec, "pick", 3, **requests_of(spec, pick), distance=distance)
    prove(spec, depth=6, induction=1)


def test_packet_mux_sends_whole_packets_in_turn(prove):
    beat = data.StructLayout({"data": 8, "last": 1})
    spec = Spec(PacketMux(beat, 3))
    m, dut, pick = spec.m, spec.dut, spec.constant("pick", 2)
    o, inside = dut.o, spec.inside("inside")
    mine = dut.source == pick
    merged_in_order(spec, pick, mine, payload=o.p, slots=[(o.valid & mine, o.p)])

    # Between a packet's first beat and its last, every beat is of that packet.
    open_, sender = Signal(), Signal(2)
    with m.If(o.valid & o.ready):
        m.d.sync += [open_.eq(~o.p.last), sender.eq(dut.source)]
    m.d.comb += [
        Assert(dut.source < 3),
        Assert(~(open_ & o.valid) | (dut.source == sender)),
        Assert(~open_ | o.valid | (dut.source == sender)),
        Assert(inside == Mux(o.valid, ~o.p.last, open_)),
        Assert(dut.held == Cat(o.valid & (dut.source == k) for k in range(3))),
    ]
    # Packets, not beats, take turns.
    asks = requests_of(spec, pick)
    first = {name: asks[name] & ~inside for name in ("served", "other")}
    waiting = asks["requested"] & ~(inside & mine)
    distance = distance_to(3, Mux(dut.source == 2, 0, dut.source + 1), pick)
    wait_in_turn(spec, "pick", 3, requested=waiting, distance=distance, **first)
    m.d.comb += Cover(open_ & o.valid & o.p.last & first["other"])
    prove(spec, depth=8, induction=1)
