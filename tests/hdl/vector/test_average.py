"""AVERAGE writes the mean of every window rounded as float32 is at each step."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import Activity
from halfdome.hdl.vector.inverse import Inverse
from halfdome.hdl.vector.kernel import GROUPS
from halfdome.hdl.vector.walker import WindowWalker
from tests.hdl.vector.jobs import AverageJob, mostly, run, transits
from tests.hdl.vector.test_engine import bench
from tests.hdl.vector.windows import along, run_random

TINY = PRESETS["tiny"]
SQUARE = {"kernel": (3, 3), "pad": (1, 1)}


@pytest.mark.slow
@example(columns=[150, 1], bus_bytes=64, read_stall=0.3, write_stall=0.3, seed=2)
@example(columns=[70, 5], bus_bytes=32, read_stall=0.0, write_stall=0.8, seed=3)
@given(
    columns=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    bus_bytes=st.just(16),  # the examples have wider words, which take longer
    read_stall=st.sampled_from([0.0, 0.3, 0.7]),
    write_stall=st.sampled_from([0.0, 0.3, 0.8]),
    seed=st.integers(0, 2**16),
)
def test_output_is_golden_and_nothing_else_is_written(
    columns, bus_bytes, read_stall, write_stall, seed
):
    run_random(Opcode.AVERAGE, columns, bus_bytes, read_stall, write_stall, seed)


@pytest.mark.slow
@pytest.mark.parametrize("byte_word_cycles", [1, 2, 16])
def test_every_width_has_the_same_bytes(byte_word_cycles):
    config = TINY.replace(byte_word_cycles=byte_word_cycles, float_word_cycles=4)
    dut, inputs, output, rng = bench(config, 5, latency=(1, 2))
    jobs, position = [], 0
    for k in (1, 7, 9, 37, 70):
        jobs.append(AverageJob(inputs, config, position, rng, size=(3, 3), k=k, out=(2, 2),
                               kernel=(2, 2)))  # fmt: skip
        position = jobs[-1].end
    run(dut, inputs, output, jobs)


@pytest.mark.slow
def test_taps_stream_in_the_stated_cycles():
    dut, inputs, output, rng = bench(TINY, latency=(3, 3))
    cases = [
        {"size": (6, 6), "out": (6, 6), "k": 16, **SQUARE},
        {"size": (6, 6), "out": (3, 3), "k": 64, "stride": (2, 2), **SQUARE},
        {"size": (5, 7), "out": (5, 7), "k": 100, "kernel": (5, 5), "pad": (2, 2)},
        {"size": (1, 60), "out": (1, 60), "k": 10, "kernel": (1, 1)},
        {"size": (20, 3), "out": (18, 1), "k": 8, "kernel": (3, 3)},
        {"size": (8, 7), "out": (1, 1), "k": 200, "kernel": (8, 7)},
    ]
    jobs, position = [], 0
    for case in cases:
        jobs.append(AverageJob(inputs, TINY, position, rng, **case))
        position = jobs[-1].end
    durations = run(dut, inputs, output, jobs)
    for job, duration in zip(jobs, durations, strict=True):
        rows, columns = along(job)
        groups = -(-job.values["k"] // TINY.byte_lanes)
        stated = dut.average_cycles(job.values["k"], rows, columns)
        # Windows at the image's edge have fewer taps than a word takes to be written.
        written = GROUPS // TINY.byte_word_cycles * groups
        edge = sum(side.windows > 1 for side in (rows, columns)) * 2 * written * rows.windows
        least = WindowWalker.latency + rows.inside * columns.inside * groups
        most = max(stated, Inverse.latency) + edge + dut.average_latency + 20
        assert least <= duration <= most, job.sides


@pytest.mark.slow
def test_latency_is_as_stated():
    dut, inputs, output, rng = bench(TINY, stall=0.95)
    job = AverageJob(inputs, TINY, 0, rng, size=(1, 20), k=16, out=(1, 20), kernel=(1, 1))
    answers, writes, watch = transits(dut)
    run(dut, inputs, output, [job], background=[watch])
    # Reads are slow: the last word waits for no other.
    assert len(answers) == len(writes) == 20
    assert answers[-1] + dut.average_latency == writes[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latency", "write_stall", "kernel", "expected"),
    [(1, 0.0, 3, Activity.BUSY), (600, 0.0, 3, Activity.STARVED), (1, 0.99, 1, Activity.BLOCKED)],
)
def test_activity_tells_which_side_is_slow(latency, write_stall, kernel, expected):
    dut, inputs, output, rng = bench(TINY, 2, write_stall=write_stall, latency=(latency, latency))
    job = AverageJob(
        inputs, TINY, 0, rng, size=(12, 12), k=16, out=(6, 6), kernel=(kernel, kernel),
        stride=(2, 2),
    )  # fmt: skip
    assert mostly(dut, inputs, output, job) == expected
