"""Whatever is raised, and wherever: the next good call is right, and all memory comes back.

The public calls run on cards of plain Python, so that every line of the host can be the last.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import halfdome
from halfdome.hdl.config import preset
from halfdome.host.bench import faults
from halfdome.host.bench.dlrm import differing
from halfdome.host.compiler.compile import compile
from halfdome.host.runtime.deployment import Deployment
from tests.host.golden_platform import GoldenPlatform
from tests.host.interrupt import Interrupt, confined

TINY = preset("tiny")
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (5, 6), np.uint8)
W = RNG.integers(-9, 9, (4, 6)).astype(np.int8)
Z = RNG.integers(0, 256, (2, 3, 6), np.uint8)
IMAGE = RNG.integers(0, 256, (5, 5, 4), np.uint8)
KERNEL = RNG.integers(-9, 9, (4, 3, 3, 2)).astype(np.int8)
FLOATS = RNG.normal(size=(3, 5)).astype(np.float32)
TABLE = RNG.normal(size=(9, 7)).astype(np.float32)
BAGS = np.array([3, 0, 8, 8], np.int64), np.array([0, 1, 1])

CALLS = {
    "linear": lambda c: c.linear(X, W, 0.1, y_zero_point=3),
    "matmul": lambda c: c.matmul(Z, Z, 1e-3, transposed=True),
    "conv2d": lambda c: c.conv2d(IMAGE, KERNEL, 1e-3, stride=2, pads=1, groups=2),
    "embedding_bag": lambda c: c.embedding_bag(TABLE, *BAGS),
    "add": lambda c: c.add(FLOATS, FLOATS[:1], reduce="sum"),
    "quantise": lambda c: c.quantise(FLOATS, 20.0, 128),
}
"""Good calls, of cards and of the reference."""

BAD_CALLS = {
    "short bias": lambda c: c.linear(X, W, 0.1, np.zeros(3, np.int32)),
    "float strides": lambda c: c.conv2d(IMAGE, KERNEL, 1e-3, stride=(1.0, 1.0)),
    "small pads": lambda c: c.conv2d(IMAGE, KERNEL, 1e-3, pads=np.full(3, 1, np.int8), groups=2),
    "infinite": lambda c: c.linear(X, W, np.inf),
    "bad index": lambda c: c.embedding_bag(TABLE, np.array([9]), np.array([0])),
    "too large": lambda c: c.tensor(np.zeros((2000, 2000), np.uint8)),
    "no mode": lambda c: c.embedding_bag(TABLE, *BAGS, mode="max"),
    "of another card": lambda c: c.release(c.bad),
}


def lines_of(work):
    """Lines that the host runs for it."""
    with Interrupt() as counted:
        work()
    return counted.lines


def interrupted(work, at, kind=KeyboardInterrupt):
    """Whether the exception came out; some code expects some kinds."""
    try:
        with Interrupt(at, kind):
            confined(work)
    except kind:
        return True
    return False


@pytest.fixture(scope="module")
def platform():
    return GoldenPlatform(TINY, 2)


def check_call(platform, name, at, kind=KeyboardInterrupt):
    card, call = platform.cards[0], CALLS[name]
    owned = platform.owned()
    interrupted(lambda: call(card), at, kind)
    np.testing.assert_array_equal(call(card), call(platform.reference))
    assert platform.owned() == owned


@pytest.mark.parametrize("name", CALLS)
@given(place=st.floats(0, 1), kind=st.sampled_from([KeyboardInterrupt, MemoryError, OSError]))
def test_an_exception_at_some_line_leaves_nothing_behind(platform, name, place, kind):
    lines = lines_of(lambda: CALLS[name](platform.cards[0]))
    check_call(platform, name, 1 + int(place * (lines - 1)), kind)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_an_exception_at_any_line_leaves_nothing_behind(name):
    platform = GoldenPlatform(TINY, 2)
    for at in range(1, 1 + lines_of(lambda: CALLS[name](platform.cards[0]))):
        check_call(platform, name, at)


STEPS = st.lists(
    st.tuples(st.sampled_from([*CALLS, *BAD_CALLS, "keep"]), st.integers(0, 3000)),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), steps=STEPS)
def test_good_and_bad_calls_in_any_order_with_exceptions_anywhere(seed, steps):
    platform = GoldenPlatform(TINY, 2, seed)
    card, before = platform.cards[0], platform.owned()
    card.bad = platform.accelerators[1].place(64)
    kept = []
    for name, at in steps:
        if name in BAD_CALLS:
            with pytest.raises((ValueError, MemoryError, halfdome.CommandError)):
                BAD_CALLS[name](card)
        elif name == "keep":
            kept += [card.tensor(X)] if not kept else []
        else:
            interrupted(lambda name=name: CALLS[name](card), at)
    for name in CALLS:
        np.testing.assert_array_equal(CALLS[name](card), CALLS[name](platform.reference))
    for tensor in kept:
        np.testing.assert_array_equal(tensor.numpy(), X)
        tensor.release()
    platform.accelerators[1].release(card.bad)
    assert platform.owned() == before


class Served:
    """A made-up recommender on two cards."""

    def __init__(self, seed=0):
        self.platform = GoldenPlatform(TINY, 2, seed)
        self.empty = self.platform.owned()
        self.service = faults.made_up(np.random.default_rng(3), 16)
        self.deployment = Deployment(
            self.platform.session, self.platform.accelerators,
            lambda numbers, before: compile(self.service.graph, TINY, len(numbers)), lambda: 0,
        )  # fmt: skip
        self.loaded = self.platform.owned()

    def run(self):
        return self.deployment.run(self.service.requests)

    def check(self):
        assert differing(self.run(), self.service.expected) == 0
        assert self.platform.owned() == self.loaded


@given(place=st.floats(0, 1), kind=st.sampled_from([KeyboardInterrupt, MemoryError]))
def test_an_exception_while_requests_are_in_flight(place, kind):
    served = Served()
    served.check()
    lines = lines_of(served.run)
    interrupted(served.run, 1 + int(place * (lines - 1)), kind)
    served.check()
    served.deployment.release()
    assert served.platform.owned() == served.empty


@pytest.mark.slow
@pytest.mark.long
def test_an_exception_at_any_line_while_requests_are_in_flight():
    served = Served()
    for at in range(1, 1 + lines_of(served.run), 3):
        interrupted(served.run, at)
        served.check()
    assert served.deployment.incidents == []


@given(place=st.floats(0, 1))
def test_an_exception_while_a_model_is_loaded(place):
    lines = lines_of(Served)
    with_platform = GoldenPlatform(TINY, 2)
    empty, service = with_platform.owned(), faults.made_up(np.random.default_rng(3), 16)

    def load():
        return Deployment(
            with_platform.session, with_platform.accelerators,
            lambda numbers, before: compile(service.graph, TINY, len(numbers)), lambda: 0,
        )  # fmt: skip

    if interrupted(load, 1 + int(place * (lines - 1))):
        assert with_platform.owned() == empty
    deployment = load()
    assert differing(deployment.run(service.requests), service.expected) == 0


def test_a_callback_that_raises_loses_no_later_request():
    served = Served()

    def progress(rows):
        raise LookupError(rows)

    with pytest.raises(LookupError):
        served.deployment.run(served.service.requests, progress)
    served.check()
