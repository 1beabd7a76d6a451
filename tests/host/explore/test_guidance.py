"""Guidance says of points what they say, and the page in the documents is of the studies there."""

from pathlib import Path

import pytest

from halfdome.host.explore import guidance
from tests.host.explore.studies import of

DOCS = Path(__file__).parents[3] / "docs"


def point(lanes, depth, rate, binds="dram"):
    values = {"lanes": lanes, "queue_depth": depth}
    if rate is None:
        return {"values": values, "why": "lanes: too many"}
    metrics = {"samples_per_second": rate}
    return {"values": values, "binds": binds, "right": True, "metrics": metrics}


POINTS = [
    point(1, 4, 1e6, "gather"), point(2, 4, 2e6, "gather"), point(4, 4, 2.05e6),
    point(1, 8, 1e6), point(2, 8, 1.01e6), point(4, 8, None),
]  # fmt: skip


@pytest.fixture
def page(monkeypatch):
    made = of(
        parameters={"lanes": [1, 2, 4], "queue_depth": [4, 8]},
        guidance={"title": "Lanes", "question": "How many?", "along": "lanes"},
    )
    monkeypatch.setattr(guidance, "points", lambda path, study: POINTS)
    return guidance.page([(Path("lanes.toml"), made)])


def test_a_table_has_the_metric_and_what_binds(page):
    assert "| `queue_depth` | `lanes` 1 | `lanes` 2 | `lanes` 4 |" in page
    assert "| 4 | 1 M, gather | 2 M, gather | 2.05 M, dram |" in page
    assert "| 8 | 1 M, dram | 1.01 M, dram | infeasible |" in page


def test_what_is_enough_is_told_with_what_less_and_more_give(page):
    assert (
        "- With `queue_depth` 4: `lanes` 2 is enough: 2.00 times 1, 4 gives 1.02 times as much."
    ) in page
    assert "- With `queue_depth` 8: `lanes` 1 is enough: 2 gives 1.01 times as much." in page


def test_a_study_without_points_of_what_it_says_is_refused(tmp_path):
    made = of(parameters={"lanes": [1, 2]},
              guidance={"title": "T", "question": "Q", "along": "lanes"})  # fmt: skip
    with pytest.raises(ValueError, match="has no points of what it says: run `halfdome guidance`"):
        guidance.page([(tmp_path / "t.toml", made)])


def test_a_table_goes_along_a_parameter_that_is_varied():
    with pytest.raises(ValueError, match=r"guidance.along='lanes': must be varied"):
        of(parameters={"lanes": 4}, guidance={"title": "T", "question": "Q", "along": "lanes"})


def test_the_page_is_that_of_the_studies_and_every_answer_was_right():
    studies = guidance.read(DOCS / "studies")
    assert guidance.page(studies) == (DOCS / "guidance.md").read_text()
    for path, made in studies:
        for each in guidance.points(path, made) or ():
            assert each.get("right", "why" in each), path
