"""Requests under way: issued to all cards of a program in rounds, several at a time.

When a request begins, each one before it goes on by a stage. Which commands these are, and in which
order a card takes them, the program says; what they wait for is counted here.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from halfdome.host.driver import rings
from halfdome.host.driver.accelerator import Accelerator, Code, Issue, Place
from halfdome.host.driver.errors import CommandError, DataLost
from halfdome.host.runtime import requests
from halfdome.host.runtime.loader import Memory
from halfdome.host.runtime.program import Program
from halfdome.host.runtime.requests import Checked


@dataclass(frozen=True)
class Response:
    """What the cards said to one request.

    Attributes
    ----------
    outputs : arrays by name; `LeftOut` on a platform that computes no values
    latency_cycles : int, from the first command that any card starts to the end of the last
    spans : int64[commands, 2] by position, the card cycles at which the commands of its part
        started and ended; -1 for those that did not run
    symbols : int64[program.symbols], the numbers that they were patched with
    """

    outputs: dict[str, Any]
    latency_cycles: int
    spans: tuple[np.ndarray, ...]
    symbols: np.ndarray


@dataclass
class _Flight:
    """A request that the cards work on, in a slot.

    By position, `needed` tells which of them do, `commands` are those submitted so far and
    `completed` what came of them, in the same order; `tickets` are of those not awaited yet.
    """

    number: int
    slot: int
    rows: int
    symbols: np.ndarray
    alarms: int
    needed: np.ndarray
    tickets: list[list[np.ndarray]]
    commands: list[list[np.ndarray]]
    completed: list[list[np.ndarray]]
    stage: int = 0
    failures: list[CommandError] = field(default_factory=list)


@dataclass(frozen=True)
class _Batch:
    """The commands of a card in a round, as far as they do not change from round to round.

    `queue_ranks` says of each command how many of them its queue has been given with it,
    `told_ranks` of each of those at `telling` how many of them tell the card `told`.
    """

    commands: np.ndarray
    slots: np.ndarray
    events: np.ndarray
    waits: np.ndarray
    queues: np.ndarray
    queue_ranks: np.ndarray
    telling: np.ndarray
    told: np.ndarray
    told_ranks: np.ndarray
    arrivals: np.ndarray


def _ranks(numbers: np.ndarray) -> np.ndarray:
    """How often each number has occurred up to and with its place."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    ranks = np.empty(len(numbers), np.int64)
    ranks[order] = 1 + np.arange(len(numbers)) - np.searchsorted(ordered, ordered)
    return ranks


BATCHES = 1024
"""Most batches of commands that are remembered."""


