import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from onnxruntime import InferenceSession, SessionOptions  # noqa: E402

from halfdome.host.frontend import weights  # noqa: E402
from halfdome.host.frontend.compile import compile  # noqa: E402
from halfdome.host.frontend.errors import ModelError  # noqa: E402
from halfdome.host.frontend.load import load, parse_shapes  # noqa: E402
from halfdome.host.frontend.sessions import open_session  # noqa: E402
from tests.host.frontend.nets import model, node, residual, typed  # noqa: E402


def shapes_of(made):
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*made.graph.input, *made.graph.value_info, *made.graph.output)
    }


def arrays_of(made):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}


def open_batch(batch="N", height="H"):
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axes", "u"),
        node("Concat", "u rest", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    constants = {
        "zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]),
    }  # fmt: skip
    return typed(model(nodes, {"x": (np.float32, (batch, 3, height))}, ["y"], constants))


def test_shapes_are_fixed_and_what_follows_from_them_is_folded():
    made = load(open_batch(), {"x": (2, 3, 5)})
    assert shapes_of(made)["y"] == (2, 15)
    assert [each.op_type for each in made.graph.node] == ["Reshape"]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Scaler", {"offset": [0.0] * 3, "scale": [2.0] * 3}),
        ("Imputer", {"imputed_value_floats": [1.0] * 3, "replaced_value_float": float("nan")}),
    ],
)
def test_shapes_behind_what_prepares_features_are_inferred(op, attributes):
    scaler = node(op, "x", "s", "ai.onnx.ml", **attributes)
    weight = {"w": np.ones((3, 4), np.float32)}
    net = model([scaler, node("MatMul", "s w", "y")], {"x": (np.float32, ("N", 3))}, ["y"], weight)
    net.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    net.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    net.graph.output[0].type.tensor_type.shape.dim.add()
    net.graph.output[0].type.tensor_type.shape.dim.add()
    found = shapes_of(load(net, {"x": (2, 3)}))
    assert (found["s"], found["y"]) == ((2, 3), (2, 4))


def test_a_file_its_bytes_and_a_model_are_read_alike(tmp_path):
    source = residual()
    path = tmp_path / "net.onnx"
    onnx.save(source, path)
    from_file, from_text, from_bytes, from_model = (
        load(each) for each in (path, str(path), source.SerializeToString(), source)
    )
    assert from_file == from_text == from_bytes == from_model
    assert source == residual()


def test_a_symbol_that_two_inputs_share_has_one_size():
    nodes = [node("Add", "x z", "y")]
    inputs = {"x": (np.float32, ("N", 3)), "z": (np.float32, ("N", 3))}
    made = load(typed(model(nodes, inputs, ["y"], {})), {"x": (4, 3)})
    assert shapes_of(made) == {"x": (4, 3), "z": (4, 3), "y": (4, 3)}
    with pytest.raises(ModelError, match="contradicts the model, where z is"):
        load(typed(model(nodes, inputs, ["y"], {})), {"x": (4, 3), "z": (5, 3)})


def test_constants_among_the_inputs_are_no_inputs():
    source = open_batch(2, 5)
    source.graph.input.extend([helper.make_tensor_value_info("rest", 7, (1,))])
    assert [value.name for value in load(source).graph.input] == ["x"]


