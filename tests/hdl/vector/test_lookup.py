"""LOOKUP puts a table's byte in the place of every byte, a bus word a cycle, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import Activity
from tests.hdl.vector.jobs import LookupJob, mostly, random_job, run, transits
from tests.hdl.vector.test_engine import bench

TINY = PRESETS["tiny"]


@pytest.mark.slow
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(0, 1), st.booleans()),
        min_size=1,
        max_size=2,
    ),
    read_stall=st.sampled_from([0.0, 0.3, 0.7]),
    write_stall=st.sampled_from([0.0, 0.3, 0.8]),
    seed=st.integers(0, 2**16),
)
def test_output_is_golden_and_nothing_else_is_written(shapes, read_stall, write_stall, seed):
    dut, inputs, output, rng = bench(TINY, seed, read_stall, write_stall)
    jobs, position = [], TINY.bus_bytes * int(rng.integers(5))
    for rows, columns, gap, in_place in shapes:
        job = LookupJob(
            inputs, TINY, position, rng, rows=rows, columns=columns, gap=gap, in_place=in_place
        )
        jobs.append(job)
        position = job.end
    run(dut, inputs, output, jobs)


@pytest.mark.slow
def test_every_length_of_a_row():
    dut, inputs, output, rng = bench(TINY, latency=(2, 2))
    jobs, position = [], 0
    for columns in range(1, TINY.bus_bytes + 2):
        jobs.append(LookupJob(inputs, TINY, position, rng, rows=2, columns=columns, gap=1))
        position = jobs[-1].end
    run(dut, inputs, output, jobs)


@pytest.mark.slow
def test_each_byte_has_its_own_entry():
    dut, inputs, output, rng = bench(TINY)
    job = LookupJob(inputs, TINY, 0, rng, rows=1, columns=256)
    a, table = job.values["a"], inputs.data[:256]
    table[:] = rng.permutation(256)
    inputs.data[a : a + 256] = np.arange(256)
    job.image[:] = table
    run(dut, inputs, output, [job])


@pytest.mark.slow
@pytest.mark.parametrize("bus_bytes", [32, pytest.param(128, marks=pytest.mark.slow)])
def test_wider_words(bus_bytes):
    config = TINY.replace(bus_bytes=bus_bytes)
    dut, inputs, output, rng = bench(config, 5, 0.3, 0.3)
    jobs, position = [], 0
    for opcode, rows, columns in [
        (Opcode.LOOKUP, 3, 2 * bus_bytes + 5), (Opcode.ADD, 1, 9), (Opcode.LOOKUP, 2, 3),
    ]:  # fmt: skip
        jobs.append(random_job(inputs, config, position, rng, opcode, rows, columns))
        position = -(-jobs[-1].end // bus_bytes) * bus_bytes
    run(dut, inputs, output, jobs)


@pytest.mark.slow
@pytest.mark.parametrize("bus_bytes", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_bytes_stream_in_the_stated_cycles(bus_bytes):
    config = TINY.replace(bus_bytes=bus_bytes)
    dut, inputs, output, rng = bench(config, latency=(3, 3))
    shapes = [(1, 1000), (3, 320), (20, 3), (2, 129)]
    jobs, position = [], 0
    for rows, columns in shapes:
        jobs.append(LookupJob(inputs, config, position, rng, rows=rows, columns=columns))
        position = jobs[-1].end
    durations = run(dut, inputs, output, jobs)
    for (rows, columns), duration in zip(shapes, durations, strict=True):
        bound = dut.lookup_cycles(rows, columns)
        # Start and drain, of table and rows.
        assert bound <= duration <= bound + dut.lookup_latency + 20


@pytest.mark.slow
def test_latency_is_as_stated():
    dut, inputs, output, rng = bench(TINY, stall=0.9)
    words = 60
    job = LookupJob(inputs, TINY, 0, rng, rows=1, columns=TINY.bus_bytes * words)
    answers, writes, watch = transits(dut)
    run(dut, inputs, output, [job], background=[watch])
    # Reads are slow, and the table is there long before the last word: it waits in no queue.
    assert len(answers) == len(writes) == words
    assert answers[-1] + dut.lookup_latency == writes[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latency", "write_stall", "columns", "expected"),
    [
        (1, 0.0, 320, Activity.BUSY),
        (200, 0.0, 4, Activity.STARVED),
        (1, 0.95, 320, Activity.BLOCKED),
    ],
)
def test_activity_tells_which_side_is_slow(latency, write_stall, columns, expected):
    dut, inputs, output, rng = bench(TINY, 2, write_stall=write_stall, latency=(latency, latency))
    job = LookupJob(inputs, TINY, 0, rng, rows=2, columns=columns)
    assert mostly(dut, inputs, output, job) == expected
