"""The command processor: every descriptor completes exactly once, in order, when it may."""

import random
from collections import deque
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfdome.hdl import registers
from halfdome.hdl.command.queues import CoreQueues
from halfdome.hdl.commands import Engine, Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import HEADER, NO_COUNTER, pack, unpack, waits
from halfdome.hdl.pcie.port import READ_EVENTS, REQUEST_EVENTS
from halfdome.sim.golden.check import check
from tests.hdl.command.card import MESSAGE, Card, ring_of
from tests.hdl.command.descriptors import GOOD, mutated, slots
from tests.hdl.dma.pcie import HOST_BASE

TINY = PRESETS["tiny"]
TWO = TINY.replace(cores=2)
EVENTS = REQUEST_EVENTS + READ_EVENTS


def queue_of(raw: bytes, config) -> tuple[int, int]:
    """The core and engine whose queue a descriptor joins."""
    engine = raw[0] >> 4
    return ring_of(raw, config), engine if engine < len(Engine) else 0


def program(rng: random.Random, length: int, config, room: int) -> list[bytes]:
    """Good, fence and bad descriptors; each queue has a timeline that any later one may await.

    Those of two slots are for a ring that has room for them.
    """
    descriptors, timeline = [], {}
    for identifier in range(length):
        if rng.random() < 0.25:
            raw = bytearray(mutated(rng, config))
        else:
            opcode = rng.choice(list(Opcode))
            body = GOOD.get(opcode, {})
            raw = bytearray(pack(opcode, **body, core=rng.randrange(config.cores)))
        if room < 2 and raw[7] == 1:
            del raw[64:]
            raw[7] = 0
        raw[2:4] = identifier.to_bytes(2, "little")
        core, engine = queue_of(raw, config)
        raw[5:7] = [NO_COUNTER, NO_COUNTER]
        if raw[7] != 1 and room > 1 and rng.random() < 0.3:
            raw[7] = 1
            raw += bytes(64)
        for counter, value in ((5, 8), (64, 68))[: len(raw) // 64]:
            raw[counter] = NO_COUNTER
            if timeline and rng.random() < 0.5:
                raw[counter] = rng.choice(list(timeline))
                reached = rng.randint(1, timeline[raw[counter]])
                raw[value : value + 4] = reached.to_bytes(4, "little")
        if rng.random() < 0.6:
            raw[6] = core * len(Engine) + engine
            timeline[raw[6]] = timeline.get(raw[6], 0) + 1
            raw[12:16] = timeline[raw[6]].to_bytes(4, "little")
        descriptors.append(bytes(raw))
    return descriptors


def assert_ran(card: Card, descriptors: list[bytes]):
    """Once each, verdicts as the golden checker's, in order within each queue, waits respected."""
    config = card.config
    by_id = {unpack(HEADER, raw)["id"]: raw for raw in descriptors}
    assert sorted(c["id"] for c in card.completions) == sorted(by_id)
    for completion in card.completions:
        raw = by_id[completion["id"]]
        verdict = check(raw, config, ring_of(raw, config))
        if verdict[0] == Status.OK and raw[0] & 0xF != 0xF:
            verdict = card.outcome(raw)
        assert (completion["status"], completion["detail"]) == verdict
        assert completion["start_cycle"] <= completion["end_cycle"]
    queues = {queue_of(raw, config) for raw in descriptors}
    end = {c["id"]: c["end_cycle"] for c in card.completions}
    start = {c["id"]: c["start_cycle"] for c in card.completions}
    for queue in queues:
        mine = [unpack(HEADER, r)["id"] for r in descriptors if queue_of(r, config) == queue]
        order = [c["id"] for c in card.completions if c["id"] in set(mine)]
        assert order == mine
        given_out = [
            by_id[i] for i in mine if check(by_id[i], config, queue[0])[0] == Status.OK
            and by_id[i][0] & 0xF != 0xF
        ]  # fmt: skip
        assert card.commands.get(queue, []) == [raw[:64] for raw in given_out]
        for before, after in pairwise(mine):
            assert end[before] <= start[after]
    signalled = {}
    for raw in descriptors:
        header = unpack(HEADER, raw)
        for counter, value in waits(raw):
            if counter < config.counters:
                assert end[signalled[counter, value]] < start[header["id"]]
        signalled[header["signal_counter"], header["signal_value"]] = header["id"]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(TINY, id="tiny"),
        pytest.param(TWO, id="two cores"),
        pytest.param(TINY.replace(bus_bytes=128), id="wide words", marks=pytest.mark.slow),
    ],
)
@settings(max_examples=3)
@given(
    seed=st.integers(0, 2**16),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
    sizes=st.tuples(st.sampled_from([2, 4, 16]), st.sampled_from([2, 4, 16])),
    length=st.integers(1, 30),
)
def test_random_programs_complete_once_and_in_order(config, seed, stall, sizes, length):
    card = Card(config, seed=seed, stall=stall, sq_size=sizes[0], cq_size=sizes[1])
    card.outcome = lambda raw: (Status.BAD_INDEX, raw[2]) if raw[2] % 5 == 0 else (Status.OK, 3)
    descriptors = program(random.Random(seed), length, config, sizes[0] - 1)

    async def host(ctx):
        await card.start(ctx)
        await card.execute(ctx, descriptors, laziness=0.5)
        last = {}
        for raw in descriptors:
            header = unpack(HEADER, raw)
            last[header["signal_counter"]] = header["signal_value"]
        for counter in range(config.counters):
            value = await card.read(ctx, registers.counter_offset(counter))
            assert value == last.get(counter, 0)

    card.run(host)
    assert_ran(card, descriptors)
    assert card.memory.requests[-1] == (HOST_BASE + MESSAGE, 4), "the interrupt comes last"


