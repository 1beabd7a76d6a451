"""The function lane is its golden twin in every bit; that one is close to the true function."""

import math

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.commands import Function
from halfdome.hdl.vector import tables
from halfdome.hdl.vector.function import FunctionLane, FunctionTables
from halfdome.hdl.vector.tables import MAX_ERROR, ROWS
from halfdome.sim.golden.functions import apply, parabola
from tests.hdl.arith.reference import edges, mixed, stream

_erf = np.vectorize(math.erf, otypes=[np.float64])

TRUE = {
    Function.SIGMOID: lambda x: 1 / (1 + np.exp(-x)),
    Function.TANH: np.tanh,
    Function.EXP: np.exp,
    Function.GELU: lambda x: np.where(np.isneginf(x), 0, x / 2 * (1 + _erf(x / math.sqrt(2)))),
    Function.RECIPROCAL: lambda x: 1 / x,
    Function.RSQRT: lambda x: 1 / np.sqrt(x),
}
"""In float64."""


class OneLane(wiring.Component):
    """A lane with tables of its own."""

    latency = FunctionLane.latency

    def __init__(self, function: Function):
        self._function = function
        super().__init__({"i": In(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.tables = rom = FunctionTables(1)
        m.submodules.lane = lane = FunctionLane()
        m.d.comb += [
            rom.index[0].eq(lane.index),
            rom.power_index[0].eq(lane.power_index),
            lane.row.eq(rom.row[0]),
            lane.power.eq(rom.power[0]),
            lane.function.eq(self._function),
            lane.i.eq(self.i),
            self.o.eq(lane.o),
        ]
        return m


def assert_bits(function: Function, x: np.ndarray) -> None:
    got = np.array(stream(OneLane(function), i=x.view(np.uint32).tolist()), np.uint32)
    np.testing.assert_array_equal(got, apply(function, x).view(np.uint32))


@given(seed=st.integers(0, 2**32), function=st.sampled_from(list(TRUE)))
def test_a_lane_is_its_golden_twin(seed, function):
    rng = np.random.default_rng(seed)
    some = np.array(mixed(FLOAT32, 60, rng) + edges(FLOAT32), np.uint32).view(np.float32)
    near = rng.normal(size=100) * 10.0 ** rng.uniform(-5, 2, 100)
    assert_bits(function, np.concatenate([some, near.astype(np.float32)]))


@pytest.mark.parametrize("function", TRUE)
def test_every_exponent_and_octave_edge(function):
    exponents = np.arange(256, dtype=np.uint32) << 23
    around = np.concatenate([exponents, exponents | 0x7F_FFFF, exponents | 0x8012_3456])
    assert_bits(function, around.view(np.float32))


def assert_close(function: Function, x: np.ndarray) -> None:
    """Within the stated bound wherever the true value is a number that fp32 reaches."""
    x = x[~np.isnan(x)]
    if function in (Function.RECIPROCAL, Function.RSQRT):  # a subnormal counts as zero
        x = x[(np.abs(x) >= np.finfo(np.float32).tiny) | (x == 0)]
    with np.errstate(all="ignore"):
        true = TRUE[function](x.astype(np.float64))
        y = apply(function, x).astype(np.float64)
        error = np.abs(y - true)
        relative, absolute = MAX_ERROR[function]
        bound = relative * np.abs(true) + absolute
    finite = np.abs(true) <= np.finfo(np.float32).max
    worst = np.flatnonzero(finite & (error > bound))
    assert not len(worst), f"{function.name}: {x[worst[:5]]} gives {y[worst[:5]]}"
    beyond = np.abs(true) > float(np.finfo(np.float32).max) * (1 + relative)
    np.testing.assert_array_equal(y[beyond], np.sign(true[beyond]) * np.inf)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(true))


@pytest.mark.parametrize("function", TRUE)
def test_every_half_is_within_the_stated_error(function):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        assert_close(function, halves.astype(np.float32))


@given(seed=st.integers(0, 2**32), function=st.sampled_from(list(TRUE)))
def test_any_number_is_within_the_stated_error(seed, function):
    rng = np.random.default_rng(seed)
    anything = rng.integers(0, 1 << 32, 4000, np.uint32).view(np.float32)
    near = rng.normal(size=16000) * 10.0 ** rng.uniform(-3, 2, 16000)
    assert_close(function, np.concatenate([anything, near.astype(np.float32)]))


@pytest.mark.slow
@pytest.mark.parametrize("function", TRUE)
def test_every_segment_is_within_the_stated_error(function):
    """32 numbers in each of the 2**18 cells of sign, exponent and 9 mantissa bits."""
    cells = np.arange(1 << 18, dtype=np.uint32) << 14
    for step in np.linspace(0, (1 << 14) - 1, 32).astype(np.uint32):
        assert_close(function, (cells | step).view(np.float32))


def test_the_stated_errors_are_no_looser_than_twice_what_is_seen():
    rng = np.random.default_rng(5)
    x = (rng.normal(size=300_000) * 10.0 ** rng.uniform(-2, 1.5, 300_000)).astype(np.float32)
    with np.errstate(all="ignore"):
        for function, (relative, absolute) in MAX_ERROR.items():
            true = TRUE[function](x.astype(np.float64))
            usual = np.abs(true) > 1e-3
            error = np.abs(apply(function, x) - true)[usual]
            bound = (relative * np.abs(true) + absolute)[usual]
            assert np.nanmax(error / bound) > 0.5, function.name


@pytest.mark.parametrize(
    ("function", "x", "y"),
    [
        (Function.EXP, [0.0, -0.0, 1e-45, -np.inf, np.inf, 89.0], [1, 1, 1, 0, np.inf, np.inf]),
        (Function.EXP, [-104.5, -1e30, 3e38], [0, 0, np.inf]),
        (Function.SIGMOID, [0.0, -np.inf, np.inf, 1e-45, -1e30], [0.5, 0, 1, 0.5, 0]),
        (Function.TANH, [0.0, -0.0, np.inf, -np.inf, 1e-45, -9.0], [0, -0.0, 1, -1, 1e-45, -1]),
        (Function.GELU, [0.0, np.inf, -np.inf, 9.5, -9.5, -3e38], [0, np.inf, 0, 9.5, 0, 0]),
        (Function.RECIPROCAL, [1, -2, 0.0, -0.0, np.inf, 2.0**127], [1, -0.5, np.inf, -np.inf, 0,
                                                                   2.0**-127]),
        (Function.RSQRT, [1, 4, 0.0, np.inf, 2.0**-126, 2.0], [1, 0.5, np.inf, 0, 2.0**63,
                                                              np.sqrt(0.5)]),
        (Function.RELU, [-1, 2, -0.0, -np.inf, np.inf], [0, 2, 0, 0, np.inf]),
        (Function.IDENTITY, [-1, -0.0, 1e-45], [-1, -0.0, 1e-45]),
    ],
)  # fmt: skip
def test_values_that_are_exact(function, x, y):
    got = apply(function, np.float32(x))
    np.testing.assert_allclose(got, np.float32(y), rtol=1e-7 * (function is Function.RSQRT))
    np.testing.assert_array_equal(np.signbit(got), np.signbit(np.float32(y)))


@pytest.mark.parametrize("function", Function)
def test_nan_stays_and_rsqrt_of_a_negative_is_nan(function):
    x = np.uint32([0x7F80_0001, 0xFFC1_2345]).view(np.float32)
    assert (apply(function, x).view(np.uint32) == 0x7FC0_0000).all()
    assert np.isnan(apply(Function.RSQRT, np.float32([-1, -np.inf, -1e30]))).all()


def test_segments_meet_and_hold_what_the_lane_expects():
    """Values stay between a half and four, where the lane looks for their leading bit."""
    first, last = (np.full(len(ROWS), d, np.int64) for d in (0, (1 << 17) - 1))
    rows = np.arange(len(ROWS))
    starts, ends = parabola(rows, first), parabola(rows, last)
    assert min(starts.min(), ends.min()) >= 0.5
    assert max(starts.max(), ends.max()) < 4
    inside = np.arange(len(tables.TANH_ROWS) - 1) % tables.SEGMENTS != tables.SEGMENTS - 1
    steps = np.abs(starts[1:] - ends[:-1])[: len(inside)][inside]
    assert steps.max() < 1e-6


def test_a_coefficient_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^Row\(c0=.*: does not fit 28, 24 and 18 bits"):
        tables._segment(lambda x: 100 * x, 1.0, 1.0)
