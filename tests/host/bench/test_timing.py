"""The timing card says of every call what hardware takes for it."""

import pytest

from halfdome.hdl.config import PRESETS
from halfdome.host.bench import timing


@pytest.mark.slow
def test_no_call_is_further_off_than_the_bar():
    result = timing.measure(PRESETS["tiny"], draws=2, seed=3)
    assert result["values_equal"]
    rows = result["commands"] + result["calls"]
    assert {row["of"]: row["worst_error"] for row in rows if row["worst_error"] > timing.BAR} == {}
    assert {"LOAD", "STORE", "TRANSPOSE", "GATHER", "MATMUL", "DEPTHWISE"} <= {
        row["of"] for row in rows
    }
    assert result["worst"][0]["error"] == max(row["error"] for row in result["worst"])


@pytest.mark.slow
def test_the_same_work_is_timed_on_both_engines(monkeypatch):
    monkeypatch.setattr(timing.engines, "batches", lambda config: None)  # as without the data set
    [row] = timing.speed(PRESETS["tiny"])
    assert row["of"] == "64^3 near"
    assert row["native_cycles"] == row["timing_cycles"] > timing.ROUNDS * 64**3 / 16
    assert row["native_over_timing"] == row["native_seconds"] / row["timing_seconds"] > 1
