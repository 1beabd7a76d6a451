"""`halfdome explore`: a table, a CSV, and studies that are refused."""

import csv
import json
import re
import subprocess
import sys

import pytest

from halfdome.host.explore import measure, workers
from tests.host.explore import studies
from tests.host.explore.reports import row

SMALL = """
version = 1
config = "tiny"
[workload]
kind = "recommender"
tables = [400, 300, 200]
dim = 16
pooling = 8
bottom = [16, 16]
top = [16, 1]
[parameters]
"""


@pytest.fixture
def measured(monkeypatch):
    """Points are measured at once, in this process; the values of each."""
    return studies.measure_at_once(monkeypatch, row)


@pytest.fixture
def study(tmp_path):
    """Writes a study that has these parameters."""

    def write(parameters):
        file = tmp_path / "small.toml"
        file.write_text(SMALL + parameters)
        return file

    return write


def read(folder):
    with (folder / "explore.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_study_becomes_a_table_and_a_csv(halfdome, measured, study, tmp_path):
    result = tmp_path / "rows.json"
    file, folder = study("lanes = [4, 2]"), tmp_path / "out"
    status, text, error = halfdome("explore", file, "-o", folder, "--json", result)
    assert status == 0
    assert str(folder / "explore.csv") in text
    assert "lanes=2" in (folder / "explore.html").read_text()
    rows = read(folder)
    assert [row["lanes"] for row in rows] == ["4", "2"]
    assert {"seed", "samples_per_second", "area_lut4_equivalents", "verdict"} - {"seed"} <= set(
        rows[0]
    )
    assert [row["point"] for row in json.loads(result.read_text())["rows"]] == [0, 1]
    assert "2/2" in error
    assert re.search(  # nobody sees a bar here
        r"halfdome: 1/2 points, [\d.e+]+ a minute, best lanes=4: samples_per_second=\d+, "
        "last lanes=4",
        error,
    )


def test_settings_stand_for_what_the_file_says(halfdome, measured, study, tmp_path):
    options = ("--set", "lanes=1,2", "--set", "fused=false", "--cards", 2, "--batch", 4)
    status, _, _ = halfdome("explore", study("lanes = 4"), *options, "-o", tmp_path)
    assert status == 0
    assert measured == [
        {"lanes": lanes, "fused": False, "batch": 4, "cards": 2} for lanes in (1, 2)
    ]


def test_settings_alone_explore_the_demo(halfdome, measured, tmp_path):
    status, _, _ = halfdome(
        "explore", "--set", "array=4x4,2x8", "--config", "tiny", "--samples", 12, "-o", tmp_path
    )
    assert status == 0
    assert measured == [{"array": "4x4"}, {"array": "2x8"}]


def test_an_infeasible_point_is_told_and_the_others_are_measured(
    halfdome, measured, study, tmp_path
):
    file = study("array_rows = [4, 32]\nbus_bytes = [16, 32]")
    status, text, _ = halfdome("explore", file, "-o", tmp_path)
    assert status == 0
    assert len(measured) == 3
    assert "array_rows=32 bus_bytes=16: infeasible: array_rows=32: one bus word" in text


def test_a_study_of_which_no_point_is_feasible_says_why(halfdome, study, tmp_path, monkeypatch):
    def infeasible(values):
        raise ValueError(f"lanes={values['lanes']}: too many")

    studies.measure_at_once(monkeypatch, infeasible)
    file = study("lanes = [4, 2]")
    status, text, error = halfdome("explore", file, "-o", tmp_path)
    assert status == 2
    assert "lanes=2: infeasible: lanes=2: too many" in text
    assert error.endswith("no point is feasible: lanes=4: too many; lanes=2: too many\n")
    assert [row["verdict"] for row in read(tmp_path)] == ["infeasible", "infeasible"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lanes", "--set lanes: must be FIELD=VALUE"),
        ("lanes=4,many", "lanes=many: must be a whole number"),
        ("lanes=4,3", "lanes=3: must be a power of two"),
        ("lamps=4", "lamps: no such parameter"),
        ("array=4", "array=4: must be ROWSxCOLUMNS"),
        ("array=4x4,64x64", "array_rows=64: one bus word must hold"),
        ("dram_preset=LPDDR4-3200,DDR1", "dram_preset='DDR1': must be LPDDR4-533"),
        ("counters=16,5", "counters=5: every engine and every card"),
        ("lanes=4,4", "lanes=4: the value is given twice"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_runs(
    refused, measured, tmp_path, setting, message
):
    refused(message, "explore", "--set", setting, "--config", "tiny", "-o", tmp_path)
    assert not measured


@pytest.fixture
def asked(monkeypatch):
    """As `measured`, but with the engine: (engine, lanes, queue_depth)."""
    seen = []

    def fake(made, values):
        engine = made.design(values).engine
        seen.append((engine, values["lanes"], values["queue_depth"]))
        return row(values) | {"engine": engine}

    monkeypatch.setattr(measure, "measure", fake)
    monkeypatch.setattr(workers, "_processes", studies.threads)
    return seen


def test_the_front_of_the_timing_engine_is_measured_on_the_rtl_too(
    halfdome, asked, study, tmp_path
):
    file, result = study("lanes = [4, 2]\nqueue_depth = [4, 8]"), tmp_path / "rows.json"
    for _ in range(2):  # what was measured is kept
        status, text, _ = halfdome("explore", file, "-o", tmp_path, "--json", result)
        assert status == 0
        assert asked[4:] == [("native", 4, 8), ("native", 2, 8)]
        assert "2 points measured on the RTL too: 0 % off at most" in text
        on_rtl = json.loads(result.read_text())["on_rtl"]
        assert [each["samples_per_second_error_percent"] for each in on_rtl] == [0, 0]
    assert {engine for engine, *_ in asked[:4]} == {"timing"}
    halfdome("explore", file, "-o", tmp_path, "--point", 0)
    assert asked[6:] == [("native", 4, 4)]  # beaten, but asked for
    assert "The same points on the RTL" in (tmp_path / "explore.html").read_text()


def test_what_is_known_is_written_before_the_front_is_measured_on_the_rtl(
    halfdome, asked, study, tmp_path, monkeypatch
):
    file, result = study("lanes = [4, 2]\nqueue_depth = [4, 8]"), tmp_path / "rows.json"
    picture = tmp_path / "front.png"
    measured = measure.measure

    def ended(made, values):
        if made.design(values).engine == "native":
            raise KeyboardInterrupt
        return measured(made, values)

    command = ("explore", file, "-o", tmp_path, "--json", result, "--png", picture)
    with monkeypatch.context() as patch:
        patch.setattr(measure, "measure", ended)
        assert halfdome(*command)[0] != 0
    known = json.loads(result.read_text())
    assert [row["samples_per_second"] for row in known["rows"]] == [404, 408, 204, 208]
    assert known["on_rtl"] is None
    report = tmp_path / "explore.html"
    assert "The front is not measured on the RTL yet" in report.read_text()
    assert picture.exists()
    assert halfdome(*command)[0] == 0
    assert len(asked) == 6  # none of them twice
    complete = json.loads(result.read_text())
    assert complete["rows"] == known["rows"]
    assert [each["point"] for each in complete["on_rtl"]] == [1, 3]
    assert "The same points on the RTL" in report.read_text()


def test_standard_output_has_the_result_once(halfdome, asked, study, tmp_path):
    file = study("lanes = [4, 2]\nqueue_depth = 4")
    _, text, _ = halfdome("explore", file, "-o", tmp_path, "--json", "-")
    found, _ = json.JSONDecoder().raw_decode(text)
    assert len(found["on_rtl"]) == 2
    assert text.count('"on_rtl"') == 1


def test_a_study_on_the_rtl_is_not_measured_twice(halfdome, asked, study, tmp_path):
    file = study("lanes = [4, 2]\nqueue_depth = 4")
    status, text, _ = halfdome("explore", file, "--engine", "native", "-o", tmp_path)
    assert status == 0
    assert asked == [("native", 4, 4), ("native", 2, 4)]
    assert "on the RTL" not in text


def test_a_field_given_twice_is_refused(refused, tmp_path):
    refused("lanes is given twice", "explore", "--set", "lanes=2", "--set", "lanes=4")


def test_nothing_to_explore_is_told(refused):
    refused("give a STUDY.toml, or values with --set", "explore")


def test_a_missing_library_is_told_with_what_to_install():
    script = (
        "import sys; sys.modules['optuna'] = None; sys.argv[1:] = ['explore', '--set', 'lanes=2'];"
        "from halfdome.host.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "pip install 'halfdome[explore]'" in ended.stderr


@pytest.mark.slow
def test_a_point_of_the_demo_is_measured(halfdome, ratings, weights, tmp_path):
    file = tmp_path / "demo.toml"
    file.write_text(f"""
        version = 1
        config = "tiny"
        [workload]
        kind = "demo"
        samples = 12
        data = "{ratings}"
        weights = "{weights}"
        [parameters]
        cards = [1, 2]
        batch = 6
    """)
    status, _, _ = halfdome("explore", file, "-o", tmp_path)
    assert status == 0
    one, two = read(tmp_path)
    assert one["mismatching_samples"] == two["mismatching_samples"] == "0"
    assert float(two["area_lut4_equivalents"]) == 2 * float(one["area_lut4_equivalents"])


@pytest.mark.long
@pytest.mark.slow
def test_workers_measure_what_one_does(halfdome, study, tmp_path):
    file = study("batch = [2, 4]\n[arrivals]\np99_us = 30")
    for count in (1, 2):
        status, text, _ = halfdome("explore", file, "--workers", count, "-o", tmp_path / str(count))
        assert status == 0, text
    assert read(tmp_path / "1") == read(tmp_path / "2")


def test_guidance_is_written_and_what_was_measured_of_the_same_study_stays(
    halfdome, measured, tmp_path, monkeypatch
):
    monkeypatch.setattr("halfdome.host.cli.explore.OUTPUT", tmp_path / "build")
    folder, page = tmp_path / "studies", tmp_path / "guidance.md"
    folder.mkdir()
    asked = '[guidance]\ntitle = "T"\nquestion = "{}?"\nalong = "lanes"\n'
    file = folder / "small.toml"
    for question, values, times in (("Q", "[2, 4]", 2), ("Why", "[2, 4]", 2), ("Q", "[1, 4]", 4)):
        file.write_text(SMALL.replace("[workload]", asked.format(question) + "[workload]"))
        file.write_text(f"{file.read_text()}lanes = {values}\n")
        status, _, _ = halfdome("guidance", folder, "-o", page)
        assert status == 0
        assert f"{question}?" in page.read_text()
        assert len(measured) == times


def test_workers_of_both_kinds_are_refused(halfdome):
    status, _, text = halfdome(
        "explore", "--set", "lanes=2", "--workers", 2, "--scheduler", "127.0.0.1:1"
    )
    assert status == 2
    assert "--workers: are those of the --scheduler; give one of the two" in text
