"""What was simulated is found again by what cards saw of it, and by nothing else."""

import sqlite3

import pytest

from halfdome.host.explore.kept import kept
from halfdome.host.explore.queueing import Answered, Line
from halfdome.host.explore.simulate import Ran
from tests.host.explore.studies import SMALL, of

RAN = Ran(
    Line(3, 2, (1,)), [Answered([0.1, 7], [9, 20], [[1.5, 2.0, 3.0], [7.25, 8.5, 1e300]])],
    [0.1 + 0.2], [1 / 3], 8.0, 80, 1234, [{"cycles": 1 << 60}], 5, 6, 7, 8, 9, None,
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never():
    pytest.fail("simulated again")


def test_what_was_found_is_found_again_to_the_last_bit():
    assert kept("a point", lambda: RAN) is RAN
    assert kept("a point", never) == RAN
    with pytest.raises(ZeroDivisionError):
        kept("another", lambda: 1 / 0)


def test_what_cannot_be_kept_is_simulated(folder):
    folder.write_text("no folder")
    assert kept("a point", lambda: RAN) is RAN


@pytest.mark.parametrize("damage", ["UPDATE simulated SET ran = x'00'", None])
def test_what_is_damaged_is_simulated_again(folder, damage):
    kept("a point", lambda: RAN)
    if damage:
        with sqlite3.connect(folder / "simulated.db") as database:
            database.execute(damage)
    else:
        (folder / "simulated.db").write_bytes(b"no database" * 1000)
    again = []
    kept("a point", lambda: again.append(1) or RAN)
    assert again


def seen(lanes=4, **said):
    study = of(parameters={"lanes": lanes, "cards": 2}, **said)
    [values] = study.combinations()
    return study.seen_by_cards(study.design(values))


def test_what_is_wanted_of_a_point_does_not_change_what_cards_do(tmp_path):
    bound = {"arrivals": {"p99_us": 20}}
    assert seen(**bound) == seen(
        name="other", objectives=["latency_us"], constraints={"power_w": {"most": 1}},
        arrivals={"p99_us": 90, "requests": 20_000},
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [{"lanes": 8}, {"values": False}, {"engine": "native"}, {"arrivals": {"p99_us": 20}},
     {"workload": SMALL | {"reuse": "production"}}],
    ids=str,
)  # fmt: skip
def test_another_card_or_another_work_is_another_point(said):
    assert seen(**said) != seen()
