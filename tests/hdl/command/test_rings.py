"""A submission ring per core: no core stops another, and each can be reset by itself."""

import random
from collections import deque
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfdome.hdl import registers
from halfdome.hdl.command.fetcher import CommandFetcher
from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from halfdome.hdl.memory.arbiter import URGENT_TURNS
from tests.bench import simulate
from tests.hdl.command.card import CQ, Card
from tests.hdl.command.descriptors import slots
from tests.hdl.dma.pcie import HOST_BASE

TWO = PRESETS["tiny"].replace(cores=2)
NEVER = {"wait_counter": 9, "wait_value": 1}
IDLE, FAILED, RESETTING = (
    registers.STATUS_IDLE, registers.STATUS_FETCH_FAILED, registers.STATUS_RESETTING,
)  # fmt: skip


def fences(count, core, first=0, opcode=Opcode.FENCE_LOAD, **fields):
    return [pack(opcode, id=first + i, core=core, **fields) for i in range(count)]


def test_a_core_whose_queue_is_full_stops_no_other():
    """Its queue, what was fetched of its ring and its ring are full of what waits for ever."""
    card = Card(TWO, sq_size=16)

    async def fill(ctx, stuck, before):
        waiting = fences(15, stuck, **NEVER)
        if before:  # the queue that is full is behind one that is not
            waiting = fences(before, stuck, first=90, opcode=Opcode.FENCE_STORE) + waiting[:-1]
        await card.write(ctx, registers.counter_offset(9), 0)
        await card.submit(ctx, deque(waiting), stuck)
        for _ in range(400):
            await ctx.tick()
        assert (card.tails[stuck] - await card.read(ctx, "SQ_HEAD", stuck)) % 16, "it is read"
        await card.execute_others(ctx, fences(30, 1 - stuck, first=100))
        assert await card.read(ctx, "CORE_STATUS", 1 - stuck) == IDLE
        assert await card.read(ctx, "CORE_STATUS", stuck) == 0
        assert await card.read(ctx, "STATUS") == 0
        await card.write(ctx, registers.counter_offset(9), 1)
        while len(card.completions) < 15 + 30:
            await card.consume(ctx)
        ids = [completion["id"] for completion in card.completions]
        assert [each for each in ids if each >= 100] == list(range(100, 130))
        assert [each for each in ids if each < 90] == list(range(15 - before))

    async def host(ctx):
        for stuck, before in product((0, 1), (0, 1)):
            card.completions.clear()
            await card.start(ctx)
            await fill(ctx, stuck, before)

    card.run(host)


def test_half_a_command_in_one_ring_stops_no_other():
    card = Card(TWO, sq_size=16)
    [half, other_half] = slots([pack(Opcode.FENCE_LOAD, id=1, second_wait_counter=2)])

    async def host(ctx):
        await card.start(ctx)
        await card.submit(ctx, deque([half]))
        await card.execute_others(ctx, fences(20, 1, first=100))
        while await card.read(ctx, "STATUS") != IDLE:
            pass
        await card.submit(ctx, deque([other_half]))
        while len(card.completions) < 21:
            await card.consume(ctx)

    card.run(host)
    assert card.completions[-1]["id"] == 1


