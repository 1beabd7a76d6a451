"""Programs have the bits of their graphs, whatever is joined with what, and by whomever read."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.division import shares
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import GraphError, Value
from halfdome.host.runtime.transfers import Transfers
from tests.host.recommenders import Recommender, check_served

TINY = PRESETS["tiny"]
CROWDED = TINY.replace(dram_bytes=1 << 16)
"""So little memory that tables are cut by columns."""
U8, F32, I32 = ElementFormat.UINT8, ElementFormat.FLOAT32, ElementFormat.INT32


@pytest.mark.parametrize(("samples", "cards"), [(128, 6), (1, 3), (2, 3), (7, 3), (6, 1)])
def test_shares_cover_a_batch_and_are_as_equal_as_can_be(samples, cards):
    parts = shares(samples, cards)
    assert [sample for part in parts for sample in part] == list(range(samples))
    sizes = [len(part) for part in parts]
    assert len(sizes) == cards
    assert max(sizes) - min(sizes) <= 1


SWITCHES = st.builds(Transfers, **{field.name: st.booleans() for field in fields(Transfers)})


@given(
    seed=st.integers(0, 1 << 30), cards=st.integers(1, 4), config=st.sampled_from([TINY, CROWDED]),
    transfers=st.one_of(st.just(Transfers()), SWITCHES), in_flight=st.sampled_from([None, 1, 2, 3]),
    requests=st.integers(1, 5),
)  # fmt: skip
def test_any_recommender_has_the_bits_of_its_graph(
    seed, cards, config, transfers, in_flight, requests
):
    made = Recommender(seed)
    try:
        check_served(
            made.graph, [made.request() for _ in range(requests)], config, cards=cards, seed=seed,
            transfers=transfers, in_flight=in_flight,
        )  # fmt: skip
    except MemoryError:  # before anything is done
        assert config is CROWDED


BATCH = 5
RNG = np.random.default_rng(7)


def table(dim, rows=40):
    return RNG.normal(size=(rows, dim)).astype(np.float32)


def bags(name, dim, **attributes):
    """A table, its node and its inputs."""
    inputs = [
        Value(f"{name} i", (BATCH * 3,), I32, ragged=True),
        Value(f"{name} l", (BATCH,), I32),
    ]
    attributes = {"row_format": 4, "format": U8, "multiplier": 20.0, "zero_point": 128} | attributes
    node = Node("embedding_bag", (f"{name} t", f"{name} i", f"{name} l"), name, attributes)
    return inputs, node


def graph_of(tables, nodes, outputs, inputs=(), rows=40):
    """Tables by name and dim, and what is made of them."""
    made = {name: bags(name, dim) for name, dim in tables.items()}
    values = [*inputs, *(value for both, _ in made.values() for value in both)]
    constants = {f"{name} t": table(dim, rows) for name, dim in tables.items()}
    return Graph(values, outputs, [*(node for _, node in made.values()), *nodes], constants)


def request(graph, rows=BATCH):
    arrays = {}
    for value in graph.inputs:
        if value.name.endswith(" l"):
            arrays[value.name] = RNG.integers(0, 4, rows).astype(np.int32)
    for value in graph.inputs:
        if value.name.endswith(" i"):
            count = arrays[value.name[:-1] + "l"].sum()
            arrays[value.name] = RNG.integers(0, 40, count).astype(np.int32)
        elif value.format is F32:
            arrays[value.name] = RNG.normal(size=(rows, value.shape[1])).astype(np.float32)
    return arrays


X, Z = Value("x", (BATCH, 3), F32), Value("z", (BATCH, 9), F32)


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([Node("concat", ("a", "b", "c", "a"), "y")], ["y"]),  # twice in the same
        ([Node("concat", ("a", "b"), "y"), Node("concat", ("a", "c"), "z")], ["y", "z"]),
        ([Node("concat", ("a", "b"), "y"), Node("concat", ("y", "c", "y"), "z")], ["z", "y"]),
        ([Node("concat", ("b", "c", "a"), "y")], ["y", "a", "c"]),  # also put out by themselves
        ([Node("concat", ("b", "c"), "y"), Node("affine", ("c",), "z")], ["y", "z"]),
        ([Node("concat", ("c",), "y")], ["y", "c"]),
        ([], ["a", "b", "c"]),
        ([Node("pairs", ("d", "e", "d"), "y", {"multiplier": 1e-3}),
          Node("concat", ("d", "e"), "z")], ["y", "z"]),
        ([Node("pairs", ("d", "e"), "y", {"multiplier": 1e-3, "zero_point": 128}),
          Node("concat", ("y", "d", "y"), "z"), Node("affine", ("z",), "v")], ["v", "e"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("config", "cards"), [(TINY, 1), (TINY, 3), (CROWDED, 3)])
def test_tensors_that_are_joined_and_read_elsewhere(nodes, outputs, config, cards):
    """Tables whose rows are no whole bus words; on crowded cards two are cut by columns."""
    tables = {"a": 7, "b": 5, "c": 13, "d": 80, "e": 80}
    graph = graph_of(tables, nodes, outputs, rows=100 if config is CROWDED else 40)
    requests = [request(graph) for _ in range(2)]
    program = check_served(graph, requests, config, cards=cards, seed=cards)
    cut = {n for n, tasks in program.about["tables"].items() if len({t[3] for t in tasks}) > 1}
    assert cut == ({"d", "e"} if config is CROWDED else set())


@pytest.mark.parametrize(
    ("inputs", "nodes", "outputs"),
    [
        ([X, Z], [Node("concat", ("x", "z"), "y"), Node("affine", ("z",), "v")], ["y", "v"]),
        ([X], [Node("affine", ("x",), "y", {"format": U8, "multiplier": 9.0})], ["y", "x"]),
        ([X, replace(X, name="z")], [Node("add", ("x", "z"), "y")], ["y"]),
    ],
)
def test_inputs_that_may_travel_as_halves(inputs, nodes, outputs):
    graph = Graph(inputs, outputs, nodes, {})
    check_served(graph, [request(graph)], TINY, cards=2, transfers=Transfers(half_inputs=True))


CONSTANT = {"k": np.ones((BATCH, 3), np.float32), "u": np.ones((BATCH, 3), np.uint8)}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: Graph([X], ["y"], [Node("add", ("x", "k"), "y")], CONSTANT),
         "add y: k is a constant"),
        (lambda: Graph([X], ["y"], [Node("concat", ("x", "k"), "y")], CONSTANT),
         "concat y: k is a constant"),
        (lambda: Graph([X], ["x", "k"], [], CONSTANT), "output k: is a constant"),
        (lambda: graph_of({"a": 4}, [], ["a", "a i"]), "output a i: is an input of bags"),
        (lambda: graph_of({"a": 4}, [Node("affine", ("x",), "y")], ["a", "y"],
                          [replace(X, shape=(4, 3))]),
         "does not work row by row"),
        (lambda: Graph([replace(X, shape=(0, 3))], ["y"], [Node("affine", ("x",), "y")], {}),
         "has no rows"),
        (lambda: Graph([replace(X, shape=(BATCH, 0))], ["y"], [Node("affine", ("x",), "y")], {}),
         "x: has no columns"),
        (lambda: graph_of({"a": 4, "b": 4, "c": 8, "d": 8},
                          [Node("concat", ("a", "b"), "y"), Node("pairs", ("y", "c"), "z")],
                          ["z", "d"]),
         "pairs z: y lies in another order of columns"),
        (lambda: graph_of({"a": 300}, [], ["a"]), "a: max_dim=256: must be at least its dim=300"),
    ],
)  # fmt: skip
def test_what_no_card_can_do_is_refused_by_name(graph, message):
    with pytest.raises(GraphError, match=message):
        compile(graph(), TINY, 2)


@pytest.mark.parametrize("config", ["default", "quad", "m2"])
@pytest.mark.parametrize("dim", [16, 32])
def test_rows_narrower_than_the_bus(config, dim):
    """Criteo-Kaggle's tables have 16 columns, the demo's 32; a bus word of `m2` has 128 bytes."""
    nodes = [Node("concat", ("a", "b", "c"), "y"), Node("affine", ("y",), "z")]
    graph = graph_of(dict.fromkeys("abc", dim), nodes, ["y", "z"])
    requests = [request(graph) for _ in range(2)]
    design = PRESETS[config].replace(dram_bytes=1 << 20)
    check_served(graph, requests, design, cards=3, seed=dim)
