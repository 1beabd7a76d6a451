"""One outcome: for both engines, every number of threads and every window."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.sim.fabric.faults import Fault, FaultKind, FaultPlan
from tests.sim.program import assert_same, run_program

TINY = PRESETS["tiny"]


@pytest.mark.slow
@settings(max_examples=3)
@given(seed=st.integers(0, 1 << 30))
def test_pysim_and_native_agree_in_every_cycle(seed):
    native = run_program(TINY, seed, cards=2, engine="native")
    pysim = run_program(TINY, seed, cards=2, engine="pysim")
    assert_same(native, pysim)


@given(seed=st.integers(0, 1 << 30), threads=st.sampled_from([2, 3, 6]))
def test_threads_do_not_change_a_run(seed, threads):
    one = run_program(TINY, seed, cards=6, threads=1, steps=20)
    assert_same(one, run_program(TINY, seed, cards=6, threads=threads, steps=20))


@given(seed=st.integers(0, 1 << 30), window=st.integers(1, 12))
def test_windows_do_not_change_a_run(seed, window):
    widest = run_program(TINY, seed, cards=3, threads=1, steps=20)
    assert_same(widest, run_program(TINY, seed, cards=3, threads=1, window_cycles=window, steps=20))


@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 30), window=st.integers(1, 12), threads=st.sampled_from([1, 3]))
def test_faults_are_the_same_in_every_run(seed, window, threads):
    kinds = (FaultKind.CORRUPT, FaultKind.LOSE_ACK, FaultKind.POISON)
    plan = FaultPlan.random(seed, cards=3, count=8, kinds=kinds, packets=20)
    down = Fault(kind=FaultKind.LINK_DOWN, card=2, after_ns=3_000, for_ns=1_000)
    options = {"cards": 3, "steps": 20, "faults": FaultPlan((*plan.faults, down))}
    widest = run_program(TINY, seed, threads=1, **options)
    assert_same(widest, run_program(TINY, seed, threads=threads, window_cycles=window, **options))


@pytest.mark.parametrize("clock_mhz", [100, 333, 1000])
def test_card_clock_may_be_anything(clock_mhz):
    config = TINY.replace(clock_mhz=clock_mhz)
    one = run_program(config, 5, cards=2, threads=1)
    assert_same(one, run_program(config, 5, cards=2, threads=2, window_cycles=1))


def test_the_same_program_gives_the_same_run_again():
    runs = [run_program(TINY, 11, cards=6, threads=2, steps=20) for _ in range(5)]
    for other in runs[1:]:
        assert_same(runs[0], other)


def test_a_difference_is_found():
    a, b = run_program(TINY, 1, cards=1), run_program(TINY, 2, cards=1)
    with pytest.raises(AssertionError):
        assert_same(a, b)
