"""Rings against a card that completes commands in any order: tickets, room, strays, wraps."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.descriptors import pack
from halfdome.host.driver.rings import ENTRY, RING_ENTRIES, TICKETS, Rings, span_cycles
from halfdome.host.driver.rings import spans as unwrapped
from tests.host.interrupt import Interrupt

SIGNAL = np.frombuffer(pack(Opcode.SIGNAL, address=64, value=1), np.uint8)


class Buffer:
    def __init__(self, address, nbytes):
        self.address, self.array = address, np.zeros(nbytes, np.uint8)


class Card:
    """What a card sees of two rings; a bus with as much as they need of one."""

    def __init__(self):
        self.buffers = []
        self.fetched = self.written = 0

    def map(self, nbytes):
        self.buffers.append(Buffer(4096 * (1 + len(self.buffers)), nbytes))
        return self.buffers[-1]

    def fetch(self, tail, sizes):
        """The first slots of the next commands, which end at slot `tail`."""
        slots = self.buffers[0].array.reshape(RING_ENTRIES, 64)
        found = []
        for size in sizes:
            found.append(slots[self.fetched % RING_ENTRIES].tobytes())
            self.fetched += size
        assert self.fetched % RING_ENTRIES == tail
        return found

    def complete(self, identifier, status=Status.OK, detail=0, start=0, end=0):
        phase = 1 - self.written // RING_ENTRIES % 2
        entries = self.buffers[1].array.view(ENTRY)
        entries[self.written % RING_ENTRIES] = identifier, status, phase, detail, start, end
        self.written += 1


def opened(first=0):
    """Rings whose next ticket is `first`, and their card."""
    card = Card()
    rings = Rings(card)
    rings.submitted = first
    rings.restart()
    return rings, card


def put(rings, *sizes):
    """Commands of so many slots each."""
    sizes = np.array(sizes, np.int64)
    return rings.put(np.tile(SIGNAL, (int(sizes.sum()), 1)), sizes)


def identifiers(slots):
    return [int.from_bytes(slot[2:4], "little") for slot in slots]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.integers(1, 3), min_size=1, max_size=400)),
        st.tuples(st.just("complete"), st.integers(1, 600)),
        st.tuples(st.just("take"), st.none()),
    ),
    max_size=25,
)


@given(
    first=st.sampled_from([0, TICKETS - 300, 5 * TICKETS - 7]), steps=STEPS,
    seed=st.integers(0, 1 << 20),
)  # fmt: skip
def test_commands_complete_in_any_order_and_every_slot_is_used_again(first, steps, seed):
    rings, card = opened(first)
    rng = np.random.default_rng(seed)
    sizes, running, told, known = {}, [], {}, {}
    for step, number in steps:
        if step == "put":
            number = [size for size, end in zip(number, np.cumsum(number), strict=True)
                      if end <= rings.room()]  # fmt: skip
            tickets = put(rings, *number)
            assert tickets == range(first + len(sizes), first + len(sizes) + len(number))
            sizes |= dict(zip(tickets, number, strict=True))
            assert identifiers(card.fetch(rings.tail(), number)) == [t % TICKETS for t in tickets]
            running += tickets
        elif step == "complete":
            for _ in range(min(number, len(running), RING_ENTRIES - 1 - len(told))):
                ticket = running.pop(int(rng.integers(len(running))))
                status = Status.OK if rng.integers(4) else Status.BAD_RANGE
                card.complete(ticket % TICKETS, status, ticket % 1000, ticket % 2**32)
                told[ticket] = status
        else:
            assert rings.take().tolist() == list(told)
            known, told = known | told, {}
        waiting = [ticket for ticket in sizes if ticket not in known]
        oldest = min(waiting, default=first + len(sizes))
        assert rings.retired == oldest
        assert rings.idle == (not waiting)
        assert rings.room() == RING_ENTRIES - 1 - sum(n for t, n in sizes.items() if t >= oldest)
        assert rings.head == (card.written - len(told)) % RING_ENTRIES
        for ticket in sizes:
            assert rings.done(np.array([ticket])) == (ticket in known)
        if waiting:
            assert identifiers([rings.oldest()]) == [oldest % TICKETS]
        assert not rings.stray
    every = np.array(list(known), np.int64)
    entries = rings.entries(every)
    assert entries["status"].tolist() == list(known.values())
    assert entries["detail"].tolist() == [ticket % 1000 for ticket in known]
    for ticket, status in known.items():
        if status is not Status.OK:
            assert identifiers([rings.failed(ticket)]) == [ticket % TICKETS]


def test_ids_and_phases_go_round():
    """More commands than there are ids, and the completion ring many times over."""
    rings, card = opened()
    rng = np.random.default_rng(0)
    total = 0
    while total < TICKETS + 5:
        tickets = put(rings, *[1] * int(rng.integers(900, RING_ENTRIES)))
        for ticket in rng.permutation(np.array(tickets)):
            card.complete(ticket % TICKETS, detail=int(ticket))
        assert sorted(rings.take()) == list(tickets)
        assert rings.entries(np.array(tickets))["detail"].tolist() == list(tickets)
        total += len(tickets)
    assert not rings.stray


@pytest.mark.parametrize(
    "tell",
    [
        lambda card: card.complete(99),  # never submitted
        lambda card: card.complete(2),  # not yet submitted
        lambda card: card.complete(0, detail=1),  # done before, and otherwise
        lambda card: card.complete(1, status=200),  # no status
    ],
)
def test_a_completion_that_no_command_has_is_told_and_changes_nothing(tell):
    rings, card = opened()
    put(rings, 1, 1)
    card.complete(0)
    rings.take()
    tell(card)
    assert rings.take().tolist() == []
    assert rings.stray.startswith("completion of id ")
    assert not rings.done(np.array([1]))
    card.complete(1)
    assert rings.take().tolist() == [1]
    assert rings.idle
    assert rings.entries(np.array([0]))["detail"] == 0
    assert rings.stray  # until a reset
    rings.restart()
    assert not rings.stray


def test_after_a_reset_nothing_that_came_before_is_believed():
    rings, card = opened()
    lost = put(rings, 1, 1, 1)
    card.complete(1)
    rings.take()
    rings.restart()
    card.fetched = card.written = 0
    assert rings.idle
    assert (rings.tail(), rings.head, rings.room()) == (0, 0, RING_ENTRIES - 1)
    assert rings.lost(np.array([0]))
    assert not rings.lost(np.array([1]))  # it had completed
    card.complete(lost[0])
    rings.take()
    assert rings.stray
    (fresh,) = put(rings, 1)
    assert fresh == 3
    assert not rings.lost(np.array([fresh]))
    card.complete(fresh)
    assert rings.take().tolist() == [fresh]


@pytest.mark.parametrize("first", [0, TICKETS - 2])
def test_an_exception_anywhere_leaves_the_rings_as_before_or_as_after(first):
    """Commands that were put before still complete, and those after, whatever was interrupted."""
    for operation in ("put", "take"):
        at = 0
        while True:
            at += 1
            rings, card = opened(first)
            put(rings, 1, 2)
            card.complete((first + 1) % TICKETS, Status.BAD_RANGE)
            try:
                with Interrupt(at) as interrupt:
                    rings.take() if operation == "take" else put(rings, 1, 1)
            except KeyboardInterrupt:
                pass
            if rings.submitted == first + 2:
                put(rings, 1, 1)
            assert rings.submitted == first + 4
            assert identifiers(card.fetch(rings.tail(), [1, 2, 1, 1])) == [
                (first + place) % TICKETS for place in range(4)
            ]
            for ticket in (first, first + 2, first + 3):
                card.complete(ticket % TICKETS)
            rings.take()
            assert rings.idle
            assert not rings.stray
            statuses = rings.entries(np.arange(first, first + 4))["status"]
            assert statuses.tolist() == [0, Status.BAD_RANGE, 0, 0]
            assert identifiers([rings.failed(first + 1)]) == [(first + 1) % TICKETS]
            if interrupt.lines < at:
                break
        assert at > 5


@example(origin=2**32 - 10, spans=[(0, 5), (20, 3)])
@example(origin=2**32 - 10, spans=[(20, 3), (0, 5)])
@given(
    origin=st.integers(0, 2**32 - 1),
    spans=st.lists(st.tuples(st.integers(0, 2**30), st.integers(0, 2**30)), min_size=1),
)
def test_spans_of_cycles_cross_the_end_of_the_count(origin, spans):
    entries = np.zeros(len(spans), ENTRY)
    starts, ends = np.array([(start, start + taken) for start, taken in spans]).T
    entries["start_cycle"] = (origin + starts) % 2**32
    entries["end_cycle"] = (origin + ends) % 2**32
    assert span_cycles(entries) == ends.max() - starts.min()
    found = unwrapped(entries)
    np.testing.assert_array_equal(
        found - found[:, :1].min(), np.stack([starts, ends], 1) - starts.min()
    )
    assert found.min() == entries["start_cycle"][starts.argmin()]
