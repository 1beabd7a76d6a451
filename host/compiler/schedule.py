"""When commands are issued: a modulo schedule over the queues of all cards.

One request follows another every *interval*, the time that the busiest queue needs for one. What a
request does is laid out so that no two commands of any requests meet in a queue; a command that
starts `s` intervals after its request began is of stage `s`, and is issued in the round in which
the request `s` later begins. Times are what commands are expected to take: they decide the order
alone, which is one in which everything that a command waits for is issued before it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from halfdome.host.compiler.commands import Command

WIDER = 1.05
"""How much longer the interval becomes when a command finds no place in a queue."""


@dataclass(frozen=True)
class Schedule:
    """When each command starts, in cycles from the begin of its request."""

    starts: Mapping[Command, float]
    interval: float
    syncs: tuple[int, ...]

    def stage(self, command: Command) -> int:
        """The stage that a command is of."""
        return int(self.starts[command] // self.interval)

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
    """What a queue is busy with in every interval."""

    def __init__(self, interval: float):
        self._interval = interval
        self._busy: list[tuple[float, float]] = []  # sorted, within one interval

    def place(self, earliest: float, cycles: float) -> float | None:
        """Takes the first free time from `earliest` on; None if there is none."""
        base = earliest // self._interval * self._interval
        candidates = [earliest, *(base + end for _, end in self._busy)]
        candidates += [base + self._interval + end for _, end in self._busy]
        for start in sorted(t for t in candidates if t >= earliest):
            if start - earliest < self._interval and self._is_free(start, cycles):
                self._take(start % self._interval, cycles)
                return start
        return None

    def _pieces(self, start: float, cycles: float) -> list[tuple[float, float]]:
        end = start + cycles
        if end <= self._interval:
            return [(start, end)]
        return [(start, self._interval), (0.0, end - self._interval)]

    def _is_free(self, start: float, cycles: float) -> bool:
        if cycles > self._interval:
            return False
        return all(
            end <= busy_start or busy_end <= begin
            for begin, end in self._pieces(start % self._interval, cycles)
            for busy_start, busy_end in self._busy
        )

    def _take(self, start: float, cycles: float) -> None:
        self._busy = sorted([*self._busy, *self._pieces(start, cycles)])


def schedule(commands: Sequence[Command], needed: Mapping[Command, Sequence[Command]]) -> Schedule:
    """The schedule of a request's commands, which stand in an order in which they could run."""
    busy: dict[tuple[int, int], float] = defaultdict(float)
    for command in commands:
        busy[command.position, command.queue] += command.cycles
    interval = max(busy.values())
    while True:
        found = _try(commands, needed, interval)
        if found is not None:
            return found
        interval *= WIDER


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
