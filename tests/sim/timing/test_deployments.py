"""Whole programs on cards with and without hardware, faults included: the same in every cycle."""

import pytest

import halfdome
from halfdome.host.bench import faults
from halfdome.host.serving.deploy import deploy
from tests.host.networks import Network

pytestmark = pytest.mark.slow  # models of cards are compiled first


def answered(engine, seeds):
    """What each of some random networks takes and does, one after the other."""
    with halfdome.open(cards=1, config="tiny", engine=engine) as runtime:
        for seed in seeds:
            made = Network(seed)
            served = deploy(runtime, made.graph)
            responses = served.run([made.request() for _ in range(2)])
            latencies = [response.latency_cycles for response in responses]
            served.release()
            yield seed, runtime.cycles, latencies, runtime.cards[0].counters()


def test_networks_take_the_cycles_of_hardware():
    seeds = (6, 10, 14, 22, 23, 45)
    assert list(answered("timing", seeds)) == list(answered("native", seeds))


def struck(engine, phase):
    """Faults of one phase, what became of each, and when."""
    patience = faults.PATIENCE_CYCLES
    with halfdome.open(
        cards=faults.CARDS, config="tiny", engine=engine, patience_cycles=patience
    ) as runtime:
        service = faults.serve(runtime)
        struck_at = faults.find_phases(service)[phase]
        for fault in ("corrupt", "poison", "lost-completion", "link-down"):
            yield faults.strike(service, fault, struck_at), runtime.cycles


@pytest.mark.parametrize("phase", ["input read", "peer copy"])
def test_faults_strike_and_are_mended_in_the_cycles_of_hardware(phase):
    assert list(struck("timing", phase)) == list(struck("native", phase))
