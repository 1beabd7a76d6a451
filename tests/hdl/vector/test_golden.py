"""AFFINE from FLOAT32 to UINT8 means what PyTorch and ONNX mean by affine quantisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.sim.golden.vector import quantise
from tests.oracles.vector_quantise import CASES, VECTORS, inputs, quantised


def test_committed_vectors():
    with np.load(VECTORS) as vectors:
        for number in range(len(CASES)):
            multiplier = np.float32(1) / vectors[f"scale_{number}"]
            ours = quantise(
                vectors[f"x_{number}"], multiplier, int(vectors[f"zero_point_{number}"])
            )
            np.testing.assert_array_equal(ours, vectors[f"y_{number}"])


@given(
    exponent=st.floats(-20, 20),
    zero_point=st.integers(0, 255),
    size=st.integers(1, 300),
    seed=st.integers(0, 2**16),
)
def test_live_torch_operator(exponent, zero_point, size, seed):
    pytest.importorskip("torch")
    scale = np.float32(2.0**exponent)
    steps = np.random.default_rng(seed).integers(-1200, 1200, size).astype(np.float32) / 4
    x = steps * scale
    ours = quantise(x, np.float32(1) / scale, zero_point)
    np.testing.assert_array_equal(ours, quantised(x, float(scale), zero_point))


@pytest.mark.parametrize("exponent", [-7, 0, 3])
@pytest.mark.parametrize("zero_point", [0, 7, 128, 255])
def test_live_onnx_operator_where_its_division_is_exact(exponent, zero_point):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    scale = 2.0**exponent
    x = inputs(scale)
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["y"])],
        "quantise",
        [helper.make_tensor_value_info("x", types.FLOAT, [len(x)])],
        [helper.make_tensor_value_info("y", types.UINT8, [len(x)])],
        [
            helper.make_tensor("scale", types.FLOAT, [], [scale]),
            helper.make_tensor("zero_point", types.UINT8, [], [zero_point]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(quantise(x, 1 / scale, zero_point), theirs)


def test_what_has_no_integer_saturates_and_nan_is_the_zero_point():
    x = np.float32([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 0.5, 1.5, -0.5, -0.0])
    np.testing.assert_array_equal(quantise(x, 2.0, 3), [3, 255, 0, 255, 0, 4, 6, 2, 3])
    np.testing.assert_array_equal(quantise(x, 1.0, 3), [3, 255, 0, 255, 0, 3, 5, 3, 3])
    np.testing.assert_array_equal(quantise(x, -1.0, 3)[:5], [3, 0, 255, 0, 255])


@pytest.mark.parametrize(
    ("x", "multiplier", "zero_point", "message"),
    [
        (np.zeros(2), 1.0, 0, "x: dtype float64, must be float32"),
        (np.zeros(2, np.float32), np.inf, 0, "multiplier=inf: must be a finite float32"),
        (np.zeros(2, np.float32), 1.0, 256, "zero_point=256: must be 0 to 255"),
        (np.zeros(2, np.float32), 1.0, -1, "zero_point=-1: must be 0 to 255"),
    ],
)
def test_bad_arguments_are_named(x, multiplier, zero_point, message):
    with pytest.raises(ValueError, match=message):
        quantise(x, multiplier, zero_point)
