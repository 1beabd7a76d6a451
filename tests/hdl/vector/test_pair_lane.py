"""A lane of quantised pairs rounds as float32 does, which exact rationals confirm."""

from typing import NamedTuple

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.commands import Flag, Opcode
from halfdome.hdl.descriptors import pack
from halfdome.hdl.vector.fixed import FixedConstants
from halfdome.hdl.vector.pairs import PairLane
from halfdome.sim.golden import pairs
from tests.bench import simulate
from tests.hdl.arith import reference
from tests.hdl.vector.jobs import bits, random_pair_constants

ADD, MULTIPLY = Opcode.ADD_QUANTISED, Opcode.MULTIPLY_QUANTISED


class Case(NamedTuple):
    """A command, and bytes of a and b as they are stored."""

    opcode: Opcode
    values: dict[str, int]
    a: np.ndarray
    b: np.ndarray


class _Lane(wiring.Component):
    """A lane with the constants of a descriptor."""

    latency = PairLane.latency

    def __init__(self):
        super().__init__(
            {"descriptor": In(512), "start": In(1), "a": In(8), "b": In(8), "o": Out(8)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.constants = constants = FixedConstants()
        m.submodules.lane = lane = PairLane()
        m.d.comb += [
            constants.descriptor.eq(self.descriptor),
            constants.start.eq(self.start),
            lane.constants.eq(constants.o),
            lane.a.eq(self.a),
            lane.b.eq(self.b),
            self.o.eq(lane.o),
        ]
        return m


def numbers(raw: np.ndarray, is_int8: int, zero_point: int = 0) -> np.ndarray:
    kind = np.int8 if is_int8 else np.uint8
    zero = int(np.uint8(zero_point).view(kind))
    return raw.astype(np.uint8).view(kind).astype(np.int64) - zero


def expected(case: Case) -> list[int]:
    """By exact rationals."""
    v = case.values

    def number(x: int) -> int:
        return bits(np.float32(x))

    a, b = (
        numbers(raw, v[f"{name}_format"], v.get(f"{name}_zero_point", 0))
        for name, raw in (("a", case.a), ("b", case.b))
    )
    zero_point = int(numbers(np.uint8([v.get("y_zero_point", 0)]), v["y_format"])[0])
    low = -128 * v["y_format"]
    found = []
    for left, right in zip(a.tolist(), b.tolist(), strict=True):
        if case.opcode is ADD:
            outer, inner = (left, v["a_ratio"]), (right, v["b_ratio"])
            if v["flags"] & Flag.INNER_A:
                outer, inner = inner, outer
            within = reference.fma(FLOAT32, number(inner[0]), inner[1], v["offset"])
            total = reference.fma(FLOAT32, number(outer[0]), outer[1], within)
        else:
            product = reference.multiply(FLOAT32, number(left), number(right))
            scaled = reference.multiply(FLOAT32, product, v["multiplier"])
            total = reference.add(FLOAT32, scaled, number(zero_point))
        rounded = reference.to_int(FLOAT32, total, 64)
        found.append(min(max(rounded, low), low + 255) & 0xFF)
    return found


def golden(case: Case) -> list[int]:
    a, b = (x.astype(np.uint8) for x in (case.a, case.b))
    return pairs.result(case.opcode, case.values, a, b).view(np.uint8).tolist()


def check(cases: list[Case]):
    dut = _Lane()
    found: list[list[int]] = [[] for _ in cases]

    async def bench(ctx):
        for case, answers in zip(cases, found, strict=True):
            raw = pack(case.opcode, **case.values)
            ctx.set(dut.descriptor, int.from_bytes(raw, "little"))
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick()
            for step in range(len(case.a) + dut.latency):
                if step < len(case.a):
                    ctx.set(dut.a, int(case.a[step]))
                    ctx.set(dut.b, int(case.b[step]))
                if step >= dut.latency:
                    answers.append(ctx.get(dut.o))
                await ctx.tick()

    simulate(dut, bench)
    for case, answers in zip(cases, found, strict=True):
        exact = expected(case)
        assert golden(case) == exact, case.values
        assert answers == exact, case.values


def case(opcode: Opcode, a, b, *, flags=0, a_format=0, b_format=0, y_format=0, **constants) -> Case:
    formats = {"a_format": a_format, "b_format": b_format, "y_format": y_format}
    floats_ = {name: bits(value) if isinstance(value, float) else value
               for name, value in constants.items()}  # fmt: skip
    zeros = {} if opcode is ADD else dict.fromkeys((f"{x}_zero_point" for x in "aby"), 0)
    values = {"flags": flags} | formats | zeros | floats_
    return Case(opcode, values, np.array(a), np.array(b))


@given(opcode=st.sampled_from([ADD, MULTIPLY]), seed=st.integers(0, 2**32))
def test_random_pairs(opcode, seed):
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(4):
        values = random_pair_constants(opcode, rng)
        a, b = rng.integers(0, 256, (2, 40))
        cases.append(Case(opcode, values, a, b))
    check(cases)


BYTES = np.arange(256)


@pytest.mark.parametrize("flags", [0, Flag.INNER_A])
def test_every_byte_of_an_addition_whose_sums_are_ties(flags):
    check([
        case(ADD, BYTES, BYTES[::-1] // 3, flags=flags, a_ratio=0.5, b_ratio=0.25, offset=0.0),
        case(ADD, BYTES, 255 - BYTES, flags=flags, a_ratio=0.5, b_ratio=-1.5, offset=127.5),
    ])  # fmt: skip


def test_sums_beside_a_tie_round_to_it_as_floats_and_then_to_even():
    least = 2.0**-16
    check([
        # 3.5 less a quarter of the least that a float beside it differs by: 3.5, so 4.
        case(ADD, [1, 1], [1, 0], a_ratio=3.5, b_ratio=-least, offset=least - 2.0**-25),
        # The inner sum is rounded to 2.5 first, and then nothing is left of what was below.
        case(ADD, [0, 1], [1, 1], a_ratio=1.0, b_ratio=1.5, offset=1 - 2.0**-24),
        # Half of what a float below 1/2 differs by, which is half of that above.
        case(ADD, [0, 0], [1, 0], a_ratio=1.0, b_ratio=0.5, offset=-(2.0**-26)),
        case(ADD, [0, 0], [1, 0], a_ratio=1.0, b_ratio=0.5, offset=-(2.0**-25)),
    ])  # fmt: skip


def test_offsets_far_below_the_last_bit_break_ties():
    tiny = [2.0**-149, -(2.0**-149), 2.0**-60, -(2.0**-60), 2.0**-42, -(2.0**-42)]
    check([
        case(ADD, [1, 3, 0, 1], [0, 0, 0, 1], a_ratio=0.5, b_ratio=2.0**-16, offset=x)
        for x in tiny
    ])  # fmt: skip


def test_extremes_saturate():
    most, least = float(np.nextafter(np.float32(256), np.float32(0))), 2.0**-16
    ends = [0, 0, 1, 1, 127, 128, 128, 255, 255, 255], [0, 255, 0, 255, 128, 127, 128, 0, 1, 255]
    ratios = [most, -most, least, -least]
    offsets = [0.0, 131071.99, -131071.99]
    check([
        case(ADD, *ends, a_ratio=a, b_ratio=b, offset=c, a_format=kind, y_format=kind)
        for a in ratios for b in ratios for c in offsets for kind in (0, 1)
    ] + [
        case(MULTIPLY, *ends, multiplier=m, y_zero_point=zero, a_zero_point=zero, y_format=kind)
        for m in (3.999, -3.999, least, -least) for zero in (0, 255) for kind in (0, 1)
    ])  # fmt: skip


def test_products_that_are_ties_beside_every_zero_point():
    check([
        case(MULTIPLY, BYTES, np.full(256, 1), multiplier=0.5, y_zero_point=zero, a_zero_point=77,
             y_format=kind)
        for zero in (0, 1, 128, 255) for kind in (0, 1)
    ])  # fmt: skip
