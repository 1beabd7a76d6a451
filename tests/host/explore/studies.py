"""Studies for tests, and measurements that cost nothing."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from halfdome.host.explore import measure, search, study
from halfdome.host.explore.metrics import METRICS

SMALL = {
    "kind": "recommender", "tables": [400, 300, 200], "dim": 16, "pooling": 8,
    "bottom": [16, 16], "top": [16, 1], "reuse": "uniform",
}  # fmt: skip


def of(**said):
    """A study of cards that are quickly built."""
    given = {"version": 1, "name": "test", "config": "tiny", "workload": SMALL} | said
    return study.checked(given, "test", Path())


def row(values):
    """What a card of so many lanes might do: more of them are faster and larger."""
    lanes, depth = values.get("lanes", 4), values.get("queue_depth", 4)
    found = dict.fromkeys(METRICS, 1.0)
    return found | {
        "samples_per_second": 100.0 * lanes + depth, "area_lut4_equivalents": lanes * 1000,
        "engine": "native", "mismatching_samples": 0,
        "config_hash": f"{lanes}-{depth}", "halfdome_version": "0",
    }  # fmt: skip


def measure_at_once(monkeypatch, row):
    """Points become `row(values)` at once, in this process. Returns a list of what is measured."""
    seen = []

    def fake(study, values):
        study.design(values)
        seen.append(dict(values))
        return row(values)

    monkeypatch.setattr(measure, "measure", fake)
    monkeypatch.setattr(search, "_pool", ThreadPoolExecutor)
    return seen
