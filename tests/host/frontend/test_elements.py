"""Sums, products and conversions element by element give ONNX Runtime's bits."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.frontend.net import Net
from halfdome.host.frontend.partition import Refusal, card_step
from tests.host.frontend.nets import model, node
from tests.host.frontend.single import agree, bytes_of, step_of
from tests.host.frontend.test_products import (
    DTYPES,
    SCALES,
    SEEDS,
    scale,
    zero_point,
)

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4)
OPERATORS = st.sampled_from(["QLinearAdd", "QLinearMul"])
NAMES = "a as az b bs bz cs cz"


def quantised(rng, dtype, scales):
    found = {f"{name}z": zero_point(rng, dtype) for name in "abc"}
    return found | {f"{name}s": scale(value) for name, value in zip("abc", scales, strict=True)}


@given(
    op=OPERATORS, shape=SHAPES, dtype=DTYPES, scales=st.tuples(SCALES, SCALES, SCALES), seed=SEEDS
)
def test_two_tensors_of_one_shape(op, shape, dtype, scales, seed):
    rng = np.random.default_rng(seed)
    nodes = [node(op, NAMES, "y", "com.microsoft")]
    inputs = {name: (dtype, shape) for name in "ab"}
    net = model(nodes, inputs, ["y"], quantised(rng, dtype, scales))
    agree(net, [{name: bytes_of(rng, dtype, *shape) for name in "ab"} for _ in range(2)])


@st.composite
def spread(draw, low=1):
    """A shape, and one that spreads over it."""
    shape = draw(st.lists(st.integers(1, 4), min_size=low, max_size=4))
    skipped = draw(st.integers(0, len(shape) - 1))
    return shape, [draw(st.sampled_from([1, size])) for size in shape[skipped:]]


@given(
    op=OPERATORS, shapes=spread(), turned=st.booleans(), dtype=DTYPES,
    scales=st.tuples(SCALES, SCALES, SCALES), seed=SEEDS,
)  # fmt: skip
def test_a_tensor_spreads_over_another(op, shapes, turned, dtype, scales, seed):
    rng = np.random.default_rng(seed)
    sizes = dict(zip("ba" if turned else "ab", shapes, strict=True))
    nodes = [node(op, NAMES, "y", "com.microsoft")]
    net = model(
        nodes, {name: (dtype, sizes[name]) for name in "ab"}, ["y"], quantised(rng, dtype, scales)
    )
    requests = [{name: bytes_of(rng, dtype, *sizes[name]) for name in "ab"} for _ in range(2)]
    agree(net, requests)


@given(
    op=OPERATORS, shapes=spread(), turned=st.booleans(), dtype=DTYPES,
    scales=st.tuples(SCALES, SCALES, SCALES), seed=SEEDS,
)  # fmt: skip
def test_a_constant_operand(op, shapes, turned, dtype, scales, seed):
    rng = np.random.default_rng(seed)
    shape, own = shapes
    constant, tensor = "ab" if turned else "ba"
    constants = quantised(rng, dtype, scales) | {constant: bytes_of(rng, dtype, *own)}
    nodes = [node(op, NAMES, "y", "com.microsoft")]
    net = model(nodes, {tensor: (dtype, shape)}, ["y"], constants)
    agree(net, [{tensor: bytes_of(rng, dtype, *shape)} for _ in range(2)])


@given(op=OPERATORS, shapes=spread(), turned=st.booleans(), dtype=DTYPES, seed=SEEDS)
def test_a_tensor_spreads_over_a_constant(op, shapes, turned, dtype, seed):
    rng = np.random.default_rng(seed)
    wide, own = shapes
    constant, tensor = "ab" if turned else "ba"
    constants = quantised(rng, dtype, (0.5, 0.25, 1.0)) | {constant: bytes_of(rng, dtype, *wide)}
    nodes = [node(op, NAMES, "y", "com.microsoft")]
    net = model(nodes, {tensor: (dtype, own)}, ["y"], constants)
    agree(net, [{tensor: bytes_of(rng, dtype, *own)} for _ in range(2)])


@given(
    op=st.sampled_from(["QLinearSigmoid", "QLinearLeakyRelu"]), shape=SHAPES, dtype=DTYPES,
    x_scale=st.floats(2**-8, 0.25, width=32), y_scale=st.floats(2**-9, 0.25, width=32), seed=SEEDS,
)  # fmt: skip
def test_functions_of_bytes(op, shape, dtype, x_scale, y_scale, seed):
    rng = np.random.default_rng(seed)
    constants = {
        "xs": scale(x_scale), "xz": zero_point(rng, dtype),
        "ys": scale(y_scale), "yz": zero_point(rng, dtype),
    }  # fmt: skip
    slope = {"alpha": 0.13} if op == "QLinearLeakyRelu" else {}
    nodes = [node(op, "x xs xz ys yz", "y", "com.microsoft", **slope)]
    net = model(nodes, {"x": (dtype, shape)}, ["y"], constants)
    agree(net, [{"x": bytes_of(rng, dtype, *shape)} for _ in range(2)])


@given(
    shape=SHAPES, dtype=DTYPES, x_scale=st.floats(2**-20, 2**20, width=32),
    y_scale=SCALES, seed=SEEDS,
)  # fmt: skip
def test_from_and_to_floating_point(shape, dtype, x_scale, y_scale, seed):
    rng = np.random.default_rng(seed)
    constants = {
        "xs": scale(x_scale), "xz": zero_point(rng, dtype),
        "ys": scale(y_scale * x_scale), "yz": zero_point(rng, dtype),
    }  # fmt: skip
    nodes = [
        node("DequantizeLinear", "x xs xz", "f"),
        node("QuantizeLinear", "f ys yz", "y"),
    ]
    net = model(nodes, {"x": (dtype, shape)}, ["f", "y"], constants)
    agree(net, [{"x": bytes_of(rng, dtype, *shape)} for _ in range(2)])


@given(shape=SHAPES, dtype=DTYPES, y_scale=SCALES, seed=SEEDS)
def test_floats_are_quantised_with_ties_to_even(shape, dtype, y_scale, seed):
    rng = np.random.default_rng(seed)
    constants = {"ys": scale(y_scale), "yz": zero_point(rng, dtype)}
    net = model(
        [node("QuantizeLinear", "x ys yz", "y")], {"x": (np.float32, shape)}, ["y"], constants
    )
    halves = rng.integers(-600, 600, (2, *shape)) / 2 * y_scale
    agree(net, [{"x": each.astype(np.float32)} for each in halves])


def scaled(op, a_scale, b_scale):
    """A sum or product of which the zero points are 1 and the output's scale is 1."""
    rng = np.random.default_rng(0)
    constants = quantised(rng, np.dtype(np.uint8), (a_scale, b_scale, 1.0))
    constants |= {f"{name}z": np.uint8(1) for name in "abc"}
    nodes = [node(op, NAMES, "y", "com.microsoft")]
    return model(nodes, {name: (np.uint8, (2, 256)) for name in "ab"}, ["y"], constants)


