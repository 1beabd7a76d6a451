import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import helper  # noqa: E402
from onnxruntime import GraphOptimizationLevel  # noqa: E402

from halfdome.host.frontend.errors import ModelError  # noqa: E402
from halfdome.host.frontend.load import load  # noqa: E402
from halfdome.host.frontend.quantise import to_qoperator  # noqa: E402
from halfdome.host.frontend.sessions import open_session, oracle  # noqa: E402
from tests.host.frontend.nets import model, node, typed  # noqa: E402


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = normal(4, 8)


def both(nodes, constants, outputs="y", x=X):
    """Results in floating point and of what is quantised, and that."""
    source = load(typed(model(nodes, {"x": (np.float32, x.shape)}, outputs.split(), constants)))
    made = to_qoperator(source, [{"x": x}])
    exact, close = (each.run(None, {"x": x}) for each in (open_session(source), oracle(made)))
    return exact, close, [each.op_type for each in made.graph.node]


def decibels(exact, close) -> float:
    assert exact.shape == close.shape
    noise = ((exact - close) ** 2).mean()
    return 10 * np.log10((exact**2).mean() / noise) if noise else np.inf


def close_enough(nodes, constants, outputs="y", x=X, *, least=25):
    exact, close, operators = both(nodes, constants, outputs, x)
    for one, other in zip(exact, close, strict=True):
        assert decibels(one, other) > least
    return operators


W, V, B = normal(8, 6, seed=1), normal(8, 6, seed=2), normal(6, seed=3)
GEMM = node("Gemm", "x w b", "h")


@pytest.mark.parametrize("clip", [node("Relu", "h", "r"), node("Clip", "h low high", "r")])
def test_an_activation_of_what_others_see_stays(clip):
    constants = {"w": W, "b": B, "v": normal(6, 6), "low": np.float32(0), "high": np.float32(1)}
    constants = {k: v for k, v in constants.items() if k in "w b v" or k in clip.input}
    nodes = [GEMM, clip, node("MatMul", "r v", "m"), node("Add", "m h", "y")]
    operators = close_enough(nodes, constants, "y r")
    assert "Relu" not in operators


def test_an_activation_of_an_output_of_the_model_stays():
    (h, r), (_, close), _ = both([GEMM, node("Relu", "h", "r")], {"w": W, "b": B}, "h r")
    assert h.min() < 0
    assert close.min() == 0
    assert decibels(r, close) > 25


@pytest.mark.parametrize(
    "moves",
    [
        [node("Transpose", "h", "t")],
        [node("Reshape", "h shape", "t")],
        [node("Transpose", "h", "s"), node("Reshape", "s shape", "t")],
        [node("Clip", "h low", "t")],
        [node("Split", "h", "s0 t", axis=1)],
    ],
)
def test_an_activation_behind_a_move_stays(moves):
    constants = {"w": W, "b": B, "shape": np.array([3, 8]), "low": np.float32(-1)}
    names = {name for each in moves for name in each.input} | {"w", "b"}
    constants = {key: value for key, value in constants.items() if key in names}
    (exact,), (close,), _ = both([GEMM, *moves, node("Relu", "t", "y")], constants)
    assert close.min() == 0
    assert decibels(exact, close) > 25


def test_an_activation_behind_a_move_costs_nothing():
    nodes = [GEMM, node("Transpose", "h", "t"), node("Relu", "t", "y")]
    operators = close_enough(nodes, {"w": W, "b": B})
    assert operators == ["QuantizeLinear", "QGemm", "Transpose", "DequantizeLinear"]


@pytest.mark.parametrize(("low", "high"), [(1, 3), (-3, -1)])
def test_a_clip_whose_range_does_not_hold_zero_stays(low, high):
    constants = {"w": W, "b": B, "low": np.float32(low), "high": np.float32(high)}
    _, (close,), _ = both([GEMM, node("Clip", "h low high", "y")], constants)
    assert close.min() >= low - 0.05
    assert close.max() <= high + 0.05


