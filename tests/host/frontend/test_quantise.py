import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnxruntime import GraphOptimizationLevel as Level  # noqa: E402
from onnxruntime import quantization as tools  # noqa: E402

from halfdome.host.frontend import weights  # noqa: E402
from halfdome.host.frontend.calibration import read_requests  # noqa: E402
from halfdome.host.frontend.errors import ModelError  # noqa: E402
from halfdome.host.frontend.load import load  # noqa: E402
from halfdome.host.frontend.quantise import is_quantised, to_qoperator  # noqa: E402
from halfdome.host.frontend.sessions import Tensor, open_session, oracle, tensors  # noqa: E402
from tests.host.frontend.nets import images, model, node, residual, typed  # noqa: E402


def operators(made):
    return [each.op_type for each in made.graph.node]


@pytest.fixture(scope="module")
def quantised():
    return to_qoperator(load(residual()), [{"x": images(4)}])


@pytest.fixture(scope="module")
def qdq(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qdq")
    onnx.save(load(residual()), folder / "net.onnx")
    requests = iter([{"x": image} for image in images(4)])

    class Reader(tools.CalibrationDataReader):
        def get_next(self):
            return next(requests, None)

    tools.quantize_static(
        folder / "net.onnx", folder / "qdq.onnx", Reader(), tools.QuantFormat.QDQ,
        per_channel=True, activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
    )  # fmt: skip
    return load(folder / "qdq.onnx")


def test_a_model_in_floating_point_is_quantised(quantised):
    assert not is_quantised(load(residual()))
    assert is_quantised(quantised)
    found = operators(quantised)
    assert found.count("QLinearConv") == 2
    assert {"QLinearAdd", "QGemm", "QLinearGlobalAveragePool"} <= set(found)
    (image,) = images(1, seed=9)
    [exact] = open_session(load(residual())).run(None, {"x": image})
    [close] = oracle(quantised).run(None, {"x": image})
    np.testing.assert_allclose(close, exact, atol=0.05)


def test_moves_and_maxima_of_bytes_need_no_calibration():
    """The factors of a Resize are floats, and no tensor is."""
    nodes = [
        node("MaxPool", "x", "p", kernel_shape=[2, 2]),
        node("Resize", "p - f", "y", mode="nearest", nearest_mode="floor",
             coordinate_transformation_mode="asymmetric"),
    ]  # fmt: skip
    factors = {"f": np.array([1, 1, 2, 2], np.float32)}
    net = model(nodes, {"x": (np.uint8, (1, 3, 5, 5))}, ["y"], factors)
    made = load(typed(net, onnx.TensorProto.UINT8))
    assert operators(to_qoperator(made, None)) == operators(made)


@pytest.mark.parametrize("op", ["QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"])
def test_a_function_of_8_bits_alone_needs_no_calibration(op):
    made = model(
        [node(op, "x s z s z", "y", domain="com.microsoft")], {"x": (np.uint8, (1, 4))}, ["y"],
        {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)},
    )  # fmt: skip
    assert to_qoperator(made, None) is made


def test_requests_lie_along_an_extra_axis_or_in_a_sequence(quantised):
    apart = to_qoperator(load(residual()), [{"x": image} for image in images(4)])
    assert apart.SerializeToString() == quantised.SerializeToString()


def test_weights_that_no_message_has_room_for_lie_outside(quantised, monkeypatch):
    monkeypatch.setattr(weights, "_MESSAGE", 100)
    made = to_qoperator(load(residual()), [{"x": images(4)}])
    (image,) = images(1, seed=13)
    [expected], [found] = (oracle(each).run(None, {"x": image}) for each in (quantised, made))
    np.testing.assert_array_equal(found, expected)


def test_a_qoperator_model_stays_as_it_is(quantised):
    assert to_qoperator(quantised, None) is quantised


def test_a_qdq_model_is_fused_and_computes_the_same_bits(qdq):
    assert is_quantised(qdq)
    fused = to_qoperator(qdq, None)
    assert operators(fused).count("QLinearConv") == 2
    assert "Conv" not in operators(fused)
    for image in images(4, seed=8):
        np.testing.assert_array_equal(
            oracle(fused).run(None, {"x": image})[0], oracle(qdq).run(None, {"x": image})[0]
        )


@pytest.mark.parametrize("which", ["quantised", "qdq"])
def test_how_far_onnx_runtime_optimises_changes_no_bit(which, request):
    made = to_qoperator(request.getfixturevalue(which), None)
    levels = (Level.ORT_DISABLE_ALL, Level.ORT_ENABLE_BASIC, Level.ORT_ENABLE_EXTENDED)
    for image in images(3, seed=7):
        results = [open_session(made, level).run(None, {"x": image})[0] for level in levels]
        for result in results:
            np.testing.assert_array_equal(result, results[0])


