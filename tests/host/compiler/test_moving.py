"""Transposes of tensors however their columns lie, on cards and on accelerators of plain numpy."""

import numpy as np
import pytest

from halfdome.hdl.commands import ElementFormat, Opcode, RowFormat
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.driver import layout
from halfdome.host.graph.fused_rows import fuse_8bit
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import DTYPES, Value
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.transfers import Transfers
from tests.host.compiler.test_strips import opcodes
from tests.host.numpy_platform import NumpyPlatform
from tests.host.recommenders import check_responses, check_served

TINY = PRESETS["tiny"]
RNG = np.random.default_rng(1)


def values(kind, *shape):
    dtype = DTYPES[kind]
    return (
        RNG.normal(size=shape).astype(dtype)
        if dtype.kind == "f"
        else RNG.integers(0, 100, shape).astype(dtype)
    )


def joined(kind):
    """A transpose of two tensors side by side, neither of whole words."""
    inputs = [Value(name, (2, 3, 4, width), kind) for name, width in (("a", 21), ("b", 5))]
    nodes = [Node("concat", ("a", "b"), "c"), Node("transpose", ("c",), "y")]
    request = {value.name: values(kind, *value.shape) for value in inputs}
    return Graph(inputs, ["y"], nodes, {}), request


@pytest.mark.parametrize("kind", ElementFormat)
def test_each_part_of_a_row_is_turned(kind):
    graph, request = joined(kind)
    program = check_served(graph, [request], TINY)
    assert opcodes(program).count(Opcode.TRANSPOSE) == 2


def test_other_accelerators_turn_and_multiply_matrices_too():
    graph, request = joined(ElementFormat.UINT8)
    multiply = Node("batch_matmul", ("y", "c"), "z", {"multiplier": 1e-3})
    graph = Graph(graph.inputs, ["z"], [*graph.nodes, multiply], {})
    platform = NumpyPlatform(1)
    served = Deployment(
        platform.session, platform.accelerators, compile(graph, platform.design, 1), lambda: 0
    )
    check_responses(graph, [request], served.run([request]), Transfers())


def test_columns_that_begin_within_a_word_are_turned_with_all_of_the_row():
    """Pooled rows of 5 bytes stand side by side without a gap."""
    tables = {name: fuse_8bit(values(ElementFormat.FLOAT32, 9, 5)) for name in "stuv"}
    how = {"row_format": RowFormat.INT8, "mode": "sum", "format": ElementFormat.UINT8, "dim": 5,
           "multiplier": np.float32(9)}  # fmt: skip
    inputs, nodes, request = [], [], {}
    for name in tables:
        inputs.append(Value(f"{name} i", (6,), ElementFormat.INT32, ragged=True))
        inputs.append(Value(f"{name} l", (3,), ElementFormat.INT32))
        made = f"{name} pooled"
        nodes.append(Node("embedding_bag", (name, f"{name} i", f"{name} l"), made, how))
        request |= {f"{name} i": np.arange(3, dtype=np.int32)}
        request |= {f"{name} l": np.array([1, 0, 2], np.int32)}
    nodes += [
        Node("concat", [f"{name} pooled" for name in "tsuv"], "c"),
        Node("reshape", ("c",), "r", {"shape": (1, 20)}),
        Node("transpose", ("r",), "y"),
    ]
    program = check_served(Graph(inputs, ["y"], nodes, tables), [request], TINY, cards=2)
    codes = opcodes(program)
    assert Opcode.TRANSPOSE in codes
    assert Opcode.COPY in codes


def test_rows_are_cut_where_words_begin_without_a_command():
    """Pixels of 5 bytes are repeated along both axes: rows joined with themselves, and cut."""
    x = Value("x", (2, 3, 2, 5), ElementFormat.UINT8)
    nodes = [
        Node("lookup", ("x", "t"), "a", {"format": ElementFormat.UINT8}),
        Node("reshape", ("a",), "b", {"shape": (3, 10)}),
        Node("concat", ("b", "b"), "c"),
        Node("reshape", ("c",), "d", {"shape": (6, 2, 5)}),
        Node("concat", ("d", "d"), "e"),
        Node("reshape", ("e",), "y", {"shape": (6, 4, 5)}),
    ]
    table = RNG.permutation(256).astype(np.uint8)
    graph = Graph([x], ["y"], nodes, {"t": table})
    request = {"x": values(ElementFormat.UINT8, *x.shape)}
    program = check_served(graph, [request], TINY)
    assert Opcode.MATMUL not in opcodes(program)
    y = graph.run(request)["y"]
    looked_up = table[request["x"]].repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(y, looked_up)


def test_rows_that_lie_unevenly_are_copied():
    """Rows of three words are kept apart by a fourth, so that none touches a line too many."""
    word = TINY.bus_bytes
    size = next(n * word for n in range(2, 32) if layout.row_stride(n * word, TINY) > n * word)
    x = Value("x", (2, 3, size), ElementFormat.UINT8)
    nodes = [
        Node("lookup", ("x", "t"), "a", {"format": ElementFormat.UINT8}),
        Node("reshape", ("a",), "y", {"shape": (3 * size // word, word)}),
    ]
    graph = Graph([x], ["y"], nodes, {"t": RNG.permutation(256).astype(np.uint8)})
    program = check_served(graph, [{"x": values(x.format, *x.shape)}], TINY)
    assert opcodes(program).count(Opcode.COPY) == size // word
    assert Opcode.MATMUL not in opcodes(program)


def test_rows_that_are_cut_within_words_are_moved_by_products():
    x = Value("x", (2, 3, 10), ElementFormat.UINT8)
    graph = Graph([x], ["y"], [Node("reshape", ("x",), "y", {"shape": (6, 5)})], {})
    program = check_served(graph, [{"x": values(x.format, *x.shape)}], TINY)
    assert Opcode.MATMUL in opcodes(program)


def test_elements_become_rows_of_one_without_weights():
    """A grey image whose pixels were one row: turned as it is, of whole words or not."""
    inputs = [Value("x", (2, 7, 21), ElementFormat.UINT8), Value("w", (2, 5), ElementFormat.INT8)]
    nodes = [
        Node("lookup", ("x", "t"), "a", {"format": ElementFormat.UINT8}),
        Node("reshape", ("a",), "y", {"shape": (7, 21, 1)}),
        Node("concat", ("w", "w"), "c"),
        Node("reshape", ("c",), "z", {"shape": (10, 1)}),
    ]
    graph = Graph(inputs, ["y", "z"], nodes, {"t": RNG.permutation(256).astype(np.uint8)})
    program = check_served(
        graph, [{value.name: values(value.format, *value.shape) for value in inputs}], TINY
    )
    assert opcodes(program).count(Opcode.TRANSPOSE) == 3  # one for each piece
    assert Opcode.MATMUL not in opcodes(program)
