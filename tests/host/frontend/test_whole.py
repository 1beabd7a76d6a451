"""Functions of more than one node round once: they are quantised as a whole, and one table."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from halfdome.host.frontend.load import load
from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.quantise import to_qoperator
from halfdome.host.frontend.sessions import open_session, oracle
from halfdome.host.frontend.steps import CardStep
from tests.host.frontend.nets import model, node, typed
from tests.host.frontend.test_partition import answer

CONV = node("Conv", "x w b", "c")
SWISH = [node("Sigmoid", "c", "s"), node("Mul", "c s", "f")]
SPELLED = [
    node("Mul", "c half", "m"), node("Add", "m three", "a"), node("Clip", "a zero six", "k"),
    node("Mul", "m k", "n"), node("Div", "n six", "f"),
]  # fmt: skip
NUMBERS = {
    "half": np.float32([0.5]), "zero": np.float32(0), "three": np.float32([3]), "six": np.float32(6)
}  # fmt: skip


def made(nodes, outputs="y", **constants):
    """A network that begins with a convolution: in floating point, quantised, and a request."""
    rng = np.random.default_rng(3)
    constants |= NUMBERS | {
        "w": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(8).astype(np.float32),
        "v": rng.standard_normal((4, 8, 1, 1)).astype(np.float32),
    }
    used = {name for each in (CONV, *nodes) for name in each.input}
    constants = {name: value for name, value in constants.items() if name in used}
    x = rng.standard_normal((1, 3, 9, 9)).astype(np.float32)
    source = load(typed(model([CONV, *nodes], {"x": (np.float32, x.shape)}, outputs.split(),
                              constants)))  # fmt: skip
    return source, to_qoperator(source, [{"x": x}]), {"x": x}


def commands(quantised, request):
    """Operators of the only step of the cards, whose bits are ONNX Runtime's."""
    found = steps(quantised)
    expected = oracle(quantised).run(None, request)
    known = answer(found, request)
    for value, array in zip(quantised.graph.output, expected, strict=True):
        np.testing.assert_array_equal(known[value.name], array)
    [cards] = [step for step in found if isinstance(step, CardStep)]
    return [each.op for each in cards.nodes]


@pytest.mark.parametrize("function", [SWISH, SPELLED, [node("HardSwish", "c", "f")]])
def test_a_function_is_a_table_before_whatever_takes_8_bits(function):
    before_product = [*function, node("Conv", "f v", "y")]
    _, quantised, request = made(before_product)
    assert commands(quantised, request) == ["conv2d", "lookup", "conv2d"]
    before_pool = [*function, node("MaxPool", "f", "p", kernel_shape=[2, 2]),
                   node("Conv", "p v", "y")]  # fmt: skip
    _, quantised, request = made(before_pool)
    assert commands(quantised, request) == ["conv2d", "lookup", "max_pool", "conv2d"]
    _, quantised, request = made([*function, node("GlobalAveragePool", "f", "y")])
    assert commands(quantised, request) == ["conv2d", "lookup", "conv2d"]


def test_a_function_rounds_once():
    source, quantised, request = made([*SPELLED, node("Conv", "f v", "y")])
    operators = [each.op_type for each in quantised.graph.node]
    assert operators.count("QuantizeLinear") == 2  # the image, and what the function makes
    assert "QLinearMul" not in operators
    [exact], [close] = (each.run(None, request) for each in (open_session(source),
                                                            oracle(quantised)))  # fmt: skip
    assert 10 * np.log10((exact**2).mean() / ((exact - close) ** 2).mean()) > 30


def test_an_activation_that_the_quantiser_drops_is_no_part_of_a_function():
    _, quantised, request = made([
        node("Relu", "c", "r"), node("Mul", "r half", "m"), node("Add", "m three", "f"),
        node("Conv", "f v", "y"),
    ])  # fmt: skip
    assert "Relu" not in [each.op_type for each in quantised.graph.node]
    assert commands(quantised, request) == ["conv2d", "lookup", "conv2d"]


def test_what_is_floating_point_anyhow_is_not_quantised_for_a_function():
    _, quantised, _ = made([
        node("Softmax", "c", "p"), node("Mul", "p half", "m"), node("Add", "m three", "y"),
    ])  # fmt: skip
    operators = [each.op_type for each in quantised.graph.node]
    assert operators[-2:] != ["Mul", "Add"]


def test_one_node_alone_is_quantised_as_ever():
    _, quantised, _ = made([node("Mul", "c half", "m"), node("Conv", "m v", "y")])
    assert "QLinearMul" in [each.op_type for each in quantised.graph.node]
    _, quantised, _ = made([node("Sigmoid", "c", "s"), node("Conv", "s v", "y")])
    assert "QLinearSigmoid" in [each.op_type for each in quantised.graph.node]


def test_what_others_see_within_a_function_is_quantised():
    _, quantised, request = made([*SWISH, node("Add", "s f", "y")], "y s")
    assert "lookup" in commands(quantised, request)
