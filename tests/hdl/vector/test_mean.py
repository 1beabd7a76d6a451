"""Sums and means of an AVERAGE round as float32 does, which numpy confirms."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.hdl.vector.inverse import inverse_of
from halfdome.hdl.vector.mean import MeanScaler
from halfdome.hdl.vector.mean_adder import MeanAdder
from tests.bench import simulate

TINY = PRESETS["tiny"]
LANES = TINY.byte_lanes
SEEDS = st.integers(0, 2**16)


def split(scale: np.float32) -> tuple[int, int]:
    """Significand and exponent of its last place."""
    fraction, exponent = np.frexp(scale)
    return int(fraction * 2**24), int(exponent) - 24


def means(cases):
    """Bytes that a scaler makes of float32 totals in units of x's scale: each case is total, count,
    both scales, a zero point, and whether bytes are signed."""
    dut, found = MeanScaler(TINY), []

    async def bench(ctx):
        for total, count, x_scale, y_scale, zero_point, is_int8 in cases:
            (_, x_place), (y, y_place) = split(x_scale), split(y_scale)
            inverse, exponent = inverse_of(y, 24)
            ctx.set(dut.y_inverse, inverse)
            ctx.set(dut.exponent, x_place - y_place - exponent)
            ctx.set(dut.ready, 1)
            ctx.set(dut.zero_point, int(zero_point))
            ctx.set(dut.is_int8, int(is_int8))
            ctx.set(dut.count, int(count))
            for lane in range(LANES):
                ctx.set(dut.i[lane], int(np.ldexp(np.float64(total[lane]), -x_place)))
            ctx.set(dut.valid, 1)
            await ctx.tick()
            ctx.set(dut.valid, 0)
            (made,) = await ctx.tick().sample(dut.o).until(dut.o_valid)
            found.append(made.to_bytes(LANES, "little"))

    simulate(dut, bench)
    return [
        np.frombuffer(raw, np.int8 if case[-1] else np.uint8)
        for raw, case in zip(found, cases, strict=True)
    ]


def check(cases):
    for case, byte in zip(cases, means(cases), strict=True):
        total, count, _, y_scale, zero_point, is_int8 = case
        scaled = total / np.float32(count) / y_scale + np.float32(zero_point)
        limits = np.iinfo(np.int8 if is_int8 else np.uint8)
        np.testing.assert_array_equal(byte, np.rint(scaled).clip(limits.min, limits.max), str(case))


def totals(rng, x_scale, count, reach=255):
    """float32 sums of so many products of a byte and a scale."""
    whole = rng.integers(-reach * count, reach * count, LANES, endpoint=True)
    noise = rng.choice([0, 1, -1], LANES) * 2.0 ** rng.integers(-24, 0, LANES)
    unit = split(x_scale)[1]
    exact = np.round(np.ldexp((whole + noise) * np.float64(x_scale), -unit))
    return np.ldexp(exact.astype(np.float32), unit)


@given(seed=SEEDS)
def test_means_divide_as_float32_does(seed):
    rng = np.random.default_rng(seed)
    cases = []
    for count in sorted({1, 2, 255, *rng.integers(1, 256, 30).tolist()}):
        x_scale = np.float32(rng.random() + 0.01)
        y_scale = np.float32(x_scale * rng.choice([0.25, 0.5, 1.0, 2.0, rng.random() + 0.05]))
        is_int8 = bool(rng.integers(2))
        zero_point = int(rng.integers(256)) - 128 * is_int8
        total = totals(rng, x_scale, count, int(rng.choice([1, 3, 40, 255])))
        cases.append((total, count, x_scale, y_scale, zero_point, is_int8))
    check(cases)


@given(seed=SEEDS)
def test_means_next_to_a_half_fall_where_float32_lets_them(seed):
    """Totals a few last places beside what makes a tie with the zero point."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(60):
        count = int(rng.integers(1, 17))
        x_scale = np.float32(rng.random() + 0.01)
        y_scale = np.float32(x_scale * rng.choice([1.0, rng.random() + 0.05]))
        is_int8 = bool(rng.integers(2))
        zero_point = int(rng.integers(256)) - 128 * is_int8
        half = rng.integers(0, 256, LANES) - 128 * is_int8 + 0.5 - zero_point
        near = np.float32(half) * y_scale * np.float32(count)
        near = near + np.spacing(near) * rng.integers(-3, 4, LANES).astype(np.float32)
        unit = split(x_scale)[1]
        limit = np.float32(255 * count) * x_scale
        near = np.ldexp(np.round(np.ldexp(near.clip(-limit, limit), -unit)), unit)
        cases.append((near.astype(np.float32), count, x_scale, y_scale, zero_point, is_int8))
    check(cases)


@pytest.mark.parametrize("exponent", [-79, -40, -11, -9, 0, 7, 9, 40, 79])
def test_scales_of_any_ratio_saturate_or_vanish(exponent):
    rng = np.random.default_rng(exponent + 100)
    x_scale = np.float32(2.0 ** min(39, 39 + exponent) * 1.9999999)
    y_scale = np.float32(2.0 ** max(-40, min(39, 39 + exponent) - exponent) * 1.25)
    cases = []
    for zero_point, is_int8 in ((0, False), (255, False), (-128, True), (127, True)):
        total = totals(rng, x_scale, 255)
        total[:3] = 0, 255 * 255 * x_scale, -255 * 255 * x_scale
        cases.append((total, 255, x_scale, y_scale, zero_point, is_int8))
    check(cases)


@example(255, 0)
@given(count=st.integers(1, 60), seed=SEEDS)
def test_sums_round_after_each_tap(count, seed):
    """Terms of both signs, so that sums are of all sizes, and many that are ties."""
    rng = np.random.default_rng(seed)
    scale = 2**23 + int(rng.choice([0, 1, 2**22, rng.integers(2**23)]))
    reach = int(rng.choice([2, 30, 255]))
    steps = rng.integers(-reach, reach, (count, LANES), endpoint=True)
    steps[:, 0], steps[:, 1] = 255, -255
    terms = (steps.astype(np.float32) * np.float32(scale)).astype(np.int64)
    dut = MeanAdder(TINY, 2)

    async def bench(ctx):
        for tap, term in enumerate(terms):
            ctx.set(dut.valid, 1)
            ctx.set(dut.first, tap == 0)
            ctx.set(dut.last, tap == count - 1)
            ctx.set(dut.count, tap + 1)
            await ctx.tick()
            ctx.set(dut.valid, 0)
            await ctx.tick()
            for lane in range(LANES):
                ctx.set(dut.terms[lane], int(term[lane]))
        await ctx.tick().until(dut.o_valid)

    async def result(ctx):
        sums, tapped = await ctx.tick().sample(dut.o, dut.o_count).until(dut.o_valid)
        expected = np.zeros(LANES, np.float32)
        for term in terms:
            expected += term.astype(np.float32)
        assert [sums[lane] for lane in range(LANES)] == expected.astype(np.int64).tolist()
        assert tapped == count

    simulate(dut, bench, background=[result])
