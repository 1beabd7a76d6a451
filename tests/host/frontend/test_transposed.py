"""ConvTranspose whose windows do not meet is a product for each pixel, and moves."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.frontend.load import load
from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.quantise import to_qoperator
from halfdome.host.frontend.sessions import open_session, oracle
from halfdome.host.frontend.steps import CardStep
from halfdome.host.frontend.transposed import pixel_by_pixel
from tests.host.frontend.nets import model, node, typed
from tests.host.frontend.test_partition import answer

AFTER = {
    "nothing": [],
    "sum": [node("Add", "t s", "u")],
    "normalised": [node("BatchNormalization", "t g h m v", "u")],
    "both": [node("Add", "t s", "o"), node("BatchNormalization", "o g h m v", "u")],
}


def made(
    rng,
    after="nothing",
    size=(3, 4),
    channels=(3, 2),
    window=(2, 2),
    biased=False,
    more=(),
    **about,
):
    """A model in floating point whose ConvTranspose is followed by Relu."""
    about = {"strides": list(window)} | about
    nodes = [node("ConvTranspose", "x w b" if biased else "x w", "t", **about), *AFTER[after]]
    nodes += [node("Relu", nodes[-1].output[0], "y"), *more]

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    taken, count = channels
    constants = {
        "w": normal(taken, count // about.get("group", 1), *window), "b": normal(count),
        "s": normal(1, count, 1, 1), "g": normal(count), "h": normal(count), "m": normal(count),
        "v": np.abs(normal(count)) + 0.1, "k": normal(4, count, 1, 1),
    }  # fmt: skip
    used = {name for each in nodes for name in each.input}
    constants = {name: value for name, value in constants.items() if name in used}
    x = normal(1, taken, *size)
    source = load(
        typed(model(nodes, {"x": (np.float32, x.shape)}, list(nodes[-1].output), constants))
    )
    return source, {"x": x}


def operators(source):
    return [each.op_type for each in source.graph.node]


@given(
    after=st.sampled_from(sorted(AFTER)), size=st.tuples(*[st.integers(1, 4)] * 2),
    channels=st.tuples(*[st.integers(1, 5)] * 2), window=st.tuples(*[st.integers(1, 3)] * 2),
    biased=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_computes_the_same(after, size, channels, window, biased, seed):
    source, request = made(np.random.default_rng(seed), after, size, channels, window, biased)
    written = pixel_by_pixel(source)
    assert operators(written) == ["Conv", "Reshape", "Transpose", "Reshape", "Relu"]
    [expected], [found] = (open_session(each).run(None, request) for each in (source, written))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("about", [
    {"strides": [1, 1]}, {"pads": [1, 0, 0, 0]}, {"output_padding": [1, 1], "strides": [2, 2]},
    {"group": 2, "channels": (4, 2)}, {"dilations": [2, 2]},
])  # fmt: skip
def test_windows_that_meet_or_are_cut_stay(about):
    source, _ = made(np.random.default_rng(1), **about)
    assert operators(pixel_by_pixel(source)) == operators(source)


def test_what_others_see_of_it_is_not_folded():
    source, request = made(np.random.default_rng(1), "sum")
    source.graph.output.append(type(source.graph.output[0])(name="t"))
    source.graph.output[1].type.tensor_type.elem_type = 1
    written = pixel_by_pixel(source)
    assert operators(written) == ["Conv", "Reshape", "Transpose", "Reshape", "Add", "Relu"]
    for expected, found in zip(
        *(open_session(each).run(None, request) for each in (source, written)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_cards_compute_it_with_the_bits_of_onnx_runtime():
    rng = np.random.default_rng(2)
    source, request = made(rng, "both", channels=(16, 8), more=[node("Conv", "y k", "z")])
    quantised = to_qoperator(source, [request])
    found = steps(quantised)
    [cards] = [step for step in found if isinstance(step, CardStep)]
    assert [each.op for each in cards.nodes if each.op != "reshape"] == [
        "conv2d", "transpose", "transpose", "conv2d",
    ]  # fmt: skip
    [expected] = oracle(quantised).run(None, request)
    np.testing.assert_array_equal(answer(found, request)["z"], expected)
