"""A program's memory on cards and host: where its segments lie, and what is in them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from halfdome.host.driver.accelerator import Accelerator
from halfdome.host.driver.bus import DmaBuffer
from halfdome.host.driver.errors import DataLost
from halfdome.host.driver.memory import Block, CardFull, kind
from halfdome.host.driver.session import Session
from halfdome.host.runtime.program import HOST, Program, ProgramError, Segment

SHARED_BYTES = 1 << 20
"""Most bytes that cards pass on to each other at a time: they lie in host memory meanwhile."""

Resident = Mapping[tuple[int, str], Block]
"""Blocks that hold a segment's contents already, by number of the card and name of the segment."""


def check(program: Program, cards: Sequence[Accelerator], values: bool) -> None:
    """Raises `ProgramError` for a program that these cards cannot run. Only if they compute no
    `values` may it lack its contents."""
    if values:
        program.check_values()
    if program.cards != len(cards):
        raise ProgramError(
            f"the program is for {program.cards} cards, there are {len(cards)}: compile it for so "
            "many"
        )
    for card in cards:
        if (card.target, card.design) != (program.target, program.design):
            raise ProgramError(
                f"the program is for {program.target} {program.design}, card {card.index} is "
                f"{card.target} {card.design}: compile it for this configuration"
            )


class Memory:
    """Memory of a program that is loaded.

    Parameters
    ----------
    session : Session
    program : Program
    cards : by position
    resident : what lies on them already and need not be sent

    Attributes
    ----------
    addresses, bus_addresses : int64[slots, segments], on the segment's own card and on the bus
    host : for each slot the bytes of each segment that lies in host memory, else None
    resident : Resident, what stays if the program goes
    values : bool, whether what cards put out means anything

    Raises `MemoryError` if it does not fit.
    """

    def __init__(
        self, session: Session, program: Program, cards: Sequence[Accelerator], resident: Resident
    ):
        self._session = session
        self.values = session.values
        self._program = program
        self._cards = cards
        self._blocks: list[tuple[Accelerator, str, Block]] = []
        self._buffers: list[DmaBuffer] = []
        self.resident: dict[tuple[int, str], Block] = {}
        shape = program.slots, len(program.segments)
        self.addresses = np.zeros(shape, np.int64)
        self.bus_addresses = np.zeros(shape, np.int64)
        self.host: list[list[np.ndarray | None]] = [
            [None] * len(program.segments) for _ in range(program.slots)
        ]
        self._missing: dict[str, list[tuple[int, Block]]] = {}
        self._apart: set[str] = set()
        for number, segment in enumerate(program.segments):
            if segment.position == HOST:
                self._map(number, segment)
            else:
                self._place(number, segment, resident)

    def _map(self, number: int, segment: Segment) -> None:
        for slot in range(self._program.slots):
            buffer = self._session.map(segment.nbytes)
            self._buffers.append(buffer)
            self.bus_addresses[slot, number] = buffer.address
            self.host[slot][number] = buffer.array

    def _place(self, number: int, segment: Segment, resident: Resident) -> None:
        card = self._cards[segment.position]
        for slot in range(self._program.slots if segment.per_slot else 1):
            slots = slot if segment.per_slot else slice(None)
            key = card.index, segment.name
            block = resident.get(key) if segment.contents else None
            if block is None:
                block = self._allocate(card, segment)
                if segment.contents in self._program.weights:
                    self._missing.setdefault(segment.contents, []).append((segment.position, block))
                    if segment.memory != kind(segment.memory):  # another core's than the first's
                        self._apart.add(segment.contents)
            if segment.contents:
                self.resident[key] = block
            self.addresses[slots, number] = block.address
            self.bus_addresses[slots, number] = card.bus_address(block)

    def _allocate(self, card: Accelerator, segment: Segment) -> Block:
        """In the memory that the segment is planned for, or in another that has room and is reached
        by whatever queues use it."""
        first, spare = segment.memory, [card.shared]
        if len(card.memories) == 2:
            spare = list(card.memories)
        for name in dict.fromkeys([first, *spare]):
            with suppress(CardFull):
                block = card.memories[name].allocate(segment.nbytes)
                if not segment.contents:
                    self._blocks.append((card, name, block))
                return block
        free = ", ".join(f"{m.name} {m.free_bytes}" for m in card.memories.values())
        raise CardFull(f"{segment.name}: no {segment.nbytes} bytes in one piece, free are: {free}")

    def upload(self, pass_on: bool) -> None:
        """Brings the cards the contents that they lack, and waits.

        With `pass_on`, what several cards lack is read by one of them, and each that has it passes
        it on, until all have. Raises `DataLost` if a write was refused meanwhile.
        """
        alarms = [card.alarms for card in self._cards]
        weights, shared = self._program.weights, []
        for name, places in self._missing.items():
            if (
                pass_on
                and 1 < len(places) == len(self._cards)
                and len(weights[name]) <= SHARED_BYTES
                and len(dict(places)) == len(places)
                and name not in self._apart
            ):
                shared.append(name)
                continue
            for position, block in places:
                self._cards[position].upload(block, weights[name])
        while shared:
            group = [shared.pop()]
            while shared and sum(len(weights[n]) for n in (*group, shared[-1])) <= SHARED_BYTES:
                group.append(shared.pop())
            self._broadcast(group)
        if alarms != [card.alarms for card in self._cards]:
            raise DataLost("a write was refused while the model was placed: it never arrived")
        self._missing = {}

    def _broadcast(self, names: Sequence[str]) -> None:
        """The same bytes to all cards, of which the first reads host memory."""
        weights, cards = self._program.weights, self._cards
        blocks = [dict(self._missing[name]) for name in names]
        staged = [self._session.map(len(weights[name])) for name in names]
        copies = []
        for name, buffer, places in zip(names, staged, blocks, strict=True):
            buffer.array[: len(weights[name])] = weights[name]
            copies.append((buffer.address, places[0], len(weights[name])))
        there = [cards[0].load(copies)]
        while len(there) < len(cards):
            for holder in range(min(len(there), len(cards) - len(there))):
                peer = len(there)
                passed = [
                    (places[holder], places[peer], len(weights[name]))
                    for name, places in zip(names, blocks, strict=True)
                ]
                there.append(cards[holder].pass_on(cards[peer], passed, there[holder]))
        tickets = [card.flush() for card in cards]
        for card, mine in zip(cards, tickets, strict=True):
            card.wait(mine)
        for buffer in staged:
            self._session.unmap(buffer)

    def intact(self) -> bool:
        """Whether all of it is still there: a call that failed gives back what it had taken."""
        return all(card.memories[name].owns(block) for card, name, block in self._blocks)

    def release(self) -> None:
        """Gives back all but the contents; no command may be using it, no card writing to it."""
        for card, _, block in self._blocks:
            release(self._cards, card.index, block)
        self._session.abandon(self._buffers)


def release(cards: Sequence[Accelerator], index: int, block: Block) -> None:
    """Gives a block of card number `index` back, unless that was done before."""
    card = next(card for card in cards if card.index == index)
    for memory in card.memories.values():
        if memory.owns(block):
            memory.release(block)
