"""FloatToByte is bit for bit what the golden function says, which exact rationals confirm."""

import itertools
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.quantise import FloatToByte
from halfdome.sim.golden import floats
from tests.hdl.arith import reference
from tests.hdl.arith.reference import edges, mixed, stream


def byte(i: int, multiplier: int, zero_point: int, floor: int) -> int:
    product = reference.multiply(FLOAT32, i, multiplier)
    rounded = reference.to_int(FLOAT32, product, 64)
    return max(floor, min(max(rounded + zero_point, 0), 255))


def check(i, multiplier, zero_point, floor, **options):
    expected = list(map(byte, i, multiplier, zero_point, floor))
    golden = floats.quantise(
        np.array(i, np.uint32).view(np.float32),
        np.array(multiplier, np.uint32).view(np.float32),
        zero_point,
        floor,
    )
    assert golden.dtype == np.uint8
    assert golden.tolist() == expected
    dut = FloatToByte(**options)
    operands = {"i": i, "multiplier": multiplier, "zero_point": zero_point, "floor": floor}
    assert stream(dut, **operands) == expected


def bits(numbers) -> list[int]:
    return [reference.nearest(FLOAT32, Fraction(float(x)), 0) for x in numbers]


def test_latency_is_as_stated():
    assert FloatToByte.latency == 7


def test_halves_round_to_even_at_every_zero_point():
    halves = np.arange(-600, 601) / 2
    zero_points = np.arange(len(halves)) * 7 % 256
    check(bits(halves * 4), bits([0.25] * len(halves)), zero_points.tolist(), [0] * len(halves))


def test_the_product_is_rounded_to_float_before_it_is_rounded_to_an_integer():
    # 2.5 * (1 + 2**-24 and a bit), exactly above the tie, but 2.5 as a float.
    i, multiplier = 0x3FCCCCCD, 0x3FC80000
    exact = reference.value(FLOAT32, i) * reference.value(FLOAT32, multiplier)
    assert exact > Fraction(5, 2)
    assert byte(i, multiplier, 0, 0) == 2
    check([i], [multiplier], [0], [0])


def test_infinities_saturate_and_nan_counts_as_zero():
    infinity, nan, one = 0x7F800000, 0x7FC00000, 0x3F800000
    check(
        [infinity, 0xFF800000, nan, one, infinity, 0x7F7FFFFF, 0xFF7FFFFF],
        [one, one, one, nan, 0, 0x7F7FFFFF, 0x7F7FFFFF],
        [9, 9, 9, 9, 9, 0, 255],
        [0, 3, 0, 20, 0, 0, 0],
    )


@given(seed=st.integers(0, 2**32))
def test_accumulators_of_a_quantised_layer(seed):
    rng = np.random.default_rng(seed)
    count = 300
    accumulators = rng.integers(-(2**31), 2**31, count) >> rng.integers(0, 31, count)
    multipliers = rng.choice([2.0 ** -int(rng.integers(1, 31)), rng.random() / 1000], count)
    zero_point = rng.integers(0, 256, count)
    floor = np.where(rng.random(count) < 0.5, zero_point, 0)
    operands = bits(accumulators.astype(np.float32)), bits(multipliers.astype(np.float32))
    check(*operands, zero_point.tolist(), floor.tolist(), normal=True)


def test_integers_need_no_multiplier_that_is_subnormal():
    integers = [0, 1, -1, 2**31 - 1, -(2**31)]
    multipliers = [0, 1, 0x7FFFFF, 0x800000, 0x800001, 0x7F7FFFFF, 0x7F800000, 0x7FC00000]
    multipliers += [1 << 31 | x for x in multipliers]
    pairs = list(itertools.product(bits(integers), multipliers))
    i, multiplier = zip(*pairs, strict=True)
    check(i, multiplier, [7] * len(i), [0] * len(i), normal=True)


@given(seed=st.integers(0, 2**32))
def test_numbers_of_every_kind(seed):
    rng = np.random.default_rng(seed)
    numbers = mixed(FLOAT32, 200, rng) + edges(FLOAT32)
    count = len(numbers)
    multipliers = mixed(FLOAT32, count, rng)
    points = rng.integers(0, 256, (2, count)).tolist()
    check(numbers, multipliers, *points)
