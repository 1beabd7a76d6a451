"""Platforms of more cards than one carrier holds: right to the last bit, and on every engine."""

import pytest

from halfdome.hdl.config import MOST_CARDS, PLATFORM_CARDS
from halfdome.host.explore import measure
from tests.host.explore.studies import SMALL, of


def measured(**said):
    made = of(workload=SMALL | {"requests": 4}, **said)
    [values] = made.combinations()
    return measure.measure(made, values)


@pytest.mark.slow
@pytest.mark.parametrize("cards", [PLATFORM_CARDS + 1, MOST_CARDS])
def test_cards_beyond_one_carrier_answer_right(cards):
    row = measured(parameters={"cards": cards, "counters": 32, "batch": 24})
    assert row["mismatching_samples"] == 0
    assert row["samples_of_a_request"] == 24


@pytest.mark.slow
def test_addresses_of_the_largest_cards_reach_every_peer():
    """As much DRAM as JESD209-4 allows; each window is as large, and they lie side by side."""
    row = measured(parameters={"cards": MOST_CARDS, "counters": 32, "batch": 24,
                               "dram_bytes": 1 << 34, "dram_channels": 4})  # fmt: skip
    assert row["mismatching_samples"] == 0


@pytest.mark.long
def test_twelve_cards_of_rtl_take_the_cycles_of_the_timing_engine():
    parameters = {"cards": MOST_CARDS, "batch": 24}
    rows = [measured(config="default", engine=engine, parameters=parameters)
            for engine in ("timing", "native")]  # fmt: skip
    for name in ("interval_cycles", "latency_cycles", "shares", "mismatching_samples"):
        assert rows[0][name] == rows[1][name], name