def test_a_layer_that_is_used_twice_is_quantised_for_each_use():
    w = normal(8, 8) * 4
    nodes = [node("Gemm", "x w b", "h"), node("Gemm", "h w b", "y")]
    close_enough(nodes, {"w": w, "b": normal(8, seed=1)}, "h y")


def test_a_bias_that_two_layers_share_is_quantised_for_each():
    nodes = [GEMM, node("Gemm", "x v b", "y")]
    close_enough(nodes, {"w": W * 50, "v": V / 50, "b": B}, "h y")


def test_a_weight_that_is_an_operand_of_a_sum_too_is_quantised_for_each():
    nodes = [node("Gemm", "x w b", "h"), node("Add", "h w", "y")]
    close_enough(nodes, {"w": normal(8, 8), "b": normal(8)}, x=normal(8, 8, seed=4))


@pytest.mark.parametrize(("alpha", "beta"), [(0.25, 1.0), (1.0, 3.0), (2.0, 0.5), (-1.0, 0.0)])
def test_factors_of_a_product_are_folded(alpha, beta):
    nodes = [node("Gemm", "x w b", "y", alpha=alpha, beta=beta)]
    assert "QGemm" in close_enough(nodes, {"w": W, "b": B})


def test_a_product_whose_factors_cannot_be_folded_stays():
    nodes = [
        node("Transpose", "x", "t"), node("Gemm", "x t b", "y", alpha=0.25, beta=2.0),
    ]  # fmt: skip
    close_enough(nodes, {"b": normal(4)})


@pytest.mark.parametrize("shape", [(), (1,), (6,), (1, 6), (1, 1), (4, 1), (4, 6)])
def test_a_bias_of_any_shape_comes_in(shape):
    assert "QGemm" in close_enough([GEMM], {"w": W, "b": normal(*shape)}, "h")


def test_a_bias_that_is_computed_is_added():
    nodes = [node("Mul", "x x", "s"), node("Gemm", "x w s", "y")]
    close_enough(nodes, {"w": normal(8, 8)})


@pytest.mark.parametrize("first", [True, False])
def test_a_product_with_a_vector_stays(first):
    nodes = [node("MatMul", "v x" if first else "x v", "y")]
    assert "MatMul" in close_enough(nodes, {"v": normal(4 if first else 8)})


@pytest.mark.parametrize("name", ["x_scale", "x_quantized", "h_zero_point", "b_quantized_scale"])
def test_names_that_the_quantiser_makes_may_be_taken(name):
    nodes = [GEMM, node("Add", f"h {name}", "y")]
    close_enough(nodes, {"w": W, "b": B, name: normal(6, seed=4)})


def test_an_output_that_is_called_as_the_quantiser_calls_its_own_is_refused():
    nodes = [node("Relu", "x", "x_scale")]
    with pytest.raises(ModelError, match=r"x_scale: .* rename this input or output"):
        both(nodes, {}, "x_scale")


def test_a_branch_finds_constants_by_their_other_names():
    value = helper.make_tensor_value_info("z", 1, (6,))
    branch = helper.make_graph([node("Sin", "h_scale", "z")], "branch", [], [value])
    nodes = [
        GEMM, node("Cast", "x", "bools", to=9), node("Gather", "bools one", "row"),
        node("Gather", "row one", "c"),
        node("If", "c", "i", then_branch=branch, else_branch=branch),
        node("Add", "i h", "j"), node("Add", "j h_scale", "y"),
    ]  # fmt: skip
    constants = {"w": W, "b": B, "h_scale": normal(6, seed=4), "one": np.array(1)}
    assert "QGemm" in close_enough(nodes, constants)


def test_a_convolution_of_float16_is_quantised():
    x, w, b = (normal(*shape).astype(np.float16) for shape in ((1, 2, 5, 5), (3, 2, 3, 3), (3,)))
    nodes = [node("Conv", "x w b", "y")]
    source = load(typed(model(nodes, {"x": (x.dtype, x.shape)}, ["y"], {"w": w, "b": b}), 10))
    made = to_qoperator(source, [{"x": x}])
    assert "QLinearConv" in [each.op_type for each in made.graph.node]
    [exact], [close] = (each.run(None, {"x": x}) for each in (open_session(source), oracle(made)))
    assert decibels(np.float32(exact), np.float32(close)) > 25


