"""A few dozen components of `tests/sim/fuzz_simulate.py`, and that it tells what it finds."""

import pytest

from tests.sim import fuzz_simulate
from tests.sim.fuzz.benches import Outcome
from tests.sim.fuzz_simulate import REFUSED, difference, main, outcome, outcomes


@pytest.mark.parametrize(
    "seeds",
    [range(24), pytest.param(range(24, 204), marks=[pytest.mark.slow, pytest.mark.long])],
    ids=["few", "many"],
)
def test_both_engines_see_the_same_of_random_components(seeds):
    found = {seed: difference(pysim, native) for seed, pysim, native in outcomes(seeds)}
    assert found == dict.fromkeys(seeds)


def test_equal_seeds_do_the_same():
    assert outcome("pysim", 3) == outcome("pysim", 3)
    assert outcome("pysim", 3) != outcome("pysim", 5)


SEEN = [("start", [0]), ("outputs", [1])]


@pytest.mark.parametrize(
    ("native", "found"),
    [
        (Outcome(SEEN, "9 cycles"), None),
        (Outcome([("start", [0]), ("outputs", [2])], "9 cycles"), r"observation 1"),
        (Outcome(SEEN, "8 cycles"), "the end"),
        (Outcome(SEEN[:1], "9 cycles"), "the end"),
        (Outcome([], f"ValueError: a clock; {REFUSED}"), None),
        (Outcome([("start", [3])], f"ValueError: a clock; {REFUSED}"), "observation 0"),
    ],
)
def test_first_difference_is_told_with_its_seed(monkeypatch, capsys, native, found):
    pysim = Outcome(SEEN, "9 cycles")
    monkeypatch.setattr(
        fuzz_simulate, "outcomes", lambda seeds: [(s, pysim, native) for s in seeds]
    )
    assert main(["--components", "1", "--seed", "77"]) == (found is not None)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "seed 77"
    assert (found is not None) == told[1].startswith("seed 77: ")
    if found:
        assert found in told[1]
