"""QuotientToByte rounds as numpy's float32 division and rounding do, at ties and everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.quotient import QuotientToByte
from halfdome.sim.golden import floats
from tests.hdl.arith.reference import edges, mixed, stream

LEAST, MOST = 0x0080_0000, 0x7F7F_FFFF  # normal numbers


def quantised(x, scale, zero_point):
    """By numpy alone."""
    with np.errstate(all="ignore"):
        total = np.rint(x / scale) + np.float32(zero_point)
    return np.where(np.isnan(total), 0, total.clip(0, 255)).astype(np.uint8)


def around_ties(scale):
    """What lies at, next to and near halves of whole numbers, times the scale."""
    halves = np.arange(1, 520, dtype=np.float32) / 2
    with np.errstate(over="ignore", under="ignore"):
        at = (halves * scale).view(np.int32)
    beside = np.concatenate([at + each for each in range(-2, 3)]).astype(np.uint32)
    return np.concatenate([beside, beside | np.uint32(1 << 31)]).tolist()


def check(numbers, scale, zero_point):
    scale = np.uint32(scale).view(np.float32)
    x = np.array(numbers, np.uint32).view(np.float32)
    expected = quantised(x, scale, zero_point)
    assert floats.quotient(x, scale, zero_point).tolist() == expected.tolist()
    dut = QuotientToByte()
    constants = {"scale": int(scale.view(np.uint32)), "zero_point": zero_point}
    operands = {name: [value] * len(numbers) for name, value in constants.items()}
    assert stream(dut, i=numbers, **operands) == expected.tolist()


def test_latency_is_as_stated():
    assert QuotientToByte.latency == 9


@pytest.mark.parametrize(
    "scale",
    [LEAST, LEAST + 1, 0x3DCC_CCCD, 0x3F7F_FFFF, 0x3F80_0000, 0x3F80_0001, 0x4040_0000, MOST],
)
def test_halves_go_to_the_even_neighbour(scale):
    numbers = around_ties(np.uint32(scale).view(np.float32))
    check(numbers, scale, scale % 256)


def test_a_division_in_turns():
    dut, scale, zero_point = QuotientToByte(in_turns=True), np.float32(0.1), 7
    numbers = np.array(around_ties(scale)[::41] + edges(FLOAT32)[::3], np.uint32)
    # A number is there in the cycle of `start` alone.
    steps = np.zeros((len(numbers), dut.interval), np.uint32)
    steps[:, 0] = numbers
    start = np.tile(np.arange(dut.interval) == 0, len(numbers))
    operands = {"start": start.astype(int).tolist(), "i": steps.reshape(-1).tolist()}
    constants = {"scale": int(scale.view(np.uint32)), "zero_point": zero_point}
    operands |= {name: [value] * len(start) for name, value in constants.items()}
    expected = quantised(numbers.view(np.float32), scale, zero_point)
    assert stream(dut, **operands)[:: dut.interval] == expected.tolist()


@given(seed=st.integers(0, 2**32), scale=st.integers(LEAST, MOST), zero_point=st.integers(0, 255))
def test_numbers_of_every_kind(seed, scale, zero_point):
    rng = np.random.default_rng(seed)
    number = np.uint32(scale).view(np.float32)
    near = rng.choice(around_ties(number), 150).tolist()
    with np.errstate(over="ignore", under="ignore"):
        within = (rng.uniform(-300, 300, 100).astype(np.float32) * number).view(np.uint32)
    check(mixed(FLOAT32, 80, rng) + edges(FLOAT32) + near + within.tolist(), scale, zero_point)