@pytest.mark.parametrize(
    ("op", "a_scale", "b_scale"),
    [("QLinearAdd", 1.0, 9e6), ("QLinearAdd", -9e6, 1.0), ("QLinearMul", 1e6, 1e6)],
)
def test_results_beyond_int32_are_the_hosts(op, a_scale, b_scale):
    with pytest.raises(Refusal, match="results that int32 does not hold"):
        step_of(scaled(op, a_scale, b_scale))


@pytest.mark.parametrize(
    ("op", "a_scale", "b_scale"), [("QLinearAdd", 1.0, 4e6), ("QLinearMul", 128.0, 128.0)]
)
def test_results_close_to_the_limit_of_int32_are_the_cards(op, a_scale, b_scale):
    every = np.arange(256, dtype=np.uint8)
    request = {"a": np.stack([every, every]), "b": np.stack([every, every[::-1]])}
    agree(scaled(op, a_scale, b_scale), [request])


@pytest.mark.parametrize(
    ("op", "operands", "domain"),
    [
        ("DequantizeLinear", "c xs xz", ""),
        ("QLinearSigmoid", "c xs xz xs xz", "com.microsoft"),
    ],
)
def test_constants_are_the_hosts_to_convert(op, operands, domain):
    constants = {"c": np.uint8([[1, 2]]), "xs": scale(0.5), "xz": np.uint8(1)}
    nodes = [node(op, operands, "y", domain), node("Identity", "x", "z")]
    net = Net(model(nodes, {"x": (np.uint8, (1, 2))}, ["y", "z"], constants))
    with pytest.raises(Refusal, match="c is a constant where cards take a tensor of the request"):
        card_step(net, [0])


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_a_tensor_and_itself_lie_alike_however_they_are_padded(op):
    """Rows of whole columns of an image, to which a constant for each was added."""
    rng = np.random.default_rng(2)
    constants = quantised(rng, np.dtype(np.uint8), (0.5, 0.25, 1.0))
    constants |= {"b": bytes_of(rng, np.dtype(np.uint8), 5, 1, 9), "cz": constants["bz"]}
    nodes = [
        node("MaxPool", "x", "a", kernel_shape=[1, 1]),
        node(op, NAMES, "h", "com.microsoft"),
        node(op, "h cs cz h cs cz cs cz", "y", "com.microsoft"),
    ]
    shape = (1, 5, 14, 9)
    net = model(nodes, {"x": (np.uint8, shape)}, ["y"], constants)
    step = agree(net, [{"x": bytes_of(rng, np.dtype(np.uint8), *shape)}])
    assert "linear" not in [each.op for each in step.nodes]
