"""Searches: every point once, what was measured kept, whatever ends the process."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import optuna
import pytest
from sqlalchemy.exc import IntegrityError

from halfdome.host.explore import measure, search, tell
from tests.host.explore import studies

GRID = {"lanes": [1, 2, 4], "queue_depth": [4, 8]}


@pytest.fixture
def measured(monkeypatch):
    """Points are measured at once, in this process; the values of each."""
    return studies.measure_at_once(monkeypatch, studies.row)


@pytest.mark.parametrize("count", [1, 3])
def test_a_grid_has_every_combination_once(measured, tmp_path, count):
    study = studies.of(parameters=GRID)
    points = studies.run(study, tmp_path, count)
    assert [point.values for point in points] == list(study.combinations())
    assert len(measured) == 6


def test_what_is_measured_is_not_measured_again(measured, tmp_path):
    first = studies.run(studies.of(parameters=GRID), tmp_path)
    assert studies.run(studies.of(parameters=GRID), tmp_path) == first
    assert len(measured) == 6


def test_two_processes_on_one_study_are_told_the_same(monkeypatch, tmp_path):
    """The second measures what is under way in the first, too: who is later stores nothing."""
    study, storage = studies.of(parameters=GRID), search.storage_in(tmp_path)
    first = search.Results(study, storage)

    def meanwhile(values):
        if values["lanes"] == 1:
            raise ValueError("one lane: infeasible")
        return studies.row(values)

    def behind_the_back(values):
        if not first.points:
            studies.measure_at_once(monkeypatch, meanwhile)
            studies.run(study, tmp_path)
        return meanwhile(values)

    studies.measure_at_once(monkeypatch, behind_the_back)
    search.run(study, first, 1)
    assert [point.values for point in first.points] == list(study.combinations())


def test_a_storage_that_another_process_makes_just_now_is_opened_a_moment_later(
    monkeypatch, tmp_path
):
    create, tries = optuna.create_study, []

    def racing(**options):
        tries.append(options)
        if len(tries) == 1:
            raise IntegrityError("INSERT", None, Exception("UNIQUE constraint failed"))
        return create(**options)

    monkeypatch.setattr(optuna, "create_study", racing)
    monkeypatch.setattr(search, "_MAKING_SECONDS", 0)
    results = search.Results(studies.of(parameters=GRID), search.storage_in(tmp_path))
    assert (results.points, len(tries)) == ([], 2)


@pytest.mark.parametrize("method", ["random", "tpe", "nsga2"])
def test_a_search_draws_so_many_points_and_goes_on_when_asked_for_more(measured, tmp_path, method):
    for points in (3, 5):
        study = studies.of(parameters=GRID, search={"method": method, "points": points})
        found = studies.run(study, tmp_path)
        assert len(found) == points
    assert len(measured) == 5
    assert len({tuple(values.items()) for values in measured}) == 5


def test_the_same_seed_draws_the_same_points(measured, tmp_path):
    study = studies.of(parameters=GRID, search={"method": "random", "points": 4})
    for name in "ab":
        (tmp_path / name).mkdir()
        studies.run(study, tmp_path / name)
    assert measured[:4] == measured[4:]


def test_an_infeasible_point_is_told_with_its_reason(measured, tmp_path):
    study = studies.of(parameters={"array_rows": [4, 32], "bus_bytes": [16, 32]})
    points = studies.run(study, tmp_path)
    [bad] = [point for point in points if not point.row]
    assert dict(bad.values) == {"array_rows": 32, "bus_bytes": 16}
    assert "array_rows=32: one bus word must hold a row" in bad.why


def test_a_point_outside_its_constraints_is_not_on_the_front(measured, tmp_path):
    bound = {"area_lut4_equivalents": {"most": 2000}}
    study = studies.of(parameters={"lanes": [1, 2, 4]}, constraints=bound)
    points = studies.run(study, tmp_path)
    assert [point.values["lanes"] for point in tell.pareto(study, points)] == [1, 2]
    assert [row["verdict"] for row in tell.rows(study, points)] == [
        "Pareto front", "Pareto front", "outside constraints",
    ]  # fmt: skip


def test_constraints_that_no_point_keeps_are_told_with_the_nearest(measured, tmp_path):
    bounds = {"area_lut4_equivalents": {"most": 10}, "samples_per_second": {"least": 1}}
    study = studies.of(parameters={"lanes": [4, 1, 2]}, constraints=bounds)
    points = studies.run(study, tmp_path)
    least = min(point.row["area_lut4_equivalents"] for point in points)
    assert tell.unmet(study, points) == (
        "no point is within the constraints; nearest is point 1: "
        f"area_lut4_equivalents={least:.4g}, at most 10 is wanted"
    )
    assert not tell.unmet(studies.of(parameters={"lanes": [4, 1, 2]}), points)
    assert not tell.unmet(study, [])


def test_what_a_better_point_beats_is_not_on_the_front(measured, tmp_path):
    study = studies.of(parameters=GRID)
    front = tell.pareto(study, studies.run(study, tmp_path))
    assert [point.values["queue_depth"] for point in front] == [8, 8, 8]


def test_an_unknown_point_is_told_with_those_there_are(measured, tmp_path):
    study = studies.of(parameters={"lanes": [1, 2]})
    with pytest.raises(ValueError, match="none; measure them with"):
        search.Results(study, search.storage_in(tmp_path)).point(0)
    studies.run(study, tmp_path)
    results = search.Results(study, search.storage_in(tmp_path))
    assert results.point(1).values == {"lanes": 2}
    with pytest.raises(ValueError, match="point 7: is not among those measured: 0, 1"):
        results.point(7)


@pytest.mark.parametrize("storage", ["what://ever", "sqlite:////dev/null/study.db"])
def test_a_storage_that_cannot_be_opened_is_refused(storage):
    with pytest.raises(ValueError, match=f"--storage {storage}: cannot be opened: .*; give the"):
        search.Results(studies.of(parameters={"lanes": [1, 2]}), storage)


def test_a_worker_that_fails_ends_the_search_and_its_point_comes_again(
    measured, monkeypatch, tmp_path
):
    fake, study = measure.measure, studies.of(parameters={"lanes": [1, 2]})

    def failing(study, values):
        if values["lanes"] == 2:
            raise RuntimeError("out of disk")
        return fake(study, values)

    monkeypatch.setattr(measure, "measure", failing)
    with pytest.raises(RuntimeError, match="out of disk"):
        studies.run(study, tmp_path)
    monkeypatch.setattr(measure, "measure", fake)
    assert [point.values["lanes"] for point in studies.run(study, tmp_path)] == [1, 2]
    assert measured == [{"lanes": 1}, {"lanes": 2}]


@pytest.mark.parametrize("left_bytes", [0, 20_000])
def test_a_disk_that_is_full_is_told_and_nothing_is_lost(
    measured, monkeypatch, tmp_path, left_bytes
):
    """The storage cannot grow by more: the first point is too much, or one of the later ones."""
    study = studies.of(parameters=GRID)
    file = tmp_path / "study.db"
    search.Results(study, search.storage_in(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(measure, "measure", lambda _, values: studies.row(values) | LONG)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + left_bytes, hard))
    try:
        with pytest.raises(OSError, match=r"study.db: .*; make room there, or give another"):
            studies.run(study, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    points = studies.run(study, tmp_path)
    assert [point.values for point in points] == list(study.combinations())


LONG = {"said": "at length" * 1000}

KILLED = """
    import sys, time
    from pathlib import Path
    from halfdome.host.explore import measure, search, workers
    from tests.host.explore import studies

    folder = Path(sys.argv[1])

    def fake(study, values):
        with (folder / "begun").open("a") as log:
            print(values["lanes"], file=log, flush=True)
        time.sleep(0.3)
        return studies.row(values)

    measure.measure = fake
    workers._processes = studies.threads
    study = studies.of(parameters={"lanes": [1, 2, 4, 8, 16]})
    results = search.Results(study, search.storage_in(folder))
    search.run(study, results, 2)
"""


def test_a_search_that_is_killed_goes_on_where_it_was(tmp_path):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".src", "."])}
    study = studies.of(parameters={"lanes": [1, 2, 4, 8, 16]})
    first = subprocess.Popen(command, env=environment)
    begun, deadline = tmp_path / "begun", time.monotonic() + 60
    while not begun.exists() or len(begun.read_text().split()) < 3:
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = search.Results(study, search.storage_in(tmp_path)).points
    before = begun.read_text().split()
    subprocess.run(command, env=environment, check=True, timeout=60)
    points = search.Results(study, search.storage_in(tmp_path)).points
    assert sorted(point.values["lanes"] for point in points) == [1, 2, 4, 8, 16]
    again = begun.read_text().split()[len(before) :]
    assert kept
    assert {str(point.values["lanes"]) for point in kept}.isdisjoint(again)
    assert sorted([*(str(point.values["lanes"]) for point in kept), *again], key=int) == [
        "1", "2", "4", "8", "16",
    ]  # fmt: skip
