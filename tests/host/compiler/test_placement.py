"""Tables go where they cost least, and only where they fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import CardConfig
from halfdome.host.compiler.placement import TableLoad, place, popular_first


def test_costliest_tables_are_spread_first():
    tables = [TableLoad(100, 40, length) for length in (1, 30, 1, 20, 10, 1)]
    assert place(tables, 3, 1 << 20) == [2, 0, 2, 1, 2, 2]


def test_a_full_card_is_passed_over():
    tables = [TableLoad(100, 10, 5), TableLoad(100, 10, 4), TableLoad(50, 10, 3)]
    assert place(tables, 2, 1500) == [0, 1, 1]


def test_a_table_that_fits_nowhere_is_named():
    with pytest.raises(MemoryError, match="table 1 of 2000 bytes fits on none of 2 cards"):
        place([TableLoad(10, 10, 1), TableLoad(200, 10, 1)], 2, 1500)


@given(
    seed=st.integers(0, 1 << 30),
    rows=st.integers(0, 400),
    stride=st.sampled_from([24, 64, 72, 4096]),
    channels=st.sampled_from([1, 4]),
)
def test_every_row_has_a_place_of_its_own(seed, rows, stride, channels):
    counts = np.random.default_rng(seed).geometric(0.4, rows) - 1
    place = popular_first(counts, stride, CardConfig(dram_channels=channels))
    assert sorted(place) == list(range(rows))
    popular = counts > 1
    assert (place[popular] < popular.sum()).all()
    assert (np.diff(place[~popular]) > 0).all()  # the others keep their order


def test_popular_rows_are_dealt_to_banks_and_channels():
    config = CardConfig(dram_channels=2)
    counts = np.arange(4000)  # the last row is the most popular
    place = popular_first(counts, 64, config)
    address = place * 64
    channel, bank = address // 64 % 2, address // 64 // 2 // 64 % 8
    groups = (channel * 8 + bank)[::-1]
    # 4000 lines are 31 pages of two channels: every bank of both has several.
    for turn in range(20):
        assert sorted(groups[16 * turn : 16 * turn + 16]) == list(range(16))


def test_where_banks_are_far_apart_popular_rows_share_one():
    config = CardConfig(dram_mapping="bank-row-column-channel")
    counts = np.array([5, 1, 9, 7, 1])
    assert popular_first(counts, 64, config).tolist() == [2, 3, 0, 1, 4]
