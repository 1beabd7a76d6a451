"""From placed and ordered commands to the arrays of a program: descriptors and their patches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import DESCRIPTOR_BYTES, fields, offset, pack
from halfdome.host.compiler.commands import Buffer, Command, Place, Symbol
from halfdome.host.compiler.events import Waits
from halfdome.host.compiler.memory import Plan
from halfdome.host.compiler.schedule import Schedule
from halfdome.host.runtime.program import HOST, MOST_WAITS, Part, Segment


class Segments:
    """Numbers the segments of a program as they are first needed."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._numbers: dict[object, int] = {}
        self.found: list[Segment] = []
        self.weights: dict[str, np.ndarray] = {}

    def _number(self, key: object, segment: Segment) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.found)
            self.found.append(segment)
        return self._numbers[key]

    def of(self, buffer: Buffer) -> tuple[int, int]:
        """Segment and byte at which a buffer begins."""
        if buffer.in_host:
            segment = Segment(buffer.name, HOST, "host", buffer.nbytes, True)
            return self._number(id(buffer), segment), 0
        memory = self._plan.memory(buffer)
        if buffer.contents is not None:
            self.weights[buffer.name] = buffer.contents
            name = buffer.name
            segment = Segment(name, buffer.position, memory, buffer.nbytes, False, name)
            return self._number(id(buffer), segment), 0
        key = buffer.position, memory
        segment = Segment(
            f"{memory} of a request", buffer.position, memory, self._plan.arena_bytes[key], True
        )
        return self._number(key, segment), self._plan.offsets[id(buffer)][1]


@dataclass(frozen=True)
class _Patches:
    """Where the descriptors of a part are patched: row, byte, width, and what with."""

    addresses: list[tuple[int, int, int, int, int]]
    symbols: list[tuple[int, int, int, int]]


def parts(
    order: Sequence[Command], waits: Waits, before: Mapping[Command, Command],
    schedule: Schedule, segments: Segments, cards: int,
) -> tuple[Part, ...]:  # fmt: skip
    """What every card does, in the order of a round."""
    places = {command: place for place, command in enumerate(order)}

    def key(command: Command) -> tuple[float, int]:
        timed = before.get(command, command)  # a fence is issued with what it is for
        return schedule.key(timed)[1], places[command]

    rounds = [sorted((c for c in order if c.position == card), key=key) for card in range(cards)]
    events = {command: n for n, command in enumerate(c for mine in rounds for c in mine)}
    arrivals = {}
    for command in order:
        if command.tells >= 0:
            arrivals[command] = len(events) + len(arrivals)
    made = []
    for card, mine in enumerate(rounds):
        waited = np.full((len(mine), MOST_WAITS), -1, np.int32)
        for row, command in enumerate(mine):
            for place, other in enumerate(waits[command]):
                own = other.position == card
                waited[row, place] = events[other] if own else arrivals[other]
        stages = [schedule.key(before.get(command, command))[0] for command in mine]
        made.append(Part(
            queue=np.array([command.queue for command in mine], np.uint8),
            stage=np.array(stages, np.uint8),
            waits=waited,
            peer=np.array([command.tells for command in mine], np.int16),
            arrival=np.array([arrivals.get(command, -1) for command in mine], np.int32),
            labels=tuple(command.label for command in mine),
            code=_code(mine, segments),
        ))  # fmt: skip
    return tuple(made)


def _code(commands: Sequence[Command], segments: Segments) -> dict[str, np.ndarray]:
    """Descriptors with offsets where addresses will be, and where they are to be patched."""
    raw, patches = [], _Patches([], [])
    for row, command in enumerate(commands):
        values = {}
        for name, value in command.work.fields.items():
            values[name] = _field(row, command, name, value, segments, patches)
        raw.append(np.frombuffer(pack(command.work.opcode, **values), np.uint8))
    return {
        "descriptors": np.array(raw, np.uint8).reshape(-1, DESCRIPTOR_BYTES),
        "sizes": np.ones(len(commands), np.uint8),
        "addresses": np.array(patches.addresses, np.int32).reshape(-1, 5),
        "symbols": np.array(patches.symbols, np.int32).reshape(-1, 4),
    }


def _field(
    row: int, command: Command, name: str, value: object, segments: Segments, patches: _Patches
) -> int:
    """A field's number without what is not known yet; notes what is."""
    if not isinstance(value, Place | Symbol):
        return int(value)  # type: ignore[call-overload]
    opcode = command.work.opcode
    byte = offset(opcode, name)
    width = next(field.bits for field in fields(opcode) if field.name == name) // 8
    if isinstance(value, Symbol):
        patches.symbols.append((row, byte, width, value.number))
        return 0
    segment, start = segments.of(value.buffer)
    remote = int(value.buffer.position != command.position)
    patches.addresses.append((row, byte, width, segment, remote))
    if value.symbol >= 0:
        patches.symbols.append((row, byte, width, value.symbol))
    return start + value.offset
