"""Tables go where they cost least, and only where they fit."""

import pytest

from host.runtime.placement import TableLoad, place


def test_costliest_tables_are_spread_first():
    tables = [TableLoad(100, 40, length) for length in (1, 30, 1, 20, 10, 1)]
    assert place(tables, 3, 1 << 20) == [2, 0, 2, 1, 2, 2]


def test_a_full_card_is_passed_over():
    tables = [TableLoad(100, 10, 5), TableLoad(100, 10, 4), TableLoad(50, 10, 3)]
    assert place(tables, 2, 1500) == [0, 1, 1]


def test_a_table_that_fits_nowhere_is_named():
    with pytest.raises(MemoryError, match="table 1 of 2000 bytes fits on none of 2 cards"):
        place([TableLoad(10, 10, 1), TableLoad(200, 10, 1)], 2, 1500)
