"""Whole programs on cards with and without hardware, faults included: the same in every cycle."""

import pytest

import halfdome
from halfdome.hdl.config import PRESETS
from halfdome.hdl.pcie.timer import CompletionTimer
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
    """Faults of one phase, what became of each, and the cycles that it took."""
    patience = faults.PATIENCE_CYCLES
    with halfdome.open(
        cards=faults.CARDS, config="tiny", engine=engine, patience_cycles=patience
    ) as runtime:
        service = faults.serve(runtime)
        struck_at = faults.find_phases(service)[phase]
        for fault in ("corrupt", "poison", "lost-completion", "link-down"):
            before = runtime.cycles
            report = faults.strike(service, fault, struck_at)
            yield fault, report, report.pop("cycles"), runtime.cycles - before


@pytest.mark.parametrize("phase", ["input read", "peer copy"])
def test_faults_strike_and_are_mended_in_the_cycles_of_hardware(phase):
    """But for the cycle in which a read is given up: hardware looks at one tag a cycle."""
    config = PRESETS["tiny"]
    for modelled, real in zip(struck("timing", phase), struck("native", phase), strict=True):
        assert modelled[:2] == real[:2]
        within = config.dma_tags + CompletionTimer.slack if real[0] == "lost-completion" else 0
        assert real[2:] == pytest.approx(modelled[2:], abs=within, rel=0)
