"""A read that is not answered fails in time, and its tag serves no other until that is safe."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.pcie.port import READ_EVENTS
from halfdome.hdl.pcie.timer import CompletionTimer
from tests.bench import simulate
from tests.hdl.pcie.endpoint_bench import CONFIGS, Bench
from tests.hdl.pcie.host_model import BASE, CUT, FAULTS, SILENT, TWICE

TIMEOUT = 400


@given(seed=st.integers(0, 2**32), limit=st.sampled_from([0, 1, 30, 60]))
def test_timer_names_each_read_within_its_slack(seed, limit):
    tags = 5
    dut, rng = CompletionTimer(tags), random.Random(seed)
    started: dict[int, int] = {}
    named: dict[int, int] = {}

    async def bench(ctx):
        ctx.set(dut.limit, limit)
        closed = dict.fromkeys(range(tags), -10)
        for cycle in range(1500):
            free = [t for t in range(tags) if t not in started and closed[t] < cycle - 4]
            sent = rng.choice(free) if free and rng.random() < 0.05 else None
            ctx.set(dut.sent.valid, sent is not None)
            if sent is not None:
                ctx.set(dut.sent.p, sent)
            expired, tag = ctx.get(dut.expired), ctx.get(dut.tag)
            done = rng.choice(list(started)) if started and rng.random() < 0.01 else None
            if expired:
                assert cycle - started[tag] > limit > 0
                named.setdefault(tag, cycle)
                # Whoever waits for it takes a while.
                done = tag if rng.random() < 0.2 else None
            elif limit and started:
                oldest = min(started.values())
                assert cycle - oldest <= limit + (tags + dut.slack) + tags * 20
            await ctx.tick()
            if sent is not None:
                started[sent] = cycle
            if done is not None:
                del started[done]
                closed[done] = cycle
            ctx.set(dut.watched, sum(1 << tag for tag in started))

    simulate(dut, bench)
    assert bool(named) == bool(limit)


def test_timer_is_as_late_as_it_says_at_most():
    tags = 6
    for offset in range(tags + 1):
        dut = CompletionTimer(tags)
        cycles = []

        async def bench(ctx, dut=dut, offset=offset, cycles=cycles):
            ctx.set(dut.limit, 20)
            ctx.set(dut.watched, 1)
            for _ in range(offset):
                await ctx.tick()
            ctx.set(dut.sent.p, 3)
            ctx.set(dut.sent.valid, 1)
            await ctx.tick()
            ctx.set(dut.sent.valid, 0)
            ctx.set(dut.watched, 0b1000)
            cycle = 0
            while not ctx.get(dut.expired):
                await ctx.tick()
                cycle += 1
            assert ctx.get(dut.tag) == 3
            cycles.append(cycle)

        simulate(dut, bench, cycles=200)
        assert 20 <= cycles[0] <= 20 + tags + dut.slack


async def answer_late(ctx, bench):
    """The host sends what it withheld."""
    for packets in bench.host.withheld.values():
        bench.host.strays.extend(packets)
    bench.host.withheld.clear()
    await bench.until(ctx, lambda: bench.host.quiet)
    for _ in range(40):
        await ctx.tick()


@pytest.mark.parametrize(("bus_bytes", "fault"), [(16, SILENT), (32, CUT), (128, SILENT)])
def test_a_read_without_its_last_completion_fails_and_its_tag_waits_for_it(bus_bytes, fault):
    config = CONFIGS[bus_bytes].replace(dma_tags=3)
    bench = Bench(config, timeout=TIMEOUT, faults={0: fault}, split=1.0)
    size, outcomes, times = config.max_read_request_bytes, [], []

    async def go(ctx):
        for number in range(6):
            before = bench.cycle
            page = 4096 * number
            await bench.load(0, [(BASE + page, page, size)], outcomes)(ctx)
            times.append(bench.cycle - before)
        control = bench.dut.control
        assert ctx.get(control.quarantined_tags) == 1
        assert ctx.get(control.outstanding_reads) == 0
        before = bytes(bench.card.data)
        await answer_late(ctx, bench)
        assert ctx.get(control.quarantined_tags) == 0
        assert bytes(bench.card.data) == before, "a late completion was written"
        for number in range(6):
            await bench.load(0, [(BASE, 4096 * number, size)], outcomes)(ctx)

    bench.run(go)
    late = 1 if fault == CUT else size // 64
    assert outcomes == [ReadFailure.TIMED_OUT] + [ReadFailure.NONE] * 11
    assert times[0] > TIMEOUT > max(times[1:])
    assert bench.events == {"completion_timeout": 1, "late_completion": late}
    assert len({read.tag for read in bench.host.reads}) == 3


def test_the_time_of_a_read_starts_when_its_request_leaves():
    bench = Bench(CONFIGS[32], timeout=TIMEOUT)
    link = bench.host.link
    gate = []

    def gated(rx, rx_np_ok, tx):
        send, receive = link(rx, rx_np_ok, tx)

        async def wait(ctx):
            for _ in range(3 * TIMEOUT):
                await ctx.tick()
            gate.append(ctx.get(tx.valid))
            await receive(ctx)

        return [send, wait]

    bench.host.link = gated
    outcome = []
    bench.run(bench.load(0, [(BASE, 0, 1000)], outcome))
    assert gate == [1]
    assert outcome == [ReadFailure.NONE]


def test_a_fetch_that_times_out_is_repeated_on_another_tag():
    config = CONFIGS[32]
    bench = Bench(config, timeout=TIMEOUT, faults={0: SILENT})
    received = []
    bench.run(bench.fetch([(BASE + 64, 128), (BASE + 64, 128)], received))
    assert received == [None, bench.host.read(BASE + 64, 128)]
    assert bench.host.reads[0].tag != bench.host.reads[1].tag


def test_reads_fail_at_once_when_every_tag_is_in_quarantine():
    config = CONFIGS[32].replace(dma_tags=3)
    bench = Bench(config, timeout=TIMEOUT, faults=dict.fromkeys(range(3), SILENT))
    outcomes, received, times = [], [], []
    load = (BASE, 0, 5 * config.max_read_request_bytes)

    async def timed(ctx, client):
        before = bench.cycle
        await client(ctx)
        times.append(bench.cycle - before)

    async def go(ctx):
        await timed(ctx, bench.load(0, [load], outcomes))
        # One tag is left, which is the fetch's.
        await timed(ctx, bench.load(1, [load], outcomes))
        await timed(ctx, bench.fetch([(BASE, 64)], received))
        await timed(ctx, bench.fetch([(BASE, 64)], received))
        assert ctx.get(bench.dut.control.quarantined_tags) == 3
        await answer_late(ctx, bench)
        await timed(ctx, bench.fetch([(BASE, 64)], received))
        await timed(ctx, bench.load(1, [load], outcomes))

    bench.run(go)
    assert outcomes == [ReadFailure.TIMED_OUT, ReadFailure.NO_TAG, ReadFailure.NONE]
    assert received == [None, None, bench.host.read(BASE, 64)]
    assert times[0] > TIMEOUT < times[2]
    assert max(times[1], times[3]) < 30, "hopeless reads do not wait"


def test_without_bus_mastering_reads_fail_and_writes_wait():
    config = CONFIGS[32]
    bench = Bench(config)
    outcomes, received = [], []
    control, data = bench.dut.control, bytes(range(96))

    async def go(ctx):
        await bench.load(0, [(BASE, 0, 64)], outcomes)(ctx)
        ctx.set(control.bus_master, 0)
        await ctx.tick()
        await bench.load(0, [(BASE, 0, 5000)], outcomes)(ctx)
        await bench.fetch([(BASE, 64)], received)(ctx)
        assert len(bench.host.reads) == 1
        assert not bench.host.writes
        ctx.set(control.bus_master, 1)
        await bench.load(0, [(BASE, 0, 64)], outcomes)(ctx)
        await bench.until(ctx, lambda: bench.host.writes)

    async def store(ctx):
        await bench.until(ctx, lambda: len(outcomes) == 1)
        for _ in range(3):
            await ctx.tick()
        await bench.store(0, [(BASE + 8192, data)])(ctx)

    bench.run(go, store)
    assert outcomes == [ReadFailure.NONE, ReadFailure.NOT_BUS_MASTER, ReadFailure.NONE]
    assert received == [None]
    assert bench.host.read(BASE + 8192, 96) == data


def test_a_reset_frees_every_tag_and_drops_what_was_to_be_written():
    config = CONFIGS[32].replace(dma_tags=3)
    bench = Bench(config, timeout=TIMEOUT, faults={0: SILENT, 1: SILENT}, split=1.0)
    outcomes, data = [], bytes(range(256)) * 3
    control, port = bench.dut.control, bench.dut.posted[0]
    stored = []

    async def store(ctx):
        await bench.store(0, [(BASE + 4, data)])(ctx)
        stored.append(bench.cycle)

    async def go(ctx):
        await bench.load(0, [(BASE, 0, 2 * config.max_read_request_bytes)], outcomes)(ctx)
        assert ctx.get(control.quarantined_tags) == 2
        ctx.set(control.bus_master, 0)
        ctx.set(control.discard, 1)
        await bench.until(ctx, lambda: stored)
        while not ctx.get(port.idle):
            await ctx.tick()
        ctx.set(control.reset, 1)
        await ctx.tick()
        ctx.set(control.reset, 0)
        ctx.set(control.discard, 0)
        ctx.set(control.bus_master, 1)
        assert ctx.get(control.quarantined_tags) == ctx.get(control.outstanding_reads) == 0
        await answer_late(ctx, bench)
        await bench.load(0, [(BASE, 0, 2000)], outcomes)(ctx)

    async def late_store(ctx):
        # Some of it is on its way when the reset comes.
        await bench.until(ctx, lambda: outcomes)
        await store(ctx)

    bench.run(go, late_store)
    assert outcomes == [ReadFailure.TIMED_OUT, ReadFailure.NONE]
    whole = b"".join(bytes(write.payload) for write in bench.host.writes)
    assert data.startswith(whole)
    assert len(whole) < len(data)
    late = 2 * config.max_read_request_bytes // 64
    assert bench.events == {"completion_timeout": 2, "unexpected_completion": late}


@pytest.mark.parametrize("bus_bytes", [16, pytest.param(128, marks=pytest.mark.slow)])
def test_no_tag_is_lost_to_any_fault(bus_bytes):
    config = CONFIGS[bus_bytes].replace(dma_tags=4)
    kinds = [*FAULTS, TWICE, SILENT, CUT]
    rng = random.Random(bus_bytes)
    faults = {number: rng.choice(kinds) for number in range(200) if rng.random() < 0.5}
    bench = Bench(config, seed=1, timeout=TIMEOUT, faults=faults, split=0.6)
    outcomes = []

    async def go(ctx):
        for number in range(14):
            await bench.load(0, [(BASE + 4096 * (number % 8), 0, 1500)], outcomes)(ctx)
            if not outcomes[-1]:
                got = bench.card.data[:1500].tobytes()
                assert got == bench.host.read(BASE + 4096 * (number % 8), 1500)
            if outcomes[-1] == ReadFailure.NO_TAG or rng.random() < 0.2:
                await answer_late(ctx, bench)
        await answer_late(ctx, bench)
        for _ in range(2 * TIMEOUT):
            await ctx.tick()
        assert ctx.get(bench.dut.control.outstanding_reads) == 0
        assert ctx.get(bench.dut.control.quarantined_tags) == 0
        bench.host._faults = {}
        await bench.load(0, [(BASE, 0, 4000)], outcomes)(ctx)

    bench.run(go)
    assert outcomes[-1] == ReadFailure.NONE
    assert set(bench.events) >= set(READ_EVENTS) - {"unexpected_completion"}