def test_a_convolution_whose_bias_is_computed_stays():
    nodes = [
        node("ReduceMax", "x", "t", keepdims=0), node("Mul", "t v", "b"),
        node("Conv", "x w b", "y"),
    ]  # fmt: skip
    constants = {"w": normal(3, 2, 3, 3), "v": normal(3)}
    close_enough(nodes, constants, x=normal(1, 2, 5, 5))


def test_what_onnx_runtime_does_not_take_is_said_in_its_words():
    x = normal(1, 2, 5, 5).astype(np.float64)
    nodes = [node("Conv", "x w", "y")]
    constants = {"w": np.ones((3, 2, 3, 3))}
    source = load(typed(model(nodes, {"x": (x.dtype, x.shape)}, ["y"], constants), 11))
    with pytest.raises(ModelError, match=r"ONNX Runtime does not take it: .* Conv"):
        to_qoperator(source, [{"x": x}])


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64"])
def test_what_is_not_float32_stays(dtype):
    kind = np.dtype(dtype)
    kinds = helper.np_dtype_to_tensor_dtype(kind)
    nodes = [GEMM, node("Relu", "h", "r"), node("Cast", "r", "c", to=kinds)]
    nodes += [node("Add", "c one", "d"), node("MatMul", "d v", "e"), node("Cast", "e", "y", to=1)]
    assert "QGemm" in close_enough(
        nodes, {"w": W, "b": B, "one": np.ones(6, kind), "v": np.eye(6, dtype=kind)}
    )


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_an_activation_that_is_not_of_float32_stays(dtype):
    kinds = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [GEMM, node("Cast", "h", "c", to=kinds), node("Clip", "c low", "d")]
    nodes += [node("Add", "c d", "e"), node("Cast", "e", "y", to=1)]
    constants = {"w": W * 9, "b": B, "low": np.zeros((), dtype)}
    assert "Clip" in close_enough(nodes, constants)


def masked(mask):
    """Attention whose weights a Softmax does not tell of: they are written out."""
    nodes = [
        node("Transpose", "x", "t"), node("MatMul", "x t", "s"), node("Add", f"s {mask}", "m"),
        node("ReduceMax", "m", "top", axes=[1]), node("Sub", "m top", "d"), node("Exp", "d", "e"),
        node("ReduceSum", "e", "total", keepdims=1), node("Div", "e total", "p"),
        node("MatMul", "p x", "y"),
    ]  # fmt: skip
    return nodes


@pytest.mark.parametrize("least", [-np.inf, np.nan])
def test_what_has_no_finite_range_stays_in_floating_point(least):
    causal = np.triu(np.full((4, 4), np.float32(least)), 1)
    constants = {"mask": np.nan_to_num(causal, nan=0, neginf=-np.inf)}
    if np.isnan(least):  # of a row that is masked whole: it reaches the output
        constants["mask"][:] = -np.inf
        (exact,), (close,), operators = both(masked("mask"), constants)
        assert np.isnan(exact).all()
        assert np.isnan(close).all()
    else:
        operators = close_enough(masked("mask"), constants)
        assert {"QGemm", "QLinearMatMul"} <= {*operators}
    assert "Add" in operators


def test_a_mask_of_infinities_may_be_an_input():
    nodes = [*masked("mask"), node("Add", "y x", "z")]
    inputs = {"x": (np.float32, X.shape), "mask": (np.float32, (4, 4))}
    source = load(typed(model(nodes, inputs, ["z"], {})))
    request = {"x": X, "mask": np.triu(np.full((4, 4), np.float32(-np.inf)), 1)}
    made = to_qoperator(source, [request])
    [exact], [close] = (each.run(None, request) for each in (open_session(source), oracle(made)))
    assert decibels(exact, close) > 25


