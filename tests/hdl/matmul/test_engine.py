"""MatmulEngine computes what the golden model computes, and keeps the array busy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdl.commands import PRODUCT_FORMATS, ElementFormat, Flag, Status
from hdl.config import PRESETS
from hdl.engine import Activity
from hdl.matmul.engine import MatmulEngine
from hdl.matmul.feeder import Feeder
from hdl.matmul.weights import TileLoader
from tests.bench import get, put, simulate
from tests.hdl.matmul.jobs import CardMemory, batch_matmul, conv2d, matmul, run

TINY = PRESETS["tiny"]
SMALL = TINY.replace(accumulator_rows=8, activation_rows=4)
START_AND_DRAIN = 64

stalls = st.sampled_from([0.0, 0.3, 0.7])
seeds = st.integers(0, 2**16)
formats = st.fixed_dictionaries(
    {
        "flags": st.integers(0, 7),
        "y_format": st.sampled_from(PRODUCT_FORMATS),
        "extreme": st.booleans(),
    }
)


@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 18), st.integers(1, 13), st.integers(1, 10)),
        min_size=1,
        max_size=2,
    ),
    formats=formats,
    stall=stalls,
    seed=seeds,
)
def test_product_is_golden_whatever_the_sizes_and_stalls(sizes, formats, stall, seed):
    memory = CardMemory(SMALL, 16384, seed=seed, stall=stall)
    run(SMALL, memory, [matmul(memory, *size, **formats) for size in sizes])


@given(
    sizes=st.tuples(*(st.integers(1, limit) for limit in (4, 9, 20, 9))),
    transposed=st.booleans(),
    formats=formats,
    stall=stalls,
    seed=seeds,
)
def test_batches_of_two_activations_are_golden(sizes, transposed, formats, stall, seed):
    memory = CardMemory(SMALL, 16384, seed=seed, stall=stall)
    if transposed:
        formats = formats | {"flags": formats["flags"] | Flag.TRANSPOSED}
    run(SMALL, memory, [batch_matmul(memory, *sizes, **formats)])


@given(
    batches=st.integers(1, 4),
    n=st.integers(1, 21),
    k=st.integers(1, 18),
    signed=st.booleans(),
    stall=stalls,
    seed=seeds,
)
def test_triangle_is_the_packed_part_below_the_diagonal(batches, n, k, signed, stall, seed):
    memory = CardMemory(SMALL, 16384, seed=seed, stall=stall)
    job = batch_matmul(
        memory, batches, n, k, n,
        flags=Flag.TRANSPOSED | Flag.TRIANGLE,
        y_format=ElementFormat.INT8 if signed else ElementFormat.UINT8,
    )  # fmt: skip
    run(SMALL, memory, [job])


@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    k=st.integers(1, 20),
    n=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    formats=formats,
    stall=stalls,
    seed=seeds,
)
def test_convolution_is_golden(size, k, n, kernel, stride, dilation, formats, stall, seed):
    pad = [
        max(0, -(-(dilation[axis] * (kernel[axis] - 1) + 1 - size[axis]) // 2)) for axis in (0, 1)
    ]
    memory = CardMemory(SMALL, 32768, seed=seed, stall=stall)
    for axis in (0, 1):
        pad[axis] += int(memory.rng.integers(0, 3))
    job = conv2d(
        memory, size, k, n, kernel=kernel, stride=stride, pad=pad, dilation=dilation, **formats
    )
    run(SMALL, memory, [job])


SHAPES = [
    (2, 2, 16), (2, 2, 64), (2, 8, 16), (8, 2, 16), (4, 16, 16), (16, 4, 32), (8, 8, 128),
    (32, 2, 32), (2, 32, 32), (64, 2, 64), (2, 64, 64),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "bus_bytes"), SHAPES)
def test_any_array_shape_and_bus_width_gives_golden_output(rows, columns, bus_bytes):
    config = TINY.replace(
        array_rows=rows, array_columns=columns, bus_bytes=bus_bytes, accumulator_rows=4,
        activation_rows=2,
    )  # fmt: skip
    memory = CardMemory(config, 65536, seed=rows + columns, stall=0.3)
    sizes = [(1, 2 * rows + 1, 2 * columns + 1), (9, rows, columns), (2, 3 * rows, 1)]
    jobs = [
        matmul(memory, *size, y_format=y) for size, y in zip(sizes, PRODUCT_FORMATS, strict=True)
    ]
    jobs += [
        batch_matmul(memory, 2, 3, rows + 1, columns + 1),
        batch_matmul(memory, 2, 5, rows + 1, 5, flags=Flag.TRANSPOSED | Flag.TRIANGLE),
        conv2d(memory, (3, 4), rows + 1, columns + 1, kernel=(2, 3), pad=(1, 1)),
    ]
    run(config, memory, jobs)


@pytest.mark.parametrize("stall", [0.0, 0.7])
def test_rows_that_return_to_their_accumulators_at_once_are_added(stall):
    memory = CardMemory(TINY, 8192, seed=1, stall=stall)
    run(TINY, memory, [matmul(memory, m, 100, 5) for m in (1, 2, 3)])


def test_multiplier_that_scales_nothing_fails_the_command_and_names_its_channel():
    memory = CardMemory(TINY, 16384)
    jobs = []
    for value, channel in [(0.0, 0), (-0.0, 6), (np.inf, 10), (-np.inf, 3), (np.nan, 8)]:
        jobs += [matmul(memory, 3, 9, 11), matmul(memory, 3, 9, 11)]
        params = memory.data[jobs[-2].values["params"] :][: 8 * 11].view("<f4")
        params[2 * 10 + 1] = np.nan
        params[2 * channel + 1] = value
        assert jobs[-2].expect(memory.data.copy()) == (Status.BAD_MULTIPLIER, channel)
        assert jobs[-1].expect(memory.data.copy()) == (Status.OK, 0)
    run(TINY, memory, jobs)


def test_what_follows_the_last_channel_is_no_multiplier():
    memory = CardMemory(TINY, 8192)
    job = matmul(memory, 3, 9, 5)
    after = job.values["params"] + 8 * 5
    memory.data[after : after + 8] = 0
    assert job.expect(memory.data.copy()) == (Status.OK, 0)
    run(TINY, memory, [job])


def test_weights_and_the_rows_they_meet_are_equally_late():
    assert TileLoader.swap_delay == Feeder.latency


def test_row_is_handed_to_memory_after_the_stated_latency():
    memory = CardMemory(TINY, 4096, latency=(2, 2))
    slow = CardMemory(TINY, 4096, latency=(40, 40))
    job = matmul(memory, 1, 4, 4)
    slow.data[:] = memory.data
    dut = MatmulEngine(TINY)
    seen = {}

    async def host(ctx):
        await put(ctx, dut.command, int.from_bytes(job.descriptor, "little"))
        await get(ctx, dut.result)

    async def watch(ctx):
        cycle = 0
        while True:
            _, _, x, y = await ctx.tick().sample(dut.x.response.valid, dut.y.request.valid)
            cycle += 1
            for name, valid in (("x", x), ("y", y)):
                if valid:
                    seen.setdefault(name, cycle)

    simulate(
        dut,
        host,
        background=[
            watch,
            slow.read_port(dut.x),
            memory.read_port(dut.w),
            memory.read_port(dut.params),
            memory.write_port(dut.y),
        ],
    )
    buffered = 1  # A row enters in the cycle after its word came.
    assert seen["y"] - seen["x"] == buffered + dut.latency


@pytest.mark.slow
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 1, 1), (1, 64, 16), (4, 32, 16), (5, 40, 12), (32, 4, 32), (16, 32, 16), (70, 9, 9)],
)
def test_cycles_are_those_of_the_array_plus_a_short_start_and_drain(m, k, n):
    memory = CardMemory(TINY, 32768, latency=(4, 4))
    dut, (taken,), activities = run(TINY, memory, [matmul(memory, m, k, n)])
    lower = dut.cycles(m, k, n)
    assert lower <= taken <= lower + START_AND_DRAIN
    assert activities[Activity.BLOCKED] == 0


@pytest.mark.slow
def test_large_layer_keeps_98_percent_of_the_array_busy():
    config = TINY.replace(accumulator_rows=64, activation_rows=16)
    memory = CardMemory(config, 32768, latency=(4, 4))
    _, (taken,), _ = run(config, memory, [matmul(memory, 64, 64, 64)])
    size = config.array_rows * config.array_columns
    assert 64 * 64 * 64 / (size * taken) >= 0.98


@pytest.mark.parametrize(
    ("slow", "waiting"),
    [
        ("x", Activity.STARVED),
        ("w", Activity.STARVED),
        ("params", Activity.STARVED),
        ("y", Activity.BLOCKED),
    ],
)
def test_activity_tells_which_side_is_slow(slow, waiting):
    memory = CardMemory(TINY, 16384, latency=(2, 2))
    job = matmul(memory, 4 if slow in ("w", "params") else 8, 8, 24)
    _, (taken,), seen = run(TINY, memory, [job], slow=slow)
    assert seen[Activity.IDLE] <= 2
    assert sum(seen.values()) == taken + seen[Activity.IDLE]
    assert seen[waiting] > 40
    assert seen[waiting] > 4 * seen[Activity.STARVED if slow == "y" else Activity.BLOCKED]
