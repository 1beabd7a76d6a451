"""SystolicArray multiplies exactly, swaps tiles without a gap, and keeps its stated latency."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.matmul.array import SystolicArray
from tests.bench import simulate

SHAPES = [(2, 2, 1), (4, 4, 2), (2, 8, 2), (8, 2, 2), (4, 16, 1), (3, 1, 1), (6, 2, 3)]


def play(dut, x, swaps, tiles, offers, bubbles=()):
    """The sums of every cycle: activations `x`, swaps and stages of tiles in the cycles given.

    In the cycles of `bubbles` nothing is offered, whatever lies on `x` and `swap`.
    """
    sums = []

    async def bench(ctx):
        for cycle in range(len(x) + dut.latency):
            ctx.set(dut.x, [int(v) for v in x[cycle]] if cycle < len(x) else [0] * dut.rows)
            ctx.set(dut.valid, cycle < len(x) and cycle not in bubbles)
            ctx.set(dut.swap, cycle in swaps or cycle in bubbles)
            tile, stage = offers.get(cycle, (0, 0))
            ctx.set(dut.w_valid, cycle in offers)
            ctx.set(dut.w_stage, stage)
            first = stage * dut.rows_per_stage
            ctx.set(dut.w, tiles[tile][first : first + dut.rows_per_stage].tolist())
            if cycle >= dut.latency:
                sums.append([ctx.get(dut.y[c]) for c in range(dut.columns)])
            await ctx.tick()

    simulate(dut, bench)
    return np.array(sums)


def offer_cycles(dut, swaps, rng):
    """When each stage is offered: as early or as late as the array allows, at random."""
    offers = {}
    for tile, swap in enumerate(swaps):
        previous = swaps[tile - 1] if tile else 0
        late = rng.random() < 0.5
        for stage in range(dut.stages):
            earliest = previous + stage - dut.load_lead + 1
            cycle = swap + stage - dut.load_lead if late else max(earliest, 0)
            while cycle in offers:
                cycle += 1
            assert cycle <= swap + stage - dut.load_lead
            offers[cycle] = tile, stage
    return offers


@given(
    shape=st.sampled_from(SHAPES),
    extra=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    extreme=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_every_row_meets_the_tile_of_its_pass(shape, extra, extreme, seed):
    dut = SystolicArray(rows=shape[0], columns=shape[1], rows_per_stage=shape[2])
    rng = np.random.default_rng(seed)
    lengths = [dut.stages + more for more in extra]
    swaps = [dut.stages + dut.load_lead + sum(lengths[:i]) for i in range(len(lengths))]
    cycles = swaps[-1] + lengths[-1]
    if extreme:
        x = rng.choice(np.array([-255, 255]), (cycles, dut.rows))
        tiles = rng.choice(np.array([-255, 255]), (len(swaps), *shape[:2]))
    else:
        x = rng.integers(-255, 256, (cycles, dut.rows))
        tiles = rng.integers(-255, 256, (len(swaps), *shape[:2]))
    bubbles = {int(c) for c in rng.integers(0, cycles, 4)} - set(swaps)
    offers = offer_cycles(dut, swaps, random.Random(seed))
    sums = play(dut, x, set(swaps), tiles, offers, bubbles)
    for swap, length, tile in zip(swaps, lengths, tiles, strict=True):
        rows = [cycle for cycle in range(swap, swap + length) if cycle not in bubbles]
        np.testing.assert_array_equal(sums[rows], x[rows] @ tile)


def test_largest_sums_do_not_wrap():
    dut = SystolicArray(rows=8, columns=2)
    x = np.full((20, 8), 255)
    tiles = np.broadcast_to([-255, 255], (1, 8, 2))
    sums = play(dut, x, {12}, tiles, {stage: (0, stage) for stage in range(8)})
    np.testing.assert_array_equal(sums[12:], np.broadcast_to([-520200, 520200], (8, 2)))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"rows": 1, "columns": 4}, "rows=1, columns=4: at least 2 rows and 1 column"),
        ({"rows": 4, "columns": 4, "rows_per_stage": 3}, "rows_per_stage=3: must divide rows=4"),
    ],
)
def test_sizes_that_make_no_array_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        SystolicArray(**sizes)
