"""The report of a study: whole in one file; `test_browser` looks at it."""

import re
from html import escape

import pytest

from halfdome.host.explore import report, tell
from halfdome.host.explore.on_rtl import OnRtl
from halfdome.host.explore.search import Point
from tests.host.explore import reports
from tests.host.explore.reports import explored_in, write


@pytest.fixture
def explored():
    """A study, and its points: one of them infeasible."""
    return explored_in(lanes=[1, 2, 4], queue_depth=[4, 8])


def test_a_report_needs_nothing_else(explored, tmp_path):
    text = write(tmp_path / "a.html", *explored)
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?(https?:)?//", text)
    for said in ("lanes=4 queue_depth=8", "halfdome explore x.toml", "must be a &lt;power&gt;"):
        assert said in text


def test_the_best_of_the_front_is_looked_into_or_the_point_asked_for(explored):
    study, points = explored
    assert report.choose(study, points).name == "lanes=4 queue_depth=8"
    assert report.choose(study, points, 2).number == 2
    with pytest.raises(ValueError, match="point 6: was not measured; points measured are 0, 1"):
        report.choose(study, points, 6)
    with pytest.raises(ValueError, match="no point is feasible: lanes=3: must be"):
        report.choose(study, points[6:])


def test_points_are_told_beside_the_same_on_the_rtl(explored, tmp_path):
    study, points = explored
    assert "The front was measured on the RTL" in write(tmp_path / "a.html", *explored)
    same = OnRtl(points[1], points[1], Point(0, "", {}, points[1].row))
    slower = Point(1, "", {}, points[5].row | {"samples_per_second": 400.0})
    text = write(tmp_path / "b.html", study, points, [same, OnRtl(points[5], points[5], slower)])
    assert "The same points on the RTL" in text
    assert "108 (+0.00 %)" in text
    assert "400 (+2.00 %)" in text  # 408 of the study's engine
    bad = OnRtl(points[1], points[1], Point(0, "", {}, {}, "out of memory"), "out of memory")
    text = write(tmp_path / "c.html", study, points, [bad])
    assert "point 1: not on the RTL itself: out of memory." in text


def test_a_smaller_card_is_not_taken_for_the_point(explored, tmp_path):
    study, points = explored
    halved = Point(0, "", points[5].values | {"lanes": 2}, points[3].row)
    stood_for = OnRtl(points[5], halved, halved, "its card is not compiled within 1 s")
    text = write(tmp_path / "a.html", study, points, [stood_for])
    assert (
        "point 5: not on the RTL itself: its card is not compiled within 1 s; checked on a card "
        "scaled to lanes=2: error 0 cycles."
    ) in text
    assert "5: lanes=4 queue_depth=8, scaled to lanes=2" in text


def test_points_are_told_beside_the_processor_of_the_host(explored, tmp_path):
    pytest.importorskip("onnxruntime")
    from halfdome.host.explore.host_cpu import HostCpu

    study, points = explored
    host, file = HostCpu(0.001, 50.0), tmp_path / "report.html"
    chosen = report.choose(study, points)
    report.write(file, study, points, chosen, [], reports.commands, host)
    assert escape(host.beside(chosen.row)) in file.read_text()
    assert tell.as_dict(study, points, [], host)["host"] == {
        "seconds_per_sample": 0.001, "tdp_w": 50.0, "samples_per_joule": host.samples_per_joule,
    }  # fmt: skip


def test_a_picture_for_print_is_drawn(explored, tmp_path):
    report.write_png(tmp_path / "a.png", *explored)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_rows_tell_the_front(explored):
    verdicts = [each["verdict"] for each in tell.rows(*explored)]
    assert verdicts == ["beaten", "Pareto front"] * 3 + ["infeasible"]
