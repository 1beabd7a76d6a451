"""Where buffers lie: what is near, and which of a request's buffers share bytes.

Two buffers of a request may lie on the same bytes if one is read for the last time before the other
is written; whoever writes then waits for whoever read. Near memory goes to what moves most bytes
for its size: contents count once, what each request has of its own as often as there are requests.
What is large, such as a table, then finds no room: where less than half of the bytes would be left
to move far if near memory went to what moves most bytes at all, it does.
Large buffers that commands use together begin in banks of far memory far apart: streams that go
through them side by side would else ask one bank for rows in turn, each of which closes another.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from halfdome.host.compiler.commands import Buffer, Command
from halfdome.host.compiler.schedule import Schedule
from halfdome.host.driver.layout import round_up
from halfdome.host.driver.memory import kind, of_core

SPREAD = 2
"""How many times as long as all banks a buffer is at least that is placed by its bank."""
SPARED = 0.5
"""Below which share of the bytes that move far the other order of placing is taken."""


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
    memories : the memory that each buffer is in, by identity
    offsets : where it lies in the request's part of that, if each request has its own
    arena_bytes : size of that part, by position and memory
    contents_bytes : of the buffers with contents, by position and memory
    """

    memories: Mapping[int, str]
    offsets: Mapping[int, int]
    arena_bytes: Mapping[tuple[int, str], int]
    contents_bytes: Mapping[tuple[int, str], int]


def lifetimes(commands: Iterable[Command], schedule: Schedule) -> dict[int, Lifetime]:
    """By identity of the buffer; what others write to is in use all the time."""
    found: dict[int, Lifetime] = {}
    always = Lifetime(0.0, schedule.latency)
    for command in commands:
        start = schedule.starts[command]
        for region in (*command.reads, *command.writes):
            key, buffer = id(region.buffer), region.buffer
            end = start + command.cycles
            if key in found:
                start, end = min(start, found[key].start), max(end, found[key].end)
            found[key] = always if buffer.exclusive else Lifetime(start, end)
            start = schedule.starts[command]
    return found


class _Arena:
    """Bytes that a request's buffers share: each at the first place where it meets no other."""

    def __init__(self) -> None:
        self._placed: list[tuple[int, int, Lifetime]] = []
        self.nbytes = 0

    def offset(self, nbytes: int, lifetime: Lifetime, first: int = 0, turn: int = 1) -> int:
        """Where a buffer would go: `first` bytes beyond a multiple of `turn`."""
        start = first
        for begin, end, other in sorted(self._placed, key=lambda placed: placed[:2]):
            if other.meets(lifetime):
                if begin - start >= nbytes:
                    break
                start = max(start, end)
                start += (first - start) % turn
        return start

    def put(self, nbytes: int, lifetime: Lifetime, first: int = 0, turn: int = 1) -> int:
        """Places a buffer."""
        start = self.offset(nbytes, lifetime, first, turn)
        self._placed.append((start, start + nbytes, lifetime))
        self.nbytes = max(self.nbytes, start + nbytes)
        return start


def buffers(commands: Iterable[Command]) -> list[Buffer]:
    """What commands use of the cards' memory, in the order in which they do."""
    found = {
        id(region.buffer): region.buffer
        for command in commands
        for region in (*command.reads, *command.writes)
        if not region.buffer.in_host
    }
    return list(found.values())


def traffic(commands: Iterable[Command], plan: Plan, cards: int) -> list[dict[str, float]]:
    """For each card the bytes that a request moves to and from each kind of its memories."""
    moved: list[dict[str, float]] = [{} for _ in range(cards)]
    for buffer in buffers(commands):
        mine, name = moved[buffer.position], kind(plan.memories[id(buffer)])
        mine[name] = mine.get(name, 0.0) + buffer.traffic
    return moved


def _together(commands: Iterable[Command]) -> dict[int, set[int]]:
    """Of each buffer those that commands use together with it, by identity."""
    found: dict[int, set[int]] = defaultdict(set)
    for command in commands:
        together = {id(region.buffer) for region in (*command.reads, *command.writes)}
        for buffer in together:
            found[buffer] |= together - {buffer}
    return found


