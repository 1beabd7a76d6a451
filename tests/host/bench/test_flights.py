"""Requests in flight: as many as fill the cards answer as many as any."""

import pytest

from halfdome.hdl.config import PRESETS
from halfdome.host.bench import dlrm, flights
from tests.system.test_dlrm import small_workload


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Requests of six made-up samples in place of the demo's."""
    work = small_workload(tmp_path, batches=10)
    monkeypatch.setattr(dlrm, "workload", lambda *_: work)
    monkeypatch.setattr(flights, "REQUESTS", 6)


def test_requests_in_flight_answer_more_until_the_cards_are_full(small):
    told = []
    result = flights.measure(PRESETS["tiny"], (1, 2, 4), cards=2, progress=told.append)
    rows = result["rows"]
    assert told == [row["in_flight"] for row in rows] == [1, 2, 4]
    assert all(row["mismatching_values"] == 0 for row in rows)
    one, two, four = (row["of_best_rate"] for row in rows)
    assert one < flights.ENOUGH <= max(two, four) == 1.0
    assert result["saturates_at"] > 1
    latencies = [row["latency_cycles"] for row in rows]
    assert latencies == sorted(latencies)
