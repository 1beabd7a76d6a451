"""Parts of random cards are synthesised and held against the fit."""

import pytest

from halfdome.host.explore import area, synthesise


@pytest.fixture(scope="module")
def result():
    return synthesise.measure(["counters"], 1, 3, lambda text: None)


def test_a_part_is_counted_and_the_fit_is_near(result):
    [row] = result["rows"]
    config = area.card(row["settings"])
    assert row["part"] == "counters"
    assert row["lut"] + 100 * row["bram"] > 32 * config.cores
    assert abs(row["lut_error_percent"]) < 10
    assert result["p95_percent"]["lut"] == pytest.approx(abs(row["lut_error_percent"]))


def test_rows_are_added_as_the_file_of_the_fit_has_them(result, tmp_path, monkeypatch):
    file = tmp_path / "area.csv"
    file.write_text(area.SYNTHESISED.read_text().splitlines(keepends=True)[0])
    synthesise.add(file, result, fitted=True)
    monkeypatch.setattr(area, "SYNTHESISED", file)
    [read] = area.synthesised.__wrapped__()
    assert (read.part, read.fitted) == ("counters", True)
    assert read.counted == {name: result["rows"][0][name] for name in area.RESOURCES}


@pytest.mark.parametrize("part", area.PARTS)
def test_cards_are_drawn_that_can_be_and_the_same_again(part):
    drawn = list(synthesise.drawn(part, 5, 1))
    assert drawn == list(synthesise.drawn(part, 5, 1))
    assert len({area.card(settings) for settings in drawn}) > 1 or not area.PARTS[part].fields


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="--part lamp: is none; there are array"):
        synthesise.measure(["lamp"], 1, 0, lambda text: None)
