"""Between clocks nothing is lost, and the card is not asked for more reads than it has room for."""

import random

import pytest

from halfdome.hdl.boards.crossing import AxiCrossing, PcieCrossing
from halfdome.hdl.config import PRESETS
from halfdome.hdl.pcie.endpoint import NON_POSTED_LATE
from halfdome.sim.testbench import simulate
from tests.hdl.boards.test_hard_ip import packets, pairs
from tests.hdl.pcie.tlp_model import Tlp

TINY = PRESETS["tiny"]
CLOCKS = [(1 / 60e6, 1 / 125e6), (1 / 100e6, 1 / 99e6)]


async def put(ctx, stream, payloads, domain, draw):
    for payload in payloads:
        while draw.random() < 0.3:
            await ctx.tick(domain)
        ctx.set(stream.p, payload)
        ctx.set(stream.valid, 1)
        await ctx.tick(domain).until(stream.ready)
        ctx.set(stream.valid, 0)


async def get(ctx, stream, count, domain, draw):
    got = []
    for _ in range(count):
        while draw.random() < 0.3:
            await ctx.tick(domain)
        ctx.set(stream.ready, 1)
        got += await ctx.tick(domain).sample(stream.p).until(stream.valid)
        ctx.set(stream.ready, 0)
    return got


@pytest.mark.parametrize(("card", "block"), CLOCKS)
def test_packets_cross_both_ways(card, block):
    dut, sent = PcieCrossing(TINY), packets(5, 60)
    answers = [tlp for tlp in sent if tlp.is_completion]
    draw = random.Random(6)

    async def arrive(ctx):
        offered = [pair | {"bar_hit": 1} for tlp in sent for pair in pairs(tlp)]
        await put(ctx, dut.block_rx, offered, "pcie", draw)

    async def take(ctx):
        for tlp in sent:
            words = await get(ctx, dut.rx, len(tlp.beats(TINY.bus_bytes)), "sync", draw)
            assert Tlp.from_words([word.data for word in words], TINY.bus_bytes) == tlp

    async def answer(ctx):
        ctx.set(dut.id, answers[0].completer)
        beats = [beat for tlp in answers for beat in tlp.beats(TINY.bus_bytes)]
        beats = [{name: beat[name] for name in ("data", "last")} for beat in beats]
        await put(ctx, dut.tx, beats, "sync", draw)

    async def leave(ctx):
        for pair in [pair for tlp in answers for pair in pairs(tlp)]:
            [got] = await get(ctx, dut.block_tx, 1, "pcie", draw)
            kept = sum(0xFF << 8 * k for k in range(8) if pair["keep"] >> k & 1)
            assert (got.data & kept, got.keep, got.last) == tuple(pair.values())

    simulate(dut, arrive, take, answer, leave, clocks={"sync": card, "pcie": block})


@pytest.mark.parametrize(("card", "block"), CLOCKS)
def test_a_card_never_gets_more_reads_than_it_has_room_for(card, block):
    """The block heeds `rx_np_ok` from the third request on that comes after it fell; the card's
    falls in the cycle after the request that leaves room for `NON_POSTED_LATE`."""
    dut, draw = PcieCrossing(TINY), random.Random(7)
    read, room, count = next(tlp for tlp in packets(8, 6) if tlp.non_posted), 5, 150
    waited, held_back = [], 0

    async def arrive(ctx):
        nonlocal held_back
        late = 0
        for _ in range(count):
            while late == NON_POSTED_LATE and not ctx.get(dut.block_np_ok):
                held_back += 1
                await ctx.tick("pcie")
            late = 0 if ctx.get(dut.block_np_ok) else late + 1
            for pair in pairs(read):
                ctx.set(dut.block_rx.p, pair | {"bar_hit": 1})
                ctx.set(dut.block_rx.valid, 1)
                await ctx.tick("pcie").until(dut.block_rx.ready)
            ctx.set(dut.block_rx.valid, 0)

    async def take(ctx):
        waiting = came = 0
        ctx.set(dut.rx.ready, 1)
        while came < count:
            ctx.set(dut.rx_np_ok, waiting < room - NON_POSTED_LATE)
            _, _, valid = await ctx.tick().sample(dut.rx.valid)
            came += valid
            waiting += valid - (waiting > 0 and draw.random() < 0.05)
            waited.append(waiting)

    simulate(dut, arrive, take, clocks={"sync": card, "pcie": block})
    assert max(waited) <= room
    assert max(waited) > room - NON_POSTED_LATE
    assert held_back


def test_transactions_cross_to_dram_and_back():
    dut, draw = AxiCrossing(TINY, 4), random.Random(9)
    fields = {
        "aw": ("awid", "awaddr", "awlen"), "w": ("wdata", "wstrb", "wlast"),
        "ar": ("arid", "araddr", "arlen"), "b": ("bid", "bresp"), "r": ("rid", "rdata", "rlast"),
    }  # fmt: skip
    sent = {
        channel: [[draw.randrange(2) for _ in names] for _ in range(40)]
        for channel, names in fields.items()
    }

    def benches(channel):
        source, target = dut.card, dut.dram
        domains = ("sync", "dram")
        if channel in "br":
            source, target, domains = target, source, domains[::-1]

        async def send(ctx):
            for values in sent[channel]:
                for name, value in zip(fields[channel], values, strict=True):
                    ctx.set(getattr(source, name), value)
                ctx.set(getattr(source, f"{channel}valid"), 1)
                await ctx.tick(domains[0]).until(getattr(source, f"{channel}ready"))
                ctx.set(getattr(source, f"{channel}valid"), 0)

        async def receive(ctx):
            signals = [getattr(target, name) for name in fields[channel]]
            ctx.set(getattr(target, f"{channel}ready"), 1)
            for values in sent[channel]:
                valid = getattr(target, f"{channel}valid")
                assert list(await ctx.tick(domains[1]).sample(*signals).until(valid)) == values

        return send, receive

    simulate(
        dut,
        *[bench for channel in fields for bench in benches(channel)],
        clocks={"sync": 1 / 60e6, "dram": 1 / 100e6},
    )
