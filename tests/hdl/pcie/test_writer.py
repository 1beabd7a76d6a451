"""Transfers are split into legal pieces, and posted writes carry every byte to its place."""

import random

import pytest
from amaranth import Elaboratable, Module
from amaranth.lib.wiring import connect
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.hdl.pcie.mux import PacketMux
from halfdome.hdl.pcie.splitter import Splitter
from halfdome.hdl.pcie.tlp import tx_beat
from halfdome.hdl.pcie.writer import PostedWriter
from tests.bench import as_dict, get, monitor, put, simulate, sink, source
from tests.hdl.pcie.tlp_model import Tlp, check_request

CONFIGS = {n: PRESETS["tiny"].replace(bus_bytes=n, max_payload_bytes=256) for n in (16, 32, 128)}


@pytest.mark.parametrize("limit", [128, 512, 4096])
@given(
    transfers=st.lists(
        st.tuples(st.integers(0, 2000), st.one_of(st.integers(0, 40), st.integers(1, 9000))),
        min_size=1,
        max_size=4,
    ),
    stall=st.sampled_from([0.0, 0.3]),
)
def test_pieces_cover_a_transfer_and_cross_no_multiple_of_the_limit(limit, transfers, stall):
    config = CONFIGS[32]
    dut = Splitter(config, limit)
    expected, items = [], []
    for start, size in transfers:
        address = (1 << 32) - 4096 + 32 * start
        items.append({"address": address, "destination": 64 * start, "bytes": size})
        position = 0
        while position < size:
            step = min(size - position, limit - (address + position) % limit)
            expected.append(
                {
                    "address": address + position,
                    "destination": 64 * start + position,
                    "bytes": step,
                    "skip": 0,
                    "last": int(position + step == size),
                }
            )
            position += step
    received = []
    simulate(
        dut,
        source(dut.i, items, stall=stall),
        sink(dut.o, len(expected), received, seed=1, stall=stall),
        background=[monitor(dut.o)],
    )
    assert [as_dict(dut.o.p.shape(), piece) for piece in received] == expected


def test_a_limit_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="limit=96: must be a power of two from 32 to 4096"):
        Splitter(CONFIGS[32], 96)


class Link(Elaboratable):
    """A writer and the arbiter that its last beat waits in."""

    def __init__(self, config):
        self.writer = PostedWriter(config)
        self.mux = PacketMux(tx_beat(config), 1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.writer = self.writer
        m.submodules.mux = self.mux
        connect(m, self.writer.o, self.mux.i[0])
        m.d.comb += [self.writer.leaving.eq(self.mux.held[0]), self.writer.enable.eq(1)]
        return m


class Receiver:
    """Takes a writer's packets, and checks that `idle` means: all that was accepted is here."""

    def __init__(self, dut, config, *, seed=0, stall=0.0):
        self.dut, self.config = dut, config
        self.written: dict[int, int] = {}
        self.sent_bytes = 0
        self._rng = random.Random(seed)
        self._stall = stall

    async def bench(self, ctx):
        port, o = self.dut.writer.port, self.dut.mux.o
        request = port.request
        words, accepted = [], 0
        while True:
            ready = self._rng.random() >= self._stall
            ctx.set(o.ready, ready)
            _, _, valid, beat, sent, idle, asked, size = await ctx.tick().sample(
                o.valid,
                o.p,
                self.dut.writer.sent_bytes,
                port.idle,
                request.valid & request.ready,
                request.p.bytes,
            )
            if idle:
                assert len(self.written) == accepted, "idle before the last packet left"
            accepted += asked * size
            self.sent_bytes += sent
            if not valid or not ready:
                continue
            words.append(int(beat.data))
            if beat.last:
                packet = Tlp.from_words(words, self.config.bus_bytes)
                check_request(packet, self.config.max_payload_bytes)
                for address, value in packet.written().items():
                    assert address not in self.written, f"{address:#x} was written twice"
                    self.written[address] = value
                words = []


@pytest.mark.parametrize("bus_bytes", CONFIGS)
@given(
    seed=st.integers(0, 2**32),
    offsets=st.lists(st.integers(0, 2047), min_size=1, max_size=4, unique=True),
    step=st.sampled_from([4, 128]),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
)
def test_writes_of_any_length_from_any_doubleword(bus_bytes, seed, offsets, step, stall):
    config = CONFIGS[bus_bytes]
    rng = random.Random(seed)
    dut = Link(config)
    port = dut.writer.port
    receiver = Receiver(dut, config, seed=seed, stall=stall)
    transfers = []
    for slot, offset in enumerate(offsets):
        size = rng.choice([rng.randint(1, 8), rng.randint(1, 700), 256, 1024])
        address = (1 << 32) - 4096 + slot * 16384 + offset * step % 8192
        transfers.append((address, rng.randbytes(size)))

    words = [
        int.from_bytes(raw[i : i + bus_bytes], "little")
        for _, raw in transfers
        for i in range(0, len(raw), bus_bytes)
    ]

    async def client(ctx):
        for address, raw in transfers:
            await put(ctx, port.request, {"address": address, "bytes": len(raw)})
            while rng.random() < 0.5 and not ctx.get(port.idle):
                await ctx.tick()
        while not ctx.get(port.idle):
            await ctx.tick()
        await ctx.tick()

    simulate(
        dut,
        source(port.data, words, seed=seed, stall=stall),
        client,
        background=[receiver.bench, monitor(dut.writer.o), monitor(dut.mux.o)],
    )
    expected = {a + i: value for a, raw in transfers for i, value in enumerate(raw)}
    assert receiver.written == expected
    assert receiver.sent_bytes == len(expected)


@pytest.mark.parametrize("bus_bytes", CONFIGS)
def test_aligned_writes_run_at_a_word_a_cycle_plus_headers(bus_bytes):
    config = CONFIGS[bus_bytes]
    dut = PostedWriter(config)
    cycles = []

    async def watch(ctx):
        ctx.set(dut.enable, 1)
        ctx.set(dut.o.ready, 1)
        cycle = 0
        while len(cycles) < 4096 // bus_bytes + 16:
            _, _, valid = await ctx.tick().sample(dut.o.valid)
            cycles.extend([cycle] * valid)
            cycle += 1

    simulate(
        dut,
        source(dut.port.request, [{"address": 0x2000, "bytes": 4096}]),
        source(dut.port.data, [0] * (4096 // bus_bytes)),
        watch,
    )
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


def test_a_write_of_no_bytes_is_over_at_once():
    config = CONFIGS[32]
    dut = PostedWriter(config)
    packets = []

    async def client(ctx):
        await put(ctx, dut.port.request, {"address": 0x100, "bytes": 0})
        assert ctx.get(dut.port.idle)
        await put(ctx, dut.port.request, {"address": 0x100, "bytes": 4})

    async def receive(ctx):
        ctx.set(dut.enable, 1)
        packets.append([int((await get(ctx, dut.o)).data) for _ in range(2)])

    simulate(dut, client, source(dut.port.data, [0xAABBCCDD]), receive)
    assert Tlp.from_words(packets[0], 32).written() == {
        0x100: 0xDD, 0x101: 0xCC, 0x102: 0xBB, 0x103: 0xAA,
    }  # fmt: skip
