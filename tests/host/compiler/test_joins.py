"""Joined tensors: every column is somewhere once, and what travels or is read begins at a word."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.bags import bag_nodes
from halfdome.host.compiler.compile import placement, target_of
from halfdome.host.compiler.joins import JOINS, Joins
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from tests.host.recommenders import Recommender, check_served

TINY = PRESETS["tiny"]
CROWDED = TINY.replace(dram_bytes=1 << 16)


def joins_of(seed, config, cards, apart):
    """The joins of a random recommender, its graph and the tasks of its tables."""
    graph = Recommender(seed).graph
    nodes = bag_nodes(graph)
    tasks = {node.output: [] for node in nodes}
    for task in placement(graph, config, cards).tasks:
        tasks[nodes[task.table].output].append(task)
    return Joins(graph, target_of(config), tasks, apart), graph, tasks


@given(
    seed=st.integers(0, 1 << 30), config=st.sampled_from([TINY, CROWDED]), cards=st.integers(1, 4),
    apart=st.booleans(),
)  # fmt: skip
def test_columns_of_a_join_are_those_of_its_inputs_and_padding(seed, config, cards, apart):
    try:
        joins, graph, tasks = joins_of(seed, config, cards, apart)
    except MemoryError:
        return
    word = config.bus_bytes
    for node in graph.nodes:
        columns, width = joins.columns[node.output], graph.values[node.output].shape[1]
        assert sorted(columns[columns >= 0]) == list(range(width))
        if node.op not in JOINS:
            continue
        join, nbytes = joins.joins[node.output], graph.values[node.inputs[0]].format.nbytes
        assert join.stride % word == 0
        assert join.stride >= len(join.columns) * nbytes
        firsts = np.cumsum([0, *(graph.values[name].shape[1] for name in node.inputs)])
        seen = np.zeros(len(join.columns), int)
        for piece in join.pieces:
            name = node.inputs[piece.place]
            inner = joins.columns[name][piece.columns.start : piece.columns.stop]
            start = piece.start // nbytes
            lies = slice(start, start + len(inner))
            expected = np.where(inner >= 0, firsts[piece.place] + inner, -1)
            assert (join.columns[lies] == expected).all()
            seen[lies] += 1
            pooled = joins.written_in.get(name) == (node.output, piece.place) and name in tasks
            uses = [*graph.outputs, *(n for each in graph.nodes for n in each.inputs)].count(name)
            if apart or not pooled or uses > 1:
                assert piece.start % word == 0
        assert seen.max() == 1
        assert (join.columns[seen == 0] == -1).all()
        if node.op == "pairs":
            starts = sorted(join.start(place) for place in range(len(node.inputs)))
            step = join.stride // len(node.inputs)
            assert starts == [place * step for place in range(len(node.inputs))]


@given(seed=st.integers(0, 1 << 30), cards=st.integers(1, 4))
def test_every_tensor_is_written_in_one_place_and_only_if_somebody_makes_it(seed, cards):
    joins, graph, _ = joins_of(seed, TINY, cards, apart=False)
    by_name = {node.output: node for node in graph.nodes}
    for name, (join, place) in joins.written_in.items():
        assert name in by_name
        assert by_name[join].inputs[place] == name
    inputs = {value.name for value in graph.inputs}
    assert not inputs & set(joins.written_in)


def test_what_windows_make_of_a_tensor_is_joined_with_it():
    """Maxima are found band by band; a band would begin below rows of what it reads."""
    rng = np.random.default_rng(4)
    x = Value("x", (1, 13, 13, 40), ElementFormat.UINT8)
    pads = {"kernel": (5, 5), "stride": (1, 1), "pads": (2, 2, 2, 2), "dilation": (1, 1)}
    nodes = [
        Node("lookup", ("x", "t"), "a", {"format": ElementFormat.UINT8}),
        Node("max_pool", ("a",), "p", pads), Node("max_pool", ("p",), "q", pads),
        Node("concat", ("a", "p", "q"), "y"),
    ]  # fmt: skip
    graph = Graph([x], ["y"], nodes, {"t": rng.permutation(256).astype(np.uint8)})
    check_served(graph, [{"x": rng.integers(0, 256, x.shape).astype(np.uint8)}], TINY)
