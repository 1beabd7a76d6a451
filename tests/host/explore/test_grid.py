"""Grids of configurations: every combination once, the front that nothing beats."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import ConfigError, preset
from halfdome.host.explore import grid

TINY = preset("tiny")
ROW = st.builds(
    lambda number, area, cycles: {
        "point": str(number), "area_lut4_equivalents": area, "total_cycles": cycles,
    },
    st.integers(), st.integers(1, 20), st.integers(1, 20),
)  # fmt: skip


def test_every_combination_comes_once_and_in_order():
    found = grid.points(TINY, ["array=4x4,2x8", "lanes=1,2", "dram_preset=LPDDR4-4266"])
    assert [point.name for point in found] == [
        f"array={array} lanes={lanes} dram_preset=LPDDR4-4266"
        for array in ("4x4", "2x8")
        for lanes in (1, 2)
    ]
    assert found[3].config == TINY.replace(
        array_rows=2, array_columns=8, lanes=2, dram_preset="LPDDR4-4266"
    )


def test_a_setting_of_the_base_keeps_its_hash():
    (point,) = grid.points(TINY, ["lanes=4"])
    assert point.config.hash == TINY.hash


def test_no_settings_are_the_base_alone():
    assert [point.config for point in grid.points(TINY, [])] == [TINY]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["lanes="], "must be FIELD=VALUE"),
        (["lanes=-2"], "lanes=-2: must be 1 to 64"),
        (["array=axb"], "array=axb: must be ROWSxCOLUMNS"),
        (["=3"], ": no such field"),
        (["lanes=2", "lanes=4"], "given twice in lanes, lanes"),
        (["array=4x4", "array_rows=2"], "array: sets array_rows and array_columns too"),
        (["lanes=4,4"], "lanes=4: the value is given twice"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        grid.points(TINY, settings)


def beats(a, b):
    """Whether `a` is at least as good as `b` in both and better in one."""
    first, second = ((row["area_lut4_equivalents"], row["total_cycles"]) for row in (a, b))
    return first != second and first[0] <= second[0] and first[1] <= second[1]


@given(st.lists(ROW, min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(rows):
    front = grid.pareto(rows)
    for row in rows:
        beaten = any(beats(other, row) for other in rows)
        places = [(r["area_lut4_equivalents"], r["total_cycles"]) for r in front]
        assert ((row["area_lut4_equivalents"], row["total_cycles"]) in places) == (not beaten)
    areas = [row["area_lut4_equivalents"] for row in front]
    assert areas == sorted(set(areas))


def test_a_csv_holds_the_rows_under_their_names(tmp_path):
    grid.write_csv(tmp_path / "rows.csv", [{"a_us": 1, "b": "x, y"}, {"a_us": 2, "b": "z"}])
    with (tmp_path / "rows.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"a_us": "1", "b": "x, y"}, {"a_us": "2", "b": "z"}]
