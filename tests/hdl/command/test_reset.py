"""A reset card is as after power-on, whatever it was doing; interrupts by vector and mask."""

import random
from collections import deque

import pytest
from amaranth import ResetInserter, Signal
from hypothesis import given, settings
from hypothesis import strategies as st

from halfdome.hdl import registers
from halfdome.hdl.command.queues import CoreQueues
from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from tests.hdl.command.card import CQ, MESSAGE, Card
from tests.hdl.dma.pcie import HOST_BASE

TINY = PRESETS["tiny"]
ERROR_MESSAGE = MESSAGE + 16
WRITABLE = [
    register.name
    for register in registers.REGISTERS + registers.CORE_REGISTERS
    if register.access == "rw"
]
RESETTING = 4


async def state(ctx, card):
    """What the host can see of a card, but for the cycles it has run."""
    names = [r.name for r in registers.REGISTERS if not r.name.startswith("CYCLES")]
    seen = {name: await card.read(ctx, name) for name in names}
    for core in range(card.config.cores):
        for register in registers.CORE_REGISTERS:
            seen[register.name, core] = await card.read(ctx, register.name, core)
    for index in range(card.config.counters):
        seen[index] = await card.read(ctx, registers.counter_offset(index))
    return seen


def work(rng, count):
    """Commands that run, commands that wait, some of them for ever."""
    commands = []
    for identifier in range(count):
        opcode = rng.choice([Opcode.FENCE_LOAD, Opcode.FENCE_STORE, Opcode.SIGNAL, Opcode.SIGNAL])
        fields = {"signal_counter": rng.randrange(TINY.counters), "signal_value": identifier + 1}
        if rng.random() < 0.3:
            fields |= {"wait_counter": rng.randrange(TINY.counters), "wait_value": 1000}
        if opcode == Opcode.SIGNAL:
            fields |= {"address": HOST_BASE, "value": 1}
        commands.append(pack(opcode, id=identifier, **fields))
    return commands


async def reset(ctx, card, limit=400):
    await card.write(ctx, "CONTROL", 2)
    for _ in range(limit):
        if not await card.read(ctx, "STATUS") & RESETTING:
            return
    raise AssertionError("the reset does not end")


def test_counters_are_zero_after_the_reset_pin(simulate):
    card, pin = Card(TINY), Signal()
    offsets = [registers.counter_offset(index) for index in range(TINY.counters)]

    async def bench(ctx):
        await ctx.tick().repeat(TINY.counters)
        for offset in offsets:
            await card.write(ctx, offset, 7)
        assert [await card.read(ctx, offset) for offset in offsets] == [7] * TINY.counters
        ctx.set(pin, 1)
        await ctx.tick()
        ctx.set(pin, 0)
        await card.write(ctx, "SQ_SIZE", 16)
        await ctx.tick().repeat(TINY.counters)
        assert not any([await card.read(ctx, offset) for offset in offsets])
        assert await card.read(ctx, "SQ_SIZE") == 16
        assert not await card.read(ctx, "STATUS") & RESETTING

    simulate(ResetInserter(pin)(card.dut), bench)


