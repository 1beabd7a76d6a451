"""Every operator against plain numpy, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Function, RowFormat
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import DTYPES, GraphError, Value
from tests.host.graph import reference

BYTES = (ElementFormat.UINT8, ElementFormat.INT8)
REALS = (ElementFormat.FLOAT16, ElementFormat.FLOAT32)
SEEDS = st.integers(0, 1 << 20)


def tensor(rng, shape, element):
    """Random values of a format."""
    if element in REALS:
        return rng.normal(0, 3, shape).astype(DTYPES[element])
    limits = np.iinfo(DTYPES[element])
    most = min(limits.max, 10_000)
    return rng.integers(max(limits.min, -most), most, shape, DTYPES[element], endpoint=True)


def zero_point(rng, element):
    return int(tensor(rng, (), element)) if element.nbytes == 1 else 0


def table(rng, rows, dim, row_format):
    """Rows of any format, with scales and biases that are no round numbers."""
    if row_format in (RowFormat.FLOAT16, RowFormat.FLOAT32):
        dtype = np.float16 if row_format is RowFormat.FLOAT16 else np.float32
        return rng.normal(size=(rows, dim)).astype(dtype)
    raw = rng.integers(0, 256, (rows, row_format.row_bytes(dim)), np.uint8)
    real = np.float32 if row_format.tail_bytes == 8 else np.float16
    tail = np.abs(rng.normal(0.1, 0.1, (rows, 2)) + 0.01).astype(real)
    raw[:, -row_format.tail_bytes :] = tail.view(np.uint8)
    return raw


def graph_of(node, inputs, constants):
    """A graph of one node. `inputs` are arrays, or arrays and zero points."""
    values, request = [], {}
    for name, given_ in inputs.items():
        array, point = given_ if isinstance(given_, tuple) else (given_, 0)
        element = next(each for each, held in DTYPES.items() if held == array.dtype)
        values.append(Value(name, array.shape, element, zero_point=point))
        request[name] = array
    return Graph(values, [node.output], [node], constants), request


def check(node, inputs, constants, *, near=0.0):
    """Compares with plain numpy; `near` is how far a real number may be off, for its size."""
    graph, request = graph_of(node, inputs, constants)
    found = graph.run(request)[node.output]
    expected = reference.run(graph, request)[node.output]
    value = graph.values[node.output]
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert expected.dtype == found.dtype
    if near:
        # Of 8 bits, a number next to a tie may go the other way.
        step = 1 if found.dtype.itemsize == 1 else 0
        np.testing.assert_allclose(
            found.astype(float), expected.astype(float), rtol=near, atol=near + step
        )
    else:
        np.testing.assert_array_equal(found, expected)
    return found


@given(
    seed=SEEDS, row_format=st.sampled_from(RowFormat),
    made=st.sampled_from((*BYTES, *REALS)), mode=st.sampled_from(["sum", "mean"]),
    weighted=st.booleans(), dim=st.integers(1, 20),
)  # fmt: skip
def test_embedding_bags(seed, row_format, made, mode, weighted, dim):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 5, 7).astype(np.int32)
    indices = rng.integers(0, 9, lengths.sum()).astype(np.int32)
    attributes = {"row_format": row_format, "mode": mode, "format": made, "dim": dim}
    if made in BYTES:
        attributes |= {"multiplier": 3.7, "zero_point": zero_point(rng, made)}
    inputs = {"i": indices, "l": lengths}
    if weighted:
        inputs["w"] = rng.normal(size=len(indices)).astype(np.float32)
    node = Node("embedding_bag", ("t", *inputs), "y", attributes)
    rows = table(rng, 9, dim, row_format)
    near = 1e-2 if made is ElementFormat.FLOAT16 else 1e-4
    pooled = check(node, inputs, {"t": rows}, near=near)
    empty = lengths == 0
    assert (pooled[empty] == attributes.get("zero_point", 0)).all()


@given(
    seed=SEEDS, x_format=st.sampled_from(BYTES), w_format=st.sampled_from(BYTES),
    made=st.sampled_from((*BYTES, ElementFormat.INT32)), relu=st.booleans(),
    m=st.integers(1, 9), k=st.integers(1, 40), n=st.integers(1, 9),
)  # fmt: skip
def test_linear(seed, x_format, w_format, made, relu, m, k, n):
    rng = np.random.default_rng(seed)
    constants = {"w": tensor(rng, (n, k), w_format)}
    attributes = {"format": made, "weight_zero_point": zero_point(rng, w_format)}
    if made in BYTES:
        constants["b"] = rng.integers(-9999, 9999, n).astype(np.int32)
        constants["s"] = rng.uniform(1e-5, 1e-2, n).astype(np.float32)
        attributes |= {"relu": relu, "zero_point": zero_point(rng, made)}
    node = Node("linear", ("x", *constants), "y", attributes)
    x = tensor(rng, (m, k), x_format)
    check(node, {"x": (x, zero_point(rng, x_format))}, constants)


@given(
    seed=SEEDS, element=st.sampled_from(BYTES), made=st.sampled_from(BYTES),
    count=st.integers(2, 6), dim=st.integers(1, 20),
)  # fmt: skip
def test_pairs(seed, element, made, count, dim):
    rng = np.random.default_rng(seed)
    point = zero_point(rng, element)
    inputs = {f"x{place}": (tensor(rng, (5, dim), element), point) for place in range(count)}
    attributes = {"format": made, "multiplier": 3e-3, "zero_point": zero_point(rng, made)}
    check(Node("pairs", tuple(inputs), "y", attributes), inputs, {})


CONSTANTS = {
    "affine": {"scale": 0.7, "shift": -1.3}, "add": {"scale": -0.6}, "multiply": {"shift": 0.4},
    "clamp": {"low": -1.5, "high": 2.25},
}  # fmt: skip


@given(
    seed=SEEDS, op=st.sampled_from(list(CONSTANTS)),
    formats=st.tuples(*2 * [st.sampled_from(ElementFormat)]),
    made=st.sampled_from((*BYTES, *REALS)), function=st.sampled_from(list(Function)),
    plain=st.booleans(),
)  # fmt: skip
def test_elementwise(seed, op, formats, made, function, plain):
    rng = np.random.default_rng(seed)
    used = formats if op in ("add", "multiply") else formats[:1]
    inputs = {
        name: (tensor(rng, (4, 6), element), zero_point(rng, element))
        for name, element in zip("ab", used, strict=False)
    }
    attributes = {"format": made} if plain else {"format": made, **CONSTANTS[op]}
    if not plain:
        attributes |= {"multiplier": 0.3, "function": function}
    if made in BYTES:
        attributes["zero_point"] = zero_point(rng, made)
    with np.errstate(all="ignore"):
        check(Node(op, tuple(inputs), "y", attributes), inputs, {}, near=2e-3)


@given(seed=SEEDS, element=st.sampled_from(BYTES), made=st.sampled_from(BYTES))
def test_lookup(seed, element, made):
    rng = np.random.default_rng(seed)
    x, entries = tensor(rng, (3, 2, 7), element), tensor(rng, (256,), made)
    check(Node("lookup", ("x", "t"), "y"), {"x": x}, {"t": entries})


def test_the_last_entry_of_a_lookup_stands_for_minus_one():
    node = Node("lookup", ("x", "t"), "y", {"zero_point": 3})
    x = np.int8([[0, -1, -128, 127]])
    graph, request = graph_of(node, {"x": x}, {"t": np.arange(256, dtype=np.uint8)})
    assert graph.run(request)["y"].tolist() == [[0, 255, 128, 127]]
    assert graph.values["y"].zero_point == 3


@given(seed=SEEDS, element=st.sampled_from(BYTES))
def test_max_pool(seed, element):
    rng = np.random.default_rng(seed)
    kernel, stride, dilation = (rng.integers(1, most, 2).tolist() for most in (4, 4, 3))
    reach = [(taps - 1) * step for taps, step in zip(kernel, dilation, strict=True)]
    pads = [int(rng.integers(reach[side % 2] + 1)) for side in range(4)]
    size = [int(rng.integers(2, 5)) + each for each in reach]
    x = tensor(rng, (2, 2, *size, 3), element)
    attributes = {"kernel": kernel, "stride": stride, "pads": pads, "dilation": dilation}
    check(Node("max_pool", ("x",), "y", attributes), {"x": (x, zero_point(rng, element))}, {})


@given(seed=SEEDS, element=st.sampled_from(BYTES), include=st.booleans())
def test_average_pool(seed, element, include):
    rng = np.random.default_rng(seed)
    kernel, stride = (rng.integers(1, most, 2).tolist() for most in (5, 4))
    pads = [int(rng.integers(kernel[side % 2])) for side in range(4)]
    x = tensor(rng, (2, *[int(rng.integers(2, 5)) + each for each in kernel], 3), element)
    made = rng.choice(BYTES)
    attributes = {
        "kernel": kernel, "stride": stride, "pads": pads, "include_pads": include,
        "x_scale": float(rng.random() + 0.1), "y_scale": float(rng.random() + 0.1),
        "format": ElementFormat(made), "zero_point": zero_point(rng, made),
    }  # fmt: skip
    node = Node("average_pool", ("x",), "y", attributes)
    check(node, {"x": (x, zero_point(rng, element))}, {})


def test_maxima_stand_for_what_they_are_of():
    x = Value("x", (1, 4, 4, 3), ElementFormat.INT8, 0.5, -7)
    made = Graph([x], ["y"], [Node("max_pool", ("x",), "y", {"kernel": 2})], {}).values["y"]
    assert made == Value("y", (1, 3, 3, 3), ElementFormat.INT8, 0.5, -7)


@given(seed=SEEDS, element=st.sampled_from(ElementFormat), widths=st.lists(st.integers(1, 9)))
def test_concat(seed, element, widths):
    rng = np.random.default_rng(seed)
    point = zero_point(rng, element)
    inputs = {
        f"x{place}": (tensor(rng, (3, width), element), point)
        for place, width in enumerate([2, *widths])
    }
    check(Node("concat", tuple(inputs), "y"), inputs, {})


U8, I32, F32 = (np.zeros((3, 4), dtype) for dtype in (np.uint8, np.int32, np.float32))
VECTOR = np.zeros(3, np.int32)
TABLE = np.zeros((5, 12), np.uint8)
WEIGHT = np.zeros((2, 4), np.int8)
IMAGE = np.zeros((1, 5, 5, 2), np.uint8)
ENTRIES = np.zeros(256, np.uint8)
BIAS, SCALE = np.zeros(2, np.int32), np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("op", "inputs", "constants", "attributes", "message"),
    [
        ("warp", {"x": U8}, {}, {}, "op='warp': unknown; known are embedding_bag, linear"),
        ("embedding_bag", {"t": TABLE, "i": VECTOR, "l": VECTOR}, {}, {}, "t: must be a constant"),
        ("embedding_bag", {"i": VECTOR, "l": F32[0]}, {"t": TABLE}, {},
         r"l: float32\[4\]: must be int32 with 1 dim"),
        ("embedding_bag", {"i": I32, "l": VECTOR}, {"t": TABLE}, {}, "i: .*: must be int32 with 1"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE[:, :8]}, {}, "holds no rows of"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE[:0]}, {}, "holds no rows of"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE}, {"dim": 3}, "holds no rows of"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE}, {"mode": "max"},
         "mode='max': must be 'sum' or 'mean'"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR, "w": F32[0]}, {"t": TABLE}, {},
         "must be a float32 for each index"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE},
         {"format": ElementFormat.INT32}, "format=int32: must be one of"),
        ("embedding_bag", {"i": VECTOR}, {"t": TABLE}, {}, "has 2 inputs"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE.view(np.int32)},
         {"row_format": RowFormat.FLOAT32}, "holds no rows of FLOAT32"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE}, {"mean_length": np.nan},
         "mean_length=nan: must be a finite number"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE}, {"mean_length": -5},
         "mean_length=-5: must not be negative"),
        ("embedding_bag", {"i": VECTOR, "l": VECTOR}, {"t": TABLE}, {"multiplier": np.inf},
         "multiplier=inf: must be finite and not zero"),
        ("linear", {"x": U8, "w": WEIGHT.view(np.uint8)}, {}, {"format": ElementFormat.INT32},
         "w: must be a constant"),
        ("linear", {"x": F32}, {"w": WEIGHT}, {"format": ElementFormat.INT32},
         "x: .* must be 8 bits with 2 dimensions"),
        ("linear", {"x": U8[:, :3]}, {"w": WEIGHT}, {"format": ElementFormat.INT32},
         r"w: int8\[2, 4\] does not fit x: uint8\[3, 3\]"),
        ("linear", {"x": U8}, {"w": WEIGHT}, {}, "bias and multiplier go with 8-bit outputs"),
        ("linear", {"x": U8}, {"w": WEIGHT, "b": BIAS, "s": SCALE},
         {"format": ElementFormat.INT32}, "bias and multiplier go with 8-bit outputs"),
        ("linear", {"x": U8}, {"w": WEIGHT, "b": BIAS, "s": SCALE[:1]}, {}, "for each output"),
        ("linear", {"x": U8}, {"w": WEIGHT, "b": BIAS, "s": BIAS}, {}, "s: .*must be a float32"),
        ("linear", {"x": U8}, {"w": WEIGHT, "b": BIAS}, {}, "has 3 inputs"),
        ("linear", {"x": U8}, {"w": WEIGHT, "b": BIAS, "s": 0 * SCALE}, {},
         "s: must be finite and not zero"),
        ("linear", {"x": U8}, {"w": WEIGHT, "b": BIAS, "s": SCALE}, {"weight_zero_point": 128},
         "weight_zero_point=128: must fit int8"),
        ("linear", {"x": U8}, {"w": WEIGHT, "b": BIAS, "s": SCALE}, {"zero_point": -1},
         "zero_point=-1: must fit uint8"),
        ("pairs", {"a": U8, "b": U8[:, :3]}, {}, {}, "b: .*must be 8 bits, of shape and zero"),
        ("pairs", {"a": U8, "b": (U8, 3)}, {}, {}, "b: .*must be 8 bits, of shape and zero point"),
        ("pairs", {"a": F32, "b": F32}, {}, {}, "a: .*must be 8 bits"),
        ("pairs", {"a": U8}, {}, {}, "has 1 inputs"),
        ("pairs", {"a": U8, "b": U8}, {}, {"multiplier": 0.0}, "multiplier=0.0: must be finite"),
        ("affine", {"a": VECTOR}, {}, {}, "a: .*must have 2 dimensions"),
        ("lookup", {"x": U8, "w": U8}, {}, {}, "w: must be a constant"),
        ("lookup", {"x": U8}, {"w": TABLE[0]}, {}, r"w: uint8\[12\]: must be uint8 or int8 \[256"),
        ("lookup", {"x": U8}, {"w": np.zeros(256, np.float32)}, {}, "must be uint8 or int8"),
        ("lookup", {"x": F32}, {"w": ENTRIES}, {}, "x: .*must be 8 bits"),
        ("lookup", {"x": U8}, {"w": ENTRIES}, {"format": 1}, "format=int8: must be one of uint8"),
        ("lookup", {"x": U8}, {}, {}, "has 1 inputs"),
        ("average_pool", {"x": IMAGE}, {}, {"kernel": 9}, r"kernel=\(9, 9\): larger than the padd"),
        ("average_pool", {"x": IMAGE}, {}, {"kernel": 2, "x_scale": 0}, "x_scale=0.0: must be fr"),
        ("average_pool", {"x": np.zeros((1, 16, 16, 1), np.uint8)}, {}, {"kernel": 16},
         r"kernel=\(16, 16\): must have 255 elements or fewer"),
        ("max_pool", {"x": U8}, {}, {"kernel": 2}, "x: .*must be 8 bits with 4 dimensions"),
        ("max_pool", {"x": IMAGE}, {}, {}, "kernel: is missing, must be rows and columns"),
        ("max_pool", {"x": IMAGE}, {}, {"kernel": 6}, r"kernel=\(6, 6\): larger than the padded"),
        ("max_pool", {"x": IMAGE}, {}, {"kernel": 2, "pads": (2, 0, 0, 0)}, "smaller than the ker"),
        ("max_pool", {"x": IMAGE}, {}, {"kernel": 2, "pads": (0, 0, 0, 2)}, "smaller than the ker"),
        ("max_pool", {"x": IMAGE}, {}, {"kernel": 2, "stride": 0}, "stride=0: must be an integer"),
        ("affine", {"a": U8, "b": U8}, {}, {}, "has 2 inputs"),
        ("affine", {"a": U8}, {}, {"scale": 0.0}, "scale=0.0: must be finite and not zero"),
        ("affine", {"a": U8}, {}, {"shift": np.nan}, "shift=nan: must be finite"),
        ("add", {"a": U8, "b": U8[:, :2]}, {}, {}, "b: .*: does not fit a"),
        ("clamp", {"a": U8}, {}, {"low": 2.0, "high": 1.0}, "low=2.0, high=1.0: low must not be"),
        ("clamp", {"a": U8}, {}, {"high": np.nan}, "none a NaN"),
        ("affine", {"a": U8}, {}, {"function": 99}, "function=99: must be one of identity, relu"),
        ("affine", {"a": U8}, {}, {"zeropoint": 4}, "zeropoint: is no attribute of it; known are"),
        ("affine", {"a": U8}, {}, {"low": 3}, "low: is no attribute of it"),
        ("affine", {"a": U8}, {}, {"zero_point": 1.7}, "zero_point=1.7: must be an integer"),
        ("affine", {"a": U8}, {}, {"format": 99}, "format=99: must be one of uint8, int8"),
        ("affine", {"a": U8}, {}, {"scale": "a"}, "scale='a': must be a number"),
        ("concat", {"a": U8, "b": F32}, {}, {}, "b: .*must have the dimensions, but for the last"),
        ("concat", {"a": U8, "b": (U8, 1)}, {}, {}, "b: .*zero point of a"),
        ("concat", {"a": U8, "b": U8[:2]}, {}, {}, "b: .*format and zero point of a"),
    ],
)  # fmt: skip
def test_operands_that_do_not_fit_are_refused(op, inputs, constants, attributes, message):
    order = [name for name in "txilawbs" if name in {**inputs, **constants}]
    if op == "linear":
        order = [name for name in "xwbs" if name in {**inputs, **constants}]
    with pytest.raises(GraphError, match=message):
        graph_of(Node(op, tuple(order), "y", attributes), inputs, constants)


def test_a_bad_index_is_told_by_the_node():
    inputs = {"i": np.array([5], np.int32), "l": np.array([1], np.int32)}
    graph, request = graph_of(Node("embedding_bag", ("t", "i", "l"), "y"), inputs, {"t": TABLE})
    with pytest.raises(GraphError, match="embedding_bag y: BAD_INDEX, detail 0"):
        graph.run(request)
