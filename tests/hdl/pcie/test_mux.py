"""The packet multiplexer keeps packets whole, in order, and serves its inputs in turn."""

import itertools
import random

from amaranth.lib import data
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.pcie.mux import PacketMux
from tests.bench import monitor, simulate, sink, source

BEAT = data.StructLayout({"tag": 16, "last": 1})


@given(
    count=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
)
def test_packets_stay_whole_and_in_order(count, seed, stall):
    rng = random.Random(seed)
    dut = PacketMux(BEAT, count)
    inputs = []
    for index in range(count):
        lengths = [rng.randint(1, 5) for _ in range(rng.randint(0, 6))]
        beats = [{"tag": 0, "last": int(i == n - 1)} for n in lengths for i in range(n)]
        inputs.append([beat | {"tag": index << 8 | n} for n, beat in enumerate(beats)])
    received, total = [], sum(map(len, inputs))
    simulate(
        dut,
        *(source(dut.i[k], beats, seed=seed + k, stall=stall) for k, beats in enumerate(inputs)),
        sink(dut.o, total, received, seed=seed, stall=stall),
        background=[monitor(dut.o)],
    )
    seen = [{"tag": int(b.tag), "last": int(b.last)} for b in received]
    for index in range(count):
        assert [beat for beat in seen if beat["tag"] >> 8 == index] == inputs[index]
    for before, after in itertools.pairwise(seen):
        assert before["last"] or before["tag"] >> 8 == after["tag"] >> 8


def test_busy_inputs_take_turns_at_full_rate():
    dut = PacketMux(BEAT, 3)
    packets = [{"tag": 0, "last": 0}, {"tag": 0, "last": 1}] * 4
    order, valid = [], []

    async def watch(ctx):
        ctx.set(dut.o.ready, 1)
        while len(order) < 24:
            _, _, offered, origin, held = await ctx.tick().sample(dut.o.valid, dut.source, dut.held)
            valid.append(offered)
            assert held == offered << origin
            if offered:
                order.append(origin)

    simulate(dut, *(source(dut.i[k], packets) for k in range(3)), watch)
    assert order == [1, 1, 2, 2, 0, 0] * 4
    assert all(valid[dut.latency :])
