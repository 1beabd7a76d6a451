"""Requests that come at random, against queues whose answer is known and against the cards."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.explore import queueing
from halfdome.host.explore.queueing import ISSUE, Answered, Line, Service, Waits
from halfdome.host.explore.simulate import LOAD, Bursts, at_random, open_platform
from halfdome.host.explore.workloads import work
from halfdome.host.serving.deploy import deploy
from tests.host.explore import plain_queue
from tests.host.explore.studies import SMALL, of


def one_stage(*cycles):
    mean = sum(cycles) / len(cycles)
    waits = Waits({ISSUE: mean, 0: mean}, np.array(cycles) - mean)
    return Service(Line(1, 1), {(0, (0,), ()): waits}, 0.0)


TWO_STAGES = {
    (0, (0,)): {ISSUE: 6.0, 0: 6.0, 1: 3.0}, (1, (1,)): {ISSUE: 4.0, 0: 4.0, 1: 4.0},
    (1, (1, 0)): {ISSUE: 5.0, 0: 5.0, 1: 4.0}, (0, (1, 0)): {ISSUE: 6.0, 0: 6.5, 1: 2.0},
}  # fmt: skip
"""Cycles after what a stage waits for; those after stage 1 never tell its end."""


def two_stages(notice):
    waits = {(*seen, ()): Waits(after, np.zeros(1)) for seen, after in TWO_STAGES.items()}
    return Service(Line(2, 2), waits, notice)


def test_a_request_that_finds_nobody_takes_its_time_alone():
    waited = queueing.waited(one_stage(10.0), np.array([0.0, 100.0]))
    assert waited.tolist() == [10, 10]


def test_one_that_comes_meanwhile_waits_for_the_one_before():
    waited = queueing.waited(one_stage(10.0), np.array([0.0, 4.0, 4.0]))
    assert waited.tolist() == [10, 16, 26]


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_server_waits_as_the_formula_of_pollaczek_and_khinchine_says(load):
    """M/D/1: the mean wait before service is load / (2 (1 - load)) services."""
    waited = queueing.waited(one_stage(10.0), queueing.poisson(load / 10, 200_000, 1))
    assert waited.mean() == pytest.approx(10 + 10 * load / (2 * (1 - load)), rel=0.03)


def test_one_server_of_two_services_waits_by_their_second_moment():
    """M/G/1 of services of 4 and 16, equally likely: rate E[S^2] / (2 (1 - load))."""
    cycles = np.random.default_rng(4).choice([4.0, 16.0], 10_000)
    waited = queueing.waited(one_stage(*cycles), queueing.poisson(0.05, 200_000, 2))
    assert waited.mean() == pytest.approx(10 + 0.05 * 136 / (2 * 0.5), rel=0.03)


def test_two_stages_overlap_where_the_cards_let_them():
    """The first request ends at 11 (stage 0 at 6, stage 1 five later); stage 0 of the second, begun
    with that, at 12.5, of the third, begun when the first is known, at 19."""
    known = queueing.waited(two_stages(1.0), np.zeros(3))
    assert known.tolist() == [12, 18.5, 24]


def test_a_stage_that_was_never_seen_in_a_round_is_as_in_the_round_most_like_it():
    service = two_stages(0.0)
    seen = {each: waits for each, waits in service.waits.items() if each[:2] != (0, (1, 0))}
    known = queueing.waited(Service(service.line, seen, 0.0), np.zeros(2))
    assert known.tolist() == [11, 16]


def test_the_highest_rate_keeps_the_bound_and_a_little_more_does_not():
    service, bound = one_stage(10.0), 60.0
    rate = queueing.highest_rate(service, bound, 0.1, 10_000, seed=3)
    assert 0 < rate < 0.1
    assert queueing.p99(service, rate, 10_000, 3) <= bound
    assert queueing.p99(service, rate * 1.01, 10_000, 3) > bound


def test_a_bound_that_no_request_keeps_leaves_no_rate():
    assert queueing.highest_rate(one_stage(10.0), 9.0, 0.1, 10_000, seed=0) == 0


def answered(service, arrivals, seed):
    """Requests as cards of that service answer them."""
    cards = plain_queue.Modelled(service, seed)
    known = list(plain_queue.answer(service.line, arrivals, cards))
    last = service.line.stages
    ends = [[cards.end(each, stage) for stage in range(last)] for each in range(len(known))]
    return Answered(arrivals, known, (np.array(ends) - service.notice).tolist())


@pytest.mark.parametrize("slower", [0.0, 3.0])
def test_what_stages_wait_for_is_found_again(slower):
    """From requests at random, so that every round comes with what was before under way and not;
    stage 0 may be slower in a round that follows one like it."""
    after = {each: cycles + slower for each, cycles in TWO_STAGES[0, (1, 0)].items()}
    plain = two_stages(0.0)
    waits = {**plain.waits, (0, (1, 0), (1, 0)): Waits(after, np.zeros(1))}
    service = Service(plain.line, waits, plain.notice)
    found = queueing.fit(
        service.line, [answered(service, queueing.poisson(0.1, 2000, 5).tolist(), 0)]
    )
    assert found.notice == 0
    assert {each[:2] for each in found.waits} == TWO_STAGES.keys()
    for each, waits in found.waits.items():
        assert np.abs(waits.spread).max() == pytest.approx(0, abs=1e-9), each
    again = queueing.poisson(0.12, 2000, 6)
    assert queueing.waited(found, again) == pytest.approx(queueing.waited(service, again))


def four_stages():
    """Each round has cycles of its own, more the more requests are in it."""
    random = np.random.default_rng(4)
    base = random.uniform(1, 4, (4, 5))
    base[:, 0] = random.uniform(8, 12, 4)
    waits = {}
    for size in range(1, 5):
        for together in combinations((3, 2, 1, 0), size):
            for stage in together:
                after = base[stage] + size / 2 + random.normal(0, 0.4, 5)
                told = dict(enumerate(after.tolist(), ISSUE))
                waits[stage, together, ()] = Waits(told, random.normal(0, 0.2, 20))
    return Service(Line(4, 4), waits, 1.0)


@pytest.mark.parametrize("load", [0.6, 0.8])
def test_requests_at_random_are_enough_for_four_stages(load):
    """The 99th percentile of 10,000 requests, within 3 % of what it is."""
    service = four_stages()
    runs = [answered(service, [0.0] * size, size) for size in (1, 20, 2, 3, 4)]
    interval = float(np.diff(runs[1].known)[3:-4].mean())
    arrivals = queueing.poisson(LOAD / interval, at_random(service.line), 4)
    found = queueing.fit(service.line, [*runs, answered(service, arrivals.tolist(), 4)])
    took = [queueing.p99(each, load / interval, 10_000, 0) for each in (found, service)]
    assert took[0] == pytest.approx(took[1], rel=0.03)


@pytest.mark.parametrize(
    ("line", "count"),
    [(Line(1, 2), 12), (Line(2, 2), 12), (Line(3, 4), 36), (Line(4, 3), 84), (Line(4, 4), 96),
     (Line(7, 7), 96)],
    ids=str,
)  # fmt: skip
def test_more_kinds_of_rounds_want_more_requests_at_random(line, count):
    assert at_random(line) == count


@st.composite
def services(draw):
    """Stages of requests that may wait for anything; of each stage one round was seen at least."""
    stages, slots = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    syncs = draw(st.sets(st.integers(1, stages - 1))) if stages > 1 else ()
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    rounds = [
        together[::-1] for size in range(1, min(stages, slots) + 1)
        for together in combinations(range(stages), size)
    ]  # fmt: skip
    kept = [
        (stage, together, behind) for together in rounds for stage in together
        for behind in ((), *rounds)
        if (len(together) == 1 and not behind) or random.random() < 0.3
    ]  # fmt: skip
    waits = {}
    for each in kept:
        before = [stage for stage in range(stages) if random.random() < 0.5]
        after = {seen: random.uniform(1, 20) for seen in (ISSUE, *before)}
        waits[each] = Waits(after, random.normal(0, 0.5, random.integers(1, 6)))
    return Service(Line(stages, slots, tuple(sorted(syncs))), waits, random.uniform(0, 2))


@given(services(), st.floats(0.01, 0.5), st.integers(0, 100))
def test_compiled_and_plain_loops_agree_to_the_last_bit(service, rate, seed):
    arrivals = queueing.poisson(rate, 300, seed)
    waited = queueing.waited(service, arrivals, seed)
    assert waited.tolist() == plain_queue.waited(service, arrivals, seed).tolist()
    cards = plain_queue.Modelled(service, seed)
    known = list(plain_queue.answer(service.line, arrivals.tolist(), cards))
    ends = [cards._ends[request] for request in range(len(known))]
    answered = [Answered(arrivals.tolist(), known, ends)]
    found, plain = (each.fit(service.line, answered) for each in (queueing, plain_queue))
    assert found.notice == plain.notice
    assert [*found.waits] == [*plain.waits]
    for each, waits in plain.waits.items():
        assert found.waits[each].after == waits.after
        assert found.waits[each].spread.tolist() == waits.spread.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workload", "batch"),
    [(SMALL, 8), (SMALL | {"bottom": [64, 64, 16], "top": [128, 1]}, 8),
     (SMALL | {"tables": [4000, 3000, 2000], "pooling": 60}, 8)],
    ids=["links", "products", "bags"],
)  # fmt: skip
def test_the_model_says_what_the_cards_do(workload, batch):
    """64 requests that come at random to simulated cards: their 99th percentile within 3 %."""
    study = of(workload=workload, parameters={"cards": 2, "batch": batch})
    [values] = study.combinations()
    design, asked = study.design(values), work(study.workload, batch).requests
    with open_platform(design) as runtime:
        bursts = Bursts(runtime, deploy(runtime, work(study.workload, batch).graph), asked)
        order = list(range(len(asked)))
        for place in order:
            bursts.run([place])
        known = bursts.run([*order, *order])
        interval = (known[-5] - known[4]) / (len(known) - 9)
        bursts.mix(interval)
        service = queueing.fit(bursts.line, bursts.answered)
        for load in (0.3, 0.6, 0.8):
            arrivals = np.ceil(queueing.poisson(load / interval, 64, 1)).astype(int)
            known = bursts.run([n % len(asked) for n in range(64)], arrivals.tolist())
            waited = queueing.waited(service, arrivals.astype(float))
            assert np.percentile(waited, 99) == pytest.approx(
                np.percentile(np.array(known) - arrivals, 99), rel=0.03
            )
