"""MatmulEngine computes what the golden model computes, and keeps the array busy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import PRODUCT_FORMATS, ElementFormat, Flag, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import Activity
from halfdome.hdl.matmul.engine import MatmulEngine
from halfdome.hdl.matmul.feeder import Feeder
from halfdome.hdl.matmul.weights import TileLoader
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


def convolution(memory, size, k, n, kernel, stride, dilation, **formats):
    """At least as much padding as the kernel needs."""
    pad = []
    for side, taps, step in zip(size, kernel, dilation, strict=True):
        least = max(0, -(-(step * (taps - 1) + 1 - side) // 2))
        pad.append(least + int(memory.rng.integers(0, 3)))
    return conv2d(
        memory, size, k, n, kernel=kernel, stride=stride, pad=pad, dilation=dilation, **formats
    )


def triangle(memory, batches, k, n, **formats):
    flags = formats.pop("flags") | Flag.TRANSPOSED | Flag.TRIANGLE
    if formats["y_format"] == ElementFormat.INT32:
        formats["y_format"] = ElementFormat.INT8
    return batch_matmul(memory, batches, n, k, n, flags=flags, **formats)


def transposed(memory, *sizes, **formats):
    return batch_matmul(memory, *sizes, **formats | {"flags": formats["flags"] | Flag.TRANSPOSED})


def up_to(*limits):
    return st.tuples(*(st.integers(1, limit) for limit in limits))


commands = st.one_of(
    st.tuples(st.just(matmul), up_to(18, 13, 10)),
    st.tuples(st.just(batch_matmul), up_to(3, 9, 12, 9)),
    st.tuples(st.just(transposed), up_to(3, 9, 12, 9)),
    st.tuples(st.just(triangle), up_to(3, 18, 13)),
    st.tuples(
        st.just(convolution),
        st.tuples(
            up_to(5, 6),
            st.integers(1, 20),
            st.integers(1, 9),
            up_to(3, 3),
            up_to(3, 3),
            up_to(2, 2),
        ),
    ),
)


@given(
    jobs=st.lists(st.tuples(commands, formats), min_size=1, max_size=3),
    array=st.tuples(*[st.sampled_from([2, 4])] * 2),
    stall=stalls,
    seed=seeds,
)
def test_products_are_golden_whatever_the_sizes_and_stalls(jobs, array, stall, seed):
    config = SMALL.replace(array_rows=array[0], array_columns=array[1])
    memory = CardMemory(config, 65536, seed=seed, stall=stall)
    run(config, memory, [make(memory, *sizes, **how) for (make, sizes), how in jobs])


# (array, tiles held at once, bus): a group is a line, a part of one, or several of its words.
SQUARES = [(4, 16, 16), (4, 4, 16), (4, 32, 16), (8, 4, 32)]


@given(
    size=up_to(2, 3), channels=st.integers(1, 70), kernel=up_to(2, 2), stride=up_to(2, 2),
    how=formats, square=st.sampled_from(SQUARES), stall=stalls, seed=seeds,
)  # fmt: skip
def test_tiles_of_outputs_see_their_own_channels_alone(
    size, channels, kernel, stride, how, square, stall, seed
):
    array, tiles, bus_bytes = square
    config = with_array(array, array, bus_bytes, tiles)
    memory = CardMemory(config, 1 << 15, seed=seed, stall=stall)
    how |= {"flags": how["flags"] | Flag.DIAGONAL}
    shape = channels, channels, kernel, stride, (1, 1)
    dense = convolution(memory, (1, 2), 9, 5, (1, 1), (1, 1), (1, 1))
    run(config, memory, [convolution(memory, size, *shape, **how), dense])


SHAPES = [(2, 2, 16), (8, 2, 16), (16, 4, 32), (8, 8, 128), (64, 2, 64)]


def with_array(rows, columns, bus_bytes, tiles=2):
    return TINY.replace(
        array_rows=rows, array_columns=columns, bus_bytes=bus_bytes, accumulator_rows=2 * tiles,
        activation_rows=2,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "bus_bytes"), SHAPES)
def test_any_array_shape_and_bus_width_gives_golden_output(rows, columns, bus_bytes):
    config = with_array(rows, columns, bus_bytes)
    memory = CardMemory(config, 65536, seed=rows + columns)
    one_more = rows + 1, columns + 1
    jobs = [
        matmul(memory, 3, 2 * rows + 1, columns + 1, y_format=ElementFormat.INT8),
        batch_matmul(memory, 2, 3, *one_more, y_format=ElementFormat.INT32),
        batch_matmul(memory, 1, 3, rows + 1, 3, flags=Flag.TRANSPOSED | Flag.TRIANGLE),
        conv2d(memory, (2, 3), *one_more, kernel=(1, 2), pad=(0, 1)),
    ]
    run(config, memory, jobs)


@pytest.mark.slow
def test_largest_array_gives_golden_output():
    config = with_array(64, 64, 64)
    memory = CardMemory(config, 32768)
    run(config, memory, [matmul(memory, 2, 66, 65)])


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


def test_activations_of_one_line_are_read_once_and_short_rows_together():
    memory = CardMemory(TINY, 16384)
    rows = 2 * TINY.activation_rows
    job = matmul(memory, rows, TINY.bus_bytes, 3 * TINY.group_tiles * TINY.array_columns)
    job.values["x_stride"] = TINY.bus_bytes
    first, end = job.values["x"], job.values["x"] + rows * TINY.bus_bytes
    run(TINY, memory, [job])
    reads = [read for read in memory.reads if first <= read[0] < end]
    assert sum(words for _, words in reads) == rows
    lines = {address // TINY.line_bytes for address in range(first, end, TINY.bus_bytes)}
    assert len(reads) <= len(lines) + 1, "a block may begin within a line"


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
    [(1, 1, 1), (1, 64, 16), (5, 40, 12), (33, 33, 33)],
)
def test_cycles_are_those_of_the_array_plus_a_short_start_and_drain(m, k, n):
    memory = CardMemory(TINY, 32768, latency=(4, 4))
    dut, (taken,), activities = run(TINY, memory, [matmul(memory, m, k, n)])
    lower = dut.cycles(m, k, n)
    assert lower <= taken <= lower + START_AND_DRAIN
    assert activities[Activity.BLOCKED] == 0


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
