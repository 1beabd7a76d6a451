"""The golden matmul is ONNX Runtime's QLinearMatMul; the operand formats are reversible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.sim.golden.matmul import (
    matmul,
    pack_params,
    pack_weights,
    product,
    requantise,
    unpack_weights,
)
from halfdome.sim.golden.products import convolution
from tests.oracles import matmul_vectors, onnx_products


def golden(case):
    """The case as MATMUL computes it, with the input's zero point folded into the bias."""
    bias = -int(case["x_zero_point"]) * case["w"].astype(np.int32).sum(axis=0, dtype=np.int32)
    multiplier = case["x_scale"] * case["w_scale"] / case["y_scale"]
    return matmul(case["x"], case["w"], bias, multiplier, int(case["y_zero_point"]), False)


def test_golden_equals_recorded_qlinear_matmul():
    vectors = np.load(matmul_vectors.PATH)
    numbers = {int(name.rsplit("_", 1)[1]) for name in vectors.files}
    assert len(numbers) == 12
    for number in numbers:
        case = {
            name.rsplit("_", 1)[0]: vectors[name]
            for name in vectors.files
            if name.endswith(f"_{number}")
        }
        np.testing.assert_array_equal(golden(case), case["y"])


@given(
    m=st.integers(1, 9),
    k=st.integers(1, 300),
    n=st.integers(1, 70),
    extreme=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_golden_equals_live_qlinear_matmul(m, k, n, extreme, seed):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    case = matmul_vectors.random_case(np.random.default_rng(seed), m, k, n, extreme)
    np.testing.assert_array_equal(golden(case), matmul_vectors.qlinear_matmul(case))


def some(rng, shape, dtype, extreme=False):
    ends = np.iinfo(dtype)
    if extreme:
        return rng.choice(np.array([ends.min, ends.max], dtype), shape)
    return rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)


BYTES = st.sampled_from([np.uint8, np.int8])
QUANTISED = st.sampled_from(
    [(np.uint8, np.uint8, np.uint8), (np.uint8, np.int8, np.uint8), (np.int8, np.int8, np.int8)]
)
"""Formats of x, w and y that ONNX Runtime implements."""


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 200), st.integers(1, 40)),
    x_type=BYTES,
    w_type=BYTES,
    extreme=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_sums_of_products_equal_live_matmul_integer(sizes, x_type, w_type, extreme, seed):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (m, k, n), rng = sizes, np.random.default_rng(seed)
    x, w = some(rng, (m, k), x_type, extreme), some(rng, (k, n), w_type, extreme)
    x_zero, w_zero = some(rng, (), x_type), some(rng, (), w_type)
    y = onnx_products.run("MatMulInteger", {"x": x, "w": w, "x_zero": x_zero, "w_zero": w_zero})
    np.testing.assert_array_equal(product(x, w, int(x_zero), int(w_zero)), y)


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 200), st.integers(1, 40)),
    types=QUANTISED,
    extreme=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_product_with_two_zero_points_equals_live_qlinear_matmul(sizes, types, extreme, seed):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (m, k, n), rng = sizes, np.random.default_rng(seed)
    x, w = some(rng, (m, k), types[0], extreme), some(rng, (k, n), types[1], extreme)
    x_zero, w_zero, y_zero = (some(rng, (), kind) for kind in types)
    x_scale, y_scale = np.float32(rng.uniform(0.01, 0.1)), np.float32(rng.uniform(1, 9))
    w_scale = rng.uniform(0.001, 0.01, n).astype(np.float32)
    y = onnx_products.run(
        "QLinearMatMul",
        {
            "x": x, "x_scale": x_scale, "x_zero": x_zero, "w": w, "w_scale": w_scale,
            "w_zero": np.full(n, w_zero, types[1]), "y_scale": y_scale, "y_zero_point": y_zero,
        },
        opset=21,
    )  # fmt: skip
    got = matmul(
        x, w, np.zeros(n, np.int32), x_scale * w_scale / y_scale, int(y_zero), False,
        x_zero_point=int(x_zero), w_zero_point=int(w_zero), dtype=types[2],
    )  # fmt: skip
    np.testing.assert_array_equal(got, y)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(2, 5)] * 4),
    w_type=BYTES,
    seed=st.integers(0, 2**16),
)
def test_convolution_equals_live_qlinear_conv(
    size, channels, kernel, stride, dilation, pads, w_type, seed
):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (groups, k, n), rng = channels, np.random.default_rng(seed)
    x = some(rng, (1, groups * k, *size), np.uint8)
    w = some(rng, (groups * n, k, *kernel), w_type)
    x_zero, y_zero = some(rng, (), np.uint8), some(rng, (), np.uint8)
    w_zero = some(rng, (), w_type) if w_type is np.uint8 else np.int8(0)
    bias = rng.integers(-5000, 5000, groups * n).astype(np.int32)
    x_scale, y_scale = np.float32(rng.uniform(0.01, 0.1)), np.float32(rng.uniform(1, 9))
    w_scale = rng.uniform(0.001, 0.01, groups * n).astype(np.float32)
    y = onnx_products.run(
        "QLinearConv",
        {
            "x": x, "x_scale": x_scale, "x_zero": x_zero, "w": w, "w_scale": w_scale,
            "w_zero": np.full(groups * n, w_zero, w_type), "y_scale": y_scale,
            "y_zero_point": y_zero, "bias": bias,
        },
        group=groups, pads=pads, strides=stride, dilations=dilation,
    )  # fmt: skip
    image, taps = x[0].transpose(1, 2, 0), w.transpose(2, 3, 1, 0)
    sums = [
        convolution(
            image[:, :, g * k : (g + 1) * k], taps[..., g * n : (g + 1) * n], out=y.shape[2:],
            stride=stride, pad=pads[:2], dilation=dilation, x_zero_point=int(x_zero),
            w_zero_point=int(w_zero),
        )
        for g in range(groups)
    ]  # fmt: skip
    multiplier = x_scale * w_scale / y_scale
    got = requantise(np.concatenate(sums, axis=2), bias, multiplier, int(y_zero))
    np.testing.assert_array_equal(got.transpose(2, 0, 1), y[0])


