"""The ladder of sizes: what a row counts, and what it makes of its seeds."""

import pytest

from halfdome.host.bench import fpga


def test_what_is_not_placed_has_no_clock(monkeypatch):
    counted = {"lut": 50_000, "ff": 9, "dsp": 100, "bram": 8}
    monkeypatch.setattr(fpga, "synthesise", lambda component, folder: dict(counted))
    monkeypatch.setattr(fpga, "route", lambda *called: pytest.fail("a card is placed"))
    told = []
    result = fpga.measure(["tiny"], progress=lambda *step: told.append(step))
    [row] = result["rows"]
    assert counted.items() <= row.items()
    assert row["fmax_mhz"] is row["int8_gmac_per_s_per_dsp"] is None
    assert told == [("tiny: synthesis", 0, 1)]


def test_what_multiplies_no_bytes_has_no_rate(monkeypatch):
    monkeypatch.setattr(fpga, "synthesise", lambda component, folder: {})
    clocks = {5: 80.0, 9: 100.0, 7: 93.0}
    monkeypatch.setattr(
        fpga, "route", lambda folder, seed: {"lut": 9, "dsp": 4, "fmax_mhz": clocks[seed]}
    )
    told = []
    result = fpga.measure(["lanes 1"], (5, 9, 7), lambda *step: told.append(step))
    [row] = result["rows"]
    assert (row["fmax_mhz"], row["fmax_mhz_by_seed"]) == (93.0, clocks)
    assert row["int8_gmac_per_s_per_dsp"] is row["int8_gmac_per_s_per_klut"] is None
    assert told == [
        ("lanes 1: synthesis", 0, 4),
        ("lanes 1: seed 5", 1, 4),
        ("lanes 1: seed 9", 2, 4),
        ("lanes 1: seed 7", 3, 4),
    ]


@pytest.mark.parametrize("name", fpga.LADDER)
def test_a_rung_is_what_it_is_called(name):
    rung = fpga.LADDER[name]
    unit, _, size = name.partition(" ")
    if "x" in size:
        rows, columns = map(int, size.split("x"))
        assert (rung.config.array_rows, rung.config.array_columns) == (rows, columns)
        assert rung.macs == rows * columns
    elif size:
        lanes = rung.config.vector_lanes if unit == "vector" else rung.config.lanes
        assert (lanes, rung.macs) == (int(size), 0)
    assert rung.placed == (unit not in ("small", "tiny"))


def test_an_unknown_rung_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="--rung array: unknown; known are array 2x2, array 4x4"):
        fpga.measure(["array"])
