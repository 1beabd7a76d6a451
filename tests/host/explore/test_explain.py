"""Why a point is as fast as it is, from what was measured of it and of its neighbours."""

import pytest

from halfdome.host.explore import explain, search
from tests.host.explore import studies

STUDY = studies.of(parameters={"array": ["4x4", "4x8"], "lanes": 4, "uplink_lanes": 16})


def row(values):
    """A card whose gather unit binds: more lanes are faster."""
    shares = {"gather": 0.9, "matmul": 0.3, "dram": 0.2}
    return studies.row(values) | {"shares": shares, "in_flight": 2}


@pytest.fixture
def measured(monkeypatch):
    """Points are measured at once, in this process; the values of each."""
    return studies.measure_at_once(monkeypatch, row)


def explained(folder):
    [values, _] = STUDY.combinations()
    point = search.Point(0, "", values, row(values))
    return explain.explain(STUDY, point, search.storage_in(folder))


def test_the_busiest_resource_binds_and_the_others_have_headroom(measured, tmp_path):
    found = explained(tmp_path)
    assert found.binds == "gather"
    assert list(found.shares) == ["gather", "matmul", "dram"]


def test_if_nothing_is_busy_latency_binds():
    assert explain.binds({"shares": {"gather": 0.4, "dram": 0.1}}) == "latency"


def test_parameters_are_doubled_each_alone_and_told_by_what_they_give(measured, tmp_path):
    found = explained(tmp_path)
    assert found.doubled[0].name == "lanes"
    assert (found.doubled[0].before, found.doubled[0].after) == (4, 8)
    assert found.doubled[0].gain == pytest.approx(804 / 404)
    assert {"lanes", "array_rows", "array_columns", "gather_outstanding"} <= {
        each.name for each in found.doubled
    }
    for values in measured:
        changed = {name for name, value in values.items() if value != {"lanes": 4}.get(name)}
        assert len(changed - {"array", "array_rows", "array_columns", "uplink_lanes"}) <= 1
    assert "gather binds" in found.advice
    assert "lanes=8 gives 1.99 times as much" in found.advice


def test_what_cannot_be_doubled_is_told_with_its_reason(measured, tmp_path):
    by_name = {each.name: each for each in explained(tmp_path).doubled}
    assert by_name["uplink_lanes"].gain is None
    assert "uplink_lanes=32: must be an integer from 1 to 16" in by_name["uplink_lanes"].why


def test_what_was_doubled_once_is_kept(measured, tmp_path):
    first = explained(tmp_path)
    count = len(measured)
    assert explained(tmp_path) == first
    assert len(measured) == count
