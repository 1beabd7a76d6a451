"""An inverse makes rounded quotients of rounded products, which exact rationals confirm."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.vector.inverse import Inverse, inverse_bits, inverse_of
from tests.bench import simulate

LOW, HIGH = 1 << 23, 1 << 24
SIGNIFICANDS = st.one_of(
    st.integers(LOW, HIGH - 1), st.integers(LOW, LOW + 9), st.integers(HIGH - 9, HIGH - 1)
)


def rounded(x: Fraction) -> Fraction:
    """To 24 bits, ties to even."""
    unit = Fraction(1)
    while x / unit >= HIGH:
        unit *= 2
    while x / unit < LOW:
        unit /= 2
    return round(x / unit) * unit


def by_product(a: int, divisor: int, divisor_bits: int) -> Fraction:
    inverse, exponent = inverse_of(divisor, divisor_bits)
    product = a * inverse
    unit = 1 << product.bit_length() - 25
    significand = (product // unit + 1) // 2 * 2 * unit
    return Fraction(significand, 1 << inverse_bits(divisor_bits) - 1 + exponent)


@given(a=SIGNIFICANDS, divisor=st.one_of(SIGNIFICANDS, st.integers(1, 255)))
def test_products_round_to_quotients(a, divisor):
    bits = 8 if divisor < 256 else 24
    assert by_product(a, divisor, bits) == rounded(Fraction(a, divisor))


@pytest.mark.parametrize("divisor_bits", [8, 24])
def test_quotients_next_to_a_half(divisor_bits):
    """Twice the quotient, in its last place, is odd and off by `off` over the divisor."""
    rng = np.random.default_rng(divisor_bits)
    near = 0
    halves = rng.integers(1 << divisor_bits - 2, 1 << divisor_bits - 1, 300).tolist()
    for divisor, off, places in product(
        (2 * half + 1 for half in halves), (-2, -1, 1, 2), (divisor_bits, divisor_bits + 1)
    ):
        first = off * pow(2, -places, divisor) % divisor
        least = -(-(LOW - first) // divisor)
        a = first + divisor * int(rng.integers(least, max(least, HIGH // divisor) + 1))
        doubled = ((a << places) - off) // divisor
        if a < HIGH and HIGH < doubled < 2 * HIGH and doubled % 2:
            near += 1
            assert by_product(a, divisor, divisor_bits) == rounded(Fraction(a, divisor))
    assert near > 300


def test_the_inverse_is_found_in_the_stated_cycles():
    dut = Inverse()
    rng = np.random.default_rng(0)
    divisors = [LOW, LOW + 1, HIGH - 1, *rng.integers(LOW, HIGH, 20).tolist()]

    async def bench(ctx):
        for divisor in divisors:
            ctx.set(dut.divisor, divisor)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for _ in range(dut.latency - 1):
                assert not ctx.get(dut.known)
                await ctx.tick()
            assert ctx.get(dut.known)
            assert (ctx.get(dut.o), 24 - ctx.get(dut.is_power)) == inverse_of(divisor, 24)

    simulate(dut, bench)