def test_a_mean_of_pixels_that_lie_apart_stays_in_floating_point():
    x = normal(1, 2, 9, 9)
    pool = node("AveragePool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2])
    source = load(typed(model([pool], {"x": (np.float32, x.shape)}, ["y"], {}, opset=19)))
    made = to_qoperator(source, [{"x": x}])
    assert [each.op_type for each in made.graph.node] == ["AveragePool"]


def test_what_joins_float16_stays_in_floating_point():
    nodes = [node("Concat", "x x", "j", axis=1), node("MatMul", "j w", "y")]
    source = model(nodes, {"x": (np.float16, X.shape)}, ["y"], {"w": np.float16(normal(16, 3))})
    source = load(typed(source, onnx.TensorProto.FLOAT16))
    x = X.astype(np.float16)
    made = to_qoperator(source, [{"x": x}])
    assert "QLinearMatMul" in [each.op_type for each in made.graph.node]
    [exact], [close] = (each.run(None, {"x": x}) for each in (open_session(source), oracle(made)))
    assert decibels(exact.astype(np.float32), close) > 25


@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_a_pad_may_be_told_a_number_that_is_beyond_what_it_pads(mode):
    nodes = [node("MatMul", "x w", "m"), node("Pad", "m pads far", "y", mode=mode)]
    constants = {"w": W, "pads": np.array([0, 1, 1, 0]), "far": np.float32(100)}
    close_enough(nodes, constants)


def test_a_product_with_several_matrices_of_weights_stays_in_floating_point():
    nodes = [node("Add", "x x", "a"), node("MatMul", "a w", "y")]
    operators = close_enough(nodes, {"w": normal(3, 8, 5)})
    assert {"QLinearAdd", "MatMul"} <= {*operators}


def test_convolutions_of_channels_in_blocks_stay_in_floating_point(tmp_path):
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")]
    constants = {"w": normal(16, 16, 3, 3), "v": normal(16, 16, 3, 3)}
    net = typed(model(nodes, {"x": (np.float32, (1, 16, 6, 6))}, ["y"], constants))
    path = tmp_path / "net.onnx"
    open_session(net, GraphOptimizationLevel.ORT_ENABLE_ALL, written=path)
    source, x = load(path), normal(1, 16, 6, 6)
    assert "com.microsoft.nchwc" in {each.domain for each in source.graph.node}
    made = to_qoperator(source, [{"x": x}])
    [exact], [close] = (each.run(None, {"x": x}) for each in (open_session(source), oracle(made)))
    np.testing.assert_array_equal(close, exact)


def test_what_a_norm_divides_by_stays_in_floating_point():
    """Rows that differ in size: of the smallest 8 bits would leave 0 to divide by."""
    nodes = [
        node("MatMul", "x w", "m"), node("Pow", "m two", "p"),
        node("ReduceMean", "p", "s", axes=[-1]), node("Add", "s small", "a"),
        node("Sqrt", "a", "r"), node("Div", "m r", "d"), node("Mul", "d g", "y"),
    ]  # fmt: skip
    constants = {"w": W, "two": np.float32(2), "small": np.float32(1e-6), "g": normal(6)}
    x = X * np.float32([[1], [1], [1], [0.04]])
    operators = close_enough(nodes, constants, x=x, least=15)
    assert {"QLinearMatMul", "Add", "QLinearMul"} <= {*operators}


@pytest.mark.parametrize(("size", "product"), [(1e3, "Mul"), (4, "QLinearMul")])
def test_what_scales_features_stays_in_floating_point_if_they_are_unlike(size, product):
    nodes = [node("Mul", "x s", "m"), node("Add", "m t", "a"), node("MatMul", "a w", "y")]
    sizes = np.float32([1, size] * 4)
    constants = {"s": 1 / sizes, "t": normal(8), "w": W}
    operators = close_enough(nodes, constants, x=X * sizes)
    assert {product, "QLinearMatMul"} <= {*operators}
