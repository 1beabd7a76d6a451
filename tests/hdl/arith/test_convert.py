"""Conversions are exact, or the nearest there is, and saturate where the target ends."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.arith.convert import FloatToInt, FloatWiden, IntToFloat
from halfdome.hdl.arith.format import FLOAT16, FLOAT32, FloatFormat
from tests.hdl.arith import reference
from tests.hdl.arith.reference import edges, mixed, stream

SMALL = FloatFormat(exponent_bits=3, significand_bits=2)


def test_latencies_are_as_stated():
    assert (IntToFloat.latency, FloatToInt.latency, FloatWiden.latency) == (3, 2, 1)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 11])
def test_halves_widen_exactly(step):
    bits = np.arange(1 << 16, dtype=np.uint16)
    halves = bits[(bits & 0x7FFF < 0x800) | (bits % step == 0)]  # Every subnormal at least.
    with np.errstate(invalid="ignore"):
        exact = halves.view(np.float16).astype(np.float32)
    expected = np.where(np.isnan(exact), 0x7FC00000, exact.view(np.uint32))
    np.testing.assert_array_equal(stream(FloatWiden(), i=halves.tolist()), expected)


def test_a_target_that_is_too_narrow_is_refused():
    with pytest.raises(ValueError, match=r"^target=.*: does not hold every number of"):
        FloatWiden(FLOAT32, FLOAT16)


@given(
    integers=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=60),
    format=st.sampled_from([FLOAT32, FLOAT16, SMALL]),
)
@example(integers=[0, 1, -1, 2**31 - 1, -(2**31), 65519, 65520, -65520], format=FLOAT16)
@example(integers=[2**24 + 1, 2**24 + 3, 2**25 + 2, 2**31 - 65, 2**31 - 64], format=FLOAT32)
def test_integers_become_the_nearest_numbers(integers, format):
    expected = [reference.nearest(format, reference.Fraction(i), 0) for i in integers]
    assert stream(IntToFloat(format), i=integers) == expected


def test_binary32_integers_are_those_of_numpy():
    rng = np.random.default_rng(3)
    integers = rng.integers(-(2**31), 2**31, 2000) >> rng.integers(0, 32, 2000)
    expected = integers.astype(np.int32).astype(np.float32).view(np.uint32)
    np.testing.assert_array_equal(stream(IntToFloat(FLOAT32), i=integers.tolist()), expected)


@pytest.mark.parametrize("width", [2, 5, 12, 40])
def test_every_integer_width(width):
    ends = [0, 1, -1, (1 << width - 1) - 1, -(1 << width - 1)]
    expected = [reference.nearest(FLOAT16, reference.Fraction(i), 0) for i in ends]
    assert stream(IntToFloat(FLOAT16, width), i=ends) == expected


@pytest.mark.parametrize("width", [2, 3, 8, 20])
def test_every_small_number_becomes_the_nearest_integer(width):
    numbers = range(1 << SMALL.width)
    expected = [reference.to_int(SMALL, x, width) for x in numbers]
    assert stream(FloatToInt(SMALL, width), i=numbers) == expected


@given(
    seed=st.integers(0, 2**32),
    format=st.sampled_from([FLOAT32, FLOAT16]),
    width=st.sampled_from([2, 8, 9, 16, 32, 40]),
)
def test_numbers_become_the_nearest_integers(seed, format, width):
    rng = np.random.default_rng(seed)
    numbers = mixed(format, 200, rng) + edges(format)
    # Halves, and the neighbourhood of the ends of the range.
    for x in rng.integers(-(1 << width - 1) - 3, (1 << width - 1) + 4, 100).tolist():
        numbers.append(reference.nearest(format, x + reference.Fraction(int(seed) % 3, 2), 0))
    expected = [reference.to_int(format, x, width) for x in numbers]
    assert stream(FloatToInt(format, width), i=numbers) == expected


@pytest.mark.parametrize("unit", [IntToFloat, FloatToInt])
@pytest.mark.parametrize("width", [1, 0, -4, 8.0])
def test_a_width_that_is_none_is_refused(unit, width):
    with pytest.raises(ValueError, match=r"^width=.*: must be an integer of at least 2"):
        unit(FLOAT32, width)