def test_rings_are_served_in_turn():
    """Neither of two rings that never run dry waits for more than a few commands of the other."""
    card = Card(TWO, sq_size=64, cq_size=64)

    async def host(ctx):
        await card.start(ctx)
        for core in range(2):
            await card.submit(ctx, deque(fences(25, core, first=100 * core)), core)
        while len(card.completions) < 50:
            await card.consume(ctx)

    card.run(host)
    cores = [completion["id"] // 100 for completion in card.completions]
    for first in range(0, 48, 6):
        assert 1 <= sum(cores[first : first + 6]) <= 5, cores


@pytest.mark.parametrize("urgent", [0b000, 0b010, 0b111])
def test_an_urgent_ring_is_read_before_others(urgent):
    """Each ring always has something to be read, and room for it."""
    config = TWO.replace(cores=3)
    dut = CommandFetcher(config)
    read = []

    async def bus(ctx):
        ctx.set(dut.enable, 0b111)
        ctx.set(dut.urgent, urgent)
        for core in range(3):
            ctx.set(dut.ring[core], {"base": core << 20, "size": 4096, "tail": 4095})
            ctx.set(dut.o[core].ready, 1)
        ctx.set(dut.fetch.request.ready, 1)
        while len(read) < 3 * (URGENT_TURNS + 1):
            _, _, asks, request = await ctx.tick().sample(
                dut.fetch.request.valid, dut.fetch.request.p
            )
            if not asks:
                continue
            read.append(request.address >> 20)
            words = request.bytes // config.bus_bytes
            for word in range(words):
                ctx.set(dut.fetch.response.p.last, word == words - 1)
                ctx.set(dut.fetch.response.valid, 1)
                await ctx.tick()
            ctx.set(dut.fetch.response.valid, 0)

    simulate(dut, bus)
    if urgent == 0b010:
        others = read[:: URGENT_TURNS + 1]
        assert others == [2, 0, 2]
        assert read.count(1) == 3 * URGENT_TURNS
    else:
        assert read == [2, 0, 1] * (URGENT_TURNS + 1)


@pytest.mark.parametrize("config", [TWO, PRESETS["tiny"]])
def test_a_priority_stays_until_the_card_is_reset(config):
    card, last = Card(config), config.cores - 1
    kept = int(config.cores > 1)  # an only core has nobody to go before

    async def host(ctx):
        await card.start(ctx)
        await card.write(ctx, "SQ_PRIORITY", 0xFFFF_FFFF, last)
        for _ in range(2):
            assert await card.read(ctx, "SQ_PRIORITY", last) == kept
            assert ctx.get(card.dut.urgent) == kept << last
            await reset_core(ctx, card, last)
        await card.write(ctx, "CONTROL", registers.CONTROL_RESET)
        while await card.read(ctx, "STATUS") & RESETTING:
            pass
        assert await card.read(ctx, "SQ_PRIORITY", last) == 0

    card.run(host)


def test_a_command_in_the_ring_of_another_core_is_refused_there():
    card = Card(TWO)

    async def host(ctx):
        await card.start(ctx)
        await card.submit(ctx, deque(fences(1, 1) + fences(1, 0, first=1)), 0)
        while len(card.completions) < 2:
            await card.consume(ctx)

    card.run(host)
    told = [(c["id"], c["status"], c["detail"]) for c in card.completions]
    assert told == [(0, Status.BAD_CORE, 4), (1, Status.OK, 0)]


def test_a_fetch_that_fails_stops_one_ring_until_its_core_is_reset():
    card = Card(TWO, stall=0.3)

    async def host(ctx):
        await card.start(ctx)
        card.memory.failing.add(HOST_BASE + card.ring_offset(1))
        await card.submit(ctx, deque(fences(5, 1)), 1)
        while not await card.read(ctx, "CORE_STATUS", 1) & FAILED:
            pass
        assert await card.read(ctx, "STATUS") & FAILED
        assert await card.read(ctx, "CONTROL") == registers.CONTROL_RUN
        await card.execute_others(ctx, fences(20, 0, first=100))
        card.memory.failing.clear()
        await reset_core(ctx, card, 1)
        assert await card.read(ctx, "STATUS") & FAILED == 0
        await card.execute(ctx, fences(9, 1, first=200))

    card.run(host)
    # The read may bring a descriptor, of zeros, before it fails.
    told = [c["id"] for c in card.completions if c["id"]]
    assert told == [*range(100, 120), *range(200, 209)]


async def reset_core(ctx, card, core, limit=2000):
    await card.write(ctx, "CORE_CONTROL", registers.CONTROL_RESET, core)
    for _ in range(limit):
        if not await card.read(ctx, "CORE_STATUS", core) & RESETTING:
            card.tails[core] = 0
            return
    raise AssertionError("the reset does not end")


def work(rng, count, core, first):
    """Commands that run and commands that wait, some of them for ever if `core` is 0."""
    commands = []
    for identifier in range(first, first + count):
        opcode = rng.choice([Opcode.FENCE_LOAD, Opcode.FENCE_STORE, Opcode.SIGNAL, Opcode.SIGNAL])
        fields = {"signal_counter": core, "signal_value": identifier + 1}
        if core == 0 and rng.random() < 0.3:
            fields |= NEVER
        if rng.random() < 0.2:
            fields |= {"second_wait_counter": 5}
        if opcode == Opcode.SIGNAL:
            fields |= {"address": HOST_BASE, "value": 1}
        commands.append(pack(opcode, id=identifier, core=core, **fields))
    return commands


@settings(max_examples=max(2, settings().max_examples // 2))
@given(seed=st.integers(0, 2**32), delay=st.integers(0, 200))
def test_a_core_is_reset_beside_one_that_goes_on(seed, delay):
    """The other core completes all it was told; this one is at its start, and tells no more."""
    rng = random.Random(seed)
    card = Card(TWO, seed=seed, stall=0.3, sq_size=16)
    others = work(rng, 40, 1, 100)

    async def host(ctx):
        await card.start(ctx)
        waiting = deque(others)
        await card.submit(ctx, deque(work(rng, 15, 0, 0)), 0)
        for _ in range(delay):
            await card.submit(ctx, waiting, 1)
            await card.consume(ctx, 1)
        await reset_core(ctx, card, 0)
        assert await card.read(ctx, "CORE_STATUS", 0) == IDLE
        assert await card.read(ctx, "SQ_HEAD", 0) == await card.read(ctx, "SQ_TAIL", 0) == 0
        signalled = await card.read(ctx, registers.counter_offset(0))
        while waiting or sum(c["id"] >= 100 for c in card.completions) < 40:
            await card.submit(ctx, waiting, 1)
            await card.consume(ctx)
        told = len(card.completions)
        assert await card.read(ctx, registers.counter_offset(0)) == signalled
        good = fences(9, 0, first=50, wait_counter=1, wait_value=1)
        await card.execute(ctx, good)
        assert [c["id"] for c in card.completions[told:]] == list(range(50, 59))

    card.run(host, cycles=30_000)
    mine = [c["id"] for c in card.completions if c["id"] < 50]
    assert len(set(mine)) == len(mine)
    assert sorted(c["id"] for c in card.completions if c["id"] >= 100) == list(range(100, 140))
    assert card.messages


def test_a_core_reset_while_completions_have_no_room_drops_its_own_alone():
    card = Card(TWO, sq_size=16, cq_size=4)

    async def host(ctx):
        await card.start(ctx)
        for core in range(2):
            await card.submit(ctx, deque(fences(9, core, first=100 * core)), core)
        for _ in range(600):
            await ctx.tick()
        assert await card.read(ctx, "CQ_TAIL") == 3
        await reset_core(ctx, card, 0)
        while sum(c["id"] >= 100 for c in card.completions) < 9:
            await card.consume(ctx, 1)
        await card.execute(ctx, fences(3, 0, first=50))

    card.run(host)
    ids = [c["id"] for c in card.completions]
    assert [each for each in ids if each >= 100] == list(range(100, 109))
    assert len([each for each in ids if each < 9]) < 9
    assert ids[-3:] == [50, 51, 52]


def test_what_runs_on_a_core_that_is_reset_ends_and_is_not_told():
    card = Card(TWO, longest=200)

    async def host(ctx):
        await card.start(ctx)
        signal = pack(Opcode.SIGNAL, address=HOST_BASE, signal_counter=1, signal_value=7)
        await card.submit(ctx, deque([signal, signal]))
        while not card.commands[0, 1]:
            await ctx.tick()
        await reset_core(ctx, card, 0)
        assert await card.read(ctx, registers.counter_offset(1)) == 0

    card.run(host)
    assert len(card.commands[0, 1]) == 1, "the second was waiting"
    assert not card.memory.data[CQ : CQ + 256].any()
