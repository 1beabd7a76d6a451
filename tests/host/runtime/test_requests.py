"""Requests: looked at whole, laid out as cards read them, put together from what they leave."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from halfdome.host.runtime.program import HOST, Output, RowsPiece
from halfdome.host.runtime.requests import check, fill, outputs
from halfdome.host.runtime.transfers import Transfers
from tests.host.recommenders import Recommender

TINY = PRESETS["tiny"]
F32, I32 = ElementFormat.FLOAT32, ElementFormat.INT32
BATCH, LONGEST = 4, 3


def program():
    """Dense features, plain bags, and weighted bags."""
    inputs = [
        Value("dense", (BATCH, 5), F32),
        Value("i", (BATCH * LONGEST,), I32, ragged=True), Value("l", (BATCH,), I32),
        Value("j", (BATCH * LONGEST,), I32, ragged=True), Value("m", (BATCH,), I32),
        Value("w", (BATCH * LONGEST,), F32, ragged=True),
    ]  # fmt: skip
    nodes = [
        Node("affine", ("dense",), "a"), Node("embedding_bag", ("t", "i", "l"), "b"),
        Node("embedding_bag", ("t", "j", "m", "w"), "c"),
    ]  # fmt: skip
    graph = Graph(inputs, ["a", "b", "c"], nodes, {"t": np.zeros((9, 24), np.uint8)})
    return compile(graph, TINY, 2)


PROGRAM = program()
GOOD = {
    "dense": np.ones((3, 5), np.float32),
    "i": np.array([1, 2, 3], np.int32), "l": np.array([2, 0, 1], np.int32),
    "j": np.array([4, 4], np.int32), "m": np.array([0, 2, 0], np.int32),
    "w": np.array([0.5, 2.0], np.float32),
}  # fmt: skip


def changed(**arrays):
    return GOOD | {name: np.asarray(value) for name, value in arrays.items()}


@pytest.mark.parametrize(
    "request_",
    [
        GOOD,
        changed(i=np.array([1, 2, 3], np.int64), l=np.array([2, 0, 1], np.uint8)),
        changed(i=[1, 2, 3], l=[2, 0, 1]),
        changed(i=[], l=[0, 0, 0]),  # an empty list is float64
        changed(i=[-5, 2**31 - 1, 100]),  # outside the table: that the card tells
        changed(dense=np.asfortranarray(np.ones((3, 5), np.float32))),
        {name: list(values) if name in "ilm" else values for name, values in GOOD.items()},
    ],
)
def test_good_requests_are_taken(request_):
    checked = check(PROGRAM, request_)
    assert checked.rows == 3
    for lengths, indices, _ in checked.bags:
        assert (lengths.dtype, indices.dtype) == (np.int32, np.int32)
    names = [each.lengths for each in PROGRAM.bags]
    assert checked.bags[names.index("l")][1].tolist() == list(request_["i"])
    assert checked.starts[names.index("m")].tolist() == [0, 0, 2, 2]


BAD = [
    (
        {"dense": np.ones((3, 6), np.float32)},
        r"input dense: is float32\[3, 6\], must be float32 of",
    ),
    ({"dense": np.ones((3, 4), np.float32)}, r"input dense: is float32\[3, 4\]"),
    ({"dense": np.ones((5, 3), np.float32)}, r"input dense: is float32\[5, 3\]"),  # turned
    ({"dense": np.ones((5, 5), np.float32)}, "input dense: .*must have at most 4 rows"),
    ({"dense": np.ones((3, 5))}, "input dense: is float64"),
    ({"dense": np.ones((2, 5), np.float32)}, "inputs: differ in rows: dense 2, "),
    (
        {"dense": np.full((3, 5), np.nan, np.float32)},
        "input dense: row 0 has a value that is not f",
    ),
    ({"dense": np.diag([1, 1, np.inf, 1, 1])[:3].astype(np.float32)}, "input dense: row 2 has"),
    ({"dense": [[1.0], [1.0, 2.0]]}, "input dense: is no array, its rows differ in length"),
    ({"l": [2, 0]}, "input i: has 3 indices, the lengths add up to 2"),
    ({"l": [2, 1]}, "inputs: differ in rows: dense 3, .*l 2"),
    ({"l": [2, 0, 1, 0]}, "inputs: differ in rows"),
    ({"l": [1, 1, 1, 0, 0]}, r"input l: is int32\[5\], must have at most 4 rows"),
    ({"l": [4, -2, 1]}, "input l: bag 1 has a negative length"),
    ({"l": [2**32 + 2, 0, 1]}, "input l: holds a value that does not fit int32"),
    ({"l": [[2, 0, 1]]}, r"input l: is int64\[1, 3\], must be integers with 1 dimension"),
    ({"l": [2.0, 0.0, 1.0]}, r"input l: is float64\[3\], must be integers"),
    ({"i": [1, 2]}, "input i: has 2 indices, the lengths add up to 3"),
    ({"i": [1, 2, 2**32]}, "input i: holds a value that does not fit int32"),
    ({"i": [1, 2, -(2**32)]}, "input i: holds a value that does not fit int32"),
    ({"i": np.array([1, 2, 2**63], np.uint64)}, "input i: holds a value that does not fit int32"),
    ({"i": [[1], [2, 3]]}, "input i: is no array, its rows differ in length"),
    ({"i": "123"}, "input i: is <U3"),
    ({"i": [1, 2, 3.7]}, r"input i: is float64\[3\], must be integers"),
    ({"i": [True, False, True]}, r"input i: is bool\[3\], must be integers"),
    ({"i": list(range(9)), "l": [9, 0, 0]}, "input l: bag 0 has 9 indices, .*room for 3 in each"),
    ({"w": np.ones(3, np.float32)}, r"input w: is float32\[3\], must be float32 of shape \[2\]"),
    ({"w": np.ones(2)}, r"input w: is float64\[2\], must be float32"),
    ({"w": np.array([1, np.nan], np.float32)}, "input w: has a value that is not finite"),
    ({"z": [1]}, "input z: unknown; known are dense, "),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_request_is_a_value_error_that_names_the_input(changes, message):
    with pytest.raises(ValueError, match=message):
        check(PROGRAM, GOOD | changes)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_missing_is_named(name):
    with pytest.raises(ValueError, match=f"^input {name}: missing from the request$"):
        check(PROGRAM, {other: value for other, value in GOOD.items() if other != name})


def test_a_request_has_rows():
    nothing = {name: value[:0] for name, value in GOOD.items()}
    with pytest.raises(ValueError, match="input dense: has no rows, must have at least 1"):
        check(PROGRAM, nothing)


SWITCHES = st.builds(Transfers, **{field.name: st.booleans() for field in fields(Transfers)})


def host_memory(made, rng):
    """Host memory of a slot that an earlier request has left behind."""
    return [
        rng.integers(0, 256, segment.nbytes, np.uint8) if segment.position == HOST else None
        for segment in made.segments
    ]


@given(seed=st.integers(0, 1 << 30), cards=st.integers(1, 4), transfers=SWITCHES)
def test_cards_find_what_was_asked_for_where_they_look(seed, cards, transfers):
    recommender = Recommender(seed)
    made = compile(recommender.graph, TINY, cards, transfers=transfers)
    request = recommender.request()
    checked = check(made, request)
    memory = host_memory(made, np.random.default_rng(seed))
    symbols = fill(made, checked, memory)

    for wanted in made.inputs:
        array = request[wanted.name].astype(wanted.wire_dtype)
        whole = np.zeros(wanted.shape, wanted.wire_dtype)
        whole[: len(array)] = array
        for piece in wanted.pieces:
            rows = memory[piece.segment][piece.offset :][
                : (piece.stop - piece.start) * piece.stride
            ]
            width = whole[0].nbytes
            found = rows.reshape(-1, piece.stride)[:, :width]
            expected = whole[piece.start : piece.stop].reshape(-1, whole[0].size)
            assert found.tobytes() == expected.tobytes()

    for staging in made.stagings:
        raw, integer = memory[staging.segment], np.dtype(f"<i{staging.integer_bytes}")
        used = symbols[staging.symbol]
        assert used <= len(raw)
        for piece in staging.pieces:
            bags = made.bags[piece.bags]
            lengths, indices = request[bags.lengths], request[bags.indices]
            starts = np.concatenate([[0], np.cumsum(lengths)])
            mine = np.zeros(piece.stop - piece.start, np.int64)
            present = lengths[piece.start : piece.stop]
            mine[: len(present)] = present
            told = raw[piece.lengths_at :][: mine.size * integer.itemsize].view(integer)
            assert told.tolist() == mine.tolist()
            chosen = slice(*starts[[min(piece.start, len(lengths)), min(piece.stop, len(lengths))]])
            count, at, nbytes, weights_at = symbols[piece.symbol : piece.symbol + 4]
            assert count == mine.sum()
            assert nbytes >= count * integer.itemsize
            found = raw[at:][: count * integer.itemsize].view(integer)
            assert found.tolist() == indices[chosen].tolist()
            places = [(at, count * integer.itemsize)]
            if bags.weights:
                found = raw[weights_at:][: 4 * count]
                assert found.tobytes() == request[bags.weights][chosen].tobytes()
                places.append((weights_at, 4 * count))
            for start, size in places:
                assert start % staging.word == 0
                if transfers.partial_tensors and transfers.fused:
                    assert start + size <= used  # so much travels


@given(
    rows=st.integers(1, 7), split=st.integers(0, 7), width=st.integers(1, 9),
    padding=st.integers(0, 5), seed=st.integers(0, 1 << 20),
    dtype=st.sampled_from(["uint8", "float16", "float32", "int32"]),
)  # fmt: skip
def test_outputs_are_put_together_from_what_each_card_has_left(
    rows, split, width, padding, seed, dtype
):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 99, (7, width)).astype(dtype)
    columns = rng.permutation(width + padding)[:width]
    item = values.itemsize
    stride = (width + padding) * item + 8
    memory = [rng.integers(0, 256, 16 + 7 * stride, np.uint8) for _ in range(2)]
    pieces = RowsPiece(0, 16, stride, 0, split), RowsPiece(1, 0, stride, split, 7)
    for piece in pieces:
        for row in range(piece.start, piece.stop):
            start = piece.offset + (row - piece.start) * stride
            line = memory[piece.segment][start : start + (width + padding) * item].view(dtype)
            line[columns] = values[row]
    output = Output("y", (7, width), dtype, tuple(map(int, columns)), pieces)
    found = outputs(replace(PROGRAM, outputs=(output,)), rows, memory)["y"]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values[:rows])
