"""Studies for tests, and measurements that cost nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from halfdome.host.explore import measure, search, study, workers
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
        "engine": "native", "mismatching_samples": 0, "samples_of_a_request": 128.0,
        "config_hash": f"{lanes}-{depth}", "halfdome_version": "0",
    }  # fmt: skip


@contextmanager
def threads(count: int) -> Iterator[workers.Crew]:
    """Workers that are in this process, and so call what a test has put there."""
    with ThreadPoolExecutor(count) as executor:
        yield workers.Crew(executor, lambda: count)


def measure_at_once(monkeypatch, row):
    """Points become `row(values)` at once, in this process. Returns a list of what is measured."""
    seen = []

    def fake(study, values):
        study.design(values)
        seen.append(dict(values))
        return row(values)

    monkeypatch.setattr(measure, "measure", fake)
    monkeypatch.setattr(workers, "_processes", threads)
    return seen


def run(study, folder, by=1, told=lambda point: None):
    """Measures a study whose points are kept in a folder; all its points."""
    results = search.Results(study, search.storage_in(folder))
    search.run(study, results, by, told)
    return results.points