class Flights:
    """The requests that the cards of a program work on.

    Parameters
    ----------
    program : Program
    cards : by position
    memory : where it lies
    as_list : bool, whether a card is told once of all commands of a round
    """

    def __init__(
        self, program: Program, cards: Sequence[Accelerator], memory: Memory, as_list: bool
    ):
        self._program = program
        self._cards = cards
        self._memory = memory
        self._as_list = as_list
        self._flying: deque[_Flight] = deque()
        self._free = deque(range(program.slots))
        self._values = np.zeros((program.slots, program.events), np.int64)
        self._batch = lru_cache(BATCHES)(self._make_batch)
        self._installed = [self._install(position) for position in range(len(cards))]

    def _install(self, position: int):
        part, card = self._program.parts[position], self._cards[position]
        counters = np.full(self._program.events, -1)
        first = self._program.first_event(position)
        counters[first : first + len(part)] = part.queue
        for sender, other in zip(self._cards, self._program.parts, strict=True):
            arriving = other.arrival[other.peer == position]
            counters[arriving] = len(card.issued) + sender.index
        return card.install(
            Code(part.queue, part.waits, part.peer, part.code),
            Place(self._memory.addresses, self._memory.bus_addresses, counters, self._cards),
        )

    @property
    def numbers(self) -> list[int]:
        """The requests under way, oldest first."""
        return [flight.number for flight in self._flying]

    @property
    def has_room(self) -> bool:
        """Whether another request may begin."""
        return bool(self._free)

    def begin(self, number: int, checked: Checked) -> None:
        """Hands a request to the cards, and to those before it what comes next."""
        slot = self._free[0]
        symbols = requests.fill(self._program, checked, self._memory.host[slot])
        for installed in self._installed:
            installed.set_symbols(slot, symbols)
        flight = _Flight(
            number, slot, checked.rows, symbols, self._alarms(),
            needed=self._program.needed(checked.rows),
            tickets=[[] for _ in self._cards],
            commands=[[np.zeros(0, np.int64)] for _ in self._cards],
            completed=[[np.zeros(0, rings.ENTRY)] for _ in self._cards],
        )  # fmt: skip
        self._flying.append(flight)
        self._free.popleft()
        self._round()

    def advance(self, last: bool) -> bool:
        """Hands over what comes next if the oldest request lacks some of it, or any does and no
        other will begin (`last`); whether that was so."""
        lacking = self._flying if last else [self._flying[0]]
        if all(flight.stage == self._program.stages for flight in lacking):
            return False
        self._round()
        return True

    @property
    def done(self) -> bool:
        """Whether the cards are done with what they were handed of the oldest request."""
        return all(card.done(tickets) for card, tickets in self._awaited(self._flying[0]))

    def sleep(self) -> None:
        """Sleeps until a card that is not `done` has more to tell, or raises as `land` does."""
        next(card for card, mine in self._awaited(self._flying[0]) if not card.done(mine)).sleep()

    def land(self, last: bool) -> Response:
        """The response to the oldest request, whose slot is free then, whatever became of it.

        `last` says that no other will begin before the next `land`. Raises `CommandError` for the
        first of its commands that failed, but for one whose PCIe read failed before others, and
        `DataLost` if a card or the root port has told of an error since it began.
        """
        flight = self._flying[0]
        while self.advance(last):
            pass
        self._finish(flight)
        outputs = (
            requests.outputs(self._program, flight.rows, self._memory.host[flight.slot])
            if self._memory.values
            else requests.left_out(self._program, flight.rows)
        )
        self._flying.popleft()
        self._free.append(flight.slot)
        for failure in flight.failures:
            if failure.is_transfer:
                raise failure
        if self._alarms() != flight.alarms:  # then others may have failed because of that
            raise DataLost("a write was refused by a card or by the root port: it never arrived")
        if flight.failures:
            raise flight.failures[0]
        return self._response(flight, outputs)

    def _response(self, flight: _Flight, outputs: dict[str, Any]) -> Response:
        entries = [np.concatenate(mine) for mine in flight.completed]
        cycles = rings.spans(np.concatenate(entries))
        ends = np.cumsum([len(mine) for mine in entries])
        spans = [np.full((len(part), 2), -1, np.int64) for part in self._program.parts]
        for made, commands, mine in zip(
            spans, flight.commands, np.split(cycles, ends[:-1]), strict=True
        ):
            made[np.concatenate(commands)] = mine
        latency = int(cycles[:, 1].max() - cycles[:, 0].min())
        return Response(outputs, latency, tuple(spans), flight.symbols)

    def _alarms(self) -> int:
        return sum(card.alarms for card in self._cards)

    def _round(self) -> None:
        """Issues the next stage of every request that has one left."""
        slot_of_stage = np.full((len(self._cards), self._program.stages), -1)
        by_slot: dict[int, _Flight] = {}
        for flight in self._flying:
            if flight.stage < self._program.stages:
                if flight.stage in self._program.syncs:
                    self._finish(flight)
                slot_of_stage[flight.needed, flight.stage] = flight.slot
                by_slot[flight.slot] = flight
        batches = [
            self._batch(position, tuple(slots))
            for position, slots in enumerate(slot_of_stage.tolist())
        ]
        # All that happens in a round is counted before anything waits for it.
        notices = [self._count(*each) for each in zip(self._cards, batches, strict=True)]
        for position, card in enumerate(self._cards):
            self._submit(position, card, batches[position], notices[position], by_slot)
        for flight in by_slot.values():
            flight.stage += 1

    def _make_batch(self, position: int, slot_of_stage: tuple[int, ...]) -> _Batch:
        part = self._program.parts[position]
        of_commands = np.array(slot_of_stage)[part.stage]
        commands = np.flatnonzero(of_commands >= 0)
        slots = of_commands[commands]
        queues, peers = part.queue[commands], part.peer[commands]
        (telling,) = np.nonzero(peers >= 0)
        told = np.array([self._cards[peer].index for peer in peers[telling]], np.int64)
        return _Batch(
            commands, slots,
            events=self._program.first_event(position) + commands,
            waits=np.maximum(part.waits[commands], 0),
            queues=queues, queue_ranks=_ranks(queues),
            telling=telling, told=told, told_ranks=_ranks(told),
            arrivals=part.arrival[commands[telling]],
        )  # fmt: skip

    def _count(self, card: Accelerator, batch: _Batch) -> np.ndarray:
        """Notes what counters will be when commands are done; what they tell peers."""
        issued = card.issued[batch.queues] + batch.queue_ranks
        self._values[batch.slots, batch.events] = issued
        card.issued[batch.queues] = issued
        notices = np.zeros(len(batch.commands), np.int64)
        if len(batch.telling):
            notices[batch.telling] = told = card.told[batch.told] + batch.told_ranks
            self._values[batch.slots[batch.telling], batch.arrivals] = told
            card.told[batch.told] = told
        return notices

    def _submit(
        self, position: int, card: Accelerator, batch: _Batch, notices: np.ndarray,
        by_slot: dict[int, _Flight],
    ) -> None:  # fmt: skip
        commands, slots = batch.commands, batch.slots
        if not len(commands):
            return
        values = self._values[slots[:, None], batch.waits]
        signals = self._values[slots, batch.events]
        labels: Sequence[str] = ()
        if card.traced:
            names = {slot: f"batch {flight.number}" for slot, flight in by_slot.items()}
            part = self._program.parts[position]
            labels = [
                f"{names[slot]} {part.labels[command]}"
                for slot, command in zip(slots, commands, strict=True)
            ]
        issue = Issue(commands, slots, values, signals, notices, labels)
        tickets = np.array(card.submit(self._installed[position], issue, self._as_list))
        for slot, flight in by_slot.items():
            mine = slots == slot
            flight.tickets[position].append(tickets[mine])
            flight.commands[position].append(commands[mine])

    def _awaited(self, flight: _Flight) -> list[tuple[Accelerator, np.ndarray]]:
        """Each card, and the tickets of what was submitted to it and not waited for."""
        none = np.zeros(0, np.int64)
        mine = [np.concatenate([*tickets, none]) for tickets in flight.tickets]
        return list(zip(self._cards, mine, strict=True))

    def _finish(self, flight: _Flight) -> None:
        """Waits for everything that has been submitted for a request so far."""
        for (card, awaited), tickets, completed in zip(
            self._awaited(flight), flight.tickets, flight.completed, strict=True
        ):
            tickets.clear()
            try:
                completed.append(card.wait(awaited))
            except CommandError as failure:
                flight.failures.append(failure)