def test_an_oracle_returns_values_within_the_model(quantised):
    (image,) = images(1)
    name = next(each.output[0] for each in quantised.graph.node if each.op_type == "QLinearConv")
    [y, last] = oracle(quantised, [name, "y"]).run(None, {"x": image})
    assert y.dtype == np.uint8
    np.testing.assert_array_equal(last, oracle(quantised).run(None, {"x": image})[0])
    with pytest.raises(ModelError, match="output nothing: no node of the model makes it"):
        oracle(quantised, ["nothing"])


def test_a_scalar_is_told_from_what_has_unknown_dimensions():
    nodes = [node("ReduceSum", "x", "scalar", keepdims=0), node("Reshape", "x t", "any")]
    inputs = {"x": (np.float32, (2, 3)), "t": (np.int64, ("K",))}
    found = tensors(model(nodes, inputs, ["scalar", "any"], {}))
    assert found["scalar"] == Tensor(np.dtype(np.float32), ())
    assert found["any"] == Tensor(np.dtype(np.float32), None)


def test_types_and_shapes_of_all_values_are_found(quantised):
    found = tensors(quantised)
    assert set(found) == {"x"} | {name for each in quantised.graph.node for name in each.output}
    pooled = next(
        each.output[0]
        for each in quantised.graph.node
        if each.op_type == "QLinearGlobalAveragePool"
    )
    assert found[pooled] == Tensor(np.dtype(np.uint8), (1, 8, 1, 1))


def test_a_transformer_has_its_products_quantised_alone():
    rng = np.random.default_rng(1)
    nodes = [
        node("MatMul", "x w", "q"),
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("MatMul", "q t", "s"),
        node("Softmax", "s", "p"),
        node("Add", "p p", "y"),
    ]
    constants = {"w": rng.standard_normal((6, 6)).astype(np.float32)}
    source = load(typed(model(nodes, {"x": (np.float32, (1, 4, 6))}, ["y"], constants)))
    x = rng.standard_normal((1, 4, 6)).astype(np.float32)
    found = operators(to_qoperator(source, [{"x": x}]))
    assert found.count("QLinearMatMul") == 2
    assert {"Softmax", "Add"} <= set(found)


def test_products_of_activations_alone_make_no_transformer():
    inputs = {"x": (np.float32, (1, 4, 6))}
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("MatMul", "x t", "s"),
        node("Add", "s s", "y"),
    ]
    source = load(typed(model(nodes, inputs, ["y"], {})))
    x = np.random.default_rng(1).standard_normal((1, 4, 6)).astype(np.float32)
    assert {"QLinearMatMul", "QLinearAdd"} <= set(operators(to_qoperator(source, [{"x": x}])))


def test_a_bias_of_one_row_is_quantised_with_its_product():
    rng = np.random.default_rng(1)
    constants = {
        "w": rng.standard_normal((6, 3)).astype(np.float32),
        "b": rng.standard_normal((1, 3)).astype(np.float32),
    }
    nodes = [node("MatMul", "x w", "p"), node("Add", "p b", "y")]
    source = load(typed(model(nodes, {"x": (np.float32, (4, 6))}, ["y"], constants)))
    x = rng.standard_normal((4, 6)).astype(np.float32)
    made = to_qoperator(source, [{"x": x}])
    assert "QGemm" in operators(made)
    [y] = oracle(made).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ constants["w"] + constants["b"], atol=0.15)


def test_what_comes_before_a_transformer_is_quantised_whole():
    rng = np.random.default_rng(2)
    nodes = [
        node("Conv", "x w", "a"),
        node("Mul", "a a", "b"),
        node("Reshape", "b rows", "c"),
        node("Transpose", "c", "d", perm=[0, 2, 1]),
        node("MatMul", "c d", "e"),
        node("Mul", "e half", "f"),
        node("Softmax", "f", "g"),
        node("MatMul", "g c", "h"),
        node("Mul", "h h", "y"),
    ]
    constants = {
        "w": rng.standard_normal((4, 3, 1, 1)).astype(np.float32),
        "rows": np.array([1, 4, 25]), "half": np.float32([0.5]),
    }  # fmt: skip
    shape = (1, 3, 5, 5)
    source = load(typed(model(nodes, {"x": (np.float32, shape)}, ["y"], constants)))
    found = operators(to_qoperator(source, [{"x": rng.standard_normal(shape).astype(np.float32)}]))
    assert [found.count(op) for op in ("QLinearConv", "QLinearMul", "QLinearMatMul")] == [1, 2, 2]
    assert [found.count(op) for op in ("Conv", "Mul", "MatMul", "Softmax")] == [0, 1, 0, 1]


