"""The gather engine pools bags bit for bit, whatever the shapes, formats and stalls."""

from itertools import cycle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import POOLED_FORMATS, IndexMode, RowFormat, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.engine import Activity
from tests.hdl.gather.harness import Gather, make_table, plain, run

TINY = PRESETS["tiny"]
DEFAULT = PRESETS["default"]


@st.composite
def gathers(draw, max_dim=17, max_bags=5, max_length=5):
    """A command without a fault, unless its mode forgives bad indices."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(st.integers(1, max_dim))
    row_format = draw(st.sampled_from(RowFormat))
    mode = draw(st.sampled_from(IndexMode))
    rows = draw(st.integers(1, 30))
    lengths = draw(st.lists(st.integers(0, max_length), max_size=max_bags))
    count = sum(lengths)
    indices = rng.integers(0, rows, count)
    pruned = draw(st.booleans())
    if pruned:
        indices = np.where(rng.random(count) < 0.2, -1, indices)
    if mode != IndexMode.FATAL:
        bad = rng.choice([-1, rows, 2**31 - 1, -(2**31)], count)
        indices = np.where(rng.random(count) < 0.3, bad, indices)
    weights = None
    if draw(st.booleans()):
        weights = rng.standard_normal(count).astype(np.float32)
    return Gather(
        table=make_table(
            rng, rows, dim, row_format, draw(st.integers(0, 9)), special=draw(st.booleans())
        ),
        indices=indices,
        lengths=np.array(lengths, np.int64),
        dim=dim,
        row_format=row_format,
        weights=weights,
        mode=mode,
        offset=draw(st.integers(0, TINY.bus_bytes - 1)),
        output_offset=draw(st.integers(0, TINY.bus_bytes - 1)),
        output_padding=draw(st.integers(0, 2 * TINY.bus_bytes)),
        output_format=draw(st.sampled_from(POOLED_FORMATS)),
        multiplier=draw(st.sampled_from([0.0, 0.37, -12.5])),
        zero_point=draw(st.integers(0, 255)),
        mean=draw(st.booleans()),
        wide=draw(st.booleans()),
        pruned=pruned,
        offsets=np.cumsum([0, *lengths[:-1]]) if lengths and draw(st.booleans()) else None,
    )


@given(
    commands=st.lists(gathers(), min_size=1, max_size=2),
    lanes=st.sampled_from([1, TINY.lanes]),
    stall=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_bags_are_pooled_bit_for_bit(commands, lanes, stall, seed):
    run(TINY.replace(lanes=lanes), commands, seed=seed, stall=stall)


@pytest.mark.slow
def test_the_longest_rows_fit():
    commands = [
        plain(dim=dim, row_format=row_format, lengths=(2, 0, 1), rows=4, offset=13)
        for row_format, dim in zip(RowFormat, cycle((TINY.max_dim, TINY.max_dim - 1)), strict=False)
    ]
    run(TINY, commands)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bus_bytes", "lanes", "stages"), [(16, 1, 2), (16, 32, 1), (32, 4, 2), (128, 8, 1)]
)
def test_every_ratio_of_lanes_to_bus(bus_bytes, lanes, stages):
    config = TINY.replace(bus_bytes=bus_bytes, lanes=lanes, gather_float_stages=stages)
    commands = [
        plain(dim=dim, row_format=row_format, lengths=(2, 0, 1), rows=5, offset=bus_bytes - 3)
        for row_format in (RowFormat.INT4, RowFormat.INT8, RowFormat.FLOAT32)
        for dim in (1, lanes + 1 if lanes > 8 else 67)
    ]
    run(config, commands, stall=0.1)


@pytest.mark.slow
def test_the_default_card_takes_four_cycles_for_a_row_of_64():
    bags = 8
    commands = [
        plain(dim=64, lengths=(4,) * bags),
        plain(dim=64, lengths=(4,) * 2 * bags),
        plain(dim=64, lengths=(5, 0, 1), row_format=RowFormat.INT4, weights=None, offset=31),
        plain(dim=37, lengths=(2, 3), row_format=RowFormat.INT4),
    ]
    few, many, *_ = run(DEFAULT, commands, latency=(1, 1))
    assert DEFAULT.lanes == 16
    assert many.cycles - few.cycles == bags * 4 * 64 // 16


def test_the_same_command_takes_the_same_time_again():
    command = plain(lengths=(3, 0, 1))
    first, none, second = run(TINY, [command, plain(lengths=()), command], latency=(3, 3))
    assert first == second
    assert none.status == Status.OK
    assert first.activity[Activity.IDLE] == 1  # the cycle in which the command is taken
