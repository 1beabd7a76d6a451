"""Requests that come at random, against queues whose answer is known and against the cards."""

import numpy as np
import pytest

from halfdome.host.explore import queueing
from halfdome.host.explore.measure import Bursts, open_platform
from halfdome.host.explore.queueing import Line, Service
from halfdome.host.explore.workloads import work
from halfdome.host.serving.deploy import deploy
from tests.host.explore.studies import SMALL, of

ALONE = frozenset({0})


def one_stage(*cycles):
    return Service(Line(1, 1), {(0, ALONE): np.array(cycles, float)}, 0.0)


def test_a_request_that_finds_nobody_takes_its_time_alone():
    waited = queueing.waits(one_stage(10.0), np.array([0.0, 100.0]), np.zeros(2, int))
    assert waited.tolist() == [10, 10]


def test_one_that_comes_meanwhile_waits_for_the_one_before():
    waited = queueing.waits(one_stage(10.0), np.array([0.0, 4.0, 4.0]), np.zeros(3, int))
    assert waited.tolist() == [10, 16, 26]


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_server_waits_as_the_formula_of_pollaczek_and_khinchine_says(load):
    """M/D/1: the mean wait before service is load / (2 (1 - load)) services."""
    arrivals, drawn = queueing.poisson(load / 10, 200_000, 1, 1)
    waited = queueing.waits(one_stage(10.0), arrivals, drawn)
    assert waited.mean() == pytest.approx(10 + 10 * load / (2 * (1 - load)), rel=0.03)


def test_one_server_of_two_services_waits_by_their_second_moment():
    """M/G/1 of services of 4 and 16, equally likely: rate E[S^2] / (2 (1 - load))."""
    arrivals, drawn = queueing.poisson(0.05, 200_000, 2, 2)
    waited = queueing.waits(one_stage(4.0, 16.0), arrivals, drawn)
    assert waited.mean() == pytest.approx(10 + 0.05 * 136 / (2 * 0.5), rel=0.03)


def test_two_stages_overlap_where_the_cards_let_them():
    taken = {
        (0, ALONE): [6.0], (1, frozenset({1})): [4.0], (0, frozenset({0, 1})): [6.0],
        (1, frozenset({0, 1})): [5.0],
    }  # fmt: skip
    service = Service(Line(2, 2), {seen: np.array(each) for seen, each in taken.items()}, 1.0)
    known = queueing.waits(service, np.zeros(3), np.zeros(3, int))
    assert known.tolist() == [12, 18, 23]


def test_the_highest_rate_keeps_the_bound_and_a_little_more_does_not():
    service, bound = one_stage(10.0), 60.0
    rate = queueing.highest_rate(service, bound, 0.1, 10_000, seed=3)
    assert 0 < rate < 0.1
    assert queueing.p99(service, rate, 10_000, 3) <= bound
    assert queueing.p99(service, rate * 1.01, 10_000, 3) > bound


def test_a_bound_that_no_request_keeps_leaves_no_rate():
    assert queueing.highest_rate(one_stage(10.0), 9.0, 0.1, 10_000, seed=0) == 0


def test_stages_that_the_model_took_are_found_again():
    taken = {
        (0, ALONE): 6.0, (1, frozenset({1})): 4.0, (0, frozenset({0, 1})): 6.5,
        (1, frozenset({0, 1})): 5.0,
    }  # fmt: skip
    line = Line(2, 2)
    service = Service(line, {seen: np.array([each]) for seen, each in taken.items()}, 0.0)
    cards = queueing._Modelled(service, [0] * 5)
    known = queueing.answer(line, [0.0] * 5, cards)
    ends = [[cards._ends[request, stage] for stage in range(2)] for request in range(5)]
    found = queueing.taken(line, 0.0, ends, known.tolist())
    assert len(found) == 10
    for _, seen, took in found:
        assert took == pytest.approx(taken[seen])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workload", "batch"),
    [(SMALL, 8), (SMALL | {"bottom": [64, 64, 16], "top": [128, 1]}, 8),
     (SMALL | {"tables": [4000, 3000, 2000], "pooling": 60}, 8)],
    ids=["links", "products", "bags"],
)  # fmt: skip
def test_the_model_says_what_the_cards_do(workload, batch):
    """64 requests that come at random to simulated cards: their 99th percentile within 4 %."""
    study = of(workload=workload, parameters={"cards": 2, "batch": batch})
    [values] = study.combinations()
    design, asked = study.design(values), work(study.workload, batch).requests
    with open_platform(design) as runtime:
        served = deploy(runtime, work(study.workload, batch).graph)
        bursts, order = Bursts(runtime, served, asked), list(range(len(asked)))
        for burst in (*([place] for place in order), *(order[:n] for n in range(2, 4))):
            bursts.run(burst)
        known = bursts.run([*order, *order])
        interval = (known[-5] - known[4]) / (len(known) - 9)
        for load in (0.3, 0.6, 0.8):
            gaps, drawn = queueing.poisson(load / interval, 64, 1, len(asked))
            arrivals = np.ceil(gaps).astype(int) + runtime.cycles + 1
            ends: list[int] = []
            served.run(
                [asked[each] for each in drawn],
                lambda rows, ends=ends: ends.append(runtime.cycles), arrivals.tolist(),
            )  # fmt: skip
            waited = queueing.waits(bursts.service, arrivals.astype(float), drawn)
            assert np.percentile(waited, 99) == pytest.approx(
                np.percentile(np.array(ends) - arrivals, 99), rel=0.04
            )
