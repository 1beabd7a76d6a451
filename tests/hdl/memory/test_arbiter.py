"""Merged streams lose nothing, keep each input's order and let nobody starve."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.memory.arbiter import FAN_IN, StreamArbiter
from tests.bench import as_dict, monitor, simulate, sink, source


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=2 * FAN_IN + 3),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_every_payload_arrives_once_in_its_inputs_order(counts, stall, seed):
    dut = StreamArbiter(16, len(counts))
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
    for k, count in enumerate(counts):
        mine = [payload["p"] for payload in merged if payload["index"] == k]
        assert mine == [k << 8 | item for item in range(count)]


@pytest.mark.parametrize("n", [1, 2, 5, FAN_IN, FAN_IN + 1, 2 * FAN_IN])
def test_latency_is_as_stated_and_throughput_is_one(n):
    dut = StreamArbiter(8, n)
    arrivals = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i[n - 1].valid, 1)
        for cycle in range(20):
            _, _, valid = await ctx.tick().sample(dut.o.valid)
            if valid:
                arrivals.append(cycle)

    simulate(dut, bench)
    assert arrivals == list(range(dut.latency, 20))
    assert dut.latency == (1 if n <= FAN_IN else 2)


@pytest.mark.parametrize("n", [2, 7, FAN_IN])
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
    with pytest.raises(ValueError, match=r"n=0: an arbiter needs at least one input"):
        StreamArbiter(8, 0)
