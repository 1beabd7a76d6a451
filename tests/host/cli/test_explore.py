"""`halfdome explore`: a table, a picture, and settings that are refused."""

import csv
import json

import pytest

from halfdome.host.explore import grid
from halfdome.host.explore.area import area_lut4
from halfdome.host.models import dlrm
from tests.system.programs import OTHER

EXPLORE = ("--samples", 12, "--batch", 6, "--cards", 2, "--config", "tiny")


@pytest.fixture
def explored(ratings, weights, monkeypatch, tmp_path):
    """Options of a short `explore`."""
    monkeypatch.setattr(dlrm, "WEIGHTS", weights)
    return ("--data", ratings, "--output", tmp_path / "grid", *EXPLORE)


def check_explored(status, text, folder, result, points):
    assert status == 0
    assert str(folder / "explore.png") in text
    assert (folder / "explore.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "explore.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["point"] for row in rows] == points
    assert len({row["config_hash"] for row in rows}) == len(points)
    named = {"seed", "halfdome_version", "total_cycles", "total_us", "median_latency_cycles"}
    assert named <= set(rows[0])
    assert len(json.loads(result.read_text())["rows"]) == len(points)
    return rows


def test_explore_writes_a_table_and_a_picture(halfdome, explored, monkeypatch, tmp_path):
    def measure(point, work, *, cards, engine, progress):
        progress(work.samples)
        return {
            "point": point.name, "config_hash": point.config.hash, "seed": 0,
            "halfdome_version": "0", "samples": work.samples, "total_us": 1.0,
            "total_cycles": 1000 // point.config.lanes, "median_latency_cycles": 9,
            "samples_per_second": 5.0, "area_lut4_equivalents": point.config.lanes,
        }  # fmt: skip

    monkeypatch.setattr(grid, "measure", measure)
    result = tmp_path / "rows.json"
    status, text, error = halfdome("explore", "--set", "lanes=4,2", *explored, "--json", result)
    check_explored(status, text, tmp_path / "grid", result, ["lanes=4", "lanes=2"])
    assert "24/24" in error  # the progress bar counts samples


@pytest.mark.slow
def test_explore_measures_a_point(halfdome, explored, tmp_path):
    result = tmp_path / "rows.json"
    design = {
        "array": f"{OTHER.array_rows}x{OTHER.array_columns}", "lanes": OTHER.lanes,
        "queue_depth": OTHER.queue_depth, "gather_cache_bytes": OTHER.gather_cache_bytes,
    }  # fmt: skip
    settings = [f"{name}={value}" for name, value in design.items()]
    options = [option for setting in settings for option in ("--set", setting)]
    status, text, _ = halfdome("explore", *options, *explored, "--json", result)
    (row,) = check_explored(status, text, tmp_path / "grid", result, [" ".join(settings)])
    assert row["mismatching_samples"] == "0"
    assert int(row["area_lut4_equivalents"]) == area_lut4(OTHER)
    assert row["config_hash"] == OTHER.hash


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lanes", "--set lanes: must be FIELD=VALUE"),
        ("lanes=4,many", "lanes=many: must be a whole number"),
        ("lanes=4,3", "lanes=3: must be a power of two"),
        ("lamps=4", "lamps: no such field; known are array, cores"),
        ("array=4", "array=4: must be ROWSxCOLUMNS"),
        ("array=4x4,64x64", "array_rows=64: one bus word must hold"),
        ("dram_preset=LPDDR4-3200,DDR1", "error: dram_preset='DDR1': unknown"),
        ("counters=16,5", "error: counters=5: every engine and every card"),
        ("max_dim=16,8", "table 0: max_dim=8: must be at least its dim=16"),
    ],
)
def test_explore_refuses_a_bad_setting_before_anything_runs(
    refused, explored, monkeypatch, setting, message
):
    monkeypatch.setattr(grid, "measure", lambda *_, **__: pytest.fail("ran"))
    refused(message, "explore", "--set", setting, *explored)


def test_explore_refuses_a_field_given_twice(refused, explored):
    refused("a field is given twice in lanes, lanes", "explore", "--set", "lanes=2",
            "--set", "lanes=4", *explored)  # fmt: skip
