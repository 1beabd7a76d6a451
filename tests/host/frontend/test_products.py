"""Convolutions and matrix products give ONNX Runtime's bits."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from halfdome.host.frontend.partition import Refusal
from tests.host.frontend.nets import model, node
from tests.host.frontend.single import agree, bytes_of, step_of

DTYPES = st.sampled_from([np.dtype(np.uint8), np.dtype(np.int8)])
SCALES = st.sampled_from([0.5, 0.25, 0.0371, 1.0, 0.003])
"""Powers of two lead to ties."""
SEEDS = st.integers(0, 1000)


def zero_point(rng, dtype):
    return bytes_of(rng, dtype, 1).reshape(())


def scale(value):
    return np.array(value, np.float32)


@st.composite
def windows(draw, dims):
    kernel = [draw(st.integers(1, 3)) for _ in range(dims)]
    dilations = [draw(st.integers(1, 2)) for _ in range(dims)]
    strides = [draw(st.integers(1, 3)) for _ in range(dims)]
    sizes = [(k - 1) * d + draw(st.integers(1, 5)) for k, d in zip(kernel, dilations, strict=True)]
    found = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    automatic = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if automatic == "NOTSET":
        # ONNX Runtime refuses pads as wide as the kernel.
        found["pads"] = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    else:
        found["auto_pad"] = automatic
        if automatic.startswith("SAME"):
            found["dilations"] = [1] * dims
    return sizes, found


@given(
    window=st.one_of(windows(1), windows(2)), groups=st.integers(1, 3), batch=st.integers(1, 2),
    each=st.integers(1, 3), made=st.integers(1, 3), x_dtype=DTYPES, per_channel=st.booleans(),
    bias=st.booleans(), scales=st.tuples(SCALES, SCALES, SCALES), seed=SEEDS,
)  # fmt: skip
def test_qlinear_conv(
    window, groups, batch, each, made, x_dtype, per_channel, bias, scales, seed
):  # fmt: skip
    rng = np.random.default_rng(seed)
    sizes, found = window
    count = groups * made
    w_scale = np.float32(rng.uniform(0.1, 1, count)) if per_channel else scale(scales[1])
    constants = {
        "xs": scale(scales[0]), "xz": zero_point(rng, x_dtype),
        "w": bytes_of(rng, np.dtype(np.int8), count, each, *found["kernel_shape"]),
        "ws": w_scale, "wz": np.zeros(w_scale.shape, np.int8),
        "ys": scale(scales[2] * 20), "yz": zero_point(rng, x_dtype),
    }  # fmt: skip
    if bias:
        constants["b"] = rng.integers(-3000, 3000, count, np.int32)
    nodes = [node("QLinearConv", "x " + " ".join(constants), "y", group=groups, **found)]
    shape = (batch, groups * each, *sizes)
    net = model(nodes, {"x": (x_dtype, shape)}, ["y"], constants)
    step = agree(net, [{"x": bytes_of(rng, x_dtype, *shape)} for _ in range(2)])
    assert step.samples == batch


@given(
    dims=st.integers(1, 2), x_dtype=DTYPES, batch=st.integers(1, 2), seed=SEEDS,
)  # fmt: skip
def test_conv_integer(dims, x_dtype, batch, seed):
    rng = np.random.default_rng(seed)
    x_dtype = np.dtype(np.uint8)
    constants = {
        "w": bytes_of(rng, np.dtype(np.uint8), 4, 2, *(3,) * dims),
        "xz": zero_point(rng, x_dtype), "wz": zero_point(rng, np.dtype(np.uint8)),
    }  # fmt: skip
    shape = (batch, 2, *(6,) * dims)
    nodes = [node("ConvInteger", "x w xz wz", "y", pads=[1] * 2 * dims)]
    net = model(nodes, {"x": (x_dtype, shape)}, ["y"], constants)
    agree(net, [{"x": bytes_of(rng, x_dtype, *shape)} for _ in range(2)])


@given(
    lead=st.lists(st.integers(1, 3), min_size=0, max_size=3), k=st.integers(1, 20),
    n=st.integers(1, 9), x_dtype=DTYPES, per_column=st.booleans(),
    scales=st.tuples(SCALES, SCALES, SCALES), seed=SEEDS,
)  # fmt: skip
def test_qlinear_matmul_with_weights(lead, k, n, x_dtype, per_column, scales, seed):
    rng = np.random.default_rng(seed)
    b_scale = np.float32(rng.uniform(0.1, 1, n)) if per_column else scale(scales[1])
    constants = {
        "xs": scale(scales[0]), "xz": zero_point(rng, x_dtype),
        "b": bytes_of(rng, np.dtype(np.int8), k, n), "bs": b_scale,
        "bz": np.zeros(b_scale.shape, np.int8),
        "ys": scale(scales[2] * 20), "yz": zero_point(rng, x_dtype),
    }  # fmt: skip
    nodes = [node("QLinearMatMul", "x " + " ".join(constants), "y")]
    net = model(nodes, {"x": (x_dtype, (*lead, k))}, ["y"], constants)
    agree(net, [{"x": bytes_of(rng, x_dtype, *lead, k)} for _ in range(2)])


@given(
    left=st.lists(st.integers(1, 3), min_size=0, max_size=2),
    right=st.lists(st.integers(1, 3), min_size=0, max_size=2), m=st.integers(1, 4),
    k=st.integers(1, 6), n=st.integers(1, 4), integer=st.booleans(), transposed=st.booleans(),
    a_dtype=DTYPES, scales=st.tuples(SCALES, SCALES, SCALES), seed=SEEDS,
)  # fmt: skip
def test_products_of_two_tensors_of_the_request(
    left, right, m, k, n, integer, transposed, a_dtype, scales, seed
):
    rng = np.random.default_rng(seed)
    for place in range(1, 1 + min(len(left), len(right))):  # they broadcast
        if 1 not in (left[-place], right[-place]):
            right[-place] = left[-place]
    if integer:
        a_dtype = np.dtype(np.uint8)
    b_dtype = a_dtype
    shapes = {"a": (*left, m, k), "b": (*right, n, k) if transposed else (*right, k, n)}
    nodes = []
    if transposed:
        rank = len(right)
        nodes.append(node("Transpose", "b", "t", perm=[*range(rank), rank + 1, rank]))
    b = "t" if transposed else "b"
    constants = {"az": zero_point(rng, a_dtype), "bz": zero_point(rng, b_dtype)}
    if integer:
        nodes.append(node("MatMulInteger", f"a {b} az bz", "y"))
    else:
        constants |= {
            "as": scale(scales[0]), "bs": scale(scales[1]), "ys": scale(scales[2] * 20),
            "yz": zero_point(rng, a_dtype),
        }  # fmt: skip
        nodes.append(node("QLinearMatMul", f"a as az {b} bs bz ys yz", "y"))
    inputs = {"a": (a_dtype, shapes["a"]), "b": (b_dtype, shapes["b"])}
    net = model(nodes, inputs, ["y"], constants)
    agree(
        net,
        [
            {"a": bytes_of(rng, a_dtype, *shapes["a"]), "b": bytes_of(rng, b_dtype, *shapes["b"])}
            for _ in range(2)
        ],
    )


@given(
    m=st.integers(1, 3), k=st.integers(1, 20), n=st.integers(1, 9), a_turned=st.booleans(),
    b_turned=st.booleans(), alpha=st.sampled_from([1.0, 0.5, 0.3, 1.7]), bias=st.booleans(),
    per_column=st.booleans(), scales=st.tuples(SCALES, SCALES, SCALES), x_dtype=DTYPES, seed=SEEDS,
)  # fmt: skip
def test_qgemm(m, k, n, a_turned, b_turned, alpha, bias, per_column, scales, x_dtype, seed):
    rng = np.random.default_rng(seed)
    b_scale = np.float32(rng.uniform(0.1, 1, n)) if per_column else scale(scales[1])
    constants = {
        "as": scale(scales[0]), "az": zero_point(rng, x_dtype),
        "b": bytes_of(rng, np.dtype(np.int8), *((n, k) if b_turned else (k, n))), "bs": b_scale,
        "bz": np.zeros(b_scale.shape, np.int8),
    }  # fmt: skip
    if bias:
        constants["c"] = rng.integers(-3000, 3000, n, np.int32)
    constants |= {"ys": scale(scales[2] * 20), "yz": zero_point(rng, x_dtype)}
    names = list(constants) if bias else [*list(constants)[:5], "-", "ys", "yz"]
    nodes = [
        node(
            "QGemm", "x " + " ".join(names), "y", "com.microsoft", alpha=alpha,
            transA=int(a_turned), transB=int(b_turned),
        )
    ]  # fmt: skip
    shape = (k, m) if a_turned else (m, k)
    net = model(nodes, {"x": (x_dtype, shape)}, ["y"], constants)
    agree(net, [{"x": bytes_of(rng, x_dtype, *shape)} for _ in range(2)])


def test_a_bias_for_each_row_is_the_hosts_though_there_are_as_many_columns():
    constants = {
        "as": scale(0.1), "az": np.uint8(3), "b": np.ones((4, 3), np.int8), "bs": scale(0.1),
        "bz": np.int8(0), "c": np.int32([[1], [2], [3]]), "ys": scale(0.1), "yz": np.uint8(0),
    }  # fmt: skip
    nodes = [node("QGemm", "x " + " ".join(constants), "y", "com.microsoft")]
    with pytest.raises(Refusal, match="a bias that differs by row"):
        step_of(model(nodes, {"x": (np.uint8, (3, 4))}, ["y"], constants))


def test_a_scalar_stays_one():
    constants = {"s": scale(0.1), "z": np.uint8(3)}
    nodes = [node("QLinearAdd", "x s z x s z s z", "y", "com.microsoft")]
    made = model(nodes, {"x": (np.uint8, ())}, ["y"], constants)
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.UINT8, ()))
    agree(made, [{"x": np.array(9, np.uint8)}])


@given(
    batch=st.integers(1, 2), channels=st.integers(1, 5), height=st.integers(1, 7),
    width=st.integers(1, 7), dtype=DTYPES, scales=st.tuples(SCALES, SCALES), seed=SEEDS,
)  # fmt: skip
def test_global_average(batch, channels, height, width, dtype, scales, seed):
    rng = np.random.default_rng(seed)
    constants = {
        "xs": scale(scales[0]), "xz": zero_point(rng, dtype), "ys": scale(scales[1]),
        "yz": zero_point(rng, dtype),
    }  # fmt: skip
    nodes = [node("QLinearGlobalAveragePool", "x xs xz ys yz", "y", "com.microsoft")]
    shape = (batch, channels, height, width)
    net = model(nodes, {"x": (dtype, shape)}, ["y"], constants)
    agree(net, [{"x": bytes_of(rng, dtype, *shape)} for _ in range(2)])


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "made", "dims"),
    [
        ((7, 7), 2, (30, 21), 8, (30, 10, 21)),  # the link brings whole kernels later than rows
        ((7, 7), 2, (30, 21), 64, (15, 10, 147)),
        ((3, 3), 2, (31, 30), 32, (15, 15, 27)),
        ((3, 3), 1, (20, 20), 24, (19, 19, 27)),
        ((6, 6), 2, (20, 20), 64, (10, 10, 108)),
        ((1, 7), 1, (9, 30), 16, (9, 29, 21)),
        ((5, 1), 1, (15, 9), 64, (14, 9, 15)),
        ((1, 1), 1, (9, 9), 16, (9, 9, 3)),
    ],
)
def test_a_stem_is_laid_out_as_array_and_link_are_done_first(kernel, stride, size, made, dims):
    rng = np.random.default_rng(3)
    shape, most = (1, 3, *size), [each // 2 for each in kernel]
    constants = {
        "xs": np.float32(0.02), "xz": np.uint8(120), "ws": np.float32(0.01), "wz": np.int8(0),
        "w": rng.integers(-128, 128, (made, 3, *kernel)).astype(np.int8),
        "ys": np.float32(0.5), "yz": np.uint8(7),
    }  # fmt: skip
    pads = [*most, *(max(0, each - 1) for each in most)]
    names = "x xs xz w ws wz ys yz"
    conv = node("QLinearConv", names, "y", pads=pads, strides=[stride] * 2)
    net = model([conv], {"x": (np.uint8, shape)}, ["y"], constants)
    step = agree(net, [{"x": rng.integers(0, 256, shape).astype(np.uint8)}])
    assert step.inputs[0].dims == dims
