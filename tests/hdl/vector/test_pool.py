"""POOL writes the largest byte of every window, a word of a tap a cycle, and touches no other."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import Activity
from halfdome.hdl.vector.walker import WindowWalker, taps_along
from tests.hdl.vector.jobs import (
    PoolJob,
    mostly,
    random_windows,
    run,
    transits,
)
from tests.hdl.vector.test_engine import bench
from tests.hdl.vector.windows import along, run_random

TINY = PRESETS["tiny"]


@pytest.mark.slow
@example(columns=[150, 1], bus_bytes=64, read_stall=0.3, write_stall=0.3, seed=2)
@given(
    columns=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    bus_bytes=st.just(16),  # the example has wider words, which take longer
    read_stall=st.sampled_from([0.0, 0.3, 0.7]),
    write_stall=st.sampled_from([0.0, 0.3, 0.8]),
    seed=st.integers(0, 2**16),
)
def test_output_is_golden_and_nothing_else_is_written(
    columns, bus_bytes, read_stall, write_stall, seed
):
    run_random(Opcode.POOL, columns, bus_bytes, read_stall, write_stall, seed)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32))
def test_taps_are_counted_as_they_lie(seed):
    sides = random_windows(np.random.default_rng(seed))
    for axis in range(2):
        size, out, kernel, stride, pad, dilation = (sides[name][axis] for name in sides)
        taps = np.arange(out)[:, None] * stride - pad + np.arange(kernel) * dilation
        inside = (taps >= 0) & (taps < size)
        assert inside.any(axis=1).all()
        counted = taps_along(size, out, kernel, stride, pad, dilation)
        assert counted == (out, inside.sum(), (taps < 0).sum())


@pytest.mark.slow
@pytest.mark.parametrize("signed", [False, True])
def test_bytes_compare_as_their_format_says(signed):
    dut, inputs, output, rng = bench(TINY)
    job = PoolJob(inputs, TINY, 0, rng, size=(1, 2), k=16, out=(1, 1), kernel=(1, 2), signed=signed)
    x = inputs.data[:32].reshape(2, 16)
    x[0], x[1] = 0x7F, 0x80
    job.image[:] = 0x7F if signed else 0x80
    run(dut, inputs, output, [job])


@pytest.mark.slow
@pytest.mark.parametrize("bus_bytes", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_taps_stream_in_the_stated_cycles(bus_bytes):
    config = TINY.replace(bus_bytes=bus_bytes)
    dut, inputs, output, rng = bench(config, latency=(3, 3))
    square = {"kernel": (3, 3), "pad": (1, 1)}
    cases = [
        {"size": (6, 6), "out": (6, 6), "k": 16, **square},
        {"size": (6, 6), "out": (3, 3), "k": 64, "stride": (2, 2), **square},
        {"size": (5, 5), "out": (5, 5), "k": 100, "dilation": (2, 2), **square, "pad": (2, 2)},
        {"size": (1, 90), "out": (1, 90), "k": 10, "kernel": (1, 1)},
        {"size": (6, 6), "out": (1, 1), "k": 48, "kernel": (6, 6)},
    ]
    jobs, position = [], 0
    for case in cases:
        jobs.append(PoolJob(inputs, config, position, rng, **case))
        position = jobs[-1].end
    durations = run(dut, inputs, output, jobs)
    for job, duration in zip(jobs, durations, strict=True):
        rows, columns = along(job)
        groups = -(-job.values["k"] // config.byte_lanes)
        least = WindowWalker.latency + rows.inside * columns.inside * groups
        most = dut.pool_cycles(job.values["k"], rows, columns)
        assert least <= duration <= most + dut.pool_latency + 20


@pytest.mark.slow
def test_latency_is_as_stated():
    dut, inputs, output, rng = bench(TINY, stall=0.9)
    words = 60
    job = PoolJob(inputs, TINY, 0, rng, size=(1, words), k=16, out=(1, words), kernel=(1, 1))
    answers, writes, watch = transits(dut)
    run(dut, inputs, output, [job], background=[watch])
    # Reads are slow: no word waits in a queue.
    assert len(answers) == len(writes) == words
    assert answers[-1] + dut.pool_latency == writes[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latency", "write_stall", "kernel", "expected"),
    [(1, 0.0, 3, Activity.BUSY), (600, 0.0, 3, Activity.STARVED), (1, 0.97, 1, Activity.BLOCKED)],
)
def test_activity_tells_which_side_is_slow(latency, write_stall, kernel, expected):
    dut, inputs, output, rng = bench(TINY, 2, write_stall=write_stall, latency=(latency, latency))
    job = PoolJob(
        inputs, TINY, 0, rng, size=(8, 8), k=16, out=(4, 4), kernel=(kernel, kernel), stride=(2, 2)
    )
    assert mostly(dut, inputs, output, job) == expected
