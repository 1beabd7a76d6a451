"""What moves floats that are quantised next moves bytes, and nothing else changes."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.frontend.commute import quantised_first
from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.sessions import open_session
from tests.host.frontend.nets import model, node
from tests.host.frontend.test_partition import answer, kinds

CONSTANTS = {
    "s": np.float32(0.05), "z": np.uint8(100), "t": np.float32(0.031), "o": np.uint8(37),
    "w": np.eye(6, dtype=np.int8), "ws": np.float32(0.5), "wz": np.int8(0),
    "places": np.array([3, -1, 0, 3], np.int64),
}  # fmt: skip


def chain(*moves):
    """Products of bytes on both sides of moves of floats."""
    nodes = [
        node("QLinearMatMul", "x s z w ws wz s z", "a"),
        node("DequantizeLinear", "a s z", "f"), *moves,
        node("QuantizeLinear", "m t o", "q"),
        node("QLinearMul", "q t o q t o s z", "y", "com.microsoft"),
    ]  # fmt: skip
    return model(nodes, {"x": (np.uint8, (4, 5, 6))}, ["y"], CONSTANTS)


MOVES = {
    "gather": [node("Gather", "f places", "m", axis=2)],
    "transpose": [node("Transpose", "f", "m", perm=[0, 2, 1])],
    "both": [
        node("Transpose", "f", "g", perm=[0, 2, 1]), node("Gather", "g places", "m", axis=1),
    ],
}  # fmt: skip


@given(which=st.sampled_from(sorted(MOVES)), seed=st.integers(0, 1 << 30))
def test_moves_of_floats_become_moves_of_bytes_with_the_same_bits(which, seed):
    made = chain(*MOVES[which])
    x = np.random.default_rng(seed).integers(0, 256, (4, 5, 6)).astype(np.uint8)
    found = steps(made)
    assert kinds(found) == ["cards"]
    [expected] = open_session(made).run(None, {"x": x})
    assert answer(found, {"x": x})["y"].tobytes() == expected.tobytes()


def test_floats_that_others_see_stay_as_they_are():
    seen = chain(*MOVES["gather"])
    seen.graph.output.add().name = "m"
    assert quantised_first(seen) == seen
    computed = chain(node("Relu", "f", "g"), node("Gather", "g places", "m", axis=2))
    assert quantised_first(computed) == computed