def test_a_sum_of_many_is_added_in_8_bits():
    inputs = {"x": (np.float32, (1, 3))}
    nodes = [node("Mul", "x two", "a"), node("Sum", "x a x", "y")]
    constants = {"two": np.float32([2])}
    source = load(typed(model(nodes, inputs, ["y"], constants)))
    made = to_qoperator(source, [{"x": np.float32([[-1, 0, 2]])}])
    assert operators(made).count("QLinearAdd") == 2
    [y] = oracle(made).run(None, {"x": np.float32([[-1, 0, 2]])})
    np.testing.assert_allclose(y, [[-4, 0, 8]], atol=0.1)


def test_floating_point_without_calibration_says_how():
    with pytest.raises(ModelError, match=r"--calibrate FILE\.npz\|DIR"):
        to_qoperator(load(residual()), None)


def with_nan():
    array = images(2)
    array[1, 0, 0, 0, 0] = np.nan
    return array


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "calibration: is empty"),
        ([{}], r"calibration\[0\]: input x is missing"),
        ([{"x": images(1), "z": images(1)}], "z: there is no such input; inputs are x"),
        ([{"x": images(1)[..., :3]}], r"input x: is float32\[1, 1, 3, 12, 3\], must be"),
        ([{"x": np.float64(images(1))}], r"must be float32\[1, 3, 12, 12\], or many"),
        ([{"x": images(1)}, {"x": with_nan()}], r"\[1\]: input x: holds a NaN"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(calibration, message):
    with pytest.raises(ModelError, match=message):
        to_qoperator(load(residual()), calibration)


def test_a_mapping_alone_is_an_entry_of_calibration(quantised):
    made = to_qoperator(load(residual()), {"x": images(4)})
    assert made.SerializeToString() == quantised.SerializeToString()


@pytest.mark.parametrize("calibration", ["x", 5, [None], [[images(1)]], images(1), [5]])
def test_what_is_no_calibration_is_refused(calibration):
    with pytest.raises(ModelError, match=r"calibration.* must be a list of requests"):
        to_qoperator(load(residual()), calibration)


def test_inputs_of_different_numbers_of_requests_are_refused():
    inputs = {"x": (np.float32, (1, 3)), "z": (np.float32, (1, 3))}
    source = load(typed(model([node("Add", "x z", "y")], inputs, ["y"], {})))
    arrays = {"x": np.ones((2, 1, 3), np.float32), "z": np.ones((3, 1, 3), np.float32)}
    with pytest.raises(ModelError, match="differ in how many requests they hold: x 2, z 3"):
        to_qoperator(source, [arrays])


def test_calibration_is_read_from_files(tmp_path):
    np.savez(tmp_path / "b.npz", x=images(2))
    np.savez(tmp_path / "a.npz", x=images(1))
    both = read_requests(tmp_path, "--calibrate")
    assert [len(arrays["x"]) for arrays in both] == [1, 2]
    [alone] = read_requests(tmp_path / "b.npz", "--calibrate")
    np.testing.assert_array_equal(alone["x"], images(2))


def test_files_that_are_no_calibration_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no \.npz file is in this folder"):
        read_requests(tmp_path, "--calibrate")
    with pytest.raises(ModelError, match="there is no such file"):
        read_requests(tmp_path / "gone.npz", "--calibrate")
    np.save(tmp_path / "one.npy", images(1))
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "objects.npz", x=np.array([None]))
    for name in ("one.npy", "text.npz", "objects.npz"):
        with pytest.raises(ModelError, match=f"{name}: is no .npz file of arrays"):
            read_requests(tmp_path / name, "--calibrate")


def test_quantising_says_nothing(capfd, recwarn):
    to_qoperator(load(residual()), [{"x": images(2)}])
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_model_that_onnx_runtime_does_not_take_is_refused():
    source = typed(model([node("MatMul", "x x", "y")], {"x": (np.float32, (2, 3))}, ["y"], {}))
    with pytest.raises(ModelError, match="ONNX Runtime does not take it"):
        open_session(source)


def test_what_only_onnx_runtime_knows_the_type_of_is_quantised():
    nodes = [node("BiasGelu", "x b", "g", "com.microsoft"), node("MatMul", "g w", "y")]
    constants = {"b": np.float32([0, 1, 2]), "w": np.ones((3, 4), np.float32)}
    source = load(typed(model(nodes, {"x": (np.float32, (2, 3))}, ["y"], constants)))
    x = np.float32([[-1, 0, 1], [2, -2, 3]])
    made = to_qoperator(source, [{"x": x}])
    assert "QLinearMatMul" in operators(made)
    [exact], [close] = (each.run(None, {"x": x}) for each in (open_session(source), oracle(made)))
    np.testing.assert_allclose(close, exact, atol=0.1)
