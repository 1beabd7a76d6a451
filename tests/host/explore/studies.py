"""Studies for tests, and measurements that cost nothing."""

from pathlib import Path

from halfdome.host.explore import study
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
