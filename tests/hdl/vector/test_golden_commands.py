"""What the golden vector commands mean, against float64, torch and ONNX Runtime."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Flag, Function, Opcode
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import pack
from halfdome.sim.golden.card import GoldenCard
from halfdome.sim.golden.vector import decode, encode, maximum, reduce_rows
from tests.hdl.vector.jobs import bits

TINY = PRESETS["tiny"]
BYTES = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("zero_point", [0, 1, 127, 128, 255])
def test_every_byte_stands_for_its_distance_from_the_zero_point(zero_point):
    np.testing.assert_array_equal(
        decode(BYTES, ElementFormat.UINT8, zero_point), BYTES.astype(np.float32) - zero_point
    )
    signed = BYTES.view(np.int8).astype(np.float32)
    zero = float(np.uint8(zero_point).view(np.int8))
    np.testing.assert_array_equal(decode(BYTES, ElementFormat.INT8, zero_point), signed - zero)


def test_every_half_survives_a_round_trip():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = decode(halves.view(np.uint8), ElementFormat.FLOAT16)
    number = ~np.isnan(halves)
    np.testing.assert_array_equal(x[number], halves[number].astype(np.float32))
    back = encode(x, ElementFormat.FLOAT16, np.float32(1))
    np.testing.assert_array_equal(back.view(np.uint16)[number], halves.view(np.uint16)[number])
    assert (back.view(np.uint16)[~number] == 0x7E00).all()


@given(st.lists(st.floats(width=32), min_size=1, max_size=50), st.floats(2.0**-10, 1000, width=32))
def test_numbers_become_the_nearest_halves_of_their_product(values, multiplier):
    x = np.float32(values)
    with np.errstate(all="ignore"):
        product = x * np.float32(multiplier)
        expected = product.astype(np.float16)
    got = encode(x, ElementFormat.FLOAT16, np.float32(multiplier))
    np.testing.assert_array_equal(got, expected)


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=50),
    st.sampled_from([ElementFormat.UINT8, ElementFormat.INT8]),
    st.sampled_from([ElementFormat.UINT8, ElementFormat.INT8]),
    st.integers(0, 255),
    st.integers(0, 255),
    st.sampled_from([0.5, 0.013, 1.0, 3.7]),
)
def test_requantisation_is_within_half_a_step_of_exact(values, a, y, a_zero, y_zero, ratio):
    x = decode(np.uint8(values), a, a_zero)
    got = encode(x, y, np.float32(ratio), y_zero)
    signed = y is ElementFormat.INT8
    zero = int(np.uint8(y_zero).view(np.int8)) if signed else y_zero
    low = -128 if signed else 0
    exact = np.clip(x.astype(np.float64) * ratio + zero, low, low + 255)
    assert np.abs(got - exact).max() <= 0.5001
    assert got.dtype == (np.int8 if signed else np.uint8)


def test_int8_quantisation_is_that_of_onnx_runtime():
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    x = np.float32(np.arange(-300, 300, 0.25))
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["y"])],
        "quantise",
        [helper.make_tensor_value_info("x", types.FLOAT, [len(x)])],
        [helper.make_tensor_value_info("y", types.INT8, [len(x)])],
        [
            helper.make_tensor("scale", types.FLOAT, [], [0.5]),
            helper.make_tensor("zero_point", types.INT8, [], [-7]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(None, {"x": x})
    ours = encode(x, ElementFormat.INT8, np.float32(2), -7 & 0xFF)
    np.testing.assert_array_equal(ours, theirs)


def test_the_larger_of_two():
    values = np.float32([np.nan, -np.inf, -1, -0.0, 0.0, 1, np.inf])
    for a, b in itertools.product(values, values):
        got = maximum(np.atleast_1d(a), np.atleast_1d(b))[0]
        assert np.isnan(got) if np.isnan(a) or np.isnan(b) else got == np.maximum(a, b)
        if a == b == 0:
            assert np.signbit(got) == (np.signbit(a) and np.signbit(b))


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 300),
    lanes=st.sampled_from([4, 8, 32]),
    seed=st.integers(0, 2**16),
)
def test_sums_and_largest_elements_of_rows(rows, columns, lanes, seed):
    x = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    np.testing.assert_array_equal(reduce_rows(x, lanes, largest=True), x.max(axis=1, keepdims=True))
    exact = x.astype(np.float64).sum(axis=1, keepdims=True)
    # One rounding for each addition on an element's way.
    depth = np.log2(lanes) + columns / lanes / 4 + 3
    bound = depth * 2.0**-24 * np.abs(x).sum(axis=1, keepdims=True)
    assert (np.abs(reduce_rows(x, lanes, largest=False) - exact) <= bound).all()


class Program:
    """Vector commands on matrices of float32 in the DRAM of a golden card."""

    def __init__(self, **matrices: np.ndarray):
        self._card = GoldenCard(TINY, host=None)
        self._places: dict[str, tuple[int, int, int]] = {}
        self._end = 0
        for name, values in matrices.items():
            self._place(name, *values.shape)
            self._rows(name)[:] = values

    def _place(self, name: str, rows: int, columns: int) -> None:
        self._places[name] = (self._end, rows, columns)
        self._end += rows * self._stride(columns)

    @staticmethod
    def _stride(columns: int) -> int:
        return -(-4 * columns // TINY.bus_bytes) * TINY.bus_bytes

    def _rows(self, name: str) -> np.ndarray:
        start, rows, columns = self._places[name]
        stride = self._stride(columns)
        raw = self._card.memory[start : start + rows * stride].reshape(rows, stride)
        return raw.view(np.float32)[:, :columns]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._rows(name).copy()

    def run(self, y, opcode, a, b=None, *, flags=0, function=Function.IDENTITY, **constants):
        """y = the command of a and b; b of one column or one row broadcasts."""
        start, rows, columns = self._places[a]
        if y not in self._places:
            self._place(y, rows, 1 if flags & (Flag.SUM | Flag.MAX) else columns)
        constants = {"multiplier": 1.0} | constants
        fields = {
            "a": start, "a_stride": self._stride(columns), "a_format": ElementFormat.FLOAT32,
            "y": self._places[y][0], "y_stride": self._stride(self._places[y][2]),
            "y_format": ElementFormat.FLOAT32, "rows": rows, "columns": columns,
            "function": function,
        }  # fmt: skip
        if b is not None:
            b_start, b_rows, b_columns = self._places[b]
            fields |= {"b": b_start, "b_format": ElementFormat.FLOAT32}
            fields["b_stride"] = 0 if b_rows == 1 else self._stride(b_columns)
            flags |= Flag.BROADCAST * (b_columns == 1 and columns > 1)
        values = {name: bits(value) for name, value in constants.items()}
        descriptor = pack(opcode, flags=int(flags), **fields, **values)
        assert self._card.execute(descriptor) == (0, 0)


SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 200))


@given(shape=SHAPES, spread=st.sampled_from([0.1, 3.0, 30.0]), seed=st.integers(0, 2**16))
def test_softmax_is_five_commands(shape, spread, seed):
    x = (np.random.default_rng(seed).normal(size=shape) * spread).astype(np.float32)
    p = Program(x=x)
    p.run("top", Opcode.AFFINE, "x", flags=Flag.MAX, scale=1.0, shift=0.0)
    p.run("e", Opcode.ADD, "x", "top", function=Function.EXP, scale=-1.0)
    p.run("total", Opcode.AFFINE, "e", flags=Flag.SUM, scale=1.0, shift=0.0)
    p.run("share", Opcode.AFFINE, "total", function=Function.RECIPROCAL, scale=1.0, shift=0.0)
    p.run("y", Opcode.MULTIPLY, "e", "share", shift=0.0)
    exact = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    assert np.abs(p["y"] - exact).max() <= 2e-6
    assert np.abs(p["y"].sum(axis=1) - 1).max() <= 1e-5


@given(shape=SHAPES, seed=st.integers(0, 2**16))
def test_layer_normalisation_is_seven_commands(shape, seed):
    rng = np.random.default_rng(seed)
    columns = shape[1]
    x = (rng.normal(size=shape) * 3 + 1).astype(np.float32)
    gain, bias = (rng.normal(size=(1, columns)).astype(np.float32) for _ in range(2))
    p = Program(x=x, gain=gain, bias=bias)
    share = 1 / columns
    p.run("mean", Opcode.AFFINE, "x", flags=Flag.SUM, scale=1.0, shift=0.0, multiplier=share)
    p.run("centred", Opcode.ADD, "x", "mean", scale=-1.0)
    p.run(
        "variance", Opcode.MULTIPLY, "centred", "centred", flags=Flag.SUM, shift=0.0,
        multiplier=share,
    )  # fmt: skip
    p.run("factor", Opcode.AFFINE, "variance", function=Function.RSQRT, scale=1.0, shift=1e-5)
    p.run("centred", Opcode.MULTIPLY, "centred", "factor", shift=0.0)
    p.run("centred", Opcode.MULTIPLY, "centred", "gain", shift=0.0)
    p.run("y", Opcode.ADD, "centred", "bias", scale=1.0)
    exact = x.astype(np.float64)
    exact -= exact.mean(axis=1, keepdims=True)
    exact /= np.sqrt((exact**2).mean(axis=1, keepdims=True) + 1e-5)
    exact = exact * gain + bias
    assert np.abs(p["y"] - exact).max() <= 1e-4
