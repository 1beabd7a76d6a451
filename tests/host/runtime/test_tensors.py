"""Arrays that stay on a card: the same bits as arrays that do not, and memory that comes back."""

import copy
import gc
import inspect
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import ElementFormat, Function
from halfdome.hdl.config import preset
from halfdome.host.graph.values import DTYPES
from halfdome.host.runtime.card import Card
from halfdome.host.runtime.tensors import Tensor
from halfdome.sim.golden.operators import Reference
from tests.host.golden_platform import GoldenPlatform

TINY = preset("tiny")
RNG = np.random.default_rng(3)
X = RNG.integers(0, 256, (5, 7), np.uint8)
W = RNG.integers(-9, 9, (4, 7)).astype(np.int8)
FLOATS = RNG.normal(size=(3, 5)).astype(np.float32)
INPUTS = [DTYPES[kind] for kind in ElementFormat]


@pytest.fixture
def platform():
    made = GoldenPlatform(TINY, 2)
    empty = made.owned()
    yield made
    gc.collect()
    assert made.cards[0].add(FLOATS, FLOATS).shape == FLOATS.shape  # a call sweeps
    assert made.owned() == empty


@pytest.fixture
def card(platform):
    return platform.cards[0]


def values(rng, dtype, shape):
    if dtype.kind == "f":
        return rng.normal(scale=3, size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def bits(array):
    return array.dtype, array.shape, array.tobytes()


@pytest.mark.parametrize("dtype", INPUTS, ids=str)
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 16), (2, 3, 5), (1, 1, 1, 40)])
def test_what_is_placed_comes_home(card, dtype, shape):
    array = values(RNG, np.dtype(dtype), shape)
    with card.tensor(array) as tensor:
        assert (tensor.shape, tensor.dtype) == (shape, dtype)
        assert bits(tensor.numpy()) == bits(array)
        assert bits(card.copy(tensor).numpy()) == bits(array)


VECTOR = ["affine", "add", "multiply", "clamp"]


@given(
    seed=st.integers(0, 1 << 30), op=st.sampled_from(VECTOR), stays=st.booleans(), data=st.data()
)
def test_vector_calls_have_the_bits_of_the_reference(seed, op, stays, data):
    rng, platform = np.random.default_rng(seed), GoldenPlatform(TINY, 1)
    card, empty = platform.cards[0], platform.owned()
    rows, columns = rng.integers(1, 9, 2)
    out = np.dtype(data.draw(st.sampled_from([np.float32, np.float16, np.uint8, np.int8])))
    how = {
        "dtype": out, "multiplier": data.draw(st.sampled_from([1.0, -0.25, 3.5])),
        "reduce": data.draw(st.sampled_from([None, "sum", "max"])),
        "function": data.draw(st.sampled_from([Function.IDENTITY, "relu", "tanh"])),
    }  # fmt: skip
    shapes = [(rows, columns)]
    if op in ("add", "multiply"):
        shapes.append(data.draw(st.sampled_from([(rows, columns), (1, columns), (rows, 1)])))
    operands = [values(rng, np.dtype(data.draw(st.sampled_from(INPUTS))), s) for s in shapes]
    for name, operand in zip("ab", operands, strict=False):
        if operand.dtype.itemsize == 1:
            how[f"{name}_zero_point"] = int(values(rng, operand.dtype, ()))
    if out.itemsize == 1:
        how["y_zero_point"] = int(values(rng, out, ()))
    expected = getattr(platform.reference, op)(*operands, **how)
    with np.errstate(all="ignore"):
        result = getattr(card, op)(*(map(card.tensor, operands) if stays else operands), **how)
    if stays:
        assert isinstance(result, Tensor)
        result = result.numpy()
    assert bits(result) == bits(expected)
    gc.collect()
    card.clamp(FLOATS)
    assert platform.owned() == empty


