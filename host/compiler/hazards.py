"""What a compiled program must keep, read off its descriptors and nothing else.

Any two commands that touch the same bytes, one of them writing, are ordered by events. Commands are
issued after what they wait for. And cards whose queues hold only so much come to an end.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import numpy as np

from halfdome.hdl.commands import (
    ElementFormat,
    Flag,
    Opcode,
    RowFormat,
    fields,
    offset,
    unpack,
)
from halfdome.hdl.config import CardConfig
from halfdome.host.compiler import costs
from halfdome.host.compiler.commands import Extent
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


def check(program: Program, config: CardConfig) -> None:
    """Raises `HazardError` naming what a program does not keep."""
    order = _Order(program)
    order.check_rounds()
    accesses: dict[int, list[Access]] = defaultdict(list)
    for access in _accesses(program, config):
        accesses[access.segment].append(access)
    for segment, found in accesses.items():
        for place, one in enumerate(found):
            for two in found[:place]:
                if not (one.writes or two.writes) or one.command == two.command:
                    continue
                if one.extent.touches(two.extent) and not order.ordered(one, two):
                    raise HazardError(
                        f"{order.name(two.command)} and {order.name(one.command)} touch the same "
                        f"bytes of {program.segments[segment].name!r}, and no event orders them"
                    )
    for requests in (1, 2, program.stages + program.slots):
        _run(program, config.queue_depth, requests)


class _Order:
    """What of a request happens before what."""

    def __init__(self, program: Program):
        self._program = program
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
        self._before = self._closure()

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

    def check_rounds(self) -> None:
        """Whatever is waited for is issued before: on one card earlier, on another no later."""
        for command, (position, _) in enumerate(self._commands):
            for event in self._waits(command):
                source = self._telling.get(event, event)
                same = self._commands[source][0] == position
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
        first, second = (self._key(each.command)[0] for each in (one, two))
        return any(first < sync <= second for sync in self._program.syncs)


def _accesses(program: Program, config: CardConfig) -> Iterator[Access]:
    """What every command of a program touches, by its descriptor and where that is patched."""
    for position, part in enumerate(program.parts):
        first = program.first_event(position)
        code = part.code
        places: dict[tuple[int, int], int] = {
            (row, byte): segment for row, byte, _, segment, _ in code["addresses"].tolist()
        }
        reaches = {(row, byte): tuple(rest) for row, byte, *rest in code["reaches"].tolist()}
        starts = np.cumsum(code["sizes"]) - code["sizes"]
        for row, slot in enumerate(starts.tolist()):
            raw = code["descriptors"][slot].tobytes()
            opcode = Opcode(raw[0])
            values = unpack(fields(opcode), raw)
            for name, (extent, writes) in _operands(opcode, values, config).items():
                at = slot, offset(opcode, name)
                if at in reaches:  # anywhere in there
                    extent = Extent(reaches[at][0], 1, reaches[at][1], 0)
                if at in places:
                    yield Access(first + row, places[at], extent, writes)


Operands = dict[str, tuple[Extent, bool]]


def _operands(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Operands:
    """The operands of a command by their address field, and whether they are written."""
    match opcode:
        case Opcode.LOAD | Opcode.COPY | Opcode.STORE:
            return {
                name: (Extent(v[name], v["rows"], v["row_bytes"], v[f"{name}_stride"]), writes)
                for name, writes in (("source", False), ("destination", True))
            }
        case Opcode.GATHER:
            return _gather_operands(v)
        case Opcode.MATMUL | Opcode.BATCH_MATMUL:
            return _product_operands(opcode, v, config)
        case Opcode.AFFINE | Opcode.ADD | Opcode.MULTIPLY | Opcode.CLAMP:
            columns = {"y": 1 if v["flags"] & (Flag.SUM | Flag.MAX) else v["columns"]}
            columns |= {"a": v["columns"]}
            if "b" in v:
                columns["b"] = 1 if v["flags"] & Flag.BROADCAST else v["columns"]
            return {
                name: (
                    Extent(
                        v[name], v["rows"] if v[f"{name}_stride"] else 1,
                        count * ElementFormat(v[f"{name}_format"]).nbytes, v[f"{name}_stride"],
                    ),
                    name == "y",
                )
                for name, count in columns.items()
            }  # fmt: skip
        case Opcode.CONV2D:
            raise NotImplementedError("the operands of CONV2D are not known here")
    return {}


def _gather_operands(v: dict[str, int]) -> Operands:
    row_bytes = RowFormat(v["format"]).row_bytes(v["dim"])
    pooled = v["dim"] * ElementFormat(v["output_format"]).nbytes
    integer = 8 if v["flags"] & Flag.WIDE else 4
    found = {
        "table": (Extent(v["table"], v["rows"], row_bytes, v["row_stride"]), False),
        "indices": (Extent(v["indices"], 1, integer * v["index_count"], 0), False),
        "lengths": (Extent(v["lengths"], 1, integer * v["bags"], 0), False),
        "output": (Extent(v["output"], v["bags"], pooled, v["output_stride"]), True),
    }
    if v["flags"] & Flag.WEIGHTED:
        found["weights"] = Extent(v["weights"], 1, 4 * v["index_count"], 0), False
    return found


def _product_operands(opcode: Opcode, v: dict[str, int], config: CardConfig) -> Operands:
    size = ElementFormat(v["y_format"]).nbytes
    found = {}
    if opcode is Opcode.MATMUL:
        weights = costs.tiles(config, v["k"], v["n"]) * config.weight_tile_bytes
        found["x"] = Extent(v["x"], v["m"], v["k"], v["x_stride"]), False
        found["w"] = Extent(v["w"], 1, weights, 0), False
        found["y"] = Extent(v["y"], v["m"], size * v["n"], v["y_stride"]), True
    else:
        rows, row = (v["n"], v["k"]) if v["flags"] & Flag.TRANSPOSED else (v["k"], v["n"])
        one = {
            "x": (v["m"] - 1) * v["x_stride"] + v["k"],
            "w": (rows - 1) * v["w_stride"] + row,
            "y": (v["m"] - 1) * v["y_stride"] + size * v["n"],
        }
        if v["flags"] & Flag.TRIANGLE:
            one["y"] = v["n"] * (v["n"] - 1) // 2
        for name, nbytes in one.items():
            extent = Extent(v[name], v["batches"], nbytes, v[f"{name}_batch_stride"])
            found[name] = extent, name == "y"
    if v["y_format"] != ElementFormat.INT32:
        found["params"] = Extent(v["params"], 1, 8 * v["n"], 0), False
    return found


def _run(program: Program, depth: int, requests: int) -> None:
    """Lets cards with queues of `depth` take what so many requests issue, until nothing moves.

    Whatever can happen stays possible whatever else happens: one order stands for all.
    """
    rings = _issued(program, requests)
    happened: set[tuple[int, int]] = set()
    queues: list[dict[int, deque]] = [defaultdict(deque) for _ in rings]
    moved = True
    while moved:
        moved = False
        for position, ring in enumerate(rings):
            part = program.parts[position]
            first = program.first_event(position)
            while ring and len(queues[position][int(part.queue[ring[0][1]])]) < depth:
                queues[position][int(part.queue[ring[0][1]])].append(ring.popleft())
                moved = True
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
    for position, ring in enumerate(rings):
        stuck = [*ring, *(each for queue in queues[position].values() for each in queue)]
        if stuck:
            label = program.parts[position].labels[stuck[0][1]]
            raise HazardError(
                f"{requests} requests: {len(stuck)} commands of card {position} never run, "
                f"{label!r} among them: a full queue holds up what it waits for"
            )


def _issued(program: Program, requests: int) -> list[deque[tuple[int, int]]]:
    """Request and row of every command, in the order in which each card is told of them."""
    rings: list[deque[tuple[int, int]]] = [deque() for _ in program.parts]
    for newest in range(requests + program.stages - 1):
        for ring, part in zip(rings, program.parts, strict=True):
            for row, stage in enumerate(part.stage.tolist()):
                if 0 <= newest - stage < requests:
                    ring.append((newest - stage, row))
    return rings
