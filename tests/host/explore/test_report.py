"""The report of a study: whole in one file, and seen by a browser."""

import re
import shutil
import subprocess

import pytest

from halfdome.host.explore import report, tell
from halfdome.host.explore.search import Point
from tests.host.explore import studies

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
ENGINES = {
    name: {"busy": 0.5, "starved": 0.2, "blocked": 0.1, "idle": 0.2} for name in ("load", "gather")
}


def row(values):
    """All that a report tells of a point."""
    return studies.row(values) | {
        "engines": ENGINES, "shares": {"load": 0.8, "dram": 0.3}, "energy_uj": {"dram_bit": 2.0},
        "macs_per_sample": 1000.0, "dram_bytes_per_sample": 200.0,
    }  # fmt: skip


@pytest.fixture
def explored():
    """A study, and its points: one of them infeasible."""
    study = studies.of(parameters={"lanes": [1, 2, 4], "queue_depth": [4, 8]})
    points = [
        Point(number, study.point_name(values), values, row(values))
        for number, values in enumerate(study.combinations())
    ]
    bad = Point(6, "lanes=3", {"lanes": 3, "queue_depth": 4}, {}, "lanes=3: must be a <power>")
    return study, [*points, bad]


def write(path, study, points, rtl=None):
    chosen = report.choose(study, points)
    report.write(path, study, points, chosen, rtl or {}, ["halfdome explore x.toml"])
    return path.read_text()


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
    same = Point(0, "", {}, points[1].row)
    slower = Point(1, "", {}, points[5].row | {"samples_per_second": 400.0})
    text = write(tmp_path / "b.html", study, points, {1: same, 5: slower})
    assert "The same points on the RTL" in text
    assert "108 (+0.00 %)" in text
    assert "400 (+2.00 %)" in text  # 408 of the study's engine
    bad = Point(0, "", {}, {}, "out of memory")
    text = write(tmp_path / "c.html", study, points, {1: bad})
    assert "point 1: not on the RTL: out of memory" in text


def test_a_picture_for_print_is_drawn(explored, tmp_path):
    report.write_png(tmp_path / "a.png", *explored)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_rows_tell_the_front(explored):
    verdicts = [each["verdict"] for each in tell.rows(*explored)]
    assert verdicts == ["beaten", "Pareto front"] * 3 + ["infeasible"]


@pytest.mark.slow
def test_a_browser_draws_every_picture(explored, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no headless browser: one of {', '.join(BROWSERS)}")
    write(tmp_path / "a.html", *explored)
    ended = subprocess.run(
        [browser, "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom",
         str(tmp_path / "a.html")],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    drawn = ended.stdout
    assert drawn.count('class="main-svg"') >= 7  # pictures that the library has made of its data
    for title in ("Pareto front", "Parameters and objectives", "What each parameter does",
                  "What binds", "Where cycles go", "Roofline", "Energy"):  # fmt: skip
        assert re.search(rf"<text[^>]*>(<tspan[^>]*>)?{title}", drawn), title
    assert "Uncaught" not in ended.stderr
