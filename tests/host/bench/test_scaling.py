"""One request alone, several in flight, and all cards: which runs, and their ratio."""

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from types import SimpleNamespace

from halfdome.hdl.config import preset
from halfdome.host.bench import ladder, scaling


@pytest.fixture
def asked(monkeypatch):
    """What is measured of a rung with two inputs that takes 100 cycles, and 110 on several."""
    runs = []

    def measured(rung, step, config, cards, engine, requests, progress):
        runs.append((cards, [each["x"] for each in requests]))
        progress(len(requests), len(requests))
        return {"requests": len(requests), "cycles": 100 if cards == 1 else 110}

    rung = SimpleNamespace(inputs=[{"x": 0}, {"x": 1}])
    monkeypatch.setattr(ladder, "measured", measured)
    monkeypatch.setattr(ladder, "RUNGS", {"net": ladder.Step(lambda: rung, "y")})
    return runs


def test_cards_are_held_against_one(asked):
    result = scaling.measure(preset("tiny"), ["net"], cards=3)
    assert asked == [(1, [0]), (1, [0, 1, 0, 1]), (3, [0, 1, 0])]
    alone, in_flight, everywhere = result["rows"]
    assert "cards_ratio" not in alone
    assert "cards_ratio" not in in_flight
    assert everywhere["cards_ratio"] == pytest.approx(3 * 100 / 110)


def test_progress_begins_anew_for_each_row(asked):
    told = []
    scaling.measure(preset("tiny"), ["net"], cards=3, progress=lambda *each: told.append(each))
    anew = ("net", 0, 0)
    built, *rows = told
    assert built == anew
    assert rows == [anew, ("net", 1, 1), anew, ("net", 4, 4), anew, ("net", 3, 3)]


def test_a_rung_whose_files_are_missing_says_so(asked, monkeypatch):
    def missing():
        raise ladder.MissingModel("net: fetch it")

    monkeypatch.setattr(ladder, "RUNGS", {"net": ladder.Step(missing, "y")})
    result = scaling.measure(preset("tiny"), ["net"], cards=2)
    assert result["rows"] == [{"rung": "net", "missing": "net: fetch it"}]
    with pytest.raises(ValueError, match="--rung big: unknown; known are net"):
        scaling.measure(preset("tiny"), ["big"])