def fences(count, first=0):
    return [pack(Opcode.FENCE_LOAD, id=first + i) for i in range(count)]


@pytest.mark.slow
def test_a_full_completion_ring_holds_commands_and_loses_none():
    card = Card(TINY, sq_size=64, cq_size=4)

    async def host(ctx):
        await card.start(ctx)

        await card.submit(ctx, deque(fences(20)))
        for _ in range(600):
            await ctx.tick()
        assert await card.read(ctx, "CQ_TAIL") == 3
        assert card.messages >= 1
        assert await card.read(ctx, "STATUS") & 1 == 0
        while len(card.completions) < 20:
            await card.consume(ctx, 1)

    card.run(host)
    assert [c["id"] for c in card.completions] == list(range(20))


@pytest.mark.slow
def test_one_interrupt_covers_the_entries_at_hand():
    card = Card(TINY)

    async def host(ctx):
        await card.start(ctx)
        held = [pack(opcode, wait_counter=0, wait_value=1) for opcode in Opcode if opcode.is_fence]
        await card.submit(ctx, deque(held))
        for _ in range(500):
            await ctx.tick()
        assert card.messages == 0
        await card.write(ctx, registers.counter_offset(0), 1)
        for _ in range(200):
            await ctx.tick()
        assert await card.read(ctx, "CQ_TAIL") == 5
        assert card.messages == 1

    card.run(host)


def test_a_signal_does_not_wait_for_room_in_the_completion_ring():
    card = Card(TINY, cq_size=2)

    async def host(ctx):

        await card.start(ctx)
        signalling = [
            pack(Opcode.FENCE_LOAD, id=0),
            pack(Opcode.FENCE_STORE, id=1, signal_counter=1, signal_value=7),
        ]
        await card.submit(ctx, deque(signalling))
        while await card.read(ctx, registers.counter_offset(1)) != 7:
            pass
        assert await card.read(ctx, "CQ_TAIL") == 1
        while len(card.completions) < 2:
            await card.consume(ctx)

    card.run(host)


def test_waits_compare_modulo_two_to_the_32():
    card = Card(TINY)

    async def host(ctx):
        await card.start(ctx)
        for value in (0, 1, 2**31, 2**32 - 1):
            await card.write(ctx, registers.counter_offset(3), (value - 1) % 2**32)
            await card.submit(
                ctx, deque([pack(Opcode.FENCE_STORE, id=9, wait_counter=3, wait_value=value)])
            )
            for _ in range(300):
                await ctx.tick()
                assert card.poll() is None, value
            await card.write(ctx, registers.counter_offset(3), value)
            while not await card.consume(ctx):
                pass

    card.run(host)


def test_a_released_head_starts_within_the_stated_latency():
    card = Card(TINY, longest=0)

    async def host(ctx):
        await card.start(ctx)
        for value, delay in enumerate((0, 2, 4), start=1):
            waiting = pack(Opcode.FENCE_VECTOR, wait_counter=0, wait_value=value)
            await card.submit(ctx, deque([waiting]))
            for _ in range(150 + delay):
                await ctx.tick()
            assert card.poll() is None
            await card.write(ctx, registers.counter_offset(0), value)
            written = await card.read(ctx, "CYCLES_LO")
            while not await card.consume(ctx):
                pass
            latency = card.completions[-1]["start_cycle"] - (written - 1)
            assert latency <= CoreQueues.lookup_latency

    card.run(host)


