"""Graphs: in which order nodes run, whether rows stand alone, and what makes no graph."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import DTYPES, GraphError, Value, format_of
from tests.host.graph import reference

X = Value("x", (4, 3), ElementFormat.FLOAT32)


def chain(*names, inputs=(X,), outputs=None):
    """Nodes that each read the one before."""
    nodes = [Node("affine", (before,), name) for before, name in pairwise(names)]
    return Graph(inputs, outputs or [names[-1]], nodes, {})


def test_nodes_stand_in_an_order_in_which_they_can_run():
    nodes = [Node("add", ("b", "a"), "c"), Node("affine", ("a",), "b"), Node("affine", ("x",), "a")]
    graph = Graph([X], ["c"], nodes, {})
    assert [node.output for node in graph.nodes] == ["a", "b", "c"]
    assert graph.consumers("a") == [graph.nodes[1], graph.nodes[2]]
    assert graph.consumers("c") == []


@given(seed=st.integers(0, 1 << 20), count=st.integers(1, 30))
def test_random_graphs_compute_what_numpy_does_in_any_order(seed, count):
    rng, picker = np.random.default_rng(seed), random.Random(seed)
    known, nodes = ["x", "z"], []
    for number in range(count):
        op = picker.choice(["affine", "add", "multiply", "clamp"])
        operands = picker.choices(known[-6:], k=2 if op in ("add", "multiply") else 1)
        attributes = {"add": {"multiplier": 0.5}, "clamp": {"low": -4.0, "high": 4.0}}.get(op, {})
        nodes.append(Node(op, tuple(operands), f"n{number}", attributes))
        known.append(f"n{number}")
    picker.shuffle(nodes)
    inputs = [X, Value("z", (4, 3), ElementFormat.FLOAT32)]
    graph = Graph(inputs, [known[-1]], nodes, {})
    places = {node.output: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        assert all(places.get(name, -1) < places[node.output] for name in node.inputs)
    request = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in "xz"}
    found, expected = graph.run(request), reference.run(graph, request)
    for name in known:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Graph([X], ["x"], [Node("clamp", ("z",), "x")], {"z": np.zeros((4, 3), np.int8)}),
         "x: there are two values of this name"),
        (lambda: Graph([X, X], ["x"], [], {}), "x: there are two values of this name"),
        (lambda: Graph([X], ["x"], [], {"x": np.zeros(2, np.int8)}), "x: there are two values"),
        (lambda: Graph([X], ["a"], [Node("affine", ("x",), "a")] * 2, {}), "a: two nodes make it"),
        (lambda: chain("y", "a"), "affine a: nothing makes its input y"),
        (lambda: chain("x", "a", outputs=["b"]), "output b: no node makes it"),
        (lambda: Graph([X], [], [], {}), "outputs: there must be at least one"),
        (lambda: Graph([X], ["a"], [], {"a": np.zeros(2)}), "constant a: is float64, a tensor"),
        (lambda: Graph([X], ["a"], [], {"a": [1.0]}), "constant a: is a list, must be an array"),
        (lambda: Value("x", (4, 3), 2), "x: format=2: must be an ElementFormat"),
        (lambda: Value("x", 4, ElementFormat.INT8), "x: shape=4: must be a tuple"),
        (lambda: Value("x", (4,), ElementFormat.INT8, zero_point=1.5), "zero_point=1.5: must be"),
        (lambda: chain("a", "b", "c", "a"), "a cycle: "),
        (lambda: chain("a", "a"), "a cycle: a → a"),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused(make, message):
    with pytest.raises(GraphError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "value: its name is empty"),
        ({"shape": (2, -1)}, r"x: shape=\(2, -1\): must be whole numbers, 0 or more"),
        ({"shape": (2.0, 1)}, r"x: shape=\(2.0, 1\): must be whole numbers"),
        ({"format": ElementFormat.UINT8, "zero_point": 256}, "x: zero_point=256: must fit uint8"),
        ({"format": ElementFormat.INT8, "zero_point": 128}, "x: zero_point=128: must fit int8"),
    ],
)
def test_what_is_no_value_is_refused(options, message):
    usual = {"name": "x", "shape": (2, 1), "format": ElementFormat.FLOAT32}
    with pytest.raises(GraphError, match=message):
        Value(**usual | options)


@pytest.mark.parametrize("element", ElementFormat)
def test_formats_and_dtypes_stand_for_each_other(element):
    value = Value("x", (2, 3, 5), element)
    assert format_of(value.dtype) is element
    assert value.row_bytes == 15 * DTYPES[element].itemsize == 15 * element.nbytes
    assert str(value) == f"x: {DTYPES[element]}[2, 3, 5]"


def test_a_graph_whose_rows_stand_alone_has_a_batch():
    assert chain("x", "a").batch == 4
    bags = [
        Value("i", (9,), ElementFormat.INT32, ragged=True),
        Value("l", (4,), ElementFormat.INT32),
    ]
    node = Node("embedding_bag", ("t", "i", "l"), "p")
    assert Graph([X, *bags], ["p"], [node], {"t": np.zeros((2, 12), np.uint8)}).batch == 4


def test_inputs_of_different_sizes_have_no_batch():
    other = Value("z", (5, 3), ElementFormat.FLOAT32)
    assert chain("x", "a", inputs=(X, other)).batch is None


def test_fewer_rows_than_the_batch_give_the_first_rows_of_the_same():
    graph = chain("x", "a", "b")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    whole = graph.run({"x": x})
    for rows in range(5):
        np.testing.assert_array_equal(graph.run({"x": x[:rows]})["b"], whole["b"][:rows])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "input x: missing from the request"),
        ({"x": np.zeros((5, 3), np.float32)}, r"input x: is float32\[5, 3\], must have at most 4"),
        ({"x": np.zeros((4, 2), np.float32)}, r"input x: is float32\[4, 2\], must be float32 of"),
        ({"x": np.zeros((4, 3))}, r"input x: is float64\[4, 3\], must be float32 of shape"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        chain("x", "a").run(request_)
