"""A completion belongs to a read that was open when it came."""

from dataclasses import replace

import pytest

from halfdome.hdl.config import preset
from halfdome.hdl.pcie.port import READ_EVENTS
from halfdome.hdl.pcie.reassembler import Reassembler
from tests.bench import simulate
from tests.hdl.pcie.tlp_model import completions, memory_request, refusal

TAG = 2
BUS = 16


async def open_read(ctx, dut, destination, size=BUS):
    """Opens a read of `TAG`, whose request leaves in the next cycle."""
    ctx.set(dut.opened.p, {"tag": TAG, "destination": destination, "bytes": size})
    ctx.set(dut.opened.valid, 1)
    await ctx.tick()
    ctx.set(dut.opened.valid, 0)
    ctx.set(dut.sent.p, TAG)
    ctx.set(dut.sent.valid, 1)
    await ctx.tick()
    ctx.set(dut.sent.valid, 0)


async def send(ctx, dut, beat, *, first):
    """Hands over a beat."""
    ctx.set(dut.i.p, {"data": beat["data"], "first": first, "last": beat["last"]})
    ctx.set(dut.i.valid, 1)
    ready = False
    while not ready:
        _, _, ready = await ctx.tick().sample(dut.i.ready)
    ctx.set(dut.i.valid, 0)


@pytest.mark.parametrize("tag", [TAG, TAG + 4, TAG + 128])
def test_what_goes_just_before_a_completion_does_not_change_it(tag):
    dut = Reassembler(preset("tiny"), 2)
    request = memory_request(0, 2 * BUS, tag=TAG)
    packets = completions(request, bytes(range(2 * BUS)))
    refused = refusal(replace(request, tag=tag))
    events, writes = [], []

    async def watch(ctx):
        while True:
            _, _, write, address, seen = await ctx.tick().sample(
                dut.memory.valid, dut.memory.p.address, dut.events
            )
            writes.extend([address] * write)
            events.extend(name for name in READ_EVENTS if seen[name])

    async def bench(ctx):
        ctx.set(dut.memory.ready, 1)
        await ctx.tick()
        if tag != TAG:
            await open_read(ctx, dut, 0x80, 2 * BUS)
        beats = refused.beats(BUS) + packets[0].beats(BUS)
        for beat, first in zip(beats, (1, 1, 0, 0), strict=True):
            await send(ctx, dut, beat, first=first)
            if tag == TAG and first and beat is beats[0]:
                await open_read(ctx, dut, 0x80, 2 * BUS)
        for _ in range(4):
            await ctx.tick()

    simulate(dut, bench, background=[watch])
    assert events == ["unexpected_completion"]
    assert writes == [0x80, 0x80 + BUS]


def test_a_completion_that_waits_while_its_tag_is_opened_is_unexpected():
    dut = Reassembler(preset("tiny"), 2)
    writes, retired, unexpected = [], [], []
    (packet,) = completions(memory_request(0, BUS, tag=TAG), bytes(range(BUS)))

    async def watch(ctx):
        while True:
            _, _, write, address, retire, failed, stray = await ctx.tick().sample(
                dut.memory.valid,
                dut.memory.p.address,
                dut.retired.valid,
                dut.retired.p.failure,
                dut.events.unexpected_completion,
            )
            writes.extend([address] * write)
            retired.extend([failed] * retire)
            unexpected.extend([TAG] * stray)

    async def bench(ctx):
        header, payload = packet.beats(BUS)
        ctx.set(dut.memory.ready, 1)
        await open_read(ctx, dut, 0x80)
        await send(ctx, dut, header, first=1)
        await send(ctx, dut, payload, first=0)
        for _ in range(3):
            await ctx.tick()
        # The same completion again, held up until its tag serves another read.
        ctx.set(dut.hold, 1)
        await send(ctx, dut, header, first=1)
        await open_read(ctx, dut, 0x200)
        await ctx.tick()
        ctx.set(dut.hold, 0)
        await send(ctx, dut, payload, first=0)
        # The completion of that read.
        await send(ctx, dut, header, first=1)
        await send(ctx, dut, payload, first=0)
        for _ in range(3):
            await ctx.tick()

    simulate(dut, bench, background=[watch])
    assert writes == [0x80, 0x200]
    assert retired == [0, 0]
    assert unexpected == [TAG]