class _Banks:
    """The banks in which buffers of a card begin.

    Parameters
    ----------
    beside : of each buffer those that commands use together with it, by identity
    banks : addresses at which those of far memory begin; from the range's end on they come again
    """

    def __init__(self, beside: Mapping[int, set[int]], banks: range):
        self._beside, self._banks = beside, banks
        self._found: dict[int, int] = {}

    def first(self, buffer: Buffer) -> tuple[int, int]:
        """At which byte of how many a buffer is to begin."""
        turn, count = self._banks.stop, len(self._banks)
        if buffer.nbytes < SPREAD * turn:
            return 0, 1
        taken = [self._found[n] for n in self._beside[id(buffer)] if n in self._found]

        def distance(bank: int) -> int:
            return min((min((bank - n) % count, (n - bank) % count) for n in taken), default=count)

        bank = self._found[id(buffer)] = max(range(count), key=distance)
        return self._banks[bank], turn


def plan(
    commands: Sequence[Command], schedule: Schedule, near: str, near_bytes: int, far: str,
    slots: int, banks: range, line: int,
) -> Plan:  # fmt: skip
    """Places every buffer of the cards that a request's commands use.

    The memory `near` of each core has `near_bytes`; what does not fit there, or several cores use,
    goes to `far`. There what cores hold of one name is held once. Banks of `far` begin at the
    addresses `banks`, and again from the end of that range on; every buffer begins at a multiple of
    `line` bytes.
    """
    used = lifetimes(commands, schedule)
    all_buffers = buffers(commands)
    beside = _together(commands)
    memories: dict[int, str] = {}
    offsets: dict[int, int] = {}
    sizes: dict[tuple[int, str], int] = {}
    held: dict[tuple[int, str], int] = {}

    def density(buffer: Buffer) -> tuple[bool, float]:
        copies = slots if buffer.contents is None else 1
        # Of what is alike but for rounding the first that is used goes first.
        return buffer.staging, round(buffer.traffic / (buffer.nbytes * copies), 2)

    def traffic(buffer: Buffer) -> tuple[bool, float]:
        return buffer.staging, buffer.traffic

    for position in sorted({buffer.position for buffer in all_buffers}):
        mine = [buffer for buffer in all_buffers if buffer.position == position]
        dense, busy = (
            _Card(near, near_bytes, far, slots, line, _Banks(beside, banks)) for _ in range(2)
        )
        dense.place(sorted(mine, key=density, reverse=True), used)
        busy.place(sorted(mine, key=traffic, reverse=True), used)
        card = busy if busy.moved_far < SPARED * dense.moved_far else dense
        memories |= card.memories
        offsets |= card.offsets
        sizes |= {(position, name): arena.nbytes for name, arena in card.arenas.items()}
        held |= {(position, name): nbytes for name, nbytes in card.held.items()}
    return Plan(memories, offsets, {key: size for key, size in sizes.items() if size}, held)


class _Card:
    """Where the buffers of a card lie; parameters and attributes are those of `plan` and `Plan`.

    Attributes
    ----------
    memories, offsets : as of `Plan`
    arenas : what its memories have of each request's own
    held : bytes of contents in its memories
    moved_far : bytes that a request moves to and from far memory
    """

    def __init__(
        self, near: str, near_bytes: int, far: str, slots: int, line: int, begin: _Banks
    ):  # fmt: skip
        self._near, self._near_bytes, self._far = near, near_bytes, far
        self._slots, self._line, self._begin = slots, line, begin
        self.memories: dict[int, str] = {}
        self.offsets: dict[int, int] = {}
        self.arenas: dict[str, _Arena] = defaultdict(_Arena)
        self.held: Counter[str] = Counter()
        self.moved_far = 0.0

    def place(self, ordered: Iterable[Buffer], used: Mapping[int, Lifetime]) -> None:
        """Gives near memory to the first that find room."""
        shared: set[str] = set()
        for buffer in ordered:
            nbytes, key = round_up(buffer.nbytes, self._line), id(buffer)
            near = of_core(self._near, buffer.core)
            arena, room = self.arenas[near], self._near_bytes if buffer.core >= 0 else 0
            grown, contents = arena.nbytes, self.held[near]
            if buffer.contents is not None:
                contents += nbytes
            else:
                grown = max(grown, arena.offset(nbytes, used[key]) + nbytes)
            fits = contents + self._slots * grown <= room
            name = self.memories[key] = near if fits else self._far
            self.moved_far += 0.0 if fits else buffer.traffic
            if buffer.contents is None:
                begin = (0, 1) if fits else self._begin.first(buffer)
                self.offsets[key] = self.arenas[name].put(nbytes, used[key], *begin)
            elif fits or buffer.name not in shared:
                self.held[name] += nbytes
                shared |= set() if fits else {buffer.name}
