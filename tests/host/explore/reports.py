"""Reports of studies whose points were never measured."""

from halfdome.host.explore import report
from halfdome.host.explore.search import Point
from tests.host.explore import studies

ENGINES = ("load", "gather")


def row(values):
    """All that a report tells of a point; wider units are busier."""
    busy = values.get("lanes", 4) / 8
    activities = {"busy": busy, "starved": 0.1, "blocked": 0.1, "idle": 0.8 - busy}
    return studies.row(values) | {
        "engines": dict.fromkeys(ENGINES, activities), "shares": {"load": busy, "dram": 0.3},
        "energy_uj": {"dram_bit": 2.0}, "macs_per_sample": 1000.0,
        "latency_cycles": [100.0], "interval_cycles": [50.0],
        "dram_bytes_per_sample": 100.0 * values.get("queue_depth", 4),
    }  # fmt: skip


def explored_in(**parameters):
    """A study of all combinations, and its points, and one more that is infeasible."""
    study = studies.of(parameters=parameters)
    points = [
        Point(number, study.point_name(values), values, row(values))
        for number, values in enumerate(study.combinations())
    ]
    bad = {"lanes": 3, "queue_depth": 4}
    return study, [*points, Point(len(points), "lanes=3", bad, {}, "lanes=3: must be a <power>")]


def write(path, study, points, compared=()):
    """Writes a report of the best point; the text of the page."""
    report.write(path, study, points, report.choose(study, points), compared, commands)
    return path.read_text()


def commands(point):
    """How a point is made again."""
    return [f"halfdome explore x.toml --point {point.number}"]