def test_calls_follow_each_other_without_coming_home(platform, card):
    """A table, a product, a sum and a function: nothing is sent but what goes in and comes out."""
    table = RNG.normal(size=(9, 7)).astype(np.float32)
    bags = np.array([3, 0, 8, 8, 1]), np.array([0, 1, 1, 4])
    pooling = {"dtype": np.uint8, "multiplier": 20.0, "zero_point": 128}
    run = platform.reference
    expected = run.embedding_bag(table, *bags, **pooling)
    expected = run.linear(expected, W, 0.01, x_zero_point=128, dtype=np.int8)
    expected = run.add(expected, expected[:1], 0.5, a_zero_point=3)
    expected = run.sigmoid(expected)
    with card.tensor(table) as rows:
        pooled = card.embedding_bag(rows, *bags, **pooling)
        product = card.linear(pooled, W, 0.01, x_zero_point=128, dtype=np.int8)
        first = product.numpy()[:1]
        total = card.add(product, first, 0.5, a_zero_point=3)
        answer = card.sigmoid(total)
        assert all(isinstance(each, Tensor) for each in (pooled, product, total, answer))
        assert bits(answer.numpy()) == bits(expected)


def test_products_of_tensors(platform, card):
    image, kernel = X.reshape(5, 7, 1), RNG.integers(-9, 9, (3, 3, 3, 1)).astype(np.int8)
    batch = np.stack([X, X[::-1]])
    with card.tensor(image) as placed, card.conv2d(placed, kernel, 0.02, pads=1) as y:
        assert bits(y.numpy()) == bits(platform.reference.conv2d(image, kernel, 0.02, pads=1))
    with card.tensor(batch) as placed:
        y = card.matmul(placed, placed, 1e-4, transposed=True, triangle=True)
        expected = platform.reference.matmul(batch, batch, 1e-4, transposed=True, triangle=True)
        assert bits(y.numpy()) == bits(expected)


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize(("bits_of", "dim"), [(8, 6), (4, 5)])
def test_fused_rows_are_pooled_from_tables_and_tensors(platform, card, bits_of, dim, near):
    raw = RNG.integers(0, 60, (9, dim + 8 if bits_of == 8 else 3 + 4), np.uint8)
    bags = np.array([3, 0, 8]), np.array([0, 2])
    expected = platform.reference.embedding_bag(raw, *bags, bits_of, dim=dim)
    placed = card.table(raw, bits=bits_of, dim=dim, near=near)
    assert bits(card.embedding_bag(placed, *bags)) == bits(expected)
    card.release(placed)
    with card.tensor(raw) as rows, card.embedding_bag(rows, *bags, bits_of, dim=dim) as pooled:
        assert bits(pooled.numpy()) == bits(expected)


