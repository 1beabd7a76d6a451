"""RowWriter puts every output where it belongs, and gives DRAM whole lines."""

import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import PRESETS
from halfdome.hdl.matmul.writer import RowWriter, span_bytes
from tests.bench import Memory, monitor, simulate

TINY = PRESETS["tiny"]
DELAY = 9
BASE = 4096
LANDING = 9
"""Cycles after which every write that `Memory` took is in it."""


def config_of(columns, bus_bytes, group_tiles, rows=8):
    return TINY.replace(
        array_columns=columns, bus_bytes=bus_bytes, activation_rows=rows,
        accumulator_rows=rows * group_tiles,
    )  # fmt: skip


class Outputs:
    """Blocks of rows by groups of tiles, as they come, and the bytes that must be in memory."""

    def __init__(
        self, config, *, rows, n, seed, y_format=ElementFormat.UINT8, triangle=False,
        scratchpad=False, aligned=False,
    ):  # fmt: skip
        self.config = config
        self.int32 = y_format == ElementFormat.INT32
        self.item = item = 4 if self.int32 else 1
        rng = np.random.default_rng(seed)
        word = config.bus_bytes
        if triangle:
            n = rows
        row_bytes = n * item
        unit = 64 if aligned else word
        stride = unit * (-(-row_bytes // unit) + int(rng.integers(0, 3)))
        self.base = config.scratchpad_base if scratchpad else BASE
        y = self.base + unit * int(rng.integers(1, 5))
        if triangle:
            y += int(rng.integers(0, word))
        self.job = {"y": y, "y_stride": stride, "y_format": y_format, "triangle": triangle}
        self.values = rng.integers(0, 256, (rows, row_bytes), np.uint8)
        self.memory = np.zeros(64 * 1024, np.uint8)
        number = np.arange(rows)
        starts = number * (number - 1) // 2 if triangle else number * stride
        for row, (start, value) in enumerate(zip(starts, self.values, strict=True)):
            count = row if triangle else row_bytes
            at = y - self.base + start
            self.memory[at : at + count] = value[:count]
        self.tiles = []
        columns = config.array_columns
        group = config.group_tiles * columns
        for top in range(0, rows, config.activation_rows):
            for first in range(0, n, group):
                for left in range(first, min(first + group, n), columns):
                    self.tiles.append(
                        {
                            "address": y + int(starts[top]) + left * item,
                            "rows": min(config.activation_rows, rows - top),
                            "columns": min(columns, n - left),
                            "top": top,
                            "left": left,
                            "last": left + columns >= min(first + group, n),
                        }
                    )

    def row(self, tile, row):
        """What comes: noise beyond the tile's columns."""
        raw = self.values[tile["top"] + row, tile["left"] * self.item :]
        raw = raw[: tile["columns"] * self.item]
        whole = np.full(self.config.array_columns * self.item, 0xA5, np.uint8)
        whole[: raw.size] = raw
        return whole.view(np.int32 if self.int32 else np.uint8).tolist()


def write(config, outputs, *, stall=0.0, pause=0.0, seed=0):
    """Runs the writer over `outputs`; tiles wait at random with probability `pause`.

    Returns the memory, for each word that it took the cycles since the latest row, and the cycles
    in which a tile waited for room.
    """
    dut = RowWriter(config, DELAY, tiles=16)
    memory = Memory(config, len(outputs.memory), base=outputs.base, stall=stall, seed=seed)
    rng = random.Random(seed)
    coming = []  # (cycle, tile, row)
    waited = 0
    ages = []

    async def host(ctx):
        nonlocal waited
        ctx.set(dut.job, outputs.job)
        cycle = 0
        for tile in outputs.tiles:
            while rng.random() < pause:
                await ctx.tick()
                cycle += 1
            ctx.set(dut.tile, tile)
            while not ctx.get(dut.room):
                waited += 1
                await ctx.tick()
                cycle += 1
            for row in range(tile["rows"]):
                ctx.set(dut.announce, row == 0)
                coming.append((cycle + DELAY, tile, row))
                await ctx.tick()
                cycle += 1
                ctx.set(dut.announce, 0)
        while coming or not ctx.get(dut.empty):
            await ctx.tick()
        for _ in range(LANDING):
            await ctx.tick()
        assert not ctx.get(dut.port.request.valid)

    async def pipeline(ctx):
        cycle = 0
        while True:
            if coming and coming[0][0] == cycle:
                _, tile, row = coming.pop(0)
                ctx.set(dut.valid, 1)
                ctx.set(dut.start, row == 0)
                ctx.set(dut.totals if outputs.int32 else dut.requantised, outputs.row(tile, row))
                last = cycle
            else:
                ctx.set(dut.valid, 0)
            _, _, accepted = await ctx.tick().sample(
                dut.port.request.valid & dut.port.request.ready
            )
            if accepted:
                ages.append(cycle - last)
            cycle += 1

    simulate(
        dut,
        host,
        background=[
            pipeline,
            memory.write_port(dut.port),
            monitor(dut.port.request, "port"),
        ],
    )
    return memory, ages, waited


outputs = st.fixed_dictionaries(
    {
        "y_format": st.sampled_from([ElementFormat.UINT8, ElementFormat.INT32]),
        "triangle": st.booleans(),
        "scratchpad": st.booleans(),
        "rows": st.integers(1, 20),
        "n": st.integers(1, 140),
        "seed": st.integers(0, 2**16),
    }
).filter(lambda o: not (o["triangle"] and o["y_format"] == ElementFormat.INT32))


def triangle_of(rows):
    return {
        "y_format": ElementFormat.UINT8, "triangle": True, "scratchpad": False, "rows": rows,
        "n": rows, "seed": 0,
    }  # fmt: skip


@example(shape=(4, 16, 4), what=triangle_of(1), stall=0.0, pause=0.0)  # nothing to write
@example(shape=(4, 16, 4), what=triangle_of(20), stall=0.0, pause=0.0)
@given(
    shape=st.sampled_from([(2, 16, 1), (4, 16, 4), (4, 16, 32), (8, 16, 4), (16, 32, 4)]),
    what=outputs,
    stall=st.sampled_from([0.0, 0.6]),
    pause=st.sampled_from([0.0, 0.9]),
)
def test_every_output_arrives_and_nothing_else_is_touched(shape, what, stall, pause):
    config = config_of(*shape)
    wanted = Outputs(config, **what)
    memory, _, _ = write(config, wanted, stall=stall, pause=pause, seed=what["seed"])
    np.testing.assert_array_equal(memory.data, wanted.memory)
    size = sum(strobe.bit_count() for _, strobe in memory.writes)
    rows, n = what["rows"], what["n"] * wanted.item
    assert size == (rows * (rows - 1) // 2 if what["triangle"] else rows * n), "written twice"


@pytest.mark.parametrize(("columns", "bus_bytes"), [(4, 16), (16, 32), (8, 64)])
def test_dram_takes_each_line_of_an_aligned_output_at_once(columns, bus_bytes):
    config = config_of(columns, bus_bytes, group_tiles=128 // columns)
    wanted = Outputs(config, rows=8, n=128, seed=0, aligned=True)
    memory, _, _ = write(config, wanted)
    lines = [address // 64 for address, _ in memory.writes]
    words = 64 // bus_bytes
    assert all(strobe == (1 << bus_bytes) - 1 for _, strobe in memory.writes)
    assert [len(set(lines[i : i + words])) for i in range(0, len(lines), words)] == [1] * 16
    assert len(set(lines)) == 16


def test_scratchpad_takes_each_row_of_a_tile_when_it_comes():
    config = config_of(16, 32, 4)
    wanted = Outputs(config, rows=20, n=64, seed=1, scratchpad=True)
    memory, ages, waited = write(config, wanted)
    assert len(memory.writes) == sum(tile["rows"] for tile in wanted.tiles)
    assert ages[-1] == RowWriter.latency
    assert waited == 0


def test_memory_that_takes_every_word_never_holds_up_a_tile():
    config = config_of(16, 32, 4)
    wanted = Outputs(config, rows=32, n=256, seed=2)
    _, _, waited = write(config, wanted)
    assert waited == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_span_is_a_line_and_holds_a_row_of_int32(preset):
    config = PRESETS[preset]
    size = span_bytes(config)
    assert size >= 4 * config.array_columns
    assert size % config.line_bytes == 0 or size == config.group_tiles * config.array_columns
