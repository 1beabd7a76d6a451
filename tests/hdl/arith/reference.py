"""Floating-point arithmetic on rationals, written without regard to how the hardware does it."""

from fractions import Fraction
from functools import lru_cache

import numpy as np
from amaranth.sim import Simulator

from halfdome.hdl.arith.format import FloatFormat
from tests.bench import CLOCK_PERIOD


def split(format: FloatFormat, bits: int) -> tuple[int, int, int]:
    """Sign, biased exponent and fraction of a number."""
    fraction = bits & (1 << format.significand_bits) - 1
    exponent = bits >> format.significand_bits & (1 << format.exponent_bits) - 1
    return bits >> format.width - 1, exponent, fraction


def is_nan(format: FloatFormat, bits: int) -> bool:
    return bits & (1 << format.width - 1) - 1 > format.infinity


def is_infinite(format: FloatFormat, bits: int) -> bool:
    return bits & (1 << format.width - 1) - 1 == format.infinity


def sign_of(format: FloatFormat, bits: int) -> int:
    return bits >> format.width - 1


@lru_cache(1 << 14)
def value(format: FloatFormat, bits: int) -> Fraction:
    """The rational that a finite number stands for."""
    sign, exponent, fraction = split(format, bits)
    if exponent:
        fraction += 1 << format.significand_bits
    scale = max(exponent, 1) - format.bias - format.significand_bits
    return (-1) ** sign * fraction * Fraction(2) ** scale


def nearest(format: FloatFormat, x: Fraction, zero_sign: int) -> int:
    """The number nearest to `x`, ties to even; a zero result of `x == 0` has `zero_sign`."""
    if x == 0:
        return zero_sign << format.width - 1
    sign = int(x < 0)
    x = abs(x)
    power = x.numerator.bit_length() - x.denominator.bit_length()
    if x < Fraction(2) ** power:
        power -= 1
    power = max(power, 1 - format.bias)
    ulp = Fraction(2) ** (power - format.significand_bits)
    # Numbers of one binade are consecutive integers, and so is the first of the next.
    steps = round(x / ulp)
    magnitude = steps + (power + format.bias - 1 << format.significand_bits)
    return sign << format.width - 1 | min(magnitude, format.infinity)


def fma(format: FloatFormat, a: int, b: int, c: int) -> int:
    """a * b + c."""
    sign = sign_of(format, a) ^ sign_of(format, b)
    infinite = is_infinite(format, a) or is_infinite(format, b)
    if any(is_nan(format, x) for x in (a, b, c)):
        return format.quiet_nan
    if infinite and (_is_zero(format, a) or _is_zero(format, b)):
        return format.quiet_nan
    if infinite:
        if is_infinite(format, c) and sign_of(format, c) != sign:
            return format.quiet_nan
        return sign << format.width - 1 | format.infinity
    if is_infinite(format, c):
        return c
    exact = value(format, a) * value(format, b) + value(format, c)
    return nearest(format, exact, sign & sign_of(format, c))


def add(format: FloatFormat, a: int, b: int) -> int:
    """a + b."""
    return fma(format, a, format.bias << format.significand_bits, b)


def multiply(format: FloatFormat, a: int, b: int) -> int:
    """a * b: the addend is the zero that changes no zero's sign."""
    sign = sign_of(format, a) ^ sign_of(format, b)
    return fma(format, a, b, sign << format.width - 1)


def multiply_flushing(format: FloatFormat, a: int, b: int) -> int:
    """a * b, subnormal operands and results taken for zero: the result as if there were no least
    exponent."""
    sign = (sign_of(format, a) ^ sign_of(format, b)) << format.width - 1
    a, b = (0 if split(format, x)[1] == 0 else x for x in (a, b))
    product = multiply(format, a, b)
    if is_nan(format, product) or is_infinite(format, product):
        return product
    least, half_ulp = Fraction(2) ** (1 - format.bias), Fraction(1, 2 << format.precision)
    if abs(value(format, a) * value(format, b)) < least * (1 - half_ulp):
        return sign
    return product


def divide(format: FloatFormat, a: int, b: int) -> int:
    """a / b."""
    sign = sign_of(format, a) ^ sign_of(format, b)
    zeros, infinities = ([test(format, x) for x in (a, b)] for test in (_is_zero, is_infinite))
    if is_nan(format, a) or is_nan(format, b) or all(zeros) or all(infinities):
        return format.quiet_nan
    if infinities[0] or zeros[1]:
        return sign << format.width - 1 | format.infinity
    if infinities[1]:
        return sign << format.width - 1
    return nearest(format, value(format, a) / value(format, b), sign)


def to_int(format: FloatFormat, bits: int, width: int) -> int:
    """The integer nearest to a number, saturated; 0 for NaN."""
    low, high = -(1 << width - 1), (1 << width - 1) - 1
    if is_nan(format, bits):
        return 0
    if is_infinite(format, bits):
        return low if sign_of(format, bits) else high
    return min(max(round(value(format, bits)), low), high)


def _is_zero(format: FloatFormat, bits: int) -> bool:
    return bits & (1 << format.width - 1) - 1 == 0


def edges(format: FloatFormat) -> list[int]:
    """Zeros, the ends of the subnormals and of the normals, ones, infinities, NaN: both signs."""
    one = format.bias << format.significand_bits
    least_normal = 1 << format.significand_bits
    magnitudes = [
        0, 1, 2, least_normal - 1, least_normal, least_normal + 1, one - 1, one, one + 1,
        one + least_normal // 2, format.infinity - 1, format.infinity, format.quiet_nan,
        format.infinity + 1,
    ]  # fmt: skip
    return [sign << format.width - 1 | m for sign in (0, 1) for m in magnitudes]


def mixed(format: FloatFormat, count: int, rng: np.random.Generator) -> list[int]:
    """Numbers of every kind: any bits, near 1, subnormal, few fraction bits (ties), edges."""
    top = 1 << format.width - 1
    fraction = format.significand_bits
    raw = rng.integers(0, 2 * top, count)
    near = rng.integers(max(format.bias - 3, 0), format.bias + 2, count) << fraction
    kinds = [
        raw,
        raw & (top | (1 << fraction) - 1) | near,
        raw & (top | (1 << fraction) - 1),
        raw >> fraction - 2 << fraction - 2,
        raw & ~((1 << fraction // 2) - 1),
        np.asarray(edges(format))[raw % len(edges(format))],
    ]
    return np.choose(rng.integers(0, len(kinds), count), kinds).tolist()


def stream(dut, **operands) -> list[int]:
    """Feeds a new set of operands every cycle and returns each one's result.

    A result is taken exactly `dut.latency` cycles after its operands, so a wrong latency shows as
    wrong results.
    """
    count = len(next(iter(operands.values())))
    results: list[int] = []
    sim = Simulator(dut)
    sim.add_clock(CLOCK_PERIOD)
    ports = [getattr(dut, name) for name in operands]

    async def drive(ctx):
        for row in zip(*operands.values(), strict=True):
            for port, bits in zip(ports, row, strict=True):
                ctx.set(port, int(bits))
            await ctx.tick()

    async def watch(ctx):
        for _ in range(dut.latency):
            await ctx.tick()
        for _ in range(count):
            _, _, o = await ctx.tick().sample(dut.o)
            results.append(o)

    sim.add_testbench(drive)
    sim.add_testbench(watch)
    sim.run()
    return results
