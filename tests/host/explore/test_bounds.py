"""Bounds hold, and a search that prunes by them finds the front that one without finds."""

import random

import pytest

from halfdome.host.explore import energy, measure, tell, workers
from halfdome.host.explore.bounds import bounds
from halfdome.host.explore.metrics import METRICS, OF_BOUND
from tests.host.explore import studies
from tests.host.explore.studies import SMALL, of

CARDS = {"array": ["4x4", "8x8"], "lanes": [1, 4, 16], "bus_bytes": 32, "cards": [1, 2],
         "batch": 8}  # fmt: skip


def searched(folder, monkeypatch, seed, **said):
    """Points of a study which are as good as their bounds say, or up to half as good, and how many
    were measured."""
    seen = []

    def fake(study, values):
        best = bounds(study, study.design(values))
        rate = random.Random(f"{seed} {values}").uniform(0.5, 1)
        seen.append(values)
        return studies.row(values) | best | {
            "samples_per_second": rate * best["samples_per_second"],
        }  # fmt: skip

    monkeypatch.setattr(measure, "measure", fake)
    monkeypatch.setattr(workers, "_processes", studies.threads)
    made = of(parameters=CARDS, **said)
    return made, studies.run(made, folder), len(seen)


@pytest.mark.parametrize("seed", range(2))
def test_the_front_is_the_same_with_fewer_points_measured(seed, tmp_path, monkeypatch):
    made, every, count = searched(tmp_path, monkeypatch, seed)
    assert count == made.size == len(every)
    made, some, fewer = searched(tmp_path, monkeypatch, seed, search={"prune": True})
    assert len(some) == made.size
    assert [point.values for point in tell.pareto(made, some)] == [
        point.values for point in tell.pareto(made, every)
    ]
    pruned = [point for point in some if point.pruned]
    assert 0 < len(pruned) == count - fewer
    for point in pruned:
        assert point.why.startswith("bound dominated by point ")
        assert "samples_per_second is " in point.why
    verdicts = [each["verdict"] for each in tell.rows(made, some)]
    assert verdicts.count("pruned") == len(pruned)


def test_what_is_pruned_stays_so(tmp_path, monkeypatch):
    made, before, _ = searched(tmp_path, monkeypatch, 0, search={"prune": True})
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("measured again"))
    assert studies.run(made, tmp_path) == before


def test_nothing_is_pruned_by_an_objective_without_a_bound(tmp_path, monkeypatch):
    said = {"search": {"prune": True}, "objectives": ["samples_per_second", "power_w"]}
    made, points, count = searched(tmp_path, monkeypatch, 0, **said)
    assert count == made.size
    assert not any(point.pruned for point in points)


def test_a_point_outside_its_constraints_prunes_none(tmp_path, monkeypatch):
    said = {"search": {"prune": True}, "constraints": {"power_w": {"most": 0.5}}}
    made, points, count = searched(tmp_path, monkeypatch, 0, **said)
    assert count == made.size
    assert not tell.within(made, points)


def test_the_table_of_energies_is_read_once(monkeypatch):
    made, load, read = of(parameters=CARDS), energy.load, []
    monkeypatch.setattr(energy, "load", lambda path: read.append(path) or load(path))
    for values in made.combinations():
        bounds(made, made.design(values))
    assert len(read) == 1


def test_a_page_of_guidance_has_all_points():
    with pytest.raises(ValueError, match=r"search.prune: a page of guidance has all points"):
        of(parameters={"lanes": [2, 4]}, search={"prune": True},
           guidance={"title": "T", "question": "Q", "along": "lanes"})  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tables", "parameters"),
    [
        ([400, 300, 200], {"lanes": 1}),
        ([400, 300, 200], {"array": "2x2", "lanes": 16, "bus_bytes": 32}),
        ([3000, 3000, 3000], {"dram_preset": "LPDDR4-533", "scratchpad_bytes": 8192, "lanes": 16}),
        ([400, 300, 200], {"cards": 3, "batch": 24}),
    ],
    ids=["lanes", "array", "dram", "cards"],
)
def test_no_point_is_better_than_its_bounds(tables, parameters):
    workload = SMALL | {"tables": tables, "pooling": 40, "dim": 32, "bottom": [16, 32]}
    made = of(workload=workload, values=False, arrivals={"p99_us": 500},
              parameters={"cards": 1, "batch": 16} | parameters)  # fmt: skip
    [values] = made.combinations()
    best = bounds(made, made.design(values))
    row = measure.measure(made, values)
    assert best.keys() >= {"latency_us", "energy_uj_per_sample", *OF_BOUND}
    for name, bound in best.items():
        worse = row[name] <= bound if METRICS[name].better == "maximize" else row[name] >= bound
        assert worse, (name, row[name], bound)
    if parameters.get("cards") != 3:
        assert row["samples_per_second"] > 0.2 * best["samples_per_second"], "it tells something"
