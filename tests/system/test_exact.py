"""Six real cards with one outcome: any threads, any windows, cycles skipped or not, every time."""

import pytest

import halfdome
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import preset
from halfdome.host.models.quantise import request
from halfdome.host.platform import Runtime
from halfdome.host.serving.deploy import deploy
from halfdome.sim.golden.operators import Reference
from halfdome.sim.platform import Platform
from tests.sim.program import assert_same
from tests.system.test_dlrm import small_workload

TINY = preset("tiny")
CARDS = 6
REST_CYCLES = 2000


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return small_workload(tmp_path_factory.mktemp("ratings"), top=(8,), batches=3)


def answer(work, *, record=True, **options):
    """Times, bytes, counts and every pin in every cycle of a whole model on six cards."""
    seen = []
    with Platform(TINY, cards=CARDS, **options) as platform:
        for card in range(CARDS):
            platform.world.record(card, record)
        runtime = Runtime(platform, TINY, "native", Reference(TINY))
        served = deploy(runtime, work.graph)
        seen.append(str(served.run([request(batch) for batch in work.batches])))
        seen.append([card.counters() for card in runtime.cards])
        platform.run(REST_CYCLES)
        end = platform.cycles
        seen.append((end, platform.traffic()))
        seen.append([(i.time_ns, i.requester, i.data) for i in platform.interrupts])
        seen.append([platform.memory(card).tobytes() for card in range(CARDS)])
        traces = [platform.world.trace(card)[:end] for card in range(CARDS)]
        evaluated = sum(platform.world.evaluated_cycles(card) for card in range(CARDS))
    if record:
        assert all(len(trace) == end and trace["tx__valid"].any() for trace in traces)
    return seen, traces, evaluated / (CARDS * end)


@pytest.fixture(scope="module")
def plain(work):
    return answer(work, threads=1, skip_idle=False)


@pytest.mark.parametrize(
    ("threads", "window_cycles"), [(1, 0), (1, 1), (2, 0), (2, 1), (2, 4), (6, 0)]
)
def test_threads_windows_and_skipping_change_nothing(work, plain, threads, window_cycles):
    assert_same(plain, answer(work, threads=threads, window_cycles=window_cycles))


def test_the_same_run_again_and_again(work, plain):
    for _ in range(3):
        assert_same(plain, answer(work, threads=2))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_nobody_records_is_the_same(work, plain, threads):
    """Cards at rest lag behind their platform then, until something happens to them."""
    seen, _, evaluated_share = answer(work, threads=threads, record=False)
    assert seen == plain[0]
    assert evaluated_share < 0.6


def test_every_cycle_is_evaluated_on_request(plain):
    assert plain[2] >= 1


def test_idle_platform_costs_no_evaluation_and_loses_no_cycle():
    with halfdome.open(cards=2, config=TINY) as runtime:
        platform = runtime.platform
        platform.run(1000)
        before = platform.world.evaluated_cycles(1)
        platform.run(1_000_000)
        assert platform.world.evaluated_cycles(1) - before < 100
        for card in runtime.cards:
            counters = card.counters()
            assert 1_001_000 <= counters["cycles"] <= platform.cycles
            for engine in Engine:
                spent = [v for name, v in counters.items() if f"_{engine.name.lower()}_" in name]
                assert sum(spent) == counters["cycles"]
