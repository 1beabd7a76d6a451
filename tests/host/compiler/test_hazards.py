"""What orders a program is needed, all of it: whatever is taken out or turned around is found."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import PRESETS
from halfdome.host.compiler import hazards
from halfdome.host.compiler.compile import compile
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.hazards import HazardError
from halfdome.host.runtime.program import Part
from tests.host.recommenders import Recommender

TINY = PRESETS["tiny"]
TARGET = HalfdomeTarget(TINY)
CARDS = 3
PER_COMMAND = ("queue", "stage", "waits", "peer", "arrival")


def changed(program, position, **arrays):
    """The program with other arrays in one of its parts."""
    parts = list(program.parts)
    parts[position] = replace(parts[position], **arrays)
    return replace(program, parts=tuple(parts))


def set_at(array, place, value):
    """A copy of an array with another element."""
    copy = array.copy()
    copy[place] = value
    return copy


def entries(program, name):
    """Position and place of every event that an array of the parts names."""
    for position, part in enumerate(program.parts):
        for place in map(tuple, np.argwhere(getattr(part, name) >= 0)):
            yield position, place


@pytest.fixture(scope="module")
def served():
    """A program of three cards, which send each other what they pooled."""
    program = compile(Recommender(5).graph, TINY, CARDS)
    assert any(part.peer.max(initial=-1) >= 0 for part in program.parts)
    return program


def assert_all_found(programs):
    """Every one of these programs is refused; how many they are."""
    unseen, count = [], 0
    for what, program in programs:
        count += 1
        try:
            TARGET.check(program)
        except HazardError:
            continue
        unseen.append(what)
    assert not unseen
    return count


@given(seed=st.integers(0, 1 << 30), cards=st.integers(1, 4))
def test_any_wait_that_is_taken_out_is_found(seed, cards):
    program = compile(Recommender(seed).graph, TINY, cards)
    assert_all_found(
        ((position, place), changed(program, position, waits=set_at(part.waits, place, -1)))
        for position, place in entries(program, "waits")
        for part in [program.parts[position]]
    )


def test_any_wait_for_something_else_of_the_same_queue_that_ends_earlier_is_found(served):
    def earlier():
        for position, place in entries(served, "waits"):
            part, first = served.parts[position], served.first_event(position)
            row = int(part.waits[place]) - first
            if not 0 <= row < len(part):
                continue
            before = np.flatnonzero(
                (part.queue[:row] == part.queue[row]) & (part.stage[:row] == part.stage[row])
            )
            if len(before):
                waits = set_at(part.waits, place, first + int(before[-1]))
                yield (position, place), changed(served, position, waits=waits)

    assert assert_all_found(earlier()) > 3


def test_what_a_peer_is_not_told_is_found(served):
    def untold():
        for position, place in entries(served, "arrival"):
            arrival = set_at(served.parts[position].arrival, place, -1)
            yield (position, place), changed(served, position, arrival=arrival)

    assert assert_all_found(untold()) > 3


def test_commands_that_wait_for_each_other_are_named(served):
    part, first = served.parts[0], served.first_event(0)
    row, place = next(
        (row, place) for row, place in np.argwhere(part.waits >= first) if part.waits[row, 0] >= 0
    )
    waited = int(part.waits[row, place]) - first
    waits = set_at(part.waits, (waited, 1), first + row)
    with pytest.raises(HazardError, match="wait for each other"):
        TARGET.check(changed(served, 0, waits=waits))


def test_what_is_issued_before_that_for_which_it_waits_is_named(served):
    part = served.parts[0]
    order = list(reversed(range(len(part))))
    turned = {name: getattr(part, name)[order] for name in PER_COMMAND}
    with pytest.raises(HazardError, match=r"is issued before|wait for each other"):
        TARGET.check(changed(served, 0, **turned))


def alone(served, queues, waits):
    """A program of one card whose commands, of one stage, wait for one event each, or none (-1)."""
    count = len(queues)
    none = np.full(count, -1)
    part = Part(
        np.array(queues, np.uint8), np.zeros(count, np.uint8),
        np.stack([np.array(waits), none], 1).astype(np.int32), none.astype(np.int16),
        none.astype(np.int32), tuple(f"command {row}" for row in range(count)), {},
    )  # fmt: skip
    return replace(served, parts=(part,), slots=1, stages=1, syncs=(), segments=())


FIVE = 5
"""Queues of a core."""


@pytest.mark.parametrize("core", [0, 1])
def test_a_full_queue_stops_the_ring_of_its_core_alone(served, core):
    """Three commands for a queue of two wait for what the last one signals."""
    last = core * FIVE + 1
    program = alone(served, [2, 2, 2, 1, last], [-1, 4, -1, -1, -1])
    if core:
        hazards.check(program, (), 2, FIVE)
        with pytest.raises(HazardError, match=r"'command 1' .* is issued before 'command 4'"):
            hazards.check(program, (), 2, 2 * FIVE)
    else:
        with pytest.raises(HazardError, match=r"'command 1' .* is issued before 'command 4'"):
            hazards.check(program, (), 2, FIVE)


def test_full_queues_of_two_rings_that_hold_each_other_up_are_found(served):
    """Each ring is stopped by a queue whose head waits for what is behind the other's."""
    queues = [0, 0, 1, FIVE, FIVE, FIVE + 1]
    waits = [5, -1, -1, 2, -1, -1]
    hazards.check(alone(served, queues, waits), (), 2, FIVE)
    with pytest.raises(HazardError, match="1 requests: 6 commands of card 0 never run"):
        hazards.check(alone(served, queues, waits), (), 1, FIVE)
