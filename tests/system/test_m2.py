"""The class of card that the platform was built with: six, whole, and two cores as hardware."""

import pytest

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import PRESETS
from halfdome.host.bench import dlrm
from halfdome.host.models.dlrm import WEIGHTS
from tests.host.models.test_trained_model import needs_data
from tests.system.test_dlrm import small_workload

M2 = PRESETS["m2"]
CARDS = 6


def test_each_queue_and_each_peer_has_a_counter():
    assert M2.counters >= M2.cores * len(Engine) + CARDS


def test_a_recommender_has_golden_bits_on_six_cards_of_twelve_cores(tmp_path):
    work = small_workload(tmp_path, batches=4)
    assert dlrm.run(work, M2, cards=CARDS, engine="timing").mismatches == 0


@pytest.mark.slow
@pytest.mark.long
@needs_data
def test_the_demo_has_golden_bits_on_six_cards_of_twelve_cores():
    work = dlrm.workload(None, WEIGHTS, 1024, 128)
    outcome = dlrm.run(work, M2, cards=CARDS, engine="timing")
    assert outcome.mismatches == 0
    assert outcome.report["samples"] == 1024


@pytest.mark.slow
@pytest.mark.long
@needs_data
def test_two_cores_answer_the_demo_on_hardware_as_on_the_timing_engine():
    """A core compiles in 400 processor seconds, whatever the number of cores."""
    work, config = dlrm.workload(None, WEIGHTS, 8, 8), M2.replace(cores=2)
    hardware, timing = (
        dlrm.run(work, config, cards=1, engine=engine) for engine in ("native", "timing")
    )
    assert hardware.mismatches == 0
    assert hardware.report["total_cycles"] == timing.report["total_cycles"]