def test_relu_clamps_at_the_zero_point():
    x = np.array([[10]], np.uint8)
    w = np.array([[-5, 0, 5]], np.int8)
    zeros, ones = np.zeros(3, np.int32), np.ones(3, np.float32)
    np.testing.assert_array_equal(matmul(x, w, zeros, ones, 60, False), [[10, 60, 110]])
    np.testing.assert_array_equal(matmul(x, w, zeros, ones, 60, True), [[60, 60, 110]])


def test_total_wraps_and_ties_round_to_even():
    x, w = np.array([[1]], np.uint8), np.array([[1, 1, 1]], np.int8)
    bias = np.array([2**31 - 1, 0, 2], np.int32)
    half = np.full(3, 0.5, np.float32)
    np.testing.assert_array_equal(matmul(x, w, bias, half, 7, False), [[0, 7, 9]])


@given(
    k=st.integers(1, 40),
    n=st.integers(1, 40),
    shape=st.sampled_from([(4, 4, 16), (2, 2, 32), (8, 2, 16), (2, 16, 16)]),
)
def test_packed_weights_unpack(k, n, shape):
    rows, columns, bus_bytes = shape
    config = PRESETS["tiny"].replace(array_rows=rows, array_columns=columns, bus_bytes=bus_bytes)
    w = np.random.default_rng(k * n).integers(-128, 128, (k, n), np.int8)
    packed = pack_weights(w, config)
    assert len(packed) == -(-k // rows) * -(-n // columns) * config.weight_tile_bytes
    np.testing.assert_array_equal(unpack_weights(packed, k, n, config).view(np.int8), w)


def test_packed_tiles_lie_in_memory_as_documented():
    config = PRESETS["tiny"]
    w = np.arange(5 * 6, dtype=np.int8).reshape(5, 6)
    tiles = pack_weights(w, config).reshape(2, 2, 4, 4)  # n_tile, k_tile, row, column
    np.testing.assert_array_equal(tiles[0, 0], w[:4, :4])
    np.testing.assert_array_equal(tiles[1, 0, :, :2], w[:4, 4:])
    np.testing.assert_array_equal(tiles[0, 1, 0], w[4, :4])
    assert not tiles[:, 1, 1:].any()
    assert not tiles[1, :, :, 2:].any()


def test_params_are_pairs_of_bias_and_multiplier():
    packed = pack_params(np.array([-2, 3], np.int32), np.array([1.0, -0.5], np.float32))
    assert packed.tobytes().hex() == "feffffff0000803f03000000000000bf"


def test_wrong_operands_are_named():
    x, w = np.zeros((2, 3), np.uint8), np.zeros((3, 4), np.int8)
    bias, multiplier = np.zeros(4, np.int32), np.ones(4, np.float32)
    with pytest.raises(ValueError, match="x: is float64, must be uint8 or int8"):
        matmul(x.astype(float), w, bias, multiplier, 0, False)
    with pytest.raises(ValueError, match="w: is int32, must be uint8 or int8"):
        matmul(x, w.astype(np.int32), bias, multiplier, 0, False)
    with pytest.raises(ValueError, match=r"bias: is int32\[3\], must be int32\[4\]"):
        matmul(x, w, bias[:3], multiplier, 0, False)
    with pytest.raises(ValueError, match="core dimension"):
        matmul(x, w[:2], bias, multiplier, 0, False)
