"""Work of a card over its cores: with the bits of one, and each core its part."""

import random
import re
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Engine, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler import cores
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.operands import decoded
from halfdome.host.driver.kernels import queue_of
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import GraphError, Value
from tests.host.networks import Network, residual
from tests.host.recommenders import Recommender, check_served

TINY, DEFAULT = PRESETS["tiny"].replace(counters=32), PRESETS["default"]
U8 = ElementFormat.UINT8


def product(rows, k, n):
    """A layer of `n` channels of `k`, for so many rows."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-9, 9, (n, k)).astype(np.int8), "b": np.zeros(n, np.int32),
        "m": np.full(n, 1e-3, np.float32),
    }  # fmt: skip
    node = Node("linear", ("x", "w", "b", "m"), "y", {"zero_point": 128})
    return Graph([Value("x", (rows, k), U8)], ["y"], [node], constants)


def busy(program, engine, count):
    """What an engine of each core of the first card is expected to be busy."""
    cycles = program.about["busy_cycles"][0]
    return [cycles.get(str(queue_of(core, engine)), 0.0) for core in range(count)]


def commands(program, opcode):
    """Commands of the first card, and the core of each."""
    part = program.parts[0]
    return [
        (each, queue // len(Engine))
        for each, queue in zip(decoded(part), part.queue.tolist(), strict=True)
        if each.opcode is opcode
    ]


@given(
    seed=st.integers(0, 1 << 30), cards=st.integers(1, 2), count=st.integers(2, 4),
    kind=st.sampled_from([Network, Recommender]),
)  # fmt: skip
def test_any_network_has_its_bits_however_cores_share_it(seed, cards, count, kind):
    made, draw = kind(seed), random.Random(seed)
    config = TINY.replace(cores=count)
    with patch.object(cores._Dealer, "_took", lambda self, parts: draw.random() * 1e4):
        try:
            requests = [made.request(), made.request()]
            check_served(made.graph, requests, config, cards=cards, seed=seed)
        except GraphError as error:
            if not re.search("order of columns|does not become", str(error)):
                raise


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("rows", "k", "n"), [(512, 64, 64), (32, 256, 1024)])
def test_arrays_share_a_product_evenly(rows, k, n, count):
    """By rows, or by channels if there are so few rows that loading tiles would take longer."""
    alone, shared = (
        compile(product(rows, k, n), DEFAULT.replace(cores=cores), values=False)
        for cores in (1, count)
    )
    [whole] = busy(alone, Engine.MATMUL, 1)
    assert busy(shared, Engine.MATMUL, count) == [pytest.approx(whole / count, rel=0.03)] * count


def test_rows_that_a_core_makes_and_reads_lie_near_it():
    """A sum goes row by row over what a product makes; a window sees rows of others, too."""
    near = {"scratchpad", "scratchpad 1"}
    for kernel, memories in ((1, near | {"dram"}), (3, {"dram"})):
        program = compile(residual(32, 64, 2, kernel), DEFAULT.replace(cores=2), values=False)
        sums = commands(program, Opcode.ADD_QUANTISED)
        read, made = (
            {program.segments[each.places[name][0]].memory for each, _ in sums} for name in "by"
        )
        assert read == near
        assert made == memories


def test_weights_in_far_memory_are_held_once():
    program = compile(residual(56, 64, 2, 3), DEFAULT.replace(cores=4), values=False)
    held = [s for s in program.segments if s.contents and s.memory == "dram"]
    assert len({segment.contents for segment in held}) == len(held)
    assert len({(s.position, s.name) for s in program.segments if s.contents}) == sum(
        bool(segment.contents) for segment in program.segments
    )


def test_a_core_reaches_its_own_near_memory_alone():
    program = compile(residual(28, 64, 2, 3, images=2), DEFAULT.replace(cores=3), values=False)
    part = program.parts[0]
    for each, queue in zip(decoded(part), part.queue.tolist(), strict=True):
        near = {
            program.segments[number].memory
            for number, remote in each.places.values()
            if not remote and program.segments[number].memory != "dram"
        }
        core = queue // len(Engine)
        assert near <= {f"scratchpad {core}" if core else "scratchpad"}


@pytest.mark.parametrize("cards", [1, 2])
def test_one_core_runs_what_it_ran(cards):
    """A second core changes nothing for those who do not use it."""
    graph = residual(14, 32, 2, 3)
    one = compile(graph, DEFAULT, cards, values=False)
    assert {int(queue) for part in one.parts for queue in part.queue} <= set(range(len(Engine)))
    assert {s.memory for s in one.segments} <= {"scratchpad", "dram", "host"}
