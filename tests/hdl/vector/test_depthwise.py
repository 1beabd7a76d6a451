"""DEPTHWISE writes the requantised sum of every window, a word of a tap a cycle."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Flag, Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import Activity
from halfdome.hdl.vector.kernel import GROUPS
from halfdome.hdl.vector.walker import WindowWalker
from tests.hdl.vector.jobs import SumsJob, mostly, run, transits
from tests.hdl.vector.test_engine import bench
from tests.hdl.vector.windows import along, run_random

TINY = PRESETS["tiny"]
SQUARE = {"kernel": (3, 3), "pad": (1, 1)}


@pytest.mark.slow
@example(columns=[150, 1], bus_bytes=64, read_stall=0.3, write_stall=0.3, seed=2)
@example(columns=[200], bus_bytes=32, read_stall=0.0, write_stall=0.8, seed=3)
@given(
    columns=st.lists(st.integers(1, 200), min_size=1, max_size=3),
    bus_bytes=st.just(16),  # the examples have wider words, which take longer
    read_stall=st.sampled_from([0.0, 0.3, 0.7]),
    write_stall=st.sampled_from([0.0, 0.3, 0.8]),
    seed=st.integers(0, 2**16),
)
def test_output_is_golden_and_nothing_else_is_written(
    columns, bus_bytes, read_stall, write_stall, seed
):
    run_random(Opcode.DEPTHWISE, columns, bus_bytes, read_stall, write_stall, seed)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [0, Flag.ONES])
def test_the_largest_kernels_and_sums(flags):
    """64 weighted taps, 255 x 255 of ones, all operands as far from zero as can be."""
    dut, inputs, output, rng = bench(TINY)
    kernel = (12, 255) if flags else (8, 8)
    job = SumsJob(
        inputs, TINY, 0, rng, size=kernel, k=3, out=(1, 1), kernel=kernel, flags=flags,
        multiplier=np.float32([1e-5, 2e-5, -1e-5]),
    )  # fmt: skip
    run(dut, inputs, output, [job])


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        {"size": (6, 6), "out": (6, 6), "k": 16, **SQUARE},
        {"size": (6, 6), "out": (3, 3), "k": 64, "stride": (2, 2), **SQUARE},
        {"size": (7, 7), "out": (7, 7), "k": 100, "kernel": (5, 5), "pad": (2, 2)},
        {"size": (1, 90), "out": (1, 90), "k": 10, "kernel": (1, 1)},
        {"size": (8, 7), "out": (1, 1), "k": 200, "kernel": (8, 7), "flags": Flag.ONES},
    ],
    ids=lambda case: f"{case['kernel'][0]}x{case['kernel'][1]}",
)
def test_taps_stream_in_the_stated_cycles(case):
    dut, inputs, output, rng = bench(TINY, latency=(3, 3))
    job = SumsJob(inputs, TINY, 0, rng, **case)
    [duration] = run(dut, inputs, output, [job])
    rows, columns = along(job)
    words = -(-case["k"] // TINY.bus_bytes)
    stated = dut.sums_cycles(case["k"], rows, columns)
    # The first line's weights and parameters, a line a burst.
    line = min(words, TINY.burst_words)
    taps = 0 if case.get("flags") else case["kernel"][0] * case["kernel"][1]
    loaded = (taps * (line + 1) + GROUPS * line) + 8
    # Windows at the image's edge have fewer taps than a word takes to be written.
    edge = sum(side.windows > 1 for side in (rows, columns)) * 2 * GROUPS * rows.windows * words
    groups = -(-case["k"] // TINY.byte_lanes)
    least = WindowWalker.latency + rows.inside * columns.inside * groups
    assert least <= duration <= stated + loaded + edge + dut.sums_latency + 20


@pytest.mark.slow
def test_latency_is_as_stated():
    dut, inputs, output, rng = bench(TINY, stall=0.95)
    job = SumsJob(inputs, TINY, 0, rng, size=(1, 20), k=16, out=(1, 20), kernel=(1, 1))
    answers, writes, watch = transits(dut)
    run(dut, inputs, output, [job], background=[watch])
    # Reads are slow: the last word waits for no other.
    assert len(answers) == len(writes) == 20
    assert answers[-1] + dut.sums_latency == writes[-1]


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, -0.0, np.inf, np.nan])
def test_the_first_bad_multiplier_is_named(value):
    dut, inputs, output, rng = bench(TINY)
    jobs, position = [], 0
    for bad in ([150], [83, 97], []):
        multiplier = np.full(170, 0.01, np.float32)
        multiplier[bad] = value
        jobs.append(
            SumsJob(
                inputs, TINY, position, rng, size=(2, 2), k=170, out=(1, 1), kernel=(2, 2),
                multiplier=multiplier,
            )
        )  # fmt: skip
        position = jobs[-1].end
    assert [job.outcome for job in jobs] == [
        (Status.BAD_MULTIPLIER, 150), (Status.BAD_MULTIPLIER, 83), (Status.OK, 0),
    ]  # fmt: skip
    run(dut, inputs, output, jobs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latency", "write_stall", "kernel", "expected"),
    [(1, 0.0, 3, Activity.BUSY), (600, 0.0, 3, Activity.STARVED), (1, 0.99, 1, Activity.BLOCKED)],
)
def test_activity_tells_which_side_is_slow(latency, write_stall, kernel, expected):
    dut, inputs, output, rng = bench(TINY, 2, write_stall=write_stall, latency=(latency, latency))
    job = SumsJob(
        inputs, TINY, 0, rng, size=(12, 12), k=16, out=(6, 6), kernel=(kernel, kernel),
        stride=(2, 2),
    )  # fmt: skip
    assert mostly(dut, inputs, output, job) == expected


@pytest.mark.slow
def test_formats_and_floors_are_what_the_flags_say():
    """Every pair of formats, with and without a floor, and with ones."""
    dut, inputs, output, rng = bench(TINY, latency=(1, 2))
    jobs, position = [], 0
    for flags in range(16):
        y_format = ElementFormat(flags % 2)
        jobs.append(
            SumsJob(inputs, TINY, position, rng, size=(2, 3), k=20, out=(2, 3), **SQUARE,
                    flags=flags, y_format=y_format)
        )  # fmt: skip
        position = jobs[-1].end
    run(dut, inputs, output, jobs)
