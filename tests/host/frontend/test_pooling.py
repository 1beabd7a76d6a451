"""Maxima over windows have ONNX Runtime's bits."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.frontend.partition import Refusal
from tests.host.frontend.nets import model, node
from tests.host.frontend.single import agree, bytes_of, step_of
from tests.host.frontend.test_products import DTYPES, SEEDS, windows


@given(
    window=st.one_of(windows(1), windows(2)), ceil=st.booleans(), batch=st.integers(1, 2),
    channels=st.integers(1, 4), dtype=DTYPES, seed=SEEDS,
)  # fmt: skip
def test_max_pool(window, ceil, batch, channels, dtype, seed):
    rng = np.random.default_rng(seed)
    sizes, found = window
    if ceil and "auto_pad" not in found:
        found = found | {"ceil_mode": 1}
    shape = (batch, channels, *sizes)
    net = model([node("MaxPool", "x", "y", **found)], {"x": (dtype, shape)}, ["y"], {})
    step = agree(net, [{"x": bytes_of(rng, dtype, *shape)} for _ in range(2)])
    assert [each.op for each in step.nodes] == ["max_pool"]


@pytest.mark.parametrize(
    ("kind", "shape", "made", "why"),
    [
        (np.float32, (1, 2, 4, 4), "y", "x is float32; cards find maxima of 8 bits"),
        (np.uint8, (1, 2, 4, 4), "y places", "tells where maxima are"),
        (np.uint8, (1, 2, 4, 4, 4), "y", "maxima over 3 dimensions"),
        (np.uint8, (1, 2, 300, 1), "y", "a window of 256 elements, where commands have 255"),
    ],
)
def test_what_cards_do_not_do_is_the_hosts(kind, shape, made, why):
    kernel = [256, 1] if 300 in shape else [2] * (len(shape) - 2)
    nodes = [node("MaxPool", "x", made, kernel_shape=kernel)]
    net = model(nodes, {"x": (kind, shape)}, made.split(), {})
    with pytest.raises(Refusal, match=why):
        step_of(net)


@given(
    window=windows(2), include=st.booleans(), channels=st.integers(1, 4), dtype=DTYPES,
    tie=st.sampled_from([None, 0.25, 0.5, 1.0, 2.0]), seed=SEEDS,
)  # fmt: skip
def test_average_pool(window, include, channels, dtype, tie, seed):
    """Also where many quotients are ties."""
    rng = np.random.default_rng(seed)
    sizes, found = window
    found = {name: value for name, value in found.items() if name != "dilations"}
    limits = np.iinfo(dtype)
    scale = np.float32(rng.random() + 0.01)
    zeros = rng.integers(limits.min, limits.max, 2, endpoint=True).astype(dtype)
    constants = {
        "s": scale, "z": zeros[0], "o": zeros[1],
        "t": np.float32(rng.random() + 0.01) if tie is None else scale * np.float32(tie),
    }  # fmt: skip
    pool = node("QLinearAveragePool", "x s z t o", "y", "com.microsoft",
                count_include_pad=int(include), **found)  # fmt: skip
    net = model([pool], {"x": (dtype, (2, channels, *sizes))}, ["y"], constants)
    step = agree(net, [{"x": bytes_of(rng, dtype, 2, channels, *sizes)}])
    assert [each.op for each in step.nodes] == ["average_pool"]


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"kernel_shape": [16, 16]}, "a window of 256 elements, where averages have 255"),
        ({"kernel_shape": [2, 2], "ceil_mode": 1}, "has windows that end beyond the padded image"),
    ],
)
def test_averages_that_cards_do_not_find_are_the_hosts(about, why):
    pool = node("QLinearAveragePool", "x s z s z", "y", "com.microsoft", **about)
    constants = {"s": np.float32(0.5), "z": np.uint8(3)}
    net = model([pool], {"x": (np.uint8, (1, 2, 17, 17))}, ["y"], constants)
    with pytest.raises(Refusal, match=why):
        step_of(net)


def test_maxima_mean_what_they_are_of():
    """A convolution behind takes the zero point of what is before."""
    rng = np.random.default_rng(4)
    nodes = [
        node("QLinearConv", "x s z w v o s a", "c", pads=[1, 1, 1, 1]),
        node("MaxPool", "c", "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("QLinearConv", "p s a w v o s z", "y", pads=[1, 1, 1, 1]),
    ]
    constants = {
        "s": np.float32(0.5), "z": np.uint8(3), "v": np.float32(0.03), "o": np.int8(0),
        "a": np.uint8(130), "w": bytes_of(rng, np.dtype(np.int8), 3, 3, 3, 3),
    }  # fmt: skip
    net = model(nodes, {"x": (np.uint8, (1, 3, 9, 8))}, ["y"], constants)
    agree(net, [{"x": bytes_of(rng, np.dtype(np.uint8), 1, 3, 9, 8)}])
