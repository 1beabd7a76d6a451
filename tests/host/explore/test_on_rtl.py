"""Points on the RTL, and smaller cards in the place of those that compile too long."""

import subprocess
import time

import pytest

from halfdome.hdl.config import preset
from halfdome.host.explore import measure, on_rtl, search, workers
from halfdome.sim.rtl.cards import compiled_within, maker
from tests.host.explore import studies
from tests.host.explore.reports import row
from tests.host.explore.studies import of

LARGE = {"array": "16x16", "bus_bytes": 64, "lanes": 16, "cores": 3, "cores_sparse": 2,
         "counters": 32}  # fmt: skip
HALVES = [
    {"array_rows": 8, "array_columns": 8, "lanes": 8, "bus_bytes": 32, "cores": 1,
     "cores_sparse": 0, "counters": 32},
    {"array_rows": 4, "array_columns": 4, "lanes": 4, "bus_bytes": 16, "cores": 1,
     "cores_sparse": 0, "counters": 32},
]  # fmt: skip


@pytest.fixture
def widest(monkeypatch):
    """Measures at once; on the RTL no bus wider than `widest[0]` is compiled in time. The others
    take `widest[1]` cycles more there."""
    most = [64, 0]

    def fake(study, values):
        design = study.design(values)
        if design.engine == "timing":
            return row(values) | {"engine": "timing"}
        if design.card.bus_bytes > most[0]:
            raise ValueError(f"its card is not compiled within {study.rtl.build_s:g} s")
        return row(values) | {"latency_cycles": [100.0 + most[1]]}

    monkeypatch.setattr(measure, "measure", fake)
    monkeypatch.setattr(workers, "_processes", studies.threads)
    return most


@pytest.fixture
def compared(tmp_path):
    def compared(**said):
        made = of(parameters=LARGE, rtl={"build_s": 5}, **said)
        points = studies.run(made, tmp_path)
        [found] = on_rtl.check(made, points, search.storage_in(tmp_path), 1)
        return found

    return compared


def test_a_card_that_is_compiled_in_time_is_compared_itself(widest, compared):
    widest[1] = 3
    found = compared()
    assert (found.told, found.scaled_to, found.cycles_off) == ("", "", 3)


def test_points_without_values_are_compared_with_them(widest, compared, monkeypatch):
    measured = measure.measure

    def sooner(study, values):
        return measured(study, values) | ({} if study.values else {"latency_cycles": [99.0]})

    monkeypatch.setattr(measure, "measure", sooner)
    found = compared(values=False)
    assert (found.point.row["latency_cycles"], found.cycles_off) == ([99.0], 0)


def test_a_smaller_card_stands_for_one_that_is_not(widest, compared):
    widest[:] = 16, 0
    found = compared()
    assert found.timed.values["bus_bytes"] == 16
    assert found.told == (
        "point 0: not on the RTL itself: its card is not compiled within 5 s; checked on a card "
        f"scaled to {found.scaled_to}: error 0 cycles"
    )
    assert "array_rows=4" in found.scaled_to
    assert found.as_dict["samples_per_second_error_percent"] == 0
    widest[1] = 2
    assert compared().cycles_off == 0, "what was measured is kept"


def test_where_no_card_is_small_enough_that_is_told(widest, compared):
    widest[0] = 8
    found = compared()
    assert found.told == "point 0: not on the RTL itself: its card is not compiled within 5 s"
    assert not found.times


def test_smaller_cards_keep_the_ratios_and_end_where_a_rule_ends_them():
    made = of(parameters=LARGE)
    [values] = made.combinations()
    assert list(on_rtl.scaled(made, values)) == HALVES


def test_the_limit_is_of_the_study_and_asks_for_no_point_again():
    short, long = of(rtl={"build_s": 1}), of()
    assert short.hash == long.hash
    assert short.on_rtl().hash != long.on_rtl().hash
    assert long.on_rtl().rtl.build_s == 600
    assert of(engine="native").rtl is None


def test_a_card_that_takes_too_long_leaves_nobody_who_compiles(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path))
    begun = time.monotonic()
    assert not compiled_within(preset("default").replace(counters=61), 3)
    assert time.monotonic() - begun < 30
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert '"counters":61' not in running.stdout


def test_a_card_that_the_cache_has_is_compiled_in_time():
    [model] = maker("native", preset("tiny"), None)(1)
    model.close()
    assert compiled_within(preset("tiny"), 60)


@pytest.mark.long
def test_a_card_that_compiles_too_long_is_checked_on_half_of_it(tmp_path):
    """Half of it is the card of `tiny`, which the cache has."""
    made = of(parameters={"array": "8x8", "lanes": 8, "bus_bytes": 32, "cards": 2, "batch": 8},
              rtl={"build_s": 15})  # fmt: skip
    points = studies.run(made, tmp_path)
    [found] = on_rtl.check(made, points, search.storage_in(tmp_path), 1)
    assert found.told == (
        "point 0: not on the RTL itself: its card is not compiled within 15 s; checked on a card "
        "scaled to lanes=4 bus_bytes=16 array_rows=4 array_columns=4: error 0 cycles"
    )
    assert found.rtl.row["mismatching_samples"] == 0
