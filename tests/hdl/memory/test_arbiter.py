"""Merged streams lose nothing, keep each input's order and let nobody starve."""

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.memory.arbiter import URGENT_TURNS, StreamArbiter
from tests.bench import as_dict, monitor, simulate, sink, source


@given(
    groups=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=11), min_size=1, max_size=4),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_every_payload_arrives_once_in_its_inputs_order(groups, stall, seed):
    dut = StreamArbiter(16, *map(len, groups))
    counts = [count for group in groups for count in group]
    received = []
    simulate(
        dut,
        *(
            source(dut.i[k], [k << 8 | item for item in range(count)], seed=seed + k, stall=stall)
            for k, count in enumerate(counts)
        ),
        sink(dut.o, sum(counts), received, seed=seed, stall=stall),
        background=[monitor(dut.o, "o")],
    )
    merged = [as_dict(dut.layout, payload) for payload in received]
    assert len(set(dut.numbers)) == len(counts)
    for k, count in enumerate(counts):
        mine = [payload["p"] for payload in merged if payload["index"] == dut.numbers[k]]
        assert mine == [k << 8 | item for item in range(count)]


@pytest.mark.parametrize("sizes", [(1,), (2,), (5,), (19,), (1, 1), (11, 11, 11, 11, 1)])
def test_latency_is_as_stated_and_throughput_is_one(sizes):
    dut = StreamArbiter(8, *sizes)
    arrivals = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i[-1].valid, 1)
        for time in range(20):
            _, _, valid = await ctx.tick().sample(dut.o.valid)
            if valid:
                arrivals.append(time)

    simulate(dut, bench)
    assert arrivals == list(range(dut.latency, 20))
    assert dut.latency == (1 if len(sizes) == 1 else 2)


@pytest.mark.parametrize("n", [2, 7, 16])
def test_busy_inputs_take_strict_turns(n):
    dut = StreamArbiter(8, n)
    turns = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        for i in dut.i:
            ctx.set(i.valid, 1)
        for _ in range(4 * n + dut.latency):
            _, _, valid, index = await ctx.tick().sample(dut.o.valid, dut.o.p.index)
            if valid:
                turns.append(index)

    simulate(dut, bench)
    assert turns == list(range(n)) * 4


@pytest.mark.parametrize("sizes", [(3, 1), (11, 11, 11, 11, 1)])
def test_groups_take_turns_however_many_of_their_inputs_ask(sizes):
    dut = StreamArbiter(8, *sizes)
    turns = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        for i in dut.i:
            ctx.set(i.valid, 1)
        for _ in range(12 * len(sizes) + dut.latency):
            _, _, valid, number = await ctx.tick().sample(dut.o.valid, dut.o.p.index)
            if valid:
                turns.append(dut.numbers.index(number))

    simulate(dut, bench)
    first = 0
    for size in sizes:
        group = range(first, first + size)
        inside = cycle(group)
        assert [turn for turn in turns if turn in group] == [next(inside) for _ in range(12)]
        first += size


@pytest.mark.parametrize("urgent", [0b000, 0b010, 0b101, 0b111])
def test_urgent_groups_go_first_and_one_other_after_so_many(urgent):
    dut = StreamArbiter(8, 2, 1, 2)
    groups = [0, 0, 1, 2, 2]
    turns = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.urgent, urgent)
        for i in dut.i:
            ctx.set(i.valid, 1)
        for _ in range(6 * (URGENT_TURNS + 1) + dut.latency):
            _, _, valid, number = await ctx.tick().sample(dut.o.valid, dut.o.p.index)
            if valid:
                turns.append(groups[dut.numbers.index(number)])

    simulate(dut, bench)
    first, others = ([g for g in range(3) if (urgent >> g & 1) == kind] for kind in (1, 0))
    if not (first and others):
        assert turns == list(range(3)) * (len(turns) // 3)
        return
    ours, theirs = cycle(first), cycle(others)
    assert turns == [
        next(theirs if place % (URGENT_TURNS + 1) == URGENT_TURNS else ours)
        for place in range(len(turns))
    ]


def test_a_newcomer_among_busy_inputs_waits_one_round_at_most():
    n = 6
    dut = StreamArbiter(8, n)

    async def hammer(ctx):
        ctx.set(dut.o.ready, 1)
        for i in dut.i[1:]:
            ctx.set(i.valid, 1)
        for start in range(3 * n):
            for _ in range(start):
                await ctx.tick()
            ctx.set(dut.i[0].valid, 1)
            waited = 0
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.i[0].ready)
                waited += 1
            ctx.set(dut.i[0].valid, 0)
            assert waited <= n

    simulate(dut, hammer)


def test_an_arbiter_of_nothing_is_refused():
    for sizes in ((), (0,), (2, 0)):
        with pytest.raises(ValueError, match=r"sizes=.*: an arbiter needs at least one input in"):
            StreamArbiter(8, *sizes)
