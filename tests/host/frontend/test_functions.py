"""What stands between DequantizeLinear and QuantizeLinear is a table of ONNX Runtime's bytes."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.frontend import functions
from halfdome.host.frontend.functions import FUNCTION, collapse
from halfdome.host.frontend.net import Net
from halfdome.host.frontend.partition import steps
from halfdome.host.frontend.sessions import oracle
from halfdome.host.frontend.steps import CardStep, HostStep
from tests.host.frontend.nets import model, node
from tests.host.frontend.single import agree, bytes_of
from tests.host.frontend.test_partition import answer, served
from tests.host.frontend.test_products import DTYPES, SEEDS, scale, zero_point

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4)
OPSET = 20
CHAINS = {
    **{op: [node(op, "f", "g")] for op in (
        "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "LeakyRelu", "Relu", "Exp", "Sqrt",
        "Erf", "Gelu", "Abs", "Neg", "Softplus", "Mish", "Reciprocal", "Round", "Selu",
    )},
    "Clip": [node("Clip", "f low high", "g")],
    "Clip at 6": [node("Clip", "f - six", "g")],
    "PRelu": [node("PRelu", "f slope", "g")],
    "Swish": [node("Sigmoid", "f", "s"), node("Mul", "f s", "g")],
    "Gelu of Erf": [
        node("Div", "f root", "a"), node("Erf", "a", "b"), node("Add", "b one", "c"),
        node("Mul", "f c", "d"), node("Mul", "half d", "g"),
    ],
    "nothing": [],
}  # fmt: skip
NUMBERS = {
    name: np.array(value, np.float32)
    for name, value in {
        "low": -0.7, "high": 1.3, "six": 6, "slope": [0.3], "root": 2**0.5, "one": 1, "half": [0.5],
    }.items()
}  # fmt: skip


def chain(name, shape, dtype, rng, before=(), after=(), outputs=("y",), **changes):
    """DequantizeLinear, the nodes of a chain, QuantizeLinear."""
    last = CHAINS[name][-1].output[0] if CHAINS[name] else "f"
    nodes = [
        *before, node("DequantizeLinear", "x xs xz", "f"), *CHAINS[name],
        node("QuantizeLinear", f"{last} ys yz", "y"), *after,
    ]  # fmt: skip
    used = {each for made in nodes for each in made.input}
    constants = {key: value for key, value in NUMBERS.items() if key in used}
    constants |= {
        "xs": scale(rng.choice([0.003, 0.05, 0.21])), "xz": zero_point(rng, dtype),
        "ys": scale(rng.choice([0.004, 0.031, 0.5])), "yz": zero_point(rng, dtype),
    } | changes  # fmt: skip
    return model(nodes, {"x": (dtype, shape)}, list(outputs), constants, OPSET)


@given(name=st.sampled_from(sorted(CHAINS)), shape=SHAPES, dtype=DTYPES, seed=SEEDS)
def test_any_function_has_the_bits_of_onnx_runtime(name, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    made = chain(name, shape, dtype, rng)
    step = agree(made, [{"x": bytes_of(rng, dtype, *shape)} for _ in range(2)])
    assert [each.op for each in step.nodes] == ["lookup"]


@pytest.mark.parametrize("name", sorted({*CHAINS} - {"nothing"}))
def test_all_nodes_are_on_cards(name):
    rng = np.random.default_rng(3)
    weights = {"w": bytes_of(rng, np.dtype(np.int8), 9, 70), "wz": np.int8(0), "ws": scale(0.01)}
    before = [node("QLinearMatMul", "v vs xz w ws wz xs xz", "x")]
    made = chain(name, (2, 70), np.dtype(np.uint8), rng, before=before, vs=scale(0.02), **weights)
    made.graph.input[0].name = "v"
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9
    [step] = steps(made, lambda each: compile(each.graph(2), PRESETS["default"], 1))
    assert isinstance(step, CardStep)
    assert set(step.made) == {each.name for each in made.graph.node}
    request = {"v": bytes_of(rng, np.dtype(np.uint8), 2, 9)}
    np.testing.assert_array_equal(answer([step], request)["y"], oracle(made).run(None, request)[0])
    served(step, request)


def collapsed(made):
    return [each.op_type for each in collapse(Net(made)).nodes]


def test_functions_of_bytes_themselves_are_the_hosts():
    """What makes bytes of bytes without a scale, as Clip of int8 does, says none for its output."""
    nodes = [node("Clip", "x low", "c"), node("Neg", "c", "y")]
    constants = {"low": np.int8(-7)}
    [step] = steps(model(nodes, {"x": (np.int8, (2, 5))}, ["y"], constants, OPSET))
    assert isinstance(step, HostStep)


def test_floats_that_others_see_are_floats():
    rng = np.random.default_rng(4)
    made = chain("Swish", (2, 5), np.dtype(np.uint8), rng, outputs=("y", "s"))
    assert FUNCTION not in collapsed(made)
    made = chain("Swish", (2, 5), np.dtype(np.uint8), rng, after=[node("Softmax", "s", "z")],
                 outputs=("y", "z"))  # fmt: skip
    assert FUNCTION not in collapsed(made)


def test_what_is_dequantised_may_be_seen_by_others():
    rng = np.random.default_rng(5)
    after = [
        node("Softmax", "f", "z"), node("Tanh", "f", "t"), node("QuantizeLinear", "t ys yz", "u"),
    ]  # fmt: skip
    made = chain("HardSwish", (2, 5), np.dtype(np.int8), rng, after=after, outputs=("y", "z", "u"))
    assert sorted(collapsed(made)) == [FUNCTION, FUNCTION, "DequantizeLinear", "Softmax"]
    net = collapse(Net(made))
    names = [inner.name for each in net.nodes for inner in net.inside(each)]
    assert len(set(names)) == len(names), "two nodes of one step would have one name"
    found = steps(made)
    labels = [
        label for step in found
        for label in (step.reasons if isinstance(step, HostStep) else step.made)
    ]  # fmt: skip
    assert sorted(labels) == sorted(each.name for each in made.graph.node)
    request = {"x": bytes_of(rng, np.dtype(np.int8), 2, 5)}
    known = answer(found, request)
    for name, expected in zip("yzu", oracle(made).run(["y", "z", "u"], request), strict=True):
        np.testing.assert_array_equal(known[name], expected)


def test_two_tensors_are_no_function_of_one():
    rng = np.random.default_rng(6)
    nodes = [
        node("DequantizeLinear", "x xs xz", "f"), node("DequantizeLinear", "v xs xz", "g"),
        node("Mul", "f g", "h"), node("QuantizeLinear", "h xs xz", "y"),
    ]  # fmt: skip
    kind = np.dtype(np.uint8)
    constants = {"xs": scale(0.1), "xz": zero_point(rng, kind)}
    made = model(nodes, {"x": (kind, (2, 3)), "v": (kind, (2, 3))}, ["y"], constants, OPSET)
    assert FUNCTION not in collapsed(made)


BYTES = {
    "Swish": [
        ("QLinearSigmoid", "x xs xz us uz", "s"), ("QLinearMul", "x xs xz s us uz ys yz", "y"),
    ],
    "HardSwish in two": [
        ("DequantizeLinear", "x xs xz", "f"), ("HardSigmoid", "f", "h"),
        ("QuantizeLinear", "h us uz", "s"), ("QLinearMul", "s us uz x xs xz ys yz", "y"),
    ],
    "HardSwish in steps": [
        ("QLinearAdd", "x xs xz c us uz vs vz", "a"), ("QLinearMul", "a vs vz x xs xz ys yz", "b"),
        ("QLinearMul", "c us uz b ys yz ws wz", "y"),
    ],
    "LeakyRelu": [
        ("QLinearMul", "x xs xz c us uz vs vz", "a"),
        ("QLinearLeakyRelu", "a vs vz ys yz", "y"),
    ],
}  # fmt: skip


def byte_chain(name, shape, dtype, rng, before=(), after=(), outputs=("y",)):
    """A chain of operators of bytes."""
    nodes = [
        node(op, inputs, output, "com.microsoft" if op.startswith("QLinear") else "")
        for op, inputs, output in BYTES[name]
    ]
    nodes = [*before, *nodes, *after]
    used = {each for made in nodes for each in made.input}
    constants = {"c": bytes_of(rng, dtype, 1)}
    for kind in "xyuvw":
        constants |= {f"{kind}s": scale(rng.choice([0.003, 0.02, 0.05])),
                      f"{kind}z": zero_point(rng, dtype)}  # fmt: skip
    constants = {key: value for key, value in constants.items() if key in used}
    return model(nodes, {"x": (dtype, shape)}, list(outputs), constants, OPSET)


@given(name=st.sampled_from(sorted(BYTES)), shape=SHAPES, dtype=DTYPES, seed=SEEDS)
def test_bytes_by_way_of_other_bytes_are_one_table(name, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    made = byte_chain(name, shape, dtype, rng)
    step = agree(made, [{"x": bytes_of(rng, dtype, *shape)} for _ in range(2)])
    assert [each.op for each in step.nodes] == ["lookup"]
    assert set(step.made) == {each.name for each in made.graph.node}


def test_bytes_that_others_see_begin_another_function():
    rng = np.random.default_rng(4)
    kind = np.dtype(np.uint8)
    made = byte_chain("HardSwish in steps", (2, 5), kind, rng, outputs=("y", "a"))
    assert collapsed(made) == ["QLinearAdd", "QLinearMul", "QLinearMul"]
    made = byte_chain("HardSwish in steps", (2, 5), kind, rng, outputs=("y", "b"))
    assert collapsed(made) == [FUNCTION, "QLinearMul"]
    made = byte_chain("HardSwish in steps", (2, 5), kind, rng, outputs=("y", "z"),
                      after=[node("DequantizeLinear", "b ys yz", "z")])  # fmt: skip
    assert sorted(collapsed(made)) == [FUNCTION, "DequantizeLinear", "QLinearMul"]
    agree(made, [{"x": bytes_of(rng, kind, 2, 5)}])


def test_functions_that_share_a_part_have_it_between_them():
    rng = np.random.default_rng(4)
    kind = np.dtype(np.uint8)
    after = [
        node("QLinearSigmoid", "b ys yz vs vz", "p", "com.microsoft"),
        node("QLinearMul", "b ys yz p vs vz us uz", "q", "com.microsoft"),
    ]
    made = byte_chain("HardSwish in steps", (2, 5), kind, rng, after=after, outputs=("y", "q"))
    assert sorted(collapsed(made)) == [FUNCTION, FUNCTION, "QLinearMul"]
    agree(made, [{"x": bytes_of(rng, kind, 2, 5)}])


@pytest.mark.parametrize("change", [
    {"slope": np.float32([0.1, 0.2, 0.3])},
    {"ys": np.float32([0.1, 0.2, 0.3]), "yz": np.uint8([1, 2, 3])},
    {"xs": np.float32([0.1, 0.2, 0.3]), "xz": np.uint8([1, 2, 3])},
])  # fmt: skip
def test_what_differs_along_an_axis_is_no_function_of_bytes(change):
    made = chain("PRelu", (2, 3), np.dtype(np.uint8), np.random.default_rng(7), **change)
    assert FUNCTION not in collapsed(made)


def test_a_function_that_cards_do_not_take_is_the_hosts_as_it_was(monkeypatch):
    def unsteady(*_):
        raise functions.Unsteady("3 of 256 bytes are others at the end of a tensor")

    monkeypatch.setattr("halfdome.host.frontend.translate_elements.table", unsteady)
    made = chain("Swish", (2, 5), np.dtype(np.uint8), np.random.default_rng(8))
    [step] = steps(made)
    assert isinstance(step, HostStep)
    assert set(step.reasons) == {each.name for each in made.graph.node}
    assert "3 of 256 bytes are others at the end of a tensor" in step.reasons.values()
    assert [each.op_type for each in step.model.graph.node] == [
        each.op_type for each in made.graph.node
    ]
    request = {"x": bytes_of(np.random.default_rng(9), np.dtype(np.uint8), 2, 5)}
    np.testing.assert_array_equal(answer([step], request)["y"], oracle(made).run(None, request)[0])


def test_a_byte_that_depends_on_its_place_is_found_out(monkeypatch):
    class Session:
        def run(self, _, request):
            (x,) = request.values()
            return [x + (x.size > 1)]

    monkeypatch.setattr(functions, "part", lambda *_: Session())
    net = collapse(Net(chain("Tanh", (5,), np.dtype(np.uint8), np.random.default_rng(1))))
    with pytest.raises(functions.Unsteady, match="256 of 256 bytes"):
        functions.table(net, "x", net.inside(net.nodes[0]))
