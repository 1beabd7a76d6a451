"""Tables go where they cost least, and only where they fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import RowFormat
from halfdome.hdl.config import CardConfig
from halfdome.host.compiler.compile import shares
from halfdome.host.compiler.placement import (
    EVEN,
    LEAST_MOVED,
    Load,
    Placement,
    place,
    popular_first,
)

NEAR = 1 << 20


def load(cycles=1.0, rows=100, dim=4, row_format=RowFormat.INT8):
    return Load(rows, row_format, dim, cycles)


def dealt(loads, shares, capacity, small=0, kept=None, near=NEAR):
    """As tables are dealt out, before samples move."""
    placement = Placement(loads, shares, capacity)
    placement.deal(kept or {}, small, near)
    return placement


def holders(placement, count):
    """The cards that pool each table."""
    return [{t.card for t in placement.tasks if t.table == table} for table in range(count)]


def test_costliest_tables_are_spread_first():
    loads = [load(cycles) for cycles in (1, 18, 1, 20, 19, 1)]
    found = dealt(loads, shares(600, 3), 1 << 20)
    assert holders(found, 6) == [{2}, {2}, {1}, {0}, {1}, {2}]
    assert found.imbalance == pytest.approx(1)


def test_a_full_card_is_passed_over():
    loads = [load(5, 100), load(4, 100), load(3, 50)]  # 12 bytes a row
    assert holders(dealt(loads, shares(10, 2), 1800), 3) == [{0}, {1}, {1}]


def test_a_table_that_fits_nowhere_is_named():
    # A row has at least one column with its scale and bias.
    loads = [load(1, 10, 1), load(1, 400, 1)]
    with pytest.raises(MemoryError, match="table 1: 3600 bytes fit on none of 2 cards of 1500"):
        place(loads, shares(10, 2), 1500, 0, NEAR)


def test_small_tables_are_on_every_card_and_pooled_where_they_are_needed():
    found = dealt([load(1, 3), load(1, 300)], shares(7, 3), 1 << 20, 36)
    small = [task for task in found.tasks if task.table == 0]
    assert [(task.card, task.samples) for task in small] == list(enumerate(shares(7, 3)))


def test_a_table_of_more_than_a_fair_share_of_the_work_is_on_every_card():
    found = place([load(90), *[load(3)] * 3], shares(6, 3), 1 << 20, 0, NEAR)
    assert holders(found, 4)[0] == {0, 1, 2}
    assert found.imbalance == pytest.approx(1)


def test_cards_share_hot_tables_out_if_no_near_memory_holds_them_all():
    hot = [load(30, 100), load(29, 100)]  # 1200 bytes each
    loads = [*hot, *[load(10)] * 6]
    found = dealt(loads, shares(12, 6), 1 << 20, near=1200)
    assert sorted((t.table, t.card, t.samples) for t in found.tasks if t.table < 2) == [
        (0, 0, range(0, 4)), (0, 2, range(4, 8)), (0, 4, range(8, 12)),
        (1, 1, range(0, 4)), (1, 3, range(4, 8)), (1, 5, range(8, 12)),
    ]  # fmt: skip
    assert holders(dealt(loads, shares(12, 6), 1 << 20, near=2400), 2) == [set(range(6))] * 2


def test_a_hot_table_is_on_as_many_cards_as_its_work_has_shares():
    hot = [load(200, 100), load(60, 100), load(40, 100)]
    found = holders(dealt(hot, shares(12, 6), 1 << 20, near=600), 3)
    assert list(map(len, found)) == [4, 2, 1]


def test_nothing_is_copied_to_all_cards_if_others_then_have_no_room():
    loads = [load(90, 100), load(3, 10), *[load(1, 90)] * 3]  # 12 bytes a row
    assert holders(place(loads, shares(4, 2), 3500, 120, NEAR), 5)[:2] == [{0, 1}, {0, 1}]
    crowded = place(loads, shares(4, 2), 2500, 120, NEAR)
    assert {t.table for t in crowded.tasks if len(t.samples) == 4} >= {1}
    assert holders(crowded, 2)[1] == {1}


def test_a_table_of_more_than_its_share_of_memory_is_cut_by_columns():
    found = dealt([load(1, 100, 63)], shares(4, 2), 6000)  # 7100 bytes
    cut = sorted((task.columns.start, task.columns.stop, task.card) for task in found.tasks)
    assert cut == [(0, 31, 0), (31, 63, 1)]


def test_tables_stay_where_they_are_if_there_is_room():
    loads = [load(cycles) for cycles in (4, 4, 3, 2)]
    kept = {0: 2, 1: 2, 3: 0}
    found = holders(dealt(loads, shares(3, 3), 1 << 20, kept=kept), 4)
    assert found == [{2}, {2}, {0}, {0}]
    everything_on_one = dict.fromkeys(range(3), 1)
    alike = [load(3)] * 3
    crowded = holders(dealt(alike, shares(3, 3), 1300, kept=everything_on_one), 3)
    assert crowded == [{1}, {0}, {2}]


LOADS = st.lists(
    st.builds(
        Load, rows=st.integers(1, 300), row_format=st.sampled_from(RowFormat),
        dim=st.integers(1, 40), cycles=st.floats(1, 1e6), word=st.sampled_from([1, 4, 16]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@given(
    loads=LOADS, samples=st.integers(1, 40), cards=st.integers(1, 6),
    capacity=st.sampled_from([3000, 20_000, 1 << 20]), small=st.sampled_from([0, 500]),
    near=st.sampled_from([0, 2000, 1 << 20]),
    data=st.data(),
)  # fmt: skip
def test_every_sample_has_every_column_of_every_table_once(
    loads, samples, cards, capacity, small, near, data
):
    keepers = st.dictionaries(st.integers(0, len(loads) - 1), st.integers(0, cards - 1))
    try:
        found = place(loads, shares(samples, cards), capacity, small, near, data.draw(keepers))
    except MemoryError:
        assert sum(each.nbytes(range(each.dim)) for each in loads) > capacity / 2
        return
    cycles, held = np.zeros(cards), [{} for _ in range(cards)]
    pooled = [np.zeros((samples, each.dim), int) for each in loads]
    for task in found.tasks:
        each = loads[task.table]
        pooled[task.table][task.samples.start : task.samples.stop, task.columns] += 1
        assert task.columns.start % each.column_step == 0
        cycles[task.card] += (
            each.cycles * len(task.samples) / samples * len(task.columns) / each.dim
        )
        held[task.card][task.table, task.columns] = each.nbytes(task.columns)
    assert all((count == 1).all() for count in pooled)
    assert all(sum(tables.values()) <= capacity for tables in held)
    assert found.imbalance == pytest.approx(cycles.max() / cycles.mean())


@given(costs=st.lists(st.floats(1, 100), min_size=1, max_size=30), cards=st.integers(1, 6))
def test_no_card_has_much_more_to_do_than_others(costs, cards):
    """What half a difference may be, and a sample that cannot be cut."""
    samples = 64 * cards
    found = place([load(cost) for cost in costs], shares(samples, cards), 1 << 24, 0, NEAR)
    finest = max(costs) * LEAST_MOVED
    mean = sum(costs) / cards
    assert found.imbalance <= 1 + cards * max(2 * EVEN, finest / mean)


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
