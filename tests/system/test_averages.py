"""Averages over windows on a card in RTL have ONNX Runtime's bits."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.frontend.sessions import oracle
from tests.host.frontend.nets import model, node

pytestmark = pytest.mark.slow  # a model of the card is compiled first


@given(
    seed=st.integers(0, 2**32), dtype=st.sampled_from([np.uint8, np.int8]), include=st.booleans()
)
def test_any_window(card, seed, dtype, include):
    rng = np.random.default_rng(seed)
    size = rng.integers(3, 12, 2).tolist()
    kernel = [int(rng.integers(1, min(5, side) + 1)) for side in size]
    stride, k = rng.integers(1, 4, 2).tolist(), int(rng.integers(1, 40))
    pads = [int(rng.integers(kernel[side % 2])) for side in range(4)]
    x_scale = np.float32(rng.random() + 0.01)
    y_scale = np.float32(x_scale * rng.choice([0.25, 0.5, 1.0, 2.0, rng.random() + 0.05]))
    x = rng.integers(0, 256, (1, k, *size), np.uint8).view(dtype)
    zeros = rng.integers(0, 256, 2, np.uint8).view(dtype)

    pool = node("QLinearAveragePool", "x s z t o", "y", "com.microsoft", kernel_shape=kernel,
                strides=stride, pads=pads, count_include_pad=int(include))  # fmt: skip
    constants = {"s": x_scale, "z": zeros[0], "t": y_scale, "o": zeros[1]}
    net = model([pool], {"x": (dtype, x.shape)}, ["y"], constants)
    (expected,) = oracle(net).run(["y"], {"x": x})
    found = card.average_pool(
        x[0].transpose(1, 2, 0), tuple(kernel), float(x_scale), float(y_scale), tuple(stride),
        tuple(pads), include_pads=include, dtype=dtype, x_zero_point=int(zeros[0]),
        y_zero_point=int(zeros[1]),
    )  # fmt: skip
    np.testing.assert_array_equal(found.transpose(2, 0, 1), expected[0])
