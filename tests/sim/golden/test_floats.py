"""The golden arithmetic agrees with exact rationals in every bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.arith.format import FLOAT32
from halfdome.sim.golden import floats
from tests.hdl.arith import reference
from tests.hdl.arith.reference import edges, mixed


def numbers(bits) -> np.ndarray:
    return np.array(bits, np.uint32).view(np.float32)


def assert_same(got, expected):
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.uint32), np.array(expected, np.uint32))


@given(seed=st.integers(0, 2**32))
def test_fused_sums_of_every_kind(seed):
    rng = np.random.default_rng(seed)
    a, b, c = (mixed(FLOAT32, 1000, rng) for _ in range(3))
    expected = [reference.fma(FLOAT32, *row) for row in zip(a, b, c, strict=True)]
    assert_same(floats.fma(numbers(a), numbers(b), numbers(c)), expected)


@given(seed=st.integers(0, 2**32))
def test_fused_sums_at_ties_and_next_to_them(seed):
    """Products of few bits and addends half a unit apart: double rounding would show here."""
    rng = np.random.default_rng(seed)
    c = rng.integers(0x00800000, 0x7F000000, 1000)
    half = np.maximum((c >> 23) - 24, 1)  # Exponent of half a unit in the last place of c.
    a = half << 23 | rng.choice([0, 1, 0x7FFFFF, 0x400000], 1000)
    b = rng.choice([0x3F800000, 0xBF800000, 0x3F800001, 0x3F7FFFFF, 0xBF7FFFFE], 1000)
    rows = list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))
    expected = [reference.fma(FLOAT32, *row) for row in rows]
    assert_same(floats.fma(numbers(a), numbers(b), numbers(c)), expected)


def test_every_combination_of_edges():
    values = edges(FLOAT32)
    a, b, c = np.meshgrid(values, values, values[: len(values) // 2], indexing="ij")
    rows = zip(a.ravel().tolist(), b.ravel().tolist(), c.ravel().tolist(), strict=True)
    expected = np.array([reference.fma(FLOAT32, *row) for row in rows])
    assert_same(floats.fma(numbers(a), numbers(b), numbers(c)), expected.reshape(a.shape))


@given(seed=st.integers(0, 2**32))
def test_sums_and_products(seed):
    rng = np.random.default_rng(seed)
    a, b = mixed(FLOAT32, 500, rng), mixed(FLOAT32, 500, rng)
    sums = [reference.add(FLOAT32, *row) for row in zip(a, b, strict=True)]
    products = [reference.multiply(FLOAT32, *row) for row in zip(a, b, strict=True)]
    assert_same(floats.add(numbers(a), numbers(b)), sums)
    assert_same(floats.multiply(numbers(a), numbers(b)), products)


@given(seed=st.integers(0, 2**32), width=st.sampled_from([2, 9, 32, 53]))
def test_rounding_to_integers(seed, width):
    values = mixed(FLOAT32, 300, np.random.default_rng(seed)) + edges(FLOAT32)
    expected = [reference.to_int(FLOAT32, x, width) for x in values]
    assert floats.round_half_even_to_int(numbers(values), width).tolist() == expected


@given(integers=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_integers_become_the_nearest_numbers(integers):
    expected = [reference.nearest(FLOAT32, reference.Fraction(i), 0) for i in integers]
    assert_same(floats.int_to_float(integers), expected)


def test_scalars_and_shapes_broadcast():
    assert floats.fma(2.0, 3.0, 4.0).shape == ()
    assert floats.fma(np.ones((2, 1)), np.ones(3), 1).tolist() == [[2.0] * 3] * 2
    assert floats.quantise(np.float32([1.4, 300.0]), 1.0, 3).tolist() == [4, 255]
    assert floats.quantise(np.zeros((0, 4)), 1.0).shape == (0, 4)
