import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import helper

from halfdome.host.frontend.load import load
from halfdome.host.frontend.rewrite import rewritten
from halfdome.host.frontend.sessions import open_session
from tests.host.frontend.nets import model, node, typed

SHAPE = (2, 3, 4, 5)
CONSTANTS = {"two": np.float32([2]), "axes": np.array([-1, 2]), "one": np.array([2])}


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "opset", "operators"),
    [
        ("Sum", "x x x", {}, 17, ["Add", "Add"]),
        ("Sum", "x", {}, 17, ["Sum"]),
        ("Div", "x two", {}, 17, ["Mul"]),
        ("Div", "two x", {}, 17, ["Div"]),
        ("Div", "x x", {}, 17, ["Div"]),
        ("Sub", "x two", {}, 17, ["Add"]),
        ("ReduceMean", "x", {"axes": [2, 3]}, 17, ["GlobalAveragePool"]),
        ("ReduceMean", "x axes", {}, 18, ["GlobalAveragePool"]),
        ("ReduceMean", "x axes", {"keepdims": 0}, 18, ["GlobalAveragePool", "Reshape"]),
        ("ReduceMean", "x one", {}, 18, ["ReduceMean"]),
        ("ReduceMean", "x", {}, 17, ["ReduceMean"]),
        ("AveragePool", "x", {"kernel_shape": [4, 5]}, 17, ["GlobalAveragePool"]),
        ("AveragePool", "x", {"kernel_shape": [4, 4]}, 17, ["AveragePool"]),
        (
            "AveragePool", "x", {"kernel_shape": [4, 5], "pads": [0, 1, 0, 0]}, 17,
            ["AveragePool"],
        ),
    ],
)  # fmt: skip
def test_operators_are_written_by_means_of_others(op, inputs, attributes, opset, operators):
    constants = {name: value for name, value in CONSTANTS.items() if name in inputs.split()}
    nodes = [node(op, inputs, "y", **attributes)]
    source = load(typed(model(nodes, {"x": (np.float32, SHAPE)}, ["y"], constants, opset)))
    made = rewritten(source)
    assert [each.op_type for each in made.graph.node] == operators
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32) * 3
    [expected], [found] = (open_session(each).run(None, {"x": x}) for each in (source, made))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_division_by_zero_stays():
    constants = {"zero": np.float32([0])}
    nodes = [node("Div", "x zero", "y")]
    source = load(typed(model(nodes, {"x": (np.float32, SHAPE)}, ["y"], constants)))
    assert [each.op_type for each in rewritten(source).graph.node] == ["Div"]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_a_product_with_a_bias_is_one_operator(rank, turned):
    rng = np.random.default_rng(2)
    constants = {
        "w": rng.standard_normal((5, 6)).astype(np.float32),
        "b": rng.standard_normal(6).astype(np.float32),
    }
    nodes = [node("MatMul", "x w", "a"), node("Add", "b a" if turned else "a b", "y")]
    shape = SHAPE[-rank:]
    source = load(typed(model(nodes, {"x": (np.float32, shape)}, ["y"], constants)))
    made = rewritten(source)
    inner = ["Gemm"] if rank == 2 else ["Reshape", "Gemm", "Reshape"]
    assert [each.op_type for each in made.graph.node] == inner
    x = rng.standard_normal(shape).astype(np.float32)
    [expected], [found] = (open_session(each).run(None, {"x": x}) for each in (source, made))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_product_that_others_see_stays():
    constants = {"w": np.ones((5, 5), np.float32), "b": np.ones(5, np.float32)}
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Add", "a c", "y")]
    source = load(typed(model(nodes, {"x": (np.float32, SHAPE)}, ["y"], constants)))
    assert [each.op_type for each in rewritten(source).graph.node] == ["MatMul", "Add", "Add"]


@pytest.mark.parametrize("shape", [(1, 1, 6), (3, 1), (3, 6)])
def test_a_bias_that_is_not_one_number_for_each_column_is_added(shape):
    made = biased(shape, 6)
    assert [each.op_type for each in made.graph.node] == ["MatMul", "Add"]


@pytest.mark.parametrize("columns", [1, 6])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_bias_of_one_number_is_one_for_each_column(shape, columns):
    made = biased(shape, columns)
    assert [each.op_type for each in made.graph.node] == ["Gemm"]


def biased(shape, columns):
    """A product of two dimensions and a bias, written anew; it computes the same."""
    rng = np.random.default_rng(2)
    constants = {
        "w": rng.standard_normal((5, columns)).astype(np.float32),
        "b": np.asarray(rng.standard_normal(shape), np.float32),
    }
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "y")]
    source = load(typed(model(nodes, {"x": (np.float32, (3, 5))}, ["y"], constants)))
    made = rewritten(source)
    x = rng.standard_normal((3, 5)).astype(np.float32)
    [expected], [found] = (open_session(each).run(None, {"x": x}) for each in (source, made))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    return made


OTHERS = [
    ("AveragePool", "x", {"kernel_shape": [4, 5]}, ("float64", "float16")),
    ("ReduceMean", "x", {"axes": [2, 3]}, ("float64", "float16", "int32", "int64")),
    ("Add", "p b", {}, ("float64", "float16", "int32", "int64")),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "dtype"),
    [(*each, kind) for *each, kinds in OTHERS for kind in kinds],
)
def test_what_is_not_float32_stays(op, inputs, attributes, dtype):
    kind = np.dtype(dtype)
    nodes = [node(op, inputs, "y", **attributes)]
    constants = {}
    if op == "Add":
        nodes.insert(0, node("MatMul", "x w", "p"))
        constants = {"w": np.ones((5, 5), kind), "b": np.ones(5, kind)}
    kinds = helper.np_dtype_to_tensor_dtype(kind)
    source = load(typed(model(nodes, {"x": (kind, SHAPE)}, ["y"], constants), kinds))
    assert rewritten(source).graph.node == source.graph.node
