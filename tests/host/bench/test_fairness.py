"""Cores that want more than there is get equal shares, however ports are numbered."""

import pytest

import halfdome
from halfdome.hdl.config import PRESETS
from halfdome.host.bench import fairness

LEAST = 0.8
"""Of its share, a core's in any window: the bar."""
FOUR = PRESETS["tiny"].replace(cores=4, counters=32)
TWO = PRESETS["tiny"].replace(cores=2)


def rows_of(config, engine):
    return fairness.bench(config, engine)["rows"]


def test_no_core_of_twelve_gets_much_less_than_its_share():
    rows = rows_of(PRESETS["m2"], "timing")
    streams = [row["stream"] for row in rows]
    assert streams == ["copies", "gathers", "copies and gathers", "products"]
    assert all(LEAST <= row["least_of_share"] <= 1 for row in rows)


@pytest.mark.slow
def test_hardware_serves_urgent_cores_first_as_the_timing_engine_says(monkeypatch):
    """Of the bus that two cores want whole, the other one still has a part."""
    monkeypatch.setattr(fairness, "STREAMS", (("copies",), ("gathers",)))
    found = {}
    for engine in ("native", "timing"):
        with halfdome.open(cards=1, config=TWO, engine=engine) as runtime:
            for core in range(2):
                runtime.cards[0].device.set_priority(core, core)
            found[engine] = fairness.measure(runtime)
    assert found["native"] == found["timing"]
    copies, gathers = found["timing"]
    assert 2 / 16 <= copies["least_of_share"] <= 0.7
    assert copies["bytes_per_cycle"] > 0.98 * TWO.bus_bytes
    assert gathers["least_of_share"] > 0.95  # there is enough for both


@pytest.mark.slow
@pytest.mark.long
def test_hardware_shares_as_the_timing_engine_says():
    rows = rows_of(FOUR, "native")
    assert rows == rows_of(FOUR, "timing")
    assert all(LEAST <= row["least_of_share"] <= 1 for row in rows)
    # DRAM has more, so what is shared is the bus: each core wants all of it.
    assert rows[0]["bytes_per_cycle"] == pytest.approx(FOUR.bus_bytes, rel=0.01)