@settings(max_examples=max(1, settings().max_examples // 2))
@given(seed=st.integers(0, 2**32), delay=st.integers(0, 150))
def test_a_reset_card_is_as_after_power_on_and_works(seed, delay):
    rng = random.Random(seed)
    card = Card(TINY, seed=seed, stall=0.3, sq_size=16, lenient=True)

    async def host(ctx):
        fresh = await state(ctx, card)
        await card.start(ctx)
        await card.submit(ctx, deque(work(rng, 15)))
        for name in rng.sample(WRITABLE, 5):
            if name != "CONTROL":
                await card.write(ctx, name, rng.getrandbits(32))
        for _ in range(delay):
            await ctx.tick()
        await reset(ctx, card)
        messages = card.messages
        assert await state(ctx, card) == fresh
        card.memory.data[CQ : CQ + card.cq_size * 16] = 0
        await card.start(ctx)
        good = [pack(Opcode.FENCE_VECTOR, id=100 + i, wait_counter=i) for i in range(5)]
        card.completions.clear()
        await card.execute(ctx, good)
        assert card.messages > messages

    card.run(host)
    assert [c["id"] for c in card.completions] == list(range(100, 105))


@pytest.mark.parametrize("before", [2, 3])
def test_a_command_dropped_when_its_counter_is_set_does_not_let_the_next_go(before):
    """A dropped command signals, which another may wait for that is dropped a moment later."""
    card = Card(TINY)
    never = {"wait_counter": 2, "wait_value": 1}
    dropped = [
        pack(Opcode.FENCE_LOAD, signal_counter=3, signal_value=1, **never),
        *[pack(Opcode.FENCE_STORE, **never)] * before,
        pack(Opcode.FENCE_STORE, wait_counter=3, wait_value=1),
    ]

    async def host(ctx):
        for delay in range(CoreQueues.rotation):
            await card.start(ctx)
            await card.submit(ctx, deque(dropped))
            for _ in range(60 + delay):
                await ctx.tick()
            await reset(ctx, card)
            await card.start(ctx)
            await card.submit(ctx, deque([pack(Opcode.FENCE_STORE, **never)]))
            for _ in range(60):
                await ctx.tick()
            assert card.poll() is None, delay
            await reset(ctx, card)

    card.run(host)


@settings(max_examples=max(1, settings().max_examples // 2))
@given(seed=st.integers(0, 2**32))
def test_no_register_writes_wedge_a_card(seed):
    rng = random.Random(seed)
    card = Card(TINY, seed=seed, lenient=True)
    card.memory.data[:] = list(rng.randbytes(len(card.memory.data)))
    offsets = [registers.offset(name) for name in WRITABLE]

    def value(offset):
        match rng.choice(["small", "any", "size", "host", "on"]):
            case "small":
                return rng.randrange(20)
            case "any":
                return rng.getrandbits(32)
            case "size":
                return 1 << rng.randrange(32)
            case "host":
                return HOST_BASE >> 32 if "HI" in WRITABLE[offsets.index(offset)] else 0x1000
            case _:
                return 1

    async def host(ctx):
        fresh = await state(ctx, card)
        for _ in range(60):
            offset = rng.choice(offsets)
            await card.write(ctx, offset, value(offset))
            for _ in range(rng.choice([0, 0, 0, 30])):
                await ctx.tick()
        await reset(ctx, card)
        assert await state(ctx, card) == fresh
        card.memory.data[:] = 0
        await card.start(ctx)
        await card.execute(ctx, [pack(Opcode.FENCE_VECTOR, id=200 + i) for i in range(9)])

    card.run(host)
    assert [c["id"] for c in card.completions] == list(range(200, 209))


def test_what_runs_at_a_reset_ends_and_nothing_is_told_of_it():
    card = Card(TINY, longest=200)

    async def host(ctx):
        await card.start(ctx)
        signal = pack(Opcode.SIGNAL, address=HOST_BASE, signal_counter=1, signal_value=7)
        await card.submit(ctx, deque([signal, signal]))
        while not card.commands[0, 1]:
            await ctx.tick()
        await reset(ctx, card)
        assert await card.read(ctx, registers.counter_offset(1)) == 0
        assert await card.read(ctx, "STATUS") == 1

    card.run(host)
    assert len(card.commands[0, 1]) == 1, "the second was waiting"
    assert not card.memory.data[CQ : CQ + 256].any()
    assert card.messages == 0


def error_messages(card):
    return sum(request == (HOST_BASE + ERROR_MESSAGE, 4) for request in card.memory.requests)


def test_a_request_that_is_refused_sends_an_error_message():
    card = Card(TINY)

    async def host(ctx):
        await card.start(ctx)
        address = HOST_BASE + ERROR_MESSAGE
        await card.write(ctx, "MSIX_ERROR_ADDRESS_LO", address & 0xFFFF_FFFF)
        await card.write(ctx, "MSIX_ERROR_ADDRESS_HI", address >> 32)
        await card.write(ctx, "MSIX_ERROR_CONTROL", 0)
        ctx.set(card.dut.pcie.events.dropped_request, 1)
        await ctx.tick()
        ctx.set(card.dut.pcie.events.dropped_request, 0)
        for _ in range(60):
            await ctx.tick()
        assert await card.read(ctx, "DROPPED_REQUESTS") == 1

    card.run(host)
    assert error_messages(card) == 1


@pytest.mark.parametrize("mask", ["MSIX_ERROR_CONTROL", "MSIX_FUNCTION_MASK", None])
def test_each_vector_has_its_own_message_mask_and_pending_bit(mask):
    card = Card(TINY)

    async def host(ctx):
        await card.start(ctx)
        address = HOST_BASE + ERROR_MESSAGE
        await card.write(ctx, "MSIX_ERROR_ADDRESS_LO", address & 0xFFFF_FFFF)
        await card.write(ctx, "MSIX_ERROR_ADDRESS_HI", address >> 32)
        await card.write(ctx, "MSIX_ERROR_DATA", 0xBAD)
        await card.write(ctx, "MSIX_ERROR_CONTROL", 0)
        if mask:
            await card.write(ctx, mask, 1)
        await card.write(ctx, "SQ_TAIL", 1 << 20)
        card.memory.failing.add(HOST_BASE + card.sq_offset)
        await card.submit(ctx, deque([pack(Opcode.FENCE_LOAD)]))
        while not await card.read(ctx, "STATUS") & 2:
            pass
        for _ in range(60):
            await ctx.tick()
        assert await card.read(ctx, "MSIX_PENDING") == (2 if mask else 0)
        if mask:
            assert error_messages(card) == 0
            await card.write(ctx, mask, 0)
            for _ in range(60):
                await ctx.tick()
            assert await card.read(ctx, "MSIX_PENDING") == 0
        card.memory.failing.clear()
        await card.restart(ctx)
        await card.execute(ctx, [pack(Opcode.FENCE_LOAD)])

    card.run(host)
    assert error_messages(card) == (1 if mask else 2)
    assert card.messages == 1
    assert (
        int.from_bytes(card.memory.data[ERROR_MESSAGE : ERROR_MESSAGE + 4].tobytes(), "little")
        == 0xBAD
    )


def test_the_table_is_laid_out_as_pci_says():
    for vector, prefix in enumerate(registers.MSIX_VECTORS):
        fields = ("ADDRESS_LO", "ADDRESS_HI", "DATA", "CONTROL")
        offsets = [registers.offset(f"{prefix}_{field}") for field in fields]
        assert offsets == [registers.MSIX_TABLE + 16 * vector + 4 * i for i in range(4)]
    assert registers.MSIX_TABLE % 8 == registers.MSIX_PENDING_BITS % 8 == 0
