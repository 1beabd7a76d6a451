"""The hot-row cache: the same words as without it, and fewer reads of memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS, ConfigError
from halfdome.hdl.gather.cache import RowCache
from tests.bench import Memory, monitor, put, simulate

TINY = PRESETS["tiny"].replace(dram_bytes=1 << 16)
OUTSIDE = 512
"""Bytes of memory beyond DRAM that requests may touch: they are never kept."""


def card(size=1024, ways=2, bus_bytes=16, **changes):
    return TINY.replace(
        gather_cache_bytes=size, gather_cache_ways=ways, bus_bytes=bus_bytes, **changes
    )


class Model:
    """The rules of the cache in a dozen lines, request by request."""

    def __init__(self, config):
        self.line_bytes = max(64, config.bus_bytes)
        self.sets = config.gather_cache_bytes // (config.gather_cache_ways * self.line_bytes)
        self.lines = [[None] * config.gather_cache_ways for _ in range(self.sets)]
        self.recent = [[False] * config.gather_cache_ways for _ in range(self.sets)]

    def look(self, address) -> bool:
        line = address // self.line_bytes
        place = (line ^ line // self.sets) % self.sets
        lines, recent = self.lines[place], self.recent[place]
        if line in lines:
            way = lines.index(line)
            recent[way] = True
            if all(recent):
                recent[:] = [other == way for other in range(len(recent))]
            return True
        way = recent.index(False) if False in recent else 0
        lines[way], recent[way] = line, False
        return False


def requests(config, rng, count, lines):
    """Random bursts within random ones of `lines` lines, as the gather unit asks for them."""
    words = config.burst_words
    picked = rng.integers(0, lines, count)
    first = rng.integers(0, words, count)
    more = rng.integers(0, words - first)
    address = picked * words * config.bus_bytes + first * config.bus_bytes
    return [
        {"address": int(a), "count_minus_1": int(n)} for a, n in zip(address, more, strict=True)
    ]


def run(config, asked, *, seed=0, stall=0.0, latency=(1, 8), flushes=()):
    """Answers of the cache checked word for word; returns cycles, hits, misses and lines read.

    Before the requests with the numbers in `flushes`, memory changes and the cache is flushed.
    """
    dut = RowCache(config)
    memory = Memory(config, config.dram_bytes + OUTSIDE, seed=seed, stall=stall, latency=latency)
    rng = np.random.default_rng(seed)
    memory.data[:] = rng.integers(0, 256, len(memory.data), np.uint8)
    counts = {"hits": 0, "misses": 0, "reads": 0, "cycles": 0}
    expected: list[tuple[int, int]] = []
    received: list[tuple[int, int]] = []

    def expect(request):
        words = int(request["count_minus_1"]) + 1
        for i in range(words):
            start = request["address"] + i * config.bus_bytes
            word = memory.data[start : start + config.bus_bytes].tobytes()
            expected.append((int.from_bytes(word, "little"), int(i == words - 1)))

    async def client(ctx):
        for number, request in enumerate(asked):
            if number in flushes:
                while len(received) < len(expected):
                    await ctx.tick()
                memory.data[:] = rng.integers(0, 256, len(memory.data), np.uint8)
                ctx.set(dut.flush, 1)
                await ctx.tick()
                ctx.set(dut.flush, 0)
            expect(request)
            await put(ctx, dut.client.request, request)
        while len(received) < len(expected):
            await ctx.tick()

    async def watch(ctx):
        port = dut.client.response
        while True:
            sampled = await ctx.tick().sample(
                port.valid, port.p.data, port.p.last, dut.hit, dut.miss,
                dut.memory.request.valid & dut.memory.request.ready,
            )  # fmt: skip
            valid, word, last, hit, miss, read = sampled[2:]
            if valid:
                received.append((word, last))
            counts["hits"] += hit
            counts["misses"] += miss
            counts["reads"] += read
            counts["cycles"] += 1

    simulate(
        dut,
        client,
        background=[
            watch,
            memory.read_port(dut.memory),
            monitor(dut.memory.request, "memory"),
        ],
        cycles=40_000,
    )
    assert len(received) == len(expected)
    for number, (got, wanted) in enumerate(zip(received, expected, strict=True)):
        assert got == wanted, f"word {number}"
    return counts


@given(
    seed=st.integers(0, 1 << 30),
    ways=st.sampled_from([1, 2, 4]),
    bus_bytes=st.sampled_from([16, 64, 128]),
    stall=st.sampled_from([0.0, 0.4]),
    lines=st.sampled_from([6, 24, 200]),
)
def test_every_word_is_that_of_memory_and_hits_are_those_of_the_rules(
    seed, ways, bus_bytes, stall, lines
):
    config = card(2048, ways, bus_bytes)
    asked = requests(config, np.random.default_rng(seed), 150, lines)
    counts = run(config, asked, seed=seed, stall=stall)
    model = Model(config)
    hits = sum(model.look(request["address"]) for request in asked)
    assert counts["hits"] == hits
    assert counts["misses"] == counts["reads"] == len(asked) - hits


def test_the_least_cache_works():
    config = card(256, 2)
    asked = requests(config, np.random.default_rng(0), 100, 5)
    counts = run(config, asked)
    assert 0 < counts["hits"] < 100


@given(seed=st.integers(0, 1 << 30))
def test_after_a_flush_the_new_bytes_are_read(seed):
    config = card()
    asked = requests(config, np.random.default_rng(seed), 120, 8)
    counts = run(config, asked, seed=seed, stall=0.2, flushes=(30, 31, 90))
    # Eight lines fit: each is read anew after a flush, and only then.
    assert 8 < counts["misses"] <= 8 * 4


def test_addresses_beyond_dram_are_passed_on_and_never_kept():
    config = card()
    asked = [
        {"address": config.dram_bytes + 16 * (i % 3), "count_minus_1": i % 2} for i in range(20)
    ]
    counts = run(config, asked)
    assert counts["hits"] == counts["misses"] == 0
    assert counts["reads"] == 20


def test_hits_flow_at_a_word_a_cycle():
    config = card()
    line = [{"address": 64 * i, "count_minus_1": 3} for i in range(4)]
    cycles = {n: run(config, line * n)["cycles"] for n in (10, 60)}
    assert cycles[60] - cycles[10] <= 50 * 4 * 4 + 4  # 4 lines of 4 words


def test_a_request_a_cycle_is_looked_up():
    config = card(bus_bytes=64)
    line = [{"address": 64 * i, "count_minus_1": 0} for i in range(4)]
    cycles = {n: run(config, line * n)["cycles"] for n in (10, 60)}
    assert cycles[60] - cycles[10] <= 50 * 4 + 4


def test_misses_are_under_way_together():
    config = card(gather_outstanding=16)
    asked = [{"address": 64 * i, "count_minus_1": 0} for i in range(100)]
    counts = run(config, asked, latency=(40, 40))
    # 16 lines in 40 cycles of latency, and a word a cycle of the line that fills.
    assert counts["cycles"] < 100 * 4 * 1.25 + 60


def test_a_hit_behind_a_miss_lets_later_misses_start():
    config = card(gather_outstanding=16)
    hot = {"address": 0, "count_minus_1": 0}
    cold = [{"address": 64 * i, "count_minus_1": 0} for i in range(1, 60)]
    asked = [hot] + [request for pair in zip(cold, [hot] * 59, strict=True) for request in pair]
    counts = run(config, asked, latency=(40, 40))
    assert counts["hits"] >= 55
    assert counts["cycles"] < 59 * (4 + 1) * 1.3 + 60


def test_a_hit_takes_the_stated_latency():
    config = card()
    dut = RowCache(config)
    memory = Memory(config, config.dram_bytes)
    request = {"address": 128, "count_minus_1": 0}
    taken = []

    async def client(ctx):
        await put(ctx, dut.client.request, request)
        for _ in range(40):
            await ctx.tick()
        await put(ctx, dut.client.request, request)
        latency = 1
        while not ctx.get(dut.client.response.valid):
            await ctx.tick()
            latency += 1
        taken.append(latency)

    simulate(dut, client, background=[memory.read_port(dut.memory)], cycles=200)
    assert taken == [RowCache.hit_latency]


def test_rows_looked_up_once_do_not_push_out_a_hot_one():
    config = card(1024, 4)
    model = Model(config)
    hot = {"address": 0, "count_minus_1": 0}
    cold = [{"address": 64 * i, "count_minus_1": 0} for i in range(1, 120)]
    asked = [hot, hot]
    for number, request in enumerate(cold):
        asked += [request] + [hot] * (number % 20 == 19)
    hits = run(config, asked)["hits"]
    assert hits == sum(model.look(request["address"]) for request in asked) == 1 + 5


def test_requests_wait_while_held():
    config = card()
    dut = RowCache(config)
    memory = Memory(config, config.dram_bytes)

    async def client(ctx):
        ctx.set(dut.hold, 1)
        ctx.set(dut.client.request.valid, 1)
        for _ in range(5):
            assert not ctx.get(dut.client.request.ready)
            await ctx.tick()
        ctx.set(dut.hold, 0)
        assert ctx.get(dut.client.request.ready)

    simulate(dut, client, background=[memory.read_port(dut.memory)], cycles=50)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"size": 3000}, "0 or a power of two"),
        ({"size": 128}, "0 or hold two lines in each of its ways, at least 256"),
        ({"size": 512, "bus_bytes": 128, "ways": 4}, "0 or hold two lines in each of its ways"),
        ({"size": 1 << 16}, "smaller than dram_bytes=65536"),
    ],
)
def test_a_size_that_makes_no_cache_is_refused(changes, rule):
    with pytest.raises(ConfigError, match=f"^gather_cache_bytes={changes['size']}: must be {rule}"):
        card(**changes)
