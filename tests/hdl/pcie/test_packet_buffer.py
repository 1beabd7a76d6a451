"""Packets leave the receive buffer whole, or as a header marked malformed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.hdl.pcie.demux import TlpDemux
from halfdome.hdl.pcie.packet_buffer import PacketBuffer
from tests.bench import as_dict, monitor, put, simulate, sink, source
from tests.hdl.pcie.tlp_model import CPL, CPLD, MRD32, MWR32, MWR64, Tlp

CONFIGS = {n: PRESETS["tiny"].replace(bus_bytes=n) for n in (16, 32, 128)}


def packet(rng, limit):
    """A packet and whether its payload has the length that its header says, in bus words."""
    kind = rng.choice([MRD32, MWR32, MWR64, CPL, CPLD])
    length = rng.choice([rng.randint(1, 20), rng.randint(1, limit)])
    return Tlp(kind=kind, length=length, payload=rng.randbytes(4 * length * (kind >> 6)))


@given(
    bus_bytes=st.sampled_from(sorted(CONFIGS)),
    seed=st.integers(0, 2**32),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
)
def test_whole_packets_pass_and_others_become_a_marked_header(bus_bytes, seed, stall):
    config = CONFIGS[bus_bytes]
    rng = random.Random(seed)
    dut = PacketBuffer(config)
    sent, expected = [], []
    for _ in range(12):
        tlp = packet(rng, 200)
        bar = rng.randrange(8)
        beats = tlp.beats(bus_bytes, bar)
        right = len(beats)
        if rng.random() < 0.4:
            size = rng.choice([0, rng.randint(1, 1200), 9000])
            beats = Tlp(**vars(tlp) | {"payload": bytes(size)}).beats(bus_bytes, bar)
        sent += beats
        if len(beats) == right:
            expected += [
                beat | {"first": int(i == 0), "malformed": 0} for i, beat in enumerate(beats)
            ]
        else:
            expected.append(beats[0] | {"first": 1, "last": 1, "malformed": 1})
    received = []
    simulate(
        dut,
        source(dut.i, sent, seed=seed, stall=stall),
        sink(dut.o, len(expected), received, seed=seed, stall=stall),
        background=[monitor(dut.o)],
    )
    seen = [as_dict(dut.o.p.shape(), beat) for beat in received]
    for beat, want in zip(seen, expected, strict=True):
        beat["bar"] = beat["bar"] if beat["first"] else 0
        assert beat == want


@pytest.mark.parametrize("bus_bytes", CONFIGS)
def test_latency_and_full_rate(bus_bytes):
    dut = PacketBuffer(CONFIGS[bus_bytes])
    beats = [Tlp(kind=CPLD, length=64, payload=bytes(256)).beats(bus_bytes) for _ in range(6)]
    flat = [beat for packet in beats for beat in packet]
    first_last = len(beats[0]) - 1
    taken, offered = [], []

    async def watch(ctx):
        ctx.set(dut.o.ready, 1)
        cycle = 0
        while len(offered) < len(flat):
            _, _, into, out = await ctx.tick().sample(dut.i.valid & dut.i.ready, dut.o.valid)
            taken.extend([cycle] * into)
            offered.extend([cycle] * out)
            cycle += 1

    simulate(dut, source(dut.i, flat), watch)
    assert offered[0] - taken[first_last] == dut.latency
    assert taken == list(range(taken[0], taken[0] + len(flat)))
    assert offered == list(range(offered[0], offered[0] + len(flat)))


def test_completions_and_requests_part_ways_whole():
    config = CONFIGS[16]
    dut = TlpDemux(config)
    rng = random.Random(5)
    packets = [packet(rng, 16) for _ in range(30)]
    locked = Tlp(kind=0x4B, length=1, payload=bytes(4))
    packets.append(locked)
    requests = [b for p in packets if not p.is_completion for b in p.beats(16)]
    completions = [b for p in packets if p.is_completion for b in p.beats(16)]
    got_requests, got_completions = [], []

    async def send(ctx):
        for tlp in packets:
            for beat in tlp.beats(16):
                await put(ctx, dut.rx, beat)

    simulate(
        dut,
        send,
        sink(dut.requests, len(requests), got_requests, seed=1, stall=0.3),
        sink(dut.completions, len(completions), got_completions, seed=2, stall=0.3),
        background=[monitor(dut.requests), monitor(dut.completions)],
    )
    assert [int(b.data) for b in got_requests] == [b["data"] for b in requests]
    assert [int(b.data) for b in got_completions] == [b["data"] for b in completions]
