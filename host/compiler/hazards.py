"""What a compiled program must keep, read off the program and nothing else.

Any two commands that touch the same bytes, one of them writing, are ordered by events. Commands are
issued after what they wait for. And cards whose queues hold only so much come to an end: each core
takes the commands of its queues from a ring of its own, in order, and stops at one that is full.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from halfdome.host.compiler.commands import Extent
from halfdome.host.compiler.touching import conflicts
from halfdome.host.runtime.program import HOST, Program


class HazardError(ValueError):
    """A program that could compute something else in another run. The message names commands."""


@dataclass(frozen=True)
class Access:
    """What of a segment a command reads or writes."""

    command: int
    segment: int
    extent: Extent
    writes: bool


def check(
    program: Program, accesses: Iterable[Access], queue_depth: int, queues_per_core: int
) -> None:  # fmt: skip
    """Raises `HazardError` naming what a program does not keep.

    Parameters
    ----------
    program : Program
    accesses : what its commands touch
    queue_depth : int, commands that a queue of a card holds
    queues_per_core : int, queues whose commands come from one ring
    """
    order = _Order(program, queues_per_core)
    order.check_rounds()
    by_segment: dict[int, list[Access]] = defaultdict(list)
    for access in accesses:
        by_segment[access.segment].append(access)
    for segment, found in by_segment.items():
        found.sort(key=order.place)
        extents, writes = [each.extent for each in found], [each.writes for each in found]
        for earlier, later in conflicts(extents, writes, list(map(order.queue, found))):
            one, two = found[earlier], found[later]
            if one.command != two.command and not order.ordered(one, two):
                raise HazardError(
                    f"{order.name(one.command)} and {order.name(two.command)} touch the same "
                    f"bytes of {program.segments[segment].name!r}, and no event orders them"
                )
    for requests in (1, 2, program.stages + program.slots):
        _run(program, queue_depth, queues_per_core, requests)


class _Order:
    """What of a request happens before what."""

    def __init__(self, program: Program, queues_per_core: int):
        self._program = program
        self._queues_per_core = queues_per_core
        self._commands = [
            (position, row)
            for position, part in enumerate(program.parts)
            for row in range(len(part))
        ]
        self._telling = {}
        self._queues: dict[tuple[int, int], list[int]] = defaultdict(list)
        for command, (position, row) in enumerate(self._commands):
            part = program.parts[position]
            if part.arrival[row] >= 0:
                self._telling[int(part.arrival[row])] = command
        for command in sorted(range(len(self._commands)), key=self._key):
            position, row = self._commands[command]
            self._queues[position, int(program.parts[position].queue[row])].append(command)
        self._check_events()
        self._before = self._closure()

    def _check_events(self) -> None:
        """Whatever is waited for is done by a command or told by one."""
        made = {*range(len(self._commands)), *self._telling}
        for command in range(len(self._commands)):
            if nobodys := set(self._waits(command)) - made:
                raise HazardError(
                    f"{self.name(command)} waits for event {min(nobodys)}, which nobody makes"
                )

    def _key(self, command: int) -> tuple[int, int]:
        """Stage, and place in a round among the commands of its card."""
        position, row = self._commands[command]
        return int(self._program.parts[position].stage[row]), row

    def name(self, command: int) -> str:
        """A command for people."""
        position, row = self._commands[command]
        return f"{self._program.parts[position].labels[row]!r} of card {position} (row {row})"

    def _waits(self, command: int) -> list[int]:
        position, row = self._commands[command]
        return [int(event) for event in self._program.parts[position].waits[row] if event >= 0]

    def _ring(self, command: int) -> tuple[int, int]:
        """The position and the core of whose ring a command is part."""
        position, row = self._commands[command]
        return position, int(self._program.parts[position].queue[row]) // self._queues_per_core

    def check_rounds(self) -> None:
        """Whatever is waited for is issued before: in one ring earlier, in another no later."""
        for command in range(len(self._commands)):
            for event in self._waits(command):
                source = self._telling.get(event, event)
                same = self._ring(source) == self._ring(command)
                mine, theirs = self._key(command), self._key(source)
                if not (theirs < mine if same else theirs[0] <= mine[0]):
                    raise HazardError(
                        f"{self.name(command)} is issued before {self.name(source)}, for which it "
                        "waits"
                    )

    def _closure(self) -> list[int]:
        """For each event, as the bits of a number, the set of those that have happened before."""
        before_in_queue = {
            after: first for queue in self._queues.values() for first, after in pairwise(queue)
        }
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for command in range(len(self._commands)):
            sources = [self._telling.get(event, event) for event in self._waits(command)]
            if command in before_in_queue:
                sources.append(before_in_queue[command])
            sorter.add(command, *sources)
        try:
            order = list(sorter.static_order())
        except CycleError as error:
            names = " for ".join(self.name(command) for command in error.args[1])
            raise HazardError(f"commands wait for each other: {names}") from None
        self._places = {command: place for place, command in enumerate(order)}
        before = [0] * self._program.events
        arrival = {command: event for event, command in self._telling.items()}
        for command in order:
            known = 0
            if command in before_in_queue:
                known |= before[before_in_queue[command]] | 1 << before_in_queue[command]
            for event in self._waits(command):
                known |= before[event] | 1 << event
            before[command] = known
            if command in arrival:
                before[arrival[command]] = known | 1 << command
        return before

    def place(self, access: Access) -> tuple[int, int]:
        """When an access may be made: after all that are over before it."""
        stage = self._key(access.command)[0]
        return sum(sync <= stage for sync in self._program.syncs), self._places[access.command]

    def queue(self, access: Access) -> tuple[int, int] | None:
        """The queue in whose order accesses are over, if that is said of them by their commands."""
        position, row = self._commands[access.command]
        if self._program.segments[access.segment].position != position:
            return None
        return position, int(self._program.parts[position].queue[row])

    def ordered(self, one: Access, two: Access) -> bool:
        """Whether one of two accesses is over when the other begins."""
        return self._precedes(one, two) or self._precedes(two, one)

    def _precedes(self, one: Access, two: Access) -> bool:
        return any(self._before[two.command] >> event & 1 for event in self._ends(one)) or (
            self._seen_by_host(one, two)
        )

    def _ends(self, access: Access) -> list[int]:
        """The events that say that an access is over: of what was sent to a peer, that it has
        been told so afterwards."""
        position, row = self._commands[access.command]
        part = self._program.parts[position]
        target = self._program.segments[access.segment].position
        if target == position:
            return [access.command]
        if target == HOST:
            return []
        queue = self._queues[position, int(part.queue[row])]
        later = queue[queue.index(access.command) :]
        return [
            int(part.arrival[self._commands[each][1]])
            for each in later
            if part.peer[self._commands[each][1]] == target
        ]

    def _seen_by_host(self, one: Access, two: Access) -> bool:
        """Whether the host waits for one before it issues the other."""
        if not self._program.syncs:
            return False
        first, second = (self._key(each.command)[0] for each in (one, two))
        return any(first < sync <= second for sync in self._program.syncs)


def _run(program: Program, depth: int, queues_per_core: int, requests: int) -> None:
    """Lets cards with queues of `depth` take what so many requests issue, until nothing moves.

    Whatever can happen stays possible whatever else happens: one order stands for all.
    """
    rings = _issued(program, queues_per_core, requests)
    happened: set[tuple[int, int]] = set()
    queues: list[dict[int, deque]] = [defaultdict(deque) for _ in program.parts]
    moved = True
    while moved:
        moved = False
        for (position, _), ring in rings.items():
            queue_of = program.parts[position].queue
            while ring and len(queues[position][int(queue_of[ring[0][1]])]) < depth:
                queues[position][int(queue_of[ring[0][1]])].append(ring.popleft())
                moved = True
        for position, part in enumerate(program.parts):
            first = program.first_event(position)
            for queue in queues[position].values():
                while queue:
                    request, row = queue[0]
                    events = [int(event) for event in part.waits[row] if event >= 0]
                    if any((request, event) not in happened for event in events):
                        break
                    queue.popleft()
                    happened.add((request, first + row))
                    happened.add((request, int(part.arrival[row])))
                    moved = True
    for position, part in enumerate(program.parts):
        stuck = [
            each
            for held in (
                *(ring for (card, _), ring in rings.items() if card == position),
                *queues[position].values(),
            )
            for each in held
        ]
        if stuck:
            label = part.labels[stuck[0][1]]
            raise HazardError(
                f"{requests} requests: {len(stuck)} commands of card {position} never run, "
                f"{label!r} among them: a full queue holds up what it waits for"
            )


def _issued(
    program: Program, queues_per_core: int, requests: int
) -> dict[tuple[int, int], deque[tuple[int, int]]]:
    """Request and row of every command, in the order in which they are put into each ring: by
    position and core."""
    rings: dict[tuple[int, int], deque[tuple[int, int]]] = defaultdict(deque)
    for newest in range(requests + program.stages - 1):
        for position, part in enumerate(program.parts):
            cores = (part.queue // queues_per_core).tolist()
            for row, (stage, core) in enumerate(zip(part.stage.tolist(), cores, strict=True)):
                if 0 <= newest - stage < requests:
                    rings[position, core].append((newest - stage, row))
    return rings
