"""SystolicArray multiplies exactly, swaps tiles without a gap, and keeps its stated latency."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdl.matmul.array import SystolicArray
from tests.bench import simulate

SHAPES = [(2, 2), (4, 4), (2, 8), (8, 2), (4, 16), (3, 1)]


def play(dut, x, swaps, tiles, offers):
    """The sums of every cycle: activations `x`, swaps and tile rows in the cycles given."""
    sums = []

    async def bench(ctx):
        for cycle in range(len(x) + dut.latency):
            ctx.set(dut.x, [int(v) for v in x[cycle]] if cycle < len(x) else [0] * dut.rows)
            ctx.set(dut.swap, cycle in swaps)
            tile, row = offers.get(cycle, (0, 0))
            ctx.set(dut.w_valid, cycle in offers)
            ctx.set(dut.w_row, row)
            ctx.set(dut.w, [int(v) for v in tiles[tile][row]])
            if cycle >= dut.latency:
                sums.append([ctx.get(dut.y[c]) for c in range(dut.columns)])
            await ctx.tick()

    simulate(dut, bench)
    return np.array(sums)


def offer_cycles(dut, swaps, rng):
    """When each tile row is offered: as early or as late as the array allows, at random."""
    offers = {}
    for tile, swap in enumerate(swaps):
        previous = swaps[tile - 1] if tile else 0
        late = rng.random() < 0.5
        for row in range(dut.rows):
            earliest = previous + row - dut.load_lead + 1
            cycle = swap + row - dut.load_lead if late else max(earliest, 0)
            while cycle in offers:
                cycle += 1
            assert cycle <= swap + row - dut.load_lead
            offers[cycle] = tile, row
    return offers


@given(
    shape=st.sampled_from(SHAPES),
    extra=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    extreme=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_every_row_meets_the_tile_of_its_pass(shape, extra, extreme, seed):
    dut = SystolicArray(rows=shape[0], columns=shape[1])
    rng = np.random.default_rng(seed)
    lengths = [dut.rows + more for more in extra]
    swaps = [dut.rows + dut.load_lead + sum(lengths[:i]) for i in range(len(lengths))]
    cycles = swaps[-1] + lengths[-1]
    if extreme:
        x = rng.choice(np.array([0, 255]), (cycles, dut.rows))
        tiles = rng.choice(np.array([-128, 127]), (len(swaps), *shape))
    else:
        x = rng.integers(0, 256, (cycles, dut.rows))
        tiles = rng.integers(-128, 128, (len(swaps), *shape))
    sums = play(dut, x, set(swaps), tiles, offer_cycles(dut, swaps, random.Random(seed)))
    for swap, length, tile in zip(swaps, lengths, tiles, strict=True):
        rows = slice(swap, swap + length)
        np.testing.assert_array_equal(sums[rows], x[rows] @ tile)


def test_largest_sums_do_not_wrap():
    dut = SystolicArray(rows=8, columns=2)
    x = np.full((20, 8), 255)
    tiles = np.broadcast_to([-128, 127], (1, 8, 2))
    sums = play(dut, x, {12}, tiles, {row: (0, row) for row in range(8)})
    np.testing.assert_array_equal(sums[12:], np.broadcast_to([-261120, 259080], (8, 2)))


def test_one_row_is_no_systolic_array():
    with pytest.raises(ValueError, match=r"rows=1, columns=4: at least 2 rows and 1 column"):
        SystolicArray(rows=1, columns=4)
