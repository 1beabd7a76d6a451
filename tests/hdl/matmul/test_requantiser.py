"""Requantiser gives the golden bytes of any totals, after the stated latencies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.matmul.requantiser import Requantiser
from halfdome.sim.golden.floats import int_to_float, quantise
from tests.bench import simulate

EDGES = [0, 1, -1, 2**24 + 1, 2**31 - 1, -(2**31), 33554435]


@given(
    totals=st.lists(
        st.tuples(*[st.integers(-(2**31), 2**31 - 1) | st.sampled_from(EDGES)] * 2),
        min_size=1,
        max_size=20,
    ),
    bias=st.tuples(*[st.integers(-(2**31), 2**31 - 1) | st.sampled_from(EDGES)] * 2),
    exponent=st.integers(-34, 2),
    zero_point=st.integers(0, 255),
    relu=st.booleans(),
)
def test_rows_are_golden(totals, bias, exponent, zero_point, relu):
    dut = Requantiser(columns=2)
    multipliers = np.array([1.37, -0.81], np.float32) * np.float32(2.0**exponent)
    floor = zero_point if relu else 0
    received = []

    async def bench(ctx):
        ctx.set(dut.zero_point, zero_point)
        ctx.set(dut.floor, floor)
        ctx.set(dut.bias, list(bias))
        for cycle in range(len(totals) + dut.latency):
            if cycle < len(totals):
                ctx.set(dut.totals, list(totals[cycle]))
            # Only in the cycles in which it counts.
            counts = 0 <= cycle - dut.multiplier_delay < len(totals)
            bits = multipliers.view(np.uint32) if counts else [0, 0]
            ctx.set(dut.multiplier, [int(b) for b in bits])
            if cycle >= dut.latency:
                received.append([ctx.get(dut.o[c]) for c in range(2)])
            await ctx.tick()

    simulate(dut, bench)
    wrapped = (np.array(totals, np.int64) + np.array(bias, np.int64)).astype(np.int32)
    expected = quantise(int_to_float(wrapped), multipliers, zero_point, floor)
    np.testing.assert_array_equal(received, expected)
