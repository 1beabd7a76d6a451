"""Whole cards on random command programs: the golden card's bits, and both engines in lockstep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfdome.hdl.commands import Engine, Status
from halfdome.hdl.config import PRESETS
from halfdome.host.bench.fpga import LADDER
from tests.system.programs import (
    OTHER,
    SLOT,
    assert_same_ports,
    golden_outcome,
    outcomes,
    random_tasks,
    run,
)

pytestmark = pytest.mark.slow  # a model of the card is compiled first

TINY = PRESETS["tiny"]
SHAPES = [
    pytest.param(TINY, id="tiny"),
    pytest.param(OTHER, id="other"),
    pytest.param(TINY.replace(cores=2), id="two cores"),
    pytest.param(LADDER["small"].config, id="small", marks=pytest.mark.long),
]


@pytest.mark.parametrize("config", SHAPES)
@settings(max_examples=8)
@given(seed=st.integers(0, 1 << 30))
def test_every_bit_is_the_golden_cards(config, seed):
    tasks = random_tasks(config, seed, min(40, config.dram_bytes // (2 * SLOT)))
    golden, expected = golden_outcome(config, tasks)
    result = run(config, tasks, "native")
    assert outcomes(result["completions"]) == expected
    assert np.array_equal(result["dram"], golden.memory[: config.dram_bytes])
    start = config.scratchpad_address(0)
    scratchpads = golden.memory[start : start + config.cores * config.scratchpad_bytes].tobytes()
    assert result["scratchpads"] == scratchpads


def test_random_programs_hold_good_and_bad_commands():
    statuses = {
        status
        for seed in range(40)
        for status, _ in golden_outcome(TINY, random_tasks(TINY, seed, 40))[1]
    }
    assert {
        Status.OK, Status.BAD_DIMENSION, Status.BAD_RANGE, Status.BAD_ALIGNMENT, Status.BAD_FORMAT,
        Status.LENGTH_MISMATCH, Status.BAD_CORE, Status.BAD_COUNTER,
    } <= statuses  # fmt: skip


# Amaranth's simulator takes half a minute to begin.
@settings(max_examples=max(1, settings.default.max_examples // 5))
@given(seed=st.integers(1, 1 << 30))
def test_both_engines_show_the_same_ports_in_every_cycle(seed):
    tasks = random_tasks(TINY, seed, 12)
    native, pysim = (run(TINY, tasks, engine, record=True) for engine in ("native", "pysim"))
    assert native["completions"].tolist() == pysim["completions"].tolist()
    assert native["cycles"] == pysim["cycles"]
    assert_same_ports(native["trace"], pysim["trace"])
    assert np.array_equal(native["dram"], pysim["dram"])
    assert native["scratchpads"] == pysim["scratchpads"]


@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=3)
def test_activities_of_every_engine_sum_to_the_cycles_elapsed(seed):
    counters = run(TINY, random_tasks(TINY, seed, 20), "native")["counters"]
    for engine in Engine:
        spent = [v for name, v in counters.items() if f"_{engine.name.lower()}_" in name]
        assert len(spent) == 4
        assert sum(spent) == counters["cycles"]
