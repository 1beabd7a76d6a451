"""A program without values is the same program, but for what its weights hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.numpy import NumpyTarget
from halfdome.host.graph.graph import Graph
from halfdome.host.graph.values import GraphError
from halfdome.host.runtime.loader import check
from halfdome.host.runtime.program import ProgramError
from tests.host.networks import Network
from tests.host.recommenders import Recommender

TINY = PRESETS["tiny"]
TARGETS = [TINY, PRESETS["default"], NumpyTarget(1 << 20)]


def without_memory(graph):
    """The graph with constants of the same shapes that take no memory; multipliers stay."""
    constants = {
        name: array if array.dtype == np.float32 and array.ndim == 1
        else np.broadcast_to(np.zeros((), array.dtype), array.shape)
        for name, array in graph.constants.items()
    }  # fmt: skip
    return Graph(graph.inputs, graph.outputs, graph.nodes, constants)


@given(
    seed=st.integers(0, 1 << 30), kind=st.sampled_from([Network, Recommender]),
    target=st.sampled_from(TARGETS), cards=st.integers(1, 3),
)  # fmt: skip
def test_all_but_the_contents_is_as_with_values(seed, kind, target, cards):
    graph = kind(seed).graph
    try:
        whole = compile(graph, target, cards)
    except (MemoryError, GraphError):
        return
    bare = compile(without_memory(graph), target, cards, values=False)
    assert bare.weights == {}
    assert (bare.about, bare.slots, bare.stages) == (whole.about, whole.slots, whole.stages)
    for mine, other in zip(bare.segments, whole.segments, strict=True):
        assert other.name.startswith(mine.name)
        assert mine == replace(other, name=mine.name, contents=mine.contents)
    for mine, other in zip(bare.parts, whole.parts, strict=True):
        assert mine.code.keys() == other.code.keys()
        for name, values in mine.code.items():
            np.testing.assert_array_equal(values, other.code[name])
        np.testing.assert_array_equal(mine.waits, other.waits)


def test_it_tells_what_a_request_costs():
    program = compile(Recommender(3).graph, TINY, 2, values=False)
    about = program.about
    assert about["latency_cycles"] >= max(max(each.values()) for each in about["busy_cycles"])
    assert about["interval_cycles"] >= max(max(each.values()) for each in about["busy_cycles"])
    assert all(set(each) <= {"scratchpad", "dram"} for each in about["traffic_bytes"])


def test_it_can_be_neither_saved_nor_loaded(tmp_path):
    program = compile(Recommender(3).graph, TINY, 1, values=False)
    with pytest.raises(ProgramError, match=r"values=False and has no .* compile it"):
        program.save(tmp_path / "bare.halfdome")
    with pytest.raises(ProgramError, match="values=False"):
        check(program, [], values=True)