def test_shapes_are_parsed():
    assert parse_shapes(["x=1x3x224x224", "input:0=7", "a=b=2X3"]) == {
        "x": (1, 3, 224, 224), "input:0": (7,), "a=b": (2, 3),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["x", "x=", "=3", "x=1x", "x=1x-3", "x=1,3", "x=ax3"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(ModelError, match=f"--shape {text}: must be like NAME=1x3x224x224"):
        parse_shapes([text])


def test_two_shapes_for_an_input_are_refused():
    with pytest.raises(ModelError, match="x has a shape already"):
        parse_shapes(["x=1x3", "x=1x4"])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"input x: leaves sizes open, \[N, 3, H\]; fix them, as with --shape x=1x3x1"),
        ({"z": (1,)}, "--shape z=...: there is no such input; inputs are x"),
        ({"x": (1, 4, 5)}, r"--shape x=1x4x5: contradicts the model, where x is \[N, 3, H\]"),
        ({"x": (1, 3)}, r"--shape x=1x3: contradicts the model, where x is \[N, 3, H\]"),
        ({"x": (1, 3, -1)}, "sizes must be whole numbers, 0 or more"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(ModelError, match=message):
        load(open_batch(), shapes)


@pytest.mark.parametrize("declared", ["n", 0])
def test_a_size_of_0_is_one_that_is_told(declared):
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
    inputs = {"x": (np.float32, (declared, 3)), "b": (np.float32, (declared, 2))}
    net = typed(model(nodes, inputs, ["y"], {"w": np.ones((3, 2), np.float32)}))
    with pytest.raises(ModelError, match="input x: leaves sizes open"):
        load(net)
    shapes = {"x": (0, 3), "b": (0, 2)}
    request = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    plan = compile(net, calibration=[request], shapes=shapes, cards=1, config="tiny")
    [step] = plan.steps
    [y] = open_session(step.model).run(["y"], request)
    assert (y.shape, plan.outputs[0].shape) == ((0, 2), (0, 2))


def sparse(places):
    """A matrix with two numbers, 4 at [0, 1] and 5 at [2, 0]."""
    values = numpy_helper.from_array(np.float32([4, 5]), "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(places)), [3, 2])


@pytest.mark.parametrize("places", [[1, 4], [[0, 1], [2, 0]]])
@pytest.mark.parametrize("constant", [True, False])
def test_sparse_constants_become_dense(places, constant):
    made = model([node("MatMul", "x w", "y")], {"x": (np.float32, (4, 3))}, ["y"], {})
    if constant:
        made.graph.node.insert(
            0, helper.make_node("Constant", [], ["w"], sparse_value=sparse(places))
        )
    else:
        made.graph.sparse_initializer.append(sparse(places))
    np.testing.assert_array_equal(arrays_of(load(typed(made)))["w"], [[0, 4], [0, 0], [5, 0]])


def test_nodes_come_in_any_order_but_a_circle():
    branch = [node("MatMul", "h w", "b")]
    nodes = [
        node("If", "c", "y", **{
            name: helper.make_graph(branch, name, [], [helper.make_empty_tensor_value_info("b")])
            for name in ("then_branch", "else_branch")
        }),
        node("Relu", "x", "h"),
    ]  # fmt: skip
    inputs = {"x": (np.float32, (4, 3)), "c": (np.bool_, ())}
    made = model(nodes, inputs, ["y"], {"w": np.ones((3, 2), np.float32)})
    assert [each.op_type for each in load(made).graph.node] == ["Relu", "If"]
    made.graph.node[1].input[0] = "y"
    with pytest.raises(ModelError, match="not acyclic"):
        load(made)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.onnx: there is no such file"):
        load(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="is a folder, must be an ONNX file"):
        load(tmp_path)
    path = tmp_path / "text.onnx"
    path.write_text("hello world")
    with pytest.raises(ModelError, match=r"text\.onnx: is no ONNX model"):
        load(path)
    with pytest.raises(ModelError, match="is no ONNX model, or an empty one"):
        load(b"")


def test_missing_external_data_are_named(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(residual(), path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert arrays_of(load(path)).keys() == arrays_of(residual()).keys()
    np.testing.assert_array_equal(arrays_of(load(path))["w1"], arrays_of(residual())["w1"])
    with pytest.raises(ModelError, match=r"w1 lies outside it, in net\.data"):
        load(path.read_bytes())
    (tmp_path / "net.data").unlink()
    with pytest.raises(ModelError, match=r"net\.data, which is missing; put that file beside"):
        load(path)


@pytest.mark.parametrize(
    ("op", "domain", "message"),
    [
        ("Convolve", "", "node Convolve_y: operator Convolve is unknown"),
        ("Swish", "org.example", "operator Swish is of the unknown domain org.example"),
    ],
)
def test_unknown_operators_are_named(op, domain, message):
    nodes = [node(op, "x", "y", domain)]
    with pytest.raises(ModelError, match=message):
        load(model(nodes, {"x": (np.float32, (1, 3))}, ["y"], {}))


def test_an_unknown_operator_in_a_branch_is_named():
    output = helper.make_tensor_value_info("z", 1, (1,))
    branch = helper.make_graph([node("Convolve", "x", "z")], "branch", [], [output])
    nodes = [node("If", "c", "y", then_branch=branch, else_branch=branch)]
    inputs = {"c": (np.bool_, ()), "x": (np.float32, (1,))}
    with pytest.raises(ModelError, match="operator Convolve is unknown"):
        load(typed(model(nodes, inputs, ["y"], {})))


def test_a_model_may_return_constants_alone():
    value = np.float32([1, 2])
    source = model([], {}, ["c"], {"c": value})
    source.graph.output[0].CopyFrom(helper.make_tensor_value_info("c", 1, (2,)))
    [same] = InferenceSession(load(source).SerializeToString()).run(None, {})
    np.testing.assert_array_equal(same, value)


def test_a_model_that_breaks_a_rule_is_refused():
    source = residual()
    source.graph.node[0].input[0] = "nothing"
    with pytest.raises(ModelError, match="breaks a rule of ONNX"):
        load(source)


def test_an_input_that_is_no_tensor_is_refused():
    source = typed(model([node("SequenceLength", "x", "y")], {}, ["y"], {}), 7)
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
    source.graph.input.extend([helper.make_value_info("x", kind)])
    with pytest.raises(ModelError, match="input x: is a sequence_type, must be a tensor"):
        load(source)


def test_constants_keep_their_values():
    kept = arrays_of(load(residual()))
    for name, value in arrays_of(residual()).items():
        np.testing.assert_array_equal(kept[name], value)


def test_heavy_constants_are_kept_as_far_as_they_are_used(monkeypatch):
    monkeypatch.setattr(weights, "_HEAVY", 3)
    constants = {"w": np.arange(9, dtype=np.float32).reshape(3, 3), "unused": np.ones(5)}
    nodes = [node("MatMul", "x w", "y")]
    made = load(typed(model(nodes, {"x": (np.float32, (2, 3))}, ["y"], constants)))
    assert [value.name for value in made.graph.input] == ["x"]
    assert list(arrays_of(made)) == ["w"]
    np.testing.assert_array_equal(arrays_of(made)["w"], constants["w"])


@pytest.mark.parametrize("shapes", [None, ["x"], "x", {"x": 4}, {"x": None}, {"x": "48"}])
def test_what_are_no_shapes_is_refused(shapes):
    with pytest.raises(ModelError, match=r"shapes.*=.*: must be sizes by the name of an input"):
        load(open_batch(), shapes)


def test_sizes_are_whole_numbers_of_python_or_numpy():
    made = load(open_batch(), {"x": np.array([2, 3, 5])})
    assert shapes_of(made)["x"] == (2, 3, 5)
    with pytest.raises(ModelError, match="sizes must be whole numbers"):
        load(open_batch(), {"x": (True, 3, 5)})


@pytest.mark.parametrize("kind", [None, 1])
def test_the_shape_of_an_output_is_inferred(kind):
    source = model([node("Relu", "x", "y")], {"x": (np.float32, (2, 3))}, ["y"], {})
    if kind:
        source.graph.output[0].type.tensor_type.elem_type = kind
    assert shapes_of(load(source))["y"] == (2, 3)


def test_dictionaries_of_scikit_learn_say_how_to_leave_them_out():
    nodes = [node("ZipMap", "x", "y", "ai.onnx.ml", classlabels_int64s=[0, 1])]
    source = model(nodes, {"x": (np.float32, (4, 2))}, ["y"], {})
    with pytest.raises(ModelError, match=r"options=.*to skl2onnx.* or return x in its place"):
        load(source)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@given(data=st.data())
def test_poolings_have_the_shapes_that_they_have_in_onnx_runtime(op, data):
    """Also where a last window would begin beyond the image, which ONNX's inference counts."""

    def sizes(least, most):
        return data.draw(st.lists(st.integers(least, most), min_size=2, max_size=2))

    kernel, strides = sizes(1, 4), sizes(1, 4)
    pads = [data.draw(st.integers(0, taps - 1)) for taps in kernel * 2]
    shape = (1, 2, *(max(size, taps) for size, taps in zip(sizes(1, 9), kernel, strict=True)))
    found = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": 1}
    nodes = [node(op, "x", "h", **found), node(op, "h", "y", kernel_shape=[1, 1])]
    made = typed(model(nodes, {"x": (np.float32, shape)}, ["y"], {}))
    quiet = SessionOptions()
    quiet.log_severity_level = 4
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    read = load(made)
    [right], [same] = (
        InferenceSession(each.SerializeToString(), quiet).run(None, {"x": x})
        for each in (made, read)
    )
    np.testing.assert_array_equal(same, right)
    assert shapes_of(read)["y"] == right.shape


def test_a_window_beyond_the_image_is_left_out_behind_an_operator_of_onnx_runtime():
    """ONNX infers no shape there, neither of the image nor of an output without a type."""
    constants = {"s": np.float32(0.5), "z": np.uint8(3)}
    nodes = [
        node("QLinearAdd", "x s z x s z s z", "h", "com.microsoft"),
        node("MaxPool", "h", "y", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1),
    ]
    made = model(nodes, {"x": (np.uint8, (1, 2, 3, 6))}, ["y"], constants)
    read = load(made)
    x = np.arange(36, dtype=np.uint8).reshape(1, 2, 3, 6)
    [found] = InferenceSession(read.SerializeToString()).run(None, {"x": x})
    assert shapes_of(read)["y"] == found.shape == (1, 2, 1, 2)
    assert not any(each.name == "ceil_mode" and each.i for each in read.graph.node[1].attribute)


def test_an_input_of_a_type_that_numpy_lacks_is_refused():
    made = model([node("Identity", "x", "y")], {"x": (np.float32, (2, 3))}, ["y"], {})
    made.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    with pytest.raises(ModelError, match="input x: is bfloat16, which numpy lacks; export it as"):
        load(typed(made, onnx.TensorProto.BFLOAT16))


def test_what_no_constant_can_be_folded_of_stays_as_it_is():
    """The optimiser fails where SplitToSequence is not told how to split."""
    nodes = [node("SplitToSequence", "x", "s"), node("SequenceAt", "s i", "y")]
    made = model(nodes, {"x": (np.float32, (2, 3))}, ["y"], {"i": np.int64(1)})
    made.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", 1, (1, 3)))
    x = np.float32([[1, 2, 3], [4, 5, 6]])
    [y] = InferenceSession(load(made).SerializeToString()).run(None, {"x": x})
    np.testing.assert_array_equal(y, x[1:])


@pytest.mark.parametrize(
    "told",
    [[("ai.onnx", 17)], [("", 17)], [("ai.onnx", 17), ("", 12)], [("", 12), ("ai.onnx", 17)]],
)
@pytest.mark.parametrize("names", [("ai.onnx", "ai.onnx"), ("", "ai.onnx")])
def test_the_domain_of_onnx_may_be_called_by_its_name(told, names):
    """Softmax tells operator sets apart: before 13 it is over all axes but the first."""
    nodes = [node("Neg", "x", "n", names[0]), node("Softmax", "n", "y", names[1])]
    made = model(nodes, {"x": (np.float32, (1, 2, 3))}, ["y"], {})
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, (1, 2, 3)))
    del made.opset_import[:]
    made.opset_import.extend(helper.make_opsetid(*each) for each in told)
    request = {"x": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}
    [right], [same] = (
        InferenceSession(each.SerializeToString()).run(None, request) for each in (made, load(made))
    )
    np.testing.assert_array_equal(same, right)


@pytest.mark.parametrize("opset", [13, 17])
def test_a_function_may_be_of_another_operator_set(opset):
    inner = [node("MatMul", "a w", "p"), node("Sigmoid", "p", "b")]
    layer = helper.make_function(
        "own", "Layer", ["a", "w"], ["b"], inner, [helper.make_opsetid("", opset)]
    )
    made = model([node("Layer", "x w", "y", "own")], {"x": (np.float32, (2, 3))}, ["y"],
                 {"w": np.ones((3, 4), np.float32)})  # fmt: skip
    made.functions.append(layer)
    made.opset_import.append(helper.make_opsetid("own", 1))
    loaded = load(typed(made))
    assert [each.op_type for each in loaded.graph.node] == ["MatMul", "Sigmoid"]


@pytest.mark.parametrize(
    ("domain", "op"),
    [("", "Relu"), ("", "Softplus"), ("com.microsoft", "Gelu"), ("ai.onnx.ml", "Binarizer"),
     ("com.microsoft", "Own"), ("own", "Relu")],
)  # fmt: skip
@pytest.mark.parametrize("within", [False, True])
def test_a_function_named_like_an_operator_is_what_onnx_runtime_takes_it_for(domain, op, within):
    """It calls those alone of which it has no operator itself, also within another function."""
    opsets = [helper.make_opsetid(name, version) for name, version in
              (("", 17), ("ai.onnx.ml", 3), ("com.microsoft", 1), ("own", 1))]  # fmt: skip
    inner = [node("Neg", "a", "n"), node("Abs", "n", "b")]
    calls = [node(op, "x", "y", domain)]
    functions = [helper.make_function(domain, op, ["a"], ["b"], inner, opsets)]
    if within:
        functions.append(helper.make_function("own", "Layer", ["x"], ["y"], calls, opsets))
        calls = [node("Layer", "x", "y", "own")]
    made = model(calls, {"x": (np.float32, (4,))}, ["y"], {})
    del made.opset_import[:]
    made.opset_import.extend(opsets)
    made.functions.extend(functions)
    x = np.float32([-2, -1, 0.5, 2])
    [right], [same] = (
        InferenceSession(each.SerializeToString()).run(None, {"x": x})
        for each in (typed(made), load(typed(made)))
    )
    np.testing.assert_array_equal(same, right)
