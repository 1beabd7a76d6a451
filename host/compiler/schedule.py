"""When commands are issued: a modulo schedule over the queues of all cards.

One request follows another every *interval*, the time that the busiest queue needs for one. What a
request does is laid out so that no two commands of any requests meet in a queue; a command that
starts `s` intervals after its request began is of stage `s`, and is issued in the round in which
the request `s` later begins. Times are what commands are expected to take: they decide the order
alone, which is one in which everything that a command waits for is issued before it.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from halfdome.host.compiler.commands import Command

WIDER = 1.01
"""How much longer the interval becomes when a command finds no place in a queue, or a late one."""

IN_TURN = 1.05
"""How much longer the interval may be if every queue then does one request after the other: none
waits for gaps that others leave."""

LATER = 2
"""How many times as long as alone a request may take for waiting for gaps that others leave: every
interval of that is memory for one more request. The interval becomes longer instead."""

_ROUNDING = 1e-3
"""Cycles that are none: times are sums of floats."""


@dataclass(frozen=True)
class Schedule:
    """When each command starts, in cycles from the begin of its request."""

    starts: Mapping[Command, float]
    interval: float
    syncs: tuple[int, ...]

    def stage(self, command: Command) -> int:
        """The stage that a command is of."""
        return int(self.starts[command] // self.interval)

    @property
    def latency(self) -> float:
        """Cycles from the begin of a request to its end."""
        return max(start + command.cycles for command, start in self.starts.items())

    def key(self, command: Command) -> tuple[int, float]:
        """Commands of a request in their order: stage, and place in a round."""
        return self.stage(command), self.starts[command] % self.interval

    def synced(self, first: Command, second: Command) -> bool:
        """Whether the host sees one command done before it issues the other."""
        return any(self.stage(first) < sync <= self.stage(second) for sync in self.syncs)

    @property
    def stages(self) -> int:
        """Rounds that a request takes part in."""
        return 1 + max(map(self.stage, self.starts))


class _Queue:
    """What a queue is busy with in every interval: begins and ends, in their order."""

    def __init__(self, interval: float):
        self._interval = interval
        self._begins: list[float] = []
        self._ends: list[float] = []

    def place(self, earliest: float, cycles: float) -> float | None:
        """Takes the first free time from `earliest` on; None if there is none."""
        if cycles > self._interval:
            return None
        start = earliest
        while start - earliest < self._interval:
            busy = self._busy(start % self._interval, cycles)
            if not busy:
                self._take(start % self._interval, cycles)
                return start
            start += busy
        return None

    def _busy(self, start: float, cycles: float) -> float:
        """How long it takes until what is met first is over; 0 if nothing is."""
        found = bisect_right(self._ends, start + _ROUNDING)
        if found < len(self._ends) and self._begins[found] < start + cycles - _ROUNDING:
            return self._ends[found] - start
        beyond = start + cycles - self._interval - _ROUNDING
        if self._begins and self._begins[0] < beyond:
            return self._interval - start + self._ends[0]
        return 0.0

    def _take(self, start: float, cycles: float) -> None:
        end = start + cycles
        pieces = [(start, end)]
        if end > self._interval:
            pieces = [(start, self._interval), (0.0, end - self._interval)]
        for begin, over in pieces:
            at = bisect_right(self._begins, begin)
            self._begins.insert(at, begin)
            self._ends.insert(at, over)


def schedule(
    commands: Sequence[Command], needed: Mapping[Command, Sequence[Command]],
    longer: float = IN_TURN, least: float = 0.0,
) -> Schedule:  # fmt: skip
    """The schedule of a request's commands, which stand in an order in which they could run.

    Requests follow each other whole, queue by queue, if the interval is at most `longer` times as
    long then. None takes more than `LATER` times as long as alone, unless the host has to look. The
    interval is no shorter than `least`, which what queues share takes.
    """
    busy: dict[tuple[int, int], float] = defaultdict(float)
    for command in commands:
        busy[command.position, command.queue] += command.cycles
    interval = max(*busy.values(), least)
    in_turn = _in_turn(commands, needed)
    latest = inf if in_turn is None else LATER * in_turn.latency
    while True:
        if in_turn is not None and in_turn.interval <= longer * interval:
            return replace(in_turn, interval=max(in_turn.interval, least))
        found = _try(commands, needed, interval)
        if found is not None and found.latency <= latest:
            return found
        interval *= WIDER


def _in_turn(
    commands: Sequence[Command], needed: Mapping[Command, Sequence[Command]]
) -> Schedule | None:
    """That of a request alone, which the next follows as soon as every queue is done with it. None
    if the host has to look between two commands: it looks between rounds."""
    if any(command.once_seen for command in commands):
        return None
    alone = _try(commands, needed, inf)
    if alone is None:
        return None
    first: dict[tuple[int, int], float] = {}
    last: dict[tuple[int, int], float] = {}
    for command in commands:
        queue, start = (command.position, command.queue), alone.starts[command]
        first[queue] = min(first.get(queue, inf), start)
        last[queue] = max(last.get(queue, 0.0), start + command.cycles)
    return Schedule(alone.starts, max(last[queue] - first[queue] for queue in first), ())


def _heights(
    commands: Sequence[Command], needed: Mapping[Command, Sequence[Command]]
) -> dict[Command, float]:
    """Cycles from the start of each command to the end of the request."""
    heights = {command: command.cycles for command in commands}
    for command in reversed(commands):
        for other in (*needed[command], *command.once_seen):
            heights[other] = max(heights[other], other.cycles + heights[command])
    return heights


def _try(
    commands: Sequence[Command], needed: Mapping[Command, Sequence[Command]], interval: float
) -> Schedule | None:
    heights = _heights(commands, needed)
    late: dict[Command, bool] = {}  # comes after what the host must see
    for command in commands:
        late[command] = bool(command.once_seen) or any(late[other] for other in needed[command])
    seen = [other for command in commands for other in command.once_seen]
    places = {command: place for place, command in enumerate(commands)}
    queues: dict[tuple[int, int], _Queue] = defaultdict(lambda: _Queue(interval))
    starts: dict[Command, float] = {}
    sync = 0
    for command in sorted(commands, key=lambda c: (late[c], -heights[c], places[c])):
        earliest = max((starts[o] + o.cycles for o in needed[command]), default=0.0)
        if command.once_seen:
            # The host looks once, before the stage after the last of all such commands.
            sync = 1 + max(int(starts[other] // interval) for other in seen)
            earliest = max(earliest, sync * interval)
        start = queues[command.position, command.queue].place(earliest, command.cycles)
        if start is None:
            return None
        starts[command] = start
    return Schedule(starts, interval, (sync,) if seen else ())
