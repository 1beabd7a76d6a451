"""The vector engine writes exactly the golden bytes, whatever the shape and the memory do."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hdl.commands import Opcode, Status, pack
from hdl.config import PRESETS
from hdl.engine import Activity
from hdl.vector.engine import VectorEngine
from sim.golden.vector import quantise
from tests.bench import Memory, get, monitor, put, simulate

TINY = PRESETS["tiny"]
UNTOUCHED = 0x5A

SPECIAL = np.float32(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 0.5, 1.5, 2.5,
     -0.5, -1.5, 127.5, 128.5, 254.5, 255.5, 256.0, -256.5, 2.0**31, -(2.0**31), 2.0**32, 2.0**63]
)  # fmt: skip


class Job:
    """One QUANTISE at an address of `memory`, its input in place and its output known."""

    def __init__(self, memory, config, position, rows, columns, multiplier, zero_point, rng):
        bus = config.bus_bytes
        source_stride = -(-columns * 4 // bus) * bus + bus * int(rng.integers(3))
        destination_stride = -(-columns // bus) * bus + bus * int(rng.integers(3))
        source = position
        destination = source + rows * source_stride
        self.end = destination + rows * destination_stride
        x = (rng.normal(size=(rows, columns)) * rng.choice([1, 100, 1e30])).astype(np.float32)
        special = rng.random((rows, columns)) < 0.3
        x[special] = rng.choice(SPECIAL, special.sum())
        for row in range(rows):
            start = source + row * source_stride
            memory.data[start : start + 4 * columns] = x[row].view(np.uint8)
        self.image = np.full(rows * destination_stride, UNTOUCHED, np.uint8)
        self.where = slice(destination, self.end)
        memory.data[self.where] = UNTOUCHED
        y = quantise(x, multiplier, zero_point)
        for row in range(rows):
            self.image[row * destination_stride :][:columns] = y[row]
        self.descriptor = int.from_bytes(
            pack(
                Opcode.QUANTISE,
                source=source,
                destination=destination,
                rows=rows,
                columns=columns,
                source_stride=source_stride,
                destination_stride=destination_stride,
                multiplier=int(np.float32(multiplier).view(np.uint32)),
                zero_point=zero_point,
            ),
            "little",
        )


def run(dut, source, destination, jobs):
    """Runs `jobs` one after another; returns cycles per activity and per job.

    Both memories are views of the same bytes.
    """
    destination.data = source.data
    counts = dict.fromkeys(Activity, 0)
    durations = []
    clock = [0]

    async def host(ctx):
        for job in jobs:
            await put(ctx, dut.command, job.descriptor)
            start = clock[0]
            result = await get(ctx, dut.result)
            durations.append(clock[0] - start)
            assert result.status == Status.OK
            assert result.detail == 0
            np.testing.assert_array_equal(source.data[job.where], job.image)

    async def count(ctx):
        while True:
            _, _, activity = await ctx.tick().sample(dut.activity)
            counts[Activity(activity)] += 1
            clock[0] += 1

    simulate(
        dut,
        host,
        background=[
            count,
            source.read_port(dut.source),
            destination.write_port(dut.destination),
            monitor(dut.source.request, "source.request"),
            monitor(dut.destination.request, "destination.request"),
            monitor(dut.result, "result"),
        ],
    )
    assert sum(counts.values()) == clock[0]
    return counts, durations


@example([(2, 70), (3, 1)], 128, 0.7, 9, 0.3, 0.3, 0)
@example([(4, 64)], 16, 1.0, 0, 0.0, 0.95, 0)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 70)), min_size=1, max_size=3),
    bus_bytes=st.sampled_from([16, 32]),
    multiplier=st.one_of(
        st.sampled_from([1.0, 0.0, -1.0, 2.0, 1e-40, 3.4028235e38]),
        st.floats(-100, 100, width=32),
    ),
    zero_point=st.integers(0, 255),
    read_stall=st.sampled_from([0.0, 0.3, 0.7]),
    write_stall=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_output_is_golden_and_nothing_else_is_written(
    shapes, bus_bytes, multiplier, zero_point, read_stall, write_stall, seed
):
    config = TINY.replace(bus_bytes=bus_bytes)
    memory = Memory(config, 1 << 16, seed=seed, stall=read_stall, latency=(1, 12))
    output = Memory(config, 1 << 16, seed=seed + 1, stall=write_stall, latency=(1, 12))
    rng = np.random.default_rng(seed)
    jobs, position = [], bus_bytes * int(rng.integers(5))
    for rows, columns in shapes:
        jobs.append(Job(memory, config, position, rows, columns, multiplier, zero_point, rng))
        position = jobs[-1].end
    run(VectorEngine(config), memory, output, jobs)


@pytest.mark.parametrize("bus_bytes", [16, 64])
@pytest.mark.parametrize(("rows", "columns"), [(1, 600), (12, 64), (40, 3), (3, 257)])
def test_a_matrix_streams_in_the_stated_cycles(bus_bytes, rows, columns):
    config = TINY.replace(bus_bytes=bus_bytes)
    memory = Memory(config, 1 << 17, latency=(3, 3))
    rng = np.random.default_rng(1)
    job = Job(memory, config, 0, rows, columns, 1.0, 0, rng)
    dut = VectorEngine(config)
    _, durations = run(dut, memory, Memory(config, 0), [job])
    # Rows that start inside a line take one burst more.
    slack = rows if config.burst_words > 1 else 0
    start_and_drain = dut.latency + 16
    assert dut.cycles(rows, columns) <= durations[0]
    assert durations[0] <= dut.cycles(rows, columns) + slack + start_and_drain


def test_latency_is_as_stated():
    dut = VectorEngine(TINY)
    memory = Memory(TINY, 4096)
    job = Job(memory, TINY, 0, 1, 1, 1.0, 0, np.random.default_rng(0))
    seen = {}

    async def host(ctx):
        await put(ctx, dut.command, job.descriptor)
        await get(ctx, dut.result)

    async def watch(ctx):
        cycle = 0
        while True:
            _, _, word, write = await ctx.tick().sample(
                dut.source.response.valid, dut.destination.request.valid
            )
            if word:
                seen.setdefault("word", cycle)
            if write:
                seen.setdefault("write", cycle)
            cycle += 1

    simulate(
        dut,
        host,
        background=[watch, memory.read_port(dut.source), memory.write_port(dut.destination)],
    )
    assert seen["write"] - seen["word"] == dut.latency


@pytest.mark.parametrize(
    ("source_latency", "destination_stall", "expected"),
    [(1, 0.0, Activity.BUSY), (60, 0.0, Activity.STARVED), (1, 0.95, Activity.BLOCKED)],
)
def test_activity_tells_which_side_is_slow(source_latency, destination_stall, expected):
    memory = Memory(TINY, 1 << 14, latency=(source_latency, source_latency))
    columns = 64 if source_latency == 1 else 4
    job = Job(memory, TINY, 0, 8, columns, 1.0, 0, np.random.default_rng(2))
    output = Memory(TINY, 0, stall=destination_stall, seed=3)
    counts, _ = run(VectorEngine(TINY), memory, output, [job])
    working = {activity: n for activity, n in counts.items() if activity != Activity.IDLE}
    assert max(working, key=working.get) == expected