IMAGE = np.zeros((2, 5, 2), np.uint8)
KERNEL = np.zeros((2, 3, 3, 2), np.int8)
BAD = [
    (lambda c, t: c.tensor(np.zeros((0, 3), np.uint8)), r"array: is uint8\[0, 3\], must be"),
    (lambda c, t: c.tensor(3.0), r"array: is float64\[\], must be"),
    (lambda c, t: c.tensor(np.zeros(3)), r"array: is float64\[3\], must be"),
    (lambda c, t: c.tensor([[1], [1, 2]]), "array: is no array, its rows differ in length"),
    (lambda c, t: c.linear(t, W[:, :6], 0.1), r"weight: int8\[4, 6\] does not fit x: uint8"),
    (lambda c, t: c.conv2d(t, W, 0.1), r"x: is uint8\[5, 7\], must be .* 3 dimensions"),
    (lambda c, t: c.add(t, X[:2]), r"b: \[2, 7\]: must be \[5, 7\], one row or one column"),
    (lambda c, t: c.add(t, None), r"b: is object\[\], must be"),
    (lambda c, t: c.affine(t, scale=0), "scale=0: must be finite and not zero"),
    (lambda c, t: c.affine(t, shift=np.nan), "shift=nan: must be a finite number"),
    (lambda c, t: c.affine(t, function="sine"), "function='sine': must be one of identity, relu"),
    (lambda c, t: c.affine(t, reduce="mean"), "reduce='mean': must be one of none, sum, max"),
    (lambda c, t: c.affine(t, dtype=np.int32), "dtype=int32: must be float32 or float16 or uint8"),
    (lambda c, t: c.affine(t, a_zero_point=256), "a_zero_point=256: must be"),
    (lambda c, t: c.affine(t, multiplier="2"), "multiplier='2': must be a finite number"),
    (lambda c, t: c.clamp(t, low=2, high=1), "low=2, high=1: low must not be above high"),
    (lambda c, t: c.clamp(t, high=np.nan), "high=nan: must be a number"),
    (lambda c, t: c.clamp(t, low="a"), "low='a': must be a number"),
    (lambda c, t: c.quantise(t, 1.0, dtype=np.float16), "dtype=float16: must be uint8 or int8"),
    (lambda c, t: c.copy(X), "tensor: is a ndarray, must be a Tensor"),
    (lambda c, t: c.release(t), "table: is a Tensor, must be a Table or its block"),
    (lambda c, t: c.embedding_bag(t, [0], [0]), r"table: .* has 5 rows of -1 elements"),
    (lambda c, t: c.quantise(X[0], 1.0), r"^x: is uint8\[7\], must be"),
    (lambda c, t: c.quantise(t, 1.0, 256), "^zero_point=256: must be"),
    (lambda c, t: c.sigmoid(X[:0]), r"^x: \[0, 7\]: no dimension may be zero"),
    (lambda c, t: c.sigmoid(t, zero_point=256), "^zero_point=256: must be"),
    (lambda c, t: c.add_quantised(t, t, 1, 1, inner=["a"]), r"^inner=\['a'\]: must be one of a, b"),
    (lambda c, t: c.linear(X, t, 0.1), "^weight: Tensor.* lies in card memory, `.numpy"),
    (lambda c, t: c.lookup(np.ma.masked_equal(X, X[0, 0]), RNG.bytes(256)), "^a: has masked"),
    (lambda c, t: c.conv2d(IMAGE, KERNEL, 0.1), "^weight: kernel height 3 with dilation=1 covers 3 "
     "pixels, the height of x with its pads is 2"),
    (lambda c, t: c.conv2d(IMAGE, KERNEL, 0.1, pads=1, dilation=(1, 4)), "^weight: kernel width 3"),
    (lambda c, t: c.conv2d(IMAGE[..., :0], KERNEL[..., :0], 0.1, groups=2), "^k=0: must be"),
    (lambda c, t: c.conv2d(IMAGE[..., :0], KERNEL[:0, ..., :0], 0.1, groups=2), "^k=0: must be"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_what_does_not_fit_is_refused_by_name(card, call, message):
    with card.tensor(X) as tensor:
        with pytest.raises(ValueError, match=message):
            call(card, tensor)
        assert bits(tensor.numpy()) == bits(X)


def test_tensors_of_others_and_those_that_are_gone(platform, card):
    with platform.cards[1].tensor(X) as other:
        with pytest.raises(ValueError, match="x: is on card 1, not on card 0"):
            card.linear(other, W, 0.1)
        with pytest.raises(ValueError, match="tensor: is on card 1, not on card 0"):
            card.copy(other)
        for copied in (np.asarray, pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="lies in card memory"):
                copied(other)
    for use in (platform.cards[1].affine, Tensor.numpy, Tensor.release):
        with pytest.raises(ValueError, match=r"Tensor\(uint8\[5, 7\] on card .\): was released"):
            use(other)


def test_a_full_card_takes_what_is_forgotten_first(card):
    """Results that nobody holds any more make room for the next."""
    large = np.zeros((TINY.dram_bytes // 64, 16), np.uint8)
    for _ in range(20):
        tensor = card.tensor(large)
        del tensor
        gc.collect()
    kept = [card.tensor(large) for _ in range(4)]
    with pytest.raises(MemoryError, match="card 0 DRAM: no 262144 bytes in one piece"):
        card.tensor(large)
    for tensor in kept:
        tensor.release()


@pytest.mark.parametrize("name", [name for name in dir(Reference) if name[0] != "_"])
def test_the_reference_has_the_parameters_of_cards(name):
    card, reference = (
        [(each.name, each.kind, each.default) for each in signature.parameters.values()]
        for signature in (inspect.signature(getattr(kind, name)) for kind in (Card, Reference))
    )
    assert card == reference
