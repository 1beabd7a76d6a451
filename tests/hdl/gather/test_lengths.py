"""Lengths and offsets become the same checked lengths, under stalls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.lengths import BagLengths
from halfdome.sim.golden.gather import lengths_of
from tests.bench import monitor, simulate, sink, source

MASK = 2**64 - 1


def run(elements, offsets, end, *, stall=0.0, seed=0, expected=None):
    """The lengths of one bag for each element: an int, or None for one that is too long."""
    dut = BagLengths(CardConfig())
    expected = len(elements) if expected is None else expected
    received = []

    async def restart(ctx):
        ctx.set(dut.bags, len(elements))
        ctx.set(dut.end, end)
        ctx.set(dut.offsets, offsets)
        ctx.set(dut.restart, 1)
        await ctx.tick()
        ctx.set(dut.restart, 0)
        await source(dut.i, [e & MASK for e in elements], seed=seed, stall=stall)(ctx)

    simulate(
        dut,
        sink(dut.o, expected, received, seed=seed + 1, stall=stall),
        background=[restart, monitor(dut.o, "o")],
    )
    return ["negative" if p.negative else "long" if p.long else p.length for p in received]


def as_seen(lengths):
    return ["negative" if v < 0 else "long" if v >= 2**24 else v for v in lengths]


integers = st.integers(-3, 30) | st.sampled_from(
    [2**24 - 1, 2**24, 2**31 - 1, -(2**31), 2**32, 2**32 + 3, 2**63 - 1, -(2**63)]
)


@given(
    lengths=st.lists(integers, max_size=8),
    stall=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**16),
)
def test_lengths_pass_and_are_told_from_those_that_cannot_be(lengths, stall, seed):
    assert run(lengths, False, 30, stall=stall, seed=seed) == as_seen(lengths)


@given(
    good=st.lists(st.integers(0, 9), max_size=6),
    then=st.lists(integers, max_size=2),
    zero=st.sampled_from([0, 0, 0, 1, -1, 2**40]),
    stall=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**16),
)
def test_offsets_become_lengths_up_to_the_first_bad_one(good, then, zero, stall, seed):
    offsets = [zero]
    for length in good:
        offsets.append(offsets[-1] + length)
    offsets += then
    end = 60
    # A reader looks no further than the first that is bad.
    expected, total = [], 0
    for length in as_seen(lengths_of(offsets, end)):
        expected.append(length)
        if isinstance(length, str) or (total := total + length) > end:
            break
    assert run(offsets, True, end, stall=stall, seed=seed, expected=len(expected)) == expected


@pytest.mark.parametrize("offsets", [False, True])
def test_a_restart_forgets_what_was_on_offer(offsets):
    dut = BagLengths(CardConfig())
    received = []

    async def host(ctx):
        ctx.set(dut.end, 9)
        for elements in ([0, 3, 5], [0, 4]):
            ctx.set(dut.bags, len(elements))
            ctx.set(dut.offsets, offsets)
            ctx.set(dut.restart, 1)
            await ctx.tick()
            ctx.set(dut.restart, 0)
            ctx.set(dut.i.valid, 1)
            for element in elements[:2]:
                ctx.set(dut.i.p, element)
                await ctx.tick()
            ctx.set(dut.i.valid, 0)
            await ctx.tick()
        await sink(dut.o, 1, received)(ctx)

    simulate(dut, host)
    assert received[0].length == (4 if offsets else 0)
