"""What ONNX Runtime's quantiser overlooks, and constants that are outputs, come in all the same."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnxruntime import GraphOptimizationLevel  # noqa: E402
from onnxruntime import quantization as tools  # noqa: E402

from halfdome.host.frontend.compile import compile  # noqa: E402
from halfdome.host.frontend.errors import ModelError  # noqa: E402
from halfdome.host.frontend.load import load  # noqa: E402
from halfdome.host.frontend.prepare import prepare  # noqa: E402
from halfdome.host.frontend.quantise import to_qoperator  # noqa: E402
from halfdome.host.frontend.sessions import open_session, oracle  # noqa: E402
from tests.host.frontend.nets import images, model, node, residual, typed  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 8)).astype(np.float32)
WEIGHT = {"w": RNG.standard_normal((8, 3)).astype(np.float32)}
PRODUCT = node("MatMul", "x w", "a")


def returned(*outputs):
    """A graph's outputs with their types, (name, type, shape) each."""
    return [helper.make_tensor_value_info(*each) for each in outputs]


def close(net, request):
    """Checks that the quantised model is the model, as far as 8 bits go."""
    made = to_qoperator(load(net), [request])
    assert "QLinearMatMul" in [each.op_type for each in made.graph.node]
    [found], [exact] = (each.run(None, request) for each in (oracle(made), open_session(load(net))))
    np.testing.assert_allclose(found, exact, atol=0.1)


def test_a_mask_behind_a_product():
    nodes = [PRODUCT, node("Where", "c a zero", "y")]
    inputs = {"x": (np.float32, (4, 8)), "c": (np.bool_, (4, 3))}
    net = typed(model(nodes, inputs, ["y"], WEIGHT | {"zero": np.float32(0)}))
    close(net, {"x": X, "c": RNG.random((4, 3)) < 0.5})


@pytest.mark.parametrize("taken", [True, False])
def test_branches_take_what_a_product_makes(taken):
    [value] = returned(("b", TensorProto.FLOAT, (4, 3)))
    branches = {
        name: helper.make_graph([node(op, "a", "b")], name, [], [value])
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [PRODUCT, node("If", "c", "y", **branches)]
    net = typed(model(nodes, {"x": (np.float32, (4, 8)), "c": (np.bool_, ())}, ["y"], WEIGHT))
    close(net, {"x": X, "c": np.array(taken)})


def with_product(*nodes):
    return typed(model([PRODUCT, *nodes], {"x": (np.float32, (4, 8))}, ["a", "y"], WEIGHT))


@pytest.mark.parametrize(
    "made",
    [
        [node("Constant", "", "y", value=numpy_helper.from_array(np.float32([3, 4])))],
        [node("Shape", "x", "s"), node("Cast", "s", "y", to=TensorProto.FLOAT)],
        [node("Constant", "", "y", value_float=2.5)],
    ],
)
def test_a_constant_is_an_output(made):
    net = with_product(*made)
    plan = compile(net, calibration=[{"x": X}], cards=1, config="tiny")
    known = open_session(plan.steps[0].model).run(["y"], {"x": X})
    [exact] = open_session(net).run(["y"], {"x": X})
    np.testing.assert_array_equal(known[0], exact)
    assert [each.name for each in plan.outputs] == ["a", "y"]


def test_an_output_that_is_moved_and_quantised_stays_in_floating_point():
    nodes = [
        node("Erf", "a", "y"), node("Transpose", "y", "t"), node("Reshape", "t shape", "r"),
        node("MatMul", "r v", "z"),
    ]  # fmt: skip
    constants = WEIGHT | {"v": WEIGHT["w"][:6, :2], "shape": np.array([2, 6])}
    net = typed(model([PRODUCT, *nodes], {"x": (np.float32, (4, 8))}, ["y", "z"], constants))
    made = prepare(net, calibration=[{"x": X}]).model
    assert [each.op_type for each in made.graph.node].count("QLinearMatMul") == 2
    y, exact = (
        each.run(["y"], {"x": X})[0]
        for each in (oracle(made), open_session(made, GraphOptimizationLevel.ORT_DISABLE_ALL))
    )
    np.testing.assert_array_equal(y, exact)


def test_weights_are_an_output():
    net = with_product(node("Relu", "a", "y"))
    net.graph.output.extend(returned(("w", TensorProto.FLOAT, (8, 3))))
    made = prepare(net, calibration=[{"x": X}]).model
    np.testing.assert_allclose(oracle(made).run(["w"], {"x": X})[0], WEIGHT["w"], atol=0.02)


def test_a_model_may_be_constant():
    net = model([node("Shape", "x", "y")], {"x": (np.float32, (4, 8))}, [], {})
    net.graph.output.extend(returned(("y", TensorProto.INT64, (2,))))
    [step] = compile(net, calibration=[{"x": X}], cards=1, config="tiny").steps
    np.testing.assert_array_equal(open_session(step.model).run(None, {})[0], [4, 8])


def test_an_output_that_is_no_tensor_is_refused():
    net = with_product(node("SequenceConstruct", "a a", "y"))
    del net.graph.output[1]
    net.graph.output.append(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    with pytest.raises(ModelError, match="output y: is no tensor"):
        compile(net, calibration=[{"x": X}], cards=1, config="tiny")


def test_dequantised_weights_are_the_hosts():
    nodes = [node("DequantizeLinear", "w s z", "d"), node("MatMul", "x d", "y")]
    constants = {"w": np.ones((8, 3), np.int8), "s": np.float32(0.1), "z": np.int8(0)}
    net = typed(model(nodes, {"x": (np.float32, (4, 8))}, ["y"], constants))
    made = compile(net, calibration=[{"x": X}], cards=1, config="tiny")
    assert [each.name for each in made.outputs] == ["y"]


def norms():
    """A product between two norms that share their weights, as exporters write equal ones."""
    nodes = [
        node("LayerNormalization", "x g", "a"), node("MatMul", "a w", "b"),
        node("LayerNormalization", "b g", "y"),
    ]  # fmt: skip
    constants = {"g": np.ones(8, np.float32), "w": np.eye(8, dtype=np.float32)}
    return typed(model(nodes, {"x": (np.float32, (4, 8))}, ["y"], constants))


@pytest.mark.parametrize(("net", "inputs"), [(residual, images(4)), (norms, [X])])
def test_a_network_quantised_with_all_defaults_comes_in(net, inputs, tmp_path):
    onnx.save(net(), tmp_path / "net.onnx")
    requests = iter([{"x": x} for x in inputs])

    class Reader(tools.CalibrationDataReader):
        def get_next(self):
            return next(requests, None)

    tools.quantize_static(tmp_path / "net.onnx", tmp_path / "made.onnx", Reader())
    made = prepare(tmp_path / "made.onnx")
    assert compile(made, cards=1, config="tiny").parts
    assert [each.name for each in oracle(made.model).get_outputs()] == ["y"]
