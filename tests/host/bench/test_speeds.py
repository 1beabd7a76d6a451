"""How fast the timing card is, measured."""

import pytest

from halfdome.hdl.config import PRESETS
from halfdome.host.bench import speeds


@pytest.mark.slow
def test_the_same_work_is_timed_on_both_engines(monkeypatch):
    monkeypatch.setattr(speeds.engines, "batches", lambda config: None)  # as without the data set
    [row] = speeds.compared(PRESETS["tiny"], side=64)
    assert row["of"] == "64^3 near"
    assert row["native_cycles"] == row["timing_cycles"] > speeds.ROUNDS * 64**3 / 16
    assert row["native_over_timing"] == row["native_seconds"] / row["timing_seconds"] > 1
    assert row["met"] == (row["native_over_timing"] >= row["bar"])


@pytest.mark.slow
def test_what_only_the_timing_card_does_is_timed(monkeypatch):
    monkeypatch.setattr(speeds, "RM2_BATCH", 6)
    monkeypatch.setattr(speeds, "RM2_ROWS", 5000)
    row = speeds._rm2()
    assert row["timing_cycles"] > 0
    assert row["met"] == (row["timing_seconds"] <= row["bar"])
    monkeypatch.setattr(speeds.ladder, "built", lambda name: "no such file")
    without = speeds._resnext()
    assert (without["missing"], without["met"]) == ("no such file", False)
    assert without.keys() == row.keys()