def test_masked_interrupts_wait_for_the_mask():
    card = Card(TINY)

    async def host(ctx):
        await card.start(ctx)
        await card.write(ctx, "MSIX_CONTROL", 1)
        await card.execute(ctx, fences(5))
        assert card.messages == 0
        assert await card.read(ctx, "MSIX_PENDING") == 1
        await card.write(ctx, "MSIX_CONTROL", 0)
        while not card.messages:
            await ctx.tick()
        for _ in range(50):
            await ctx.tick()
        assert await card.read(ctx, "MSIX_PENDING") == 0

    card.run(host)
    assert card.messages == 1
    np.testing.assert_array_equal(card.memory.data[MESSAGE : MESSAGE + 4], [0xFE, 0xCA, 0, 0])


def test_wild_doorbells_are_counted_and_change_nothing():
    card = Card(TINY, sq_size=4, cq_size=4)

    async def host(ctx):
        await card.write(ctx, "SQ_TAIL", 0)  # no ring yet
        await card.start(ctx)
        for name, value in [
            ("SQ_TAIL", 4), ("SQ_TAIL", 2**32 - 1), ("CQ_HEAD", 4), ("CQ_HEAD", 1),
        ]:  # fmt: skip
            await card.write(ctx, name, value)
        assert await card.read(ctx, "REJECTED_DOORBELLS") == 5
        assert await card.read(ctx, "SQ_TAIL") == await card.read(ctx, "CQ_HEAD") == 0
        for name, value in [("SQ_SIZE", 8), ("CQ_SIZE", 8), ("SQ_BASE_LO", 0), ("CQ_BASE_HI", 0)]:
            before = await card.read(ctx, name)
            await card.write(ctx, name, value)
            assert await card.read(ctx, name) == before, "rings move only while stopped"
        await card.execute(ctx, fences(9))
        await card.write(ctx, "CONTROL", 0)
        for size in (0, 1, 3, 8192):
            await card.write(ctx, "SQ_SIZE", size)
            assert await card.read(ctx, "SQ_SIZE") == 4

    card.run(host)
    assert len(card.completions) == 9


def test_failed_fetch_stops_the_ring_until_it_is_restarted():
    card = Card(TINY, stall=0.3)

    async def host(ctx):

        await card.start(ctx)
        await card.execute(ctx, fences(2))
        card.memory.failing.add(HOST_BASE + card.sq_offset + 2 * 64)
        await card.submit(ctx, deque(fences(5, first=50)))
        while not await card.read(ctx, "STATUS") & 2:
            pass
        assert await card.read(ctx, "CORE_STATUS") & 2
        while not await card.read(ctx, "STATUS") & 1:
            pass
        await card.consume(ctx)
        card.memory.failing.clear()
        card.completions.clear()
        await card.restart(ctx)
        assert await card.read(ctx, "STATUS") == 1
        assert await card.read(ctx, "SQ_HEAD") == await card.read(ctx, "CQ_TAIL") == 0
        await card.execute(ctx, fences(12, first=100))

    card.run(host)
    assert [c["id"] for c in card.completions] == list(range(100, 112))


@pytest.mark.slow
@pytest.mark.parametrize("delay", range(0, 30, 5))
def test_restart_drops_what_an_open_fetch_brings(delay):
    card = Card(TINY, seed=delay, stall=0.3)

    async def host(ctx):

        await card.start(ctx)
        await card.submit(ctx, deque(fences(7)))
        for _ in range(delay):
            await ctx.tick()
        await card.write(ctx, "CONTROL", 0)
        await card.write(ctx, "CONTROL", 1)
        for _ in range(200):  # what had been fetched before still completes
            await ctx.tick()
        assert await card.read(ctx, "STATUS") == 1
        assert await card.read(ctx, "SQ_HEAD") == 0
        await card.restart(ctx)
        await card.execute(ctx, fences(9, first=20))

    card.run(host)
    assert [c["id"] for c in card.completions] == list(range(20, 29))


def test_a_command_with_two_waits_starts_after_both():
    card = Card(TINY)

    async def host(ctx):
        await card.start(ctx)
        for value, order in product((0, 2**31, 2**32 - 1), ((0, 1), (1, 0))):
            both = [(3, value), (5, (value + 7) % 2**32)]
            for counter, reached in both:
                await card.write(ctx, registers.counter_offset(counter), (reached - 1) % 2**32)
            waits = {"wait_counter": 3, "second_wait_counter": 5}
            waits |= {"wait_value": value, "second_wait_value": both[1][1]}
            await card.submit(ctx, deque([pack(Opcode.FENCE_STORE, id=9, **waits)]))
            for place in order:
                for _ in range(200):
                    await ctx.tick()
                    assert card.poll() is None, (value, order)
                counter, reached = both[place]
                await card.write(ctx, registers.counter_offset(counter), reached)
            while not await card.consume(ctx):
                pass
            assert await card.read(ctx, "SQ_HEAD") == card.tails[0] % card.sq_size

    card.run(host)


