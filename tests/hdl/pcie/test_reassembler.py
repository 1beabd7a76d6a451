"""A completion belongs to a read that was open when it came."""

from hdl.config import preset
from hdl.pcie.reassembler import Reassembler
from tests.bench import simulate
from tests.hdl.pcie.tlp_model import completions, memory_request

TAG = 2
BUS = 16


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

    async def open_read(ctx, destination):
        ctx.set(dut.opened.p, {"tag": TAG, "destination": destination, "bytes": BUS})
        ctx.set(dut.opened.valid, 1)
        await ctx.tick()
        ctx.set(dut.opened.valid, 0)
        ctx.set(dut.sent.p, TAG)
        ctx.set(dut.sent.valid, 1)
        await ctx.tick()
        ctx.set(dut.sent.valid, 0)

    async def send(ctx, beat, *, first):
        ctx.set(dut.i.p, {"data": beat["data"], "first": first, "last": beat["last"]})
        ctx.set(dut.i.valid, 1)
        ready = False
        while not ready:
            _, _, ready = await ctx.tick().sample(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def bench(ctx):
        header, payload = packet.beats(BUS)
        ctx.set(dut.memory.ready, 1)
        await open_read(ctx, 0x80)
        await send(ctx, header, first=1)
        await send(ctx, payload, first=0)
        for _ in range(3):
            await ctx.tick()
        # The same completion again, held up until its tag serves another read.
        ctx.set(dut.hold, 1)
        await send(ctx, header, first=1)
        await open_read(ctx, 0x200)
        await ctx.tick()
        ctx.set(dut.hold, 0)
        await send(ctx, payload, first=0)
        # The completion of that read.
        await send(ctx, header, first=1)
        await send(ctx, payload, first=0)
        for _ in range(3):
            await ctx.tick()

    simulate(dut, bench, background=[watch])
    assert writes == [0x80, 0x200]
    assert retired == [0, 0]
    assert unexpected == [TAG]
