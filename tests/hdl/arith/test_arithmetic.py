"""Sums, products and fused sums are the nearest numbers to the exact ones, in every bit."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.arith.add import FloatAdd
from halfdome.hdl.arith.div import FloatDiv
from halfdome.hdl.arith.fma import FloatFma
from halfdome.hdl.arith.format import FLOAT16, FLOAT32, FloatFormat
from halfdome.hdl.arith.mul import FloatMul, FlushingMul
from tests.hdl.arith import reference
from tests.hdl.arith.reference import edges, mixed, stream

SMALL = FloatFormat(exponent_bits=3, significand_bits=2)
NARROW = FloatFormat(exponent_bits=2, significand_bits=3)
FORMATS = [SMALL, NARROW, FloatFormat(4, 3), FLOAT16, FLOAT32]
OPERATIONS = {
    FloatAdd: (reference.add, ("a", "b")),
    FloatMul: (reference.multiply, ("a", "b")),
    FlushingMul: (reference.multiply_flushing, ("a", "b")),
    FloatDiv: (reference.divide, ("a", "b")),
    FloatFma: (reference.fma, ("a", "b", "c")),
}


def check(unit, format, rows, **options):
    oracle, names = OPERATIONS[unit]
    results = stream(
        unit(format, **options), **dict(zip(names, zip(*rows, strict=True), strict=True))
    )
    for row, result in zip(rows, results, strict=True):
        expected = oracle(format, *row)
        shown = " ".join(f"{x:#x}" for x in row)
        assert result == expected, f"{unit.__name__} of {shown}: {result:#x}, not {expected:#x}"


def test_latencies_are_as_stated():
    assert (FloatAdd.latency, FloatMul.latency, FloatFma.latency) == (4, 4, 5)
    assert FlushingMul.latency == 4
    assert (FloatDiv(FLOAT32).latency, FloatDiv(FLOAT16).latency) == (17, 11)
    cut = [unit(FLOAT32, stages=2).latency for unit in (FloatAdd, FloatMul, FloatFma)]
    assert cut == [6, 6, 8]
    assert FloatDiv(FLOAT32, rounding_stages=2).latency == 18
    in_turns = FloatDiv(FLOAT32, in_turns=True)
    assert (in_turns.latency, in_turns.interval) == (17, 14)


@pytest.mark.parametrize("unit", [FloatAdd, FloatMul, FlushingMul, FloatDiv])
@pytest.mark.parametrize("format", [SMALL, NARROW], ids=["e3f2", "e2f3"])
def test_every_pair_of_a_small_format(unit, format):
    check(unit, format, list(itertools.product(range(1 << format.width), repeat=2)))


@pytest.mark.slow
@pytest.mark.parametrize("unit", [FloatAdd, FloatMul, FloatDiv])
def test_every_pair_of_a_seven_bit_format(unit):
    check(unit, FloatFormat(3, 3), list(itertools.product(range(128), repeat=2)))


@pytest.mark.slow
def test_every_triple_of_the_smallest_format():
    check(FloatFma, FloatFormat(2, 2), list(itertools.product(range(32), repeat=3)))


@pytest.mark.slow
@pytest.mark.parametrize("format", [SMALL, NARROW], ids=["e3f2", "e2f3"])
def test_every_31st_triple_of_a_small_format(format):
    check(FloatFma, format, list(itertools.product(range(1 << format.width), repeat=3))[::31])


@pytest.mark.parametrize(
    "format", FORMATS, ids=lambda f: f"e{f.exponent_bits}f{f.significand_bits}"
)
@pytest.mark.parametrize("unit", OPERATIONS)
def test_edges_against_edges(unit, format):
    values = edges(format)
    if unit is FloatFma:  # One sign of `a` is enough: `b` has both.
        rows = list(itertools.product(values[: len(values) // 2], values, values))[::3]
    else:
        rows = list(itertools.product(values, repeat=2))
    check(unit, format, rows)


@given(
    seed=st.integers(0, 2**32),
    format=st.sampled_from(FORMATS),
    unit=st.sampled_from(list(OPERATIONS)),
)
def test_numbers_of_every_kind(seed, format, unit):
    rng = np.random.default_rng(seed)
    check(
        unit,
        format,
        list(zip(*(mixed(format, 300, rng) for _ in OPERATIONS[unit][1]), strict=True)),
    )


@pytest.mark.parametrize("unit", [unit for unit in OPERATIONS if unit is not FlushingMul])
def test_numbers_of_every_kind_through_more_stages(unit):
    rng = np.random.default_rng(0)
    rows = list(zip(*(mixed(FLOAT32, 300, rng) for _ in OPERATIONS[unit][1]), strict=True))
    check(unit, FLOAT32, rows, **{"rounding_stages" if unit is FloatDiv else "stages": 2})


@pytest.mark.parametrize("format", [SMALL, FLOAT32], ids=["e3f2", "e8f23"])
def test_a_division_in_turns(format):
    rng = np.random.default_rng(1)
    rows = list(zip(*(mixed(format, 60, rng) for _ in "ab"), strict=True))
    unit = FloatDiv(format, in_turns=True)
    # Operands are there in the cycle of `start` alone.
    wait = [(0, 0, 0)] * (unit.interval - 1)
    steps = [step for row in rows for step in ((1, *row), *wait)]
    start, a, b = zip(*steps, strict=True)
    results = stream(unit, start=start, a=a, b=b)[:: unit.interval]
    assert results == [reference.divide(format, *row) for row in rows]


@given(seed=st.integers(0, 2**32), format=st.sampled_from(FORMATS))
def test_the_fused_sum_survives_cancellation(seed, format):
    """The addend is within a few units of minus the rounded product, or half of one off it."""
    rng = np.random.default_rng(seed)
    rows = []
    for a, b in zip(mixed(format, 200, rng), mixed(format, 200, rng), strict=True):
        product = reference.multiply(format, a, b) ^ 1 << format.width - 1
        near = product + int(rng.integers(-2, 3))
        rows.append((a, b, near % (1 << format.width)))
    check(FloatFma, format, rows)


@given(seed=st.integers(0, 2**32), format=st.sampled_from(FORMATS))
def test_the_fused_sum_at_every_distance_of_product_and_addend(seed, format):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 1 << format.width, 200).tolist() for _ in range(2))
    rows = []
    for x, y in zip(a, b, strict=True):
        exponent = reference.multiply(format, x, y) >> format.significand_bits
        exponent += int(rng.integers(-2 * format.precision, 2 * format.precision + 1))
        fraction = int(rng.integers(0, 1 << format.significand_bits))
        rows.append((x, y, (exponent << format.significand_bits | fraction) % (1 << format.width)))
    check(FloatFma, format, rows)


ones = st.integers(0, 2**32 - 1)


@given(rows=st.lists(st.tuples(ones, ones), min_size=1, max_size=30))
@example(rows=[(0x00000001, 0x80000001), (0x7F7FFFFF, 0x73000000), (0x7F7FFFFF, 0x72FFFFFF)])
@example(rows=[(0x3F800000, 0x33800000), (0x3F800001, 0x33800000), (0x7F800000, 0xFF800000)])
def test_binary32_sums_products_and_quotients_are_those_of_numpy(rows):
    a, b = np.array(rows, np.uint32).T.copy().view(np.float32)
    with np.errstate(all="ignore"):
        for unit, exact in ((FloatAdd, a + b), (FloatMul, a * b), (FloatDiv, a / b)):
            got = np.array(
                stream(unit(FLOAT32), a=a.view(np.uint32), b=b.view(np.uint32)), np.uint32
            )
            numbers = ~np.isnan(exact)
            np.testing.assert_array_equal(got[numbers], exact.view(np.uint32)[numbers])
            assert (got[~numbers] == 0x7FC00000).all()


@pytest.mark.parametrize(
    ("unit", "operands", "result"),
    [
        (FloatAdd, (0x3F800000, 0xBF800000), 0x00000000),  # x - x = +0
        (FloatAdd, (0x80000000, 0x80000000), 0x80000000),  # -0 + -0 = -0
        (FloatAdd, (0x80000000, 0x00000000), 0x00000000),  # -0 + +0 = +0
        (FloatAdd, (0x7F800000, 0xFF800000), 0x7FC00000),  # inf - inf
        (FloatAdd, (0xFFC12345, 0x3F800000), 0x7FC00000),  # any NaN
        (FloatAdd, (0x00800000, 0x80000001), 0x007FFFFF),  # normal to subnormal
        (FloatAdd, (0x007FFFFF, 0x00000001), 0x00800000),  # subnormal to normal
        (FloatMul, (0x00000001, 0x3F000000), 0x00000000),  # half the least subnormal: tie to 0
        (FloatMul, (0x00000003, 0x3F000000), 0x00000002),  # one and a half: tie to 2
        (FloatMul, (0x80000001, 0x3E800000), 0x80000000),  # underflow keeps its sign
        (FloatMul, (0x7F800000, 0x80000000), 0x7FC00000),  # inf * 0
        (FloatMul, (0x7F7FFFFF, 0x40000000), 0x7F800000),  # overflow
        (FloatDiv, (0x3F800000, 0x40400000), 0x3EAAAAAB),  # 1 / 3
        (FloatDiv, (0x00000001, 0x40000000), 0x00000000),  # half the least subnormal: tie to 0
        (FloatDiv, (0x00000003, 0x40000000), 0x00000002),  # one and a half: tie to 2
        (FloatDiv, (0x00800000, 0x00000001), 0x4B000000),  # a subnormal divisor
        (FloatDiv, (0x7F7FFFFF, 0x3F000000), 0x7F800000),  # overflow
        (FloatDiv, (0xBF800000, 0x00000000), 0xFF800000),  # x / 0
        (FloatDiv, (0x3F800000, 0xFF800000), 0x80000000),  # x / inf
        (FloatDiv, (0x00000000, 0x80000000), 0x7FC00000),  # 0 / 0
        (FloatDiv, (0x7F800000, 0x7F800000), 0x7FC00000),  # inf / inf
        (FloatFma, (0x80000000, 0x3F800000, 0x80000000), 0x80000000),  # -0 * 1 - 0 = -0
        (FloatFma, (0x80000000, 0x3F800000, 0x00000000), 0x00000000),  # -0 * 1 + 0 = +0
        (FloatFma, (0x3F800000, 0x3F800000, 0xBF800000), 0x00000000),  # exact cancellation = +0
        (FloatFma, (0x00000001, 0x80000001, 0x00000000), 0x80000000),  # -tiny + 0 rounds to -0
        (FloatFma, (0x00000000, 0x7F800000, 0x3F800000), 0x7FC00000),  # 0 * inf
        (FloatFma, (0x7F800000, 0x3F800000, 0xFF800000), 0x7FC00000),  # inf - inf
        (FloatFma, (0x7F7FFFFF, 0x7F7FFFFF, 0xFF800000), 0xFF800000),  # no overflow on the way
        (FloatFma, (0x7F7FFFFF, 0x40000000, 0xFF7FFFFF), 0x7F7FFFFF),  # nor here
        (FloatFma, (0x3F800001, 0x3F7FFFFE, 0xBF800000), 0xA8800000),  # a product's last bit alone
    ],
)
def test_binary32_rules_of_ieee_754(unit, operands, result):
    assert stream(unit(FLOAT32), **{n: [x] for n, x in zip("abc", operands, strict=False)}) == [
        result
    ]


@pytest.mark.parametrize(
    ("exponent_bits", "significand_bits"), [(1, 3), (16, 3), (8, 1), (8, 113), (8.0, 23)]
)
def test_a_format_that_is_none_is_refused(exponent_bits, significand_bits):
    with pytest.raises(
        ValueError, match=r"^(exponent|significand)_bits=.*: must be an integer from"
    ):
        FloatFormat(exponent_bits, significand_bits)


def test_the_standard_formats():
    assert (FLOAT32.width, FLOAT32.bias, FLOAT32.precision) == (32, 127, 24)
    assert (FLOAT32.infinity, FLOAT32.quiet_nan) == (0x7F800000, 0x7FC00000)
    assert (FLOAT16.width, FLOAT16.bias, FLOAT16.infinity, FLOAT16.quiet_nan) == (
        16,
        15,
        0x7C00,
        0x7E00,
    )