def test_half_a_command_waits_for_the_other_and_a_restart_drops_it():
    card = Card(TINY)
    [first, second] = slots([pack(Opcode.FENCE_LOAD, id=1, second_wait_counter=2)])

    async def host(ctx):
        await card.start(ctx)
        for half in (first, second):
            assert not card.completions
            await card.submit(ctx, deque([half]))
            for _ in range(150):
                await ctx.tick()
            assert await card.read(ctx, "STATUS") == 1, "nothing runs, nothing failed"
            await card.consume(ctx)
        await card.submit(ctx, deque([first]))
        for _ in range(150):
            await ctx.tick()
        await card.restart(ctx)
        await card.execute(ctx, fences(3, first=10))

    card.run(host)
    assert [c["id"] for c in card.completions] == [1, 10, 11, 12]


def test_fetches_are_large_and_stop_at_page_and_ring_end():
    card = Card(TINY.replace(max_read_request_bytes=512), sq_size=32)
    card.sq_offset = 0x1000 - 3 * 64

    async def host(ctx):
        await card.start(ctx)
        await card.execute(ctx, fences(31))
        await card.execute(ctx, fences(31, first=31))

    card.run(host)
    ring = HOST_BASE + card.sq_offset
    fetched = [(a - ring, size) for a, size in card.memory.requests if 0 <= a - ring < 32 * 64]
    sizes = {0: 192, 192: 512, 704: 512, 1216: 512, 1728: 256, 1984: 64}
    assert fetched[:6] == list(sizes.items())
    assert sum(size for _, size in fetched) == 62 * 64
    assert [c["id"] for c in card.completions] == list(range(62))


def test_activities_sum_to_the_cycles_at_any_moment():
    card = Card(TWO, seed=5)

    async def host(ctx):
        for wait in (0, 1, 7, 100):
            for _ in range(wait):
                await ctx.tick()
            cycles = await card.read(ctx, "CYCLES_LO")
            assert await card.read(ctx, "CYCLES_HI") == 0
            for core in range(2):
                for engine in Engine:
                    offsets = [
                        registers.activity_offset(core, engine, activity)
                        for activity in registers.ACTIVITIES
                    ]
                    assert sum([await card.read(ctx, offset) for offset in offsets]) == cycles
                    assert [await card.read(ctx, offset + 4) for offset in offsets] == [0] * 4
        assert cycles > 100

    card.run(host)


def test_traffic_and_events_are_counted():
    card = Card(TINY)
    rng = random.Random(1)
    sums = dict.fromkeys(registers.TRAFFIC, 0)

    async def host(ctx):
        for cycle in range(200):
            for name in registers.TRAFFIC:
                increment = rng.choice([0, 16, 4096])
                ctx.set(getattr(card.dut, name), increment)
                sums[name] += increment
            for times, name in enumerate(EVENTS, 1):
                ctx.set(card.dut.pcie.events[name], cycle < times)
            await ctx.tick()
        for name in registers.TRAFFIC:
            ctx.set(getattr(card.dut, name), 0)
        await ctx.tick()
        await card.read(ctx, "CYCLES_LO")
        for name, total in sums.items():
            assert await card.read(ctx, registers.traffic_offset(name)) == total
        for times, name in enumerate(EVENTS, 1):
            assert await card.read(ctx, f"{name.upper()}S") == times

    card.run(host)


def test_registers_read_as_documented():
    config = TWO
    card = Card(config)

    async def host(ctx):
        assert await card.read(ctx, "ID") == registers.IDENTIFICATION
        assert await card.read(ctx, "VERSION") == registers.INTERFACE_VERSION
        halves = [await card.read(ctx, f"CONFIG_HASH_{half}") for half in ("HI", "LO")]
        assert f"{halves[0]:08x}{halves[1]:08x}" == config.hash
        assert await card.read(ctx, "MSIX_CONTROL") == 1
        places = [(register, 0) for register in registers.REGISTERS]
        places += [(register, core) for register in registers.CORE_REGISTERS for core in range(2)]
        for register, core in places:
            if register.access == "ro":
                before = await card.read(ctx, register.name, core)
                await card.write(ctx, register.name, 0x5555_5555, core)
                if not register.name.startswith("CYCLES_LO"):
                    assert await card.read(ctx, register.name, core) == before
        for index in range(config.counters):
            await card.write(ctx, registers.counter_offset(index), index * 0x0101_0101)
        for index in range(config.counters):
            value = await card.read(ctx, registers.counter_offset(index))
            assert value == index * 0x0101_0101
        known = set(registers.register_names(config).values())
        for offset in [
            *range(0x20, 0x34, 4),
            *range(0x110, 0x280, 4),
            *range(0x43C, 0x1100, 0x2C),
            0xFFFC,
        ]:
            if offset not in known:
                await card.write(ctx, offset, 0xFFFF_FFFF)
                assert await card.read(ctx, offset) == 0, hex(offset)

    card.run(host)
