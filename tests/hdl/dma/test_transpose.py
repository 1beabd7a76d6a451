"""TRANSPOSE writes columns as rows, a bus word a cycle, and touches nothing else."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.commands import TRANSPOSED_BYTES, Opcode, Status
from halfdome.hdl.descriptors import pack
from halfdome.hdl.dma.load import LoadEngine
from halfdome.hdl.dma.transpose import BlockTransposer, cycles
from halfdome.hdl.engine import Activity
from tests.bench import get, put, simulate
from tests.hdl.dma.test_engines import CONFIGS, SIZE, STALLS, TINY, Run

GAPS = st.sampled_from([0, 0, 1, 3])


def turned(config, batches, rows, columns, size, gaps=(0, 0), start=(0, 0)):
    """A TRANSPOSE from the lower half of the memory to the upper, rows so many words apart."""
    word = config.bus_bytes
    sides = {"source": (rows, columns), "destination": (columns, rows)}
    fields = {"rows": rows, "columns": columns, "batches": batches, "element_bytes": size}
    for (name, (high, wide)), gap, first in zip(sides.items(), gaps, start, strict=True):
        stride = (-(-wide * size // word) + gap) * word
        fields[name] = (SIZE // 2 if name == "destination" else 0) + first * word
        fields[f"{name}_stride"] = stride
        fields[f"{name}_batch_stride"] = high * stride
    return fields


def expected(memory, f):
    """What the memory holds afterwards."""
    after = memory.copy()
    size = f["element_bytes"]
    for batch in range(f["batches"]):
        start, end = (f[n] + batch * f[f"{n}_batch_stride"] for n in ("source", "destination"))
        for row in range(f["rows"]):
            for column in range(f["columns"]):
                element = memory[start + row * f["source_stride"] + column * size :][:size]
                after[end + column * f["destination_stride"] + row * size :][:size] = element
    return after


@st.composite
def fitting(draw, config):
    """A TRANSPOSE that fits the memory."""
    size = draw(st.sampled_from(TRANSPOSED_BYTES))
    most = {16: 100, 64: 70}[config.bus_bytes] // size
    room = SIZE // 2 - 4 * config.bus_bytes
    while True:
        rows, columns = (draw(st.integers(1, most)) for _ in range(2))
        gaps, start = draw(st.tuples(GAPS, GAPS)), draw(st.tuples(GAPS, GAPS))
        made = turned(config, draw(st.integers(1, 3)), rows, columns, size, gaps, start)
        names = ("source", "destination")
        if all(made["batches"] * made[f"{name}_batch_stride"] <= room for name in names):
            return made


@CONFIGS
@example(data=None, seed=0, stall=0.0)
@given(data=st.data(), seed=st.integers(0, 2**16), stall=STALLS)
def test_columns_become_rows_and_nothing_else_is_written(config, data, seed, stall):
    shapes = ((2, 70, 5, 1), (1, 1, 65, 1), (3, 17, 18, 4), (1, 66, 33, 2))
    moves = (
        [turned(config, *shape) for shape in shapes if config is TINY or shape[1] < 60]
        if data is None
        else [data.draw(fitting(config)) for _ in range(2)]
    )
    run = Run(LoadEngine(config), config, seed=seed, stall=stall)
    memory = run.memory.data
    for move in moves:
        memory = expected(memory, move)
    run(*(pack(Opcode.TRANSPOSE, **move) for move in moves))
    assert run.results == [(Status.OK, 0)] * len(moves)
    np.testing.assert_array_equal(run.memory.data, memory)


def test_other_moves_before_and_after_one_are_as_ever():
    move = turned(TINY, 1, 40, 50, 1)
    copy = {"rows": 3, "row_bytes": 16, "source": 0, "destination": 0x3F00,
            "source_stride": 16, "destination_stride": 16}  # fmt: skip
    run = Run(LoadEngine(TINY), TINY, seed=5, stall=0.3)
    memory = expected(run.memory.data, move)
    memory[0x3F00:0x3F30] = memory[:0x30]
    raw = pack(Opcode.COPY, **copy)
    run(raw, pack(Opcode.TRANSPOSE, **move), raw)
    np.testing.assert_array_equal(run.memory.data, memory)


def test_a_row_that_looks_like_one_that_touches_the_next_is_not_joined_to_it():
    """What other moves have for strides and bytes of a row are other fields here."""
    move = turned(TINY, 1, 16, 16, 1) | {"source_batch_stride": 0, "destination_batch_stride": 0}
    run = Run(LoadEngine(TINY), TINY)
    memory = expected(run.memory.data, move)
    run(pack(Opcode.TRANSPOSE, **move))
    np.testing.assert_array_equal(run.memory.data, memory)


@pytest.mark.parametrize(
    ("batches", "rows", "columns", "size"),
    [(1, 64, 64, 1), (1, 128, 60, 1), (1, 100, 3, 1), (1, 3, 100, 1), (3, 16, 16, 4), (9, 8, 8, 1)],
)
def test_words_stream_in_the_stated_cycles(batches, rows, columns, size):
    run = Run(LoadEngine(TINY), TINY, latency=(20, 20))
    run(pack(Opcode.TRANSPOSE, **turned(TINY, batches, rows, columns, size)))
    taken = sum(activity != Activity.IDLE for activity in run.activity)
    stated = cycles(TINY, batches, rows, columns, size)
    beside = 20 + 20 + LoadEngine.transpose_latency + 12
    assert stated <= taken <= stated + beside


def test_latency_is_as_stated():
    dut = BlockTransposer(TINY)
    seen = {}

    async def drive(ctx):
        await put(ctx, dut.block, {"rows": 2, "columns": 3})
        for _ in range(5):
            await ctx.tick()
        await put(ctx, dut.i, 0x030201)
        await put(ctx, dut.i, 0x131211)

    async def watch(ctx):
        cycle = 0
        while "out" not in seen:
            _, _, i_taken, o_valid = await ctx.tick().sample(dut.i.valid & dut.i.ready, dut.o.valid)
            if i_taken:
                seen["in"] = cycle
            if o_valid:
                seen["out"] = cycle
            cycle += 1

    async def take(ctx):
        assert [(await get(ctx, dut.o)) & 0xFFFF for _ in range(3)] == [0x1101, 0x1202, 0x1303]

    simulate(dut, drive, watch, take)
    assert seen["out"] - seen["in"] == BlockTransposer.latency


@pytest.mark.parametrize(
    ("latency", "stall", "expects"),
    [(1, 0.0, Activity.BUSY), (200, 0.0, Activity.STARVED)],
)
def test_activity_tells_which_side_is_slow(latency, stall, expects):
    run = Run(LoadEngine(TINY), TINY, stall=stall, latency=(latency, latency))
    run(pack(Opcode.TRANSPOSE, **turned(TINY, 1, 64, 64, 1)))
    working = [activity for activity in run.activity if activity != Activity.IDLE]
    assert max(set(working), key=working.count) == expects
