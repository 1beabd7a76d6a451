"""Where buffers lie: what is near, and which of a request's buffers share bytes.

Two buffers of a request may lie on the same bytes if one is read for the last time before the other
is written; whoever writes then waits for whoever read. Near memory goes to what moves most bytes
for its size: contents count once, what each request has of its own as often as there are requests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from halfdome.host.compiler.commands import Buffer, Command
from halfdome.host.compiler.schedule import Schedule
from halfdome.host.driver.layout import round_up

ALIGNMENT = 64
"""Of every buffer: a memory line."""


@dataclass(frozen=True)
class Lifetime:
    """When a request uses a buffer, in cycles from its begin."""

    start: float
    end: float

    def meets(self, other: "Lifetime") -> bool:
        """Whether there is a time when both are in use."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Plan:
    """Where every buffer of the cards lies.

    Attributes
    ----------
    near : buffers with contents that are in the scratchpad, by identity
    offsets : memory and byte in the request's part of it, of buffers that each request has
    arena_bytes : size of that part, by position and memory
    """

    near: frozenset[int]
    offsets: Mapping[int, tuple[str, int]]
    arena_bytes: Mapping[tuple[int, str], int]

    def memory(self, buffer: Buffer) -> str:
        """The memory that a buffer is in."""
        if buffer.contents is not None:
            return "scratchpad" if id(buffer) in self.near else "dram"
        return self.offsets[id(buffer)][0]


def lifetimes(commands: Iterable[Command], schedule: Schedule) -> dict[int, Lifetime]:
    """By identity of the buffer; what others write to is in use all the time."""
    found: dict[int, Lifetime] = {}
    last = max(schedule.starts[c] + c.cycles for c in schedule.starts)
    for command in commands:
        start = schedule.starts[command]
        for region in (*command.reads, *command.writes):
            key, buffer = id(region.buffer), region.buffer
            end = start + command.cycles
            if key in found:
                start, end = min(start, found[key].start), max(end, found[key].end)
            found[key] = Lifetime(0.0, last) if buffer.exclusive else Lifetime(start, end)
            start = schedule.starts[command]
    return found


class _Arena:
    """Bytes that a request's buffers share: each at the first place where it meets no other."""

    def __init__(self) -> None:
        self._placed: list[tuple[int, int, Lifetime]] = []
        self.nbytes = 0

    def offset(self, nbytes: int, lifetime: Lifetime) -> int:
        """Where a buffer would go."""
        start = 0
        for begin, end, other in sorted(self._placed, key=lambda placed: placed[:2]):
            if other.meets(lifetime):
                if begin - start >= nbytes:
                    break
                start = max(start, end)
        return start

    def put(self, nbytes: int, lifetime: Lifetime) -> int:
        """Places a buffer."""
        start = self.offset(nbytes, lifetime)
        self._placed.append((start, start + nbytes, lifetime))
        self.nbytes = max(self.nbytes, start + nbytes)
        return start


def plan(commands: Sequence[Command], schedule: Schedule, near_bytes: int, slots: int) -> Plan:
    """Places every buffer of the cards that a request's commands use.

    `near_bytes` is the scratchpad of each card; what does not fit there goes to DRAM.
    """
    used = lifetimes(commands, schedule)
    buffers = {
        id(region.buffer): region.buffer
        for command in commands
        for region in (*command.reads, *command.writes)
        if not region.buffer.in_host
    }
    near: set[int] = set()
    offsets: dict[int, tuple[str, int]] = {}
    arenas: dict[tuple[int, str], _Arena] = {}
    for position in sorted({buffer.position for buffer in buffers.values()}):
        mine = [buffer for buffer in buffers.values() if buffer.position == position]
        close, far = _Arena(), _Arena()
        contents = 0

        def worth(buffer: Buffer) -> float:
            copies = slots if buffer.contents is None else 1
            return buffer.traffic / (buffer.nbytes * copies)

        for buffer in sorted(mine, key=worth, reverse=True):
            nbytes = round_up(buffer.nbytes, ALIGNMENT)
            if buffer.contents is not None:
                if contents + nbytes + slots * close.nbytes <= near_bytes:
                    near.add(id(buffer))
                    contents += nbytes
                continue
            lifetime = used[id(buffer)]
            arena = max(close.nbytes, close.offset(nbytes, lifetime) + nbytes)
            if contents + slots * arena <= near_bytes:
                offsets[id(buffer)] = "scratchpad", close.put(nbytes, lifetime)
            else:
                offsets[id(buffer)] = "dram", far.put(nbytes, lifetime)
        arenas |= {(position, "scratchpad"): close, (position, "dram"): far}
    sizes = {key: arena.nbytes for key, arena in arenas.items() if arena.nbytes}
    return Plan(frozenset(near), offsets, sizes)
