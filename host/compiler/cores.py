"""Which core of a card runs what: long commands are cut, and each core takes a part of them.

Nodes are lowered to commands of a card, and dealt out here by what commands are: rows of y, as
bands are, or its channels. A core reaches its own near memory and what all cores of a card share.
So rows that one core makes and reads lie near it, and rows that pass to another lie far.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from math import inf, lcm

from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.host.compiler import bands, costs
from halfdome.host.compiler.commands import Command, Contents, Place, Region
from halfdome.host.compiler.division import Cores
from halfdome.host.compiler.housing import house
from halfdome.host.compiler.traffic import window_of
from halfdome.host.driver.kernels import Window, Work
from halfdome.host.driver.layout import PARAM

NEAR_SHARE = 1 / 2
"""What of its near memory a core may have for weights."""
UNEVEN = 1.25
"""How much more than its share a core may have to do so that rows stay where they are."""

Bounds = tuple[float, ...]
"""Where the part of each core begins, and where the last ends."""


def deal(
    commands: Sequence[Command], config: CardConfig, cores: Cores, far: Collection[Contents] = ()
) -> list[Command]:
    """The commands, in parts for some cores of each card. None is cut that tells of another; what
    pools by the same indices stays together. Of `far` it is known that they find no near memory."""
    if cores.all == (0,):
        return list(commands)
    dealt = _Dealer(commands, config, cores, far)
    made = [part for command in commands for part in dealt.parts(command)]
    house(made, config.line_bytes)
    return made


@dataclass(frozen=True)
class _Way:
    """How cores do a node.

    Attributes
    ----------
    parts : of each command by identity
    busy, far : float, cycles that the busiest core is expected to take, and far memory
    rows : where the bytes of y of each core begin; None if each has some of every row
    """

    parts: Mapping[int, list[Command]]
    busy: float
    far: float
    rows: Bounds | None = None

    @property
    def cycles(self) -> float:
        """What that is expected to take."""
        return max(self.busy, self.far)


class _Dealer:
    """Decides, node after node, how it is cut.

    What is made in rows of a buffer is remembered, so that who reads them by rows reads its own.
    """

    def __init__(
        self, commands: Sequence[Command], config: CardConfig, cores: Cores,
        far: Collection[Contents],
    ):  # fmt: skip
        self._config = config
        self._cores = cores.dense
        self._pooling = _pooling(commands)
        self._bound = {
            id(other) for each in commands for other in (*each.behind, *each.once_seen)
        } | {id(each) for each in commands if each.behind or each.once_seen}
        self._nodes: dict[tuple, list[Command]] = defaultdict(list)
        self._node_of = {id(command): bands.node_of(command) for command in commands}
        for command in commands:
            self._nodes[self._node_of[id(command)]].append(command)
        self._readers = _readers(commands)
        held = {
            id(r.buffer): r.buffer.nbytes
            for each in commands
            for r in each.reads
            if r.buffer.contents is not None and not _pools(each)
        }
        room = NEAR_SHARE * config.scratchpad_bytes * len(cores.dense)
        self._weights_are_near = sum(held.values()) <= room
        self._far = far
        self._plans: dict[tuple, Mapping[int, list[Command]]] = {}
        self._rows: dict[int, Bounds | None] = {}  # in bytes, by identity of the buffer

    def parts(self, command: Command) -> list[Command]:
        """The command, or what cores do of it."""
        if id(command) in self._readers:  # a copy for whoever reads it
            readers = self._readers[id(command)]
            parts = [part for reader in readers for part in self._planned(reader)]
            return [_on(command, core) for core in sorted({_core(part) for part in parts})]
        if id(command) in self._pooling:
            core = self._pooling[id(command)]
            command.work = replace(command.work, core=core)  # type: ignore[type-var]
            return [command]
        return self._planned(command)

    def _planned(self, command: Command) -> list[Command]:
        node = self._node_of[id(command)]
        if node not in self._plans:
            self._plans[node] = self._plan(self._nodes[node])
        return self._plans[node][id(command)]

    def _plan(self, commands: Sequence[Command]) -> Mapping[int, list[Command]]:
        """The parts of each command of a node, by identity: in the way that is done first."""
        first = commands[0]
        alone = self._alone(commands, self._home(first))
        if any(id(command) in self._bound for command in commands) or not _is_cut(commands):
            return alone.parts
        kept = self._by_rows(commands, self._inherited(commands))
        ways = [kept, self._by_rows(commands, self._even(commands)), self._by_channels(commands)]
        best = min((way for way in (*ways, alone) if way), key=lambda way: way.cycles)
        if kept and kept.busy <= UNEVEN * best.cycles and kept.far <= best.cycles:
            best = kept
        self._rows[id(_place(first, "y").buffer)] = best.rows
        return best.parts

    def _alone(self, commands: Sequence[Command], number: int) -> _Way:
        """Everything on one core."""
        for command in commands:
            command.work = replace(command.work, core=self._cores[number])  # type: ignore[type-var]
        parts = {id(command): [command] for command in commands}
        return self._way(parts, self._all_on(number))

    def _home(self, command: Command) -> int:
        """Which of the cores has all of what a command reads; the first if none does."""
        for region in command.reads:
            bounds = self._rows.get(id(region.buffer))
            for number in range(len(self._cores)):
                if bounds == self._all_on(number):
                    return number
        return 0

    def _all_on(self, number: int) -> Bounds:
        return (0.0,) * (number + 1) + (inf,) * (len(self._cores) - number)

    def _even(self, commands: Sequence[Command]) -> Bounds:
        """All rows of y in as many equal parts as there are cores, in whole steps."""
        first, last = _span(commands)
        unit = _unit(commands[0], self._config)
        steps, count = -(-(last - first) // unit), len(self._cores)
        ends = [first + unit * (steps * part // count) for part in range(count)]
        return (*ends, last)

    def _inherited(self, commands: Sequence[Command]) -> Bounds | None:
        """The rows of y whose rows of x each core has made, of what goes row by row."""
        first = commands[0]
        if _opcode(first) in bands.WINDOWS:
            return None
        for name in ("x", "a", "b"):
            place, stride = first.work.fields.get(name), _stride(first, name)  # type: ignore[attr-defined]
            bounds = self._rows.get(id(place.buffer)) if isinstance(place, Place) else None
            if bounds and stride and (stride == 1) == (_stride(first) == 1):
                return self._counted(commands, place.offset, stride, bounds)
        return None

    def _counted(
        self, commands: Sequence[Command], offset: int, stride: int, bounds: Bounds
    ) -> Bounds:
        """Bounds of the bytes of an operand as rows of y."""
        start, last = _span(commands)
        inner = [
            bound if bound == inf else start - (offset - bound) // stride for bound in bounds[1:-1]
        ]
        return (start, *(min(max(bound, start), last) for bound in inner), last)

    def _by_rows(self, commands: Sequence[Command], bounds: Bounds | None) -> _Way | None:
        """None if there is no such cut."""
        if bounds is None:
            return None
        made = {}
        for command in commands:
            parts = self._rows_of(command, bounds)
            if parts is None:
                return None
            made[id(command)] = parts
        stride = _stride(commands[0])
        return self._way(made, tuple(bound * stride for bound in bounds))

    def _rows_of(self, command: Command, bounds: Bounds) -> list[Command] | None:
        work: Work = command.work  # type: ignore[assignment]
        total, _ = bands.steps(work, self._config)
        first, wide = _row(command), _width(work)
        ends = [min(max(-(-(bound - first) // wide), 0), total) for bound in bounds]
        parts = []
        for core, (start, stop) in zip(self._cores, pairwise(ends), strict=True):
            if start == stop:
                continue
            band = bands.band(work, range(int(start), int(stop)))
            if band is None:
                return None
            part = bands.part_of(command, band)
            part.work = replace(part.work, core=core)  # type: ignore[type-var]
            parts.append(_costed(part, self._config))
        return parts

    def _by_channels(self, commands: Sequence[Command]) -> _Way | None:
        """Each core some channels of y, in whole bus words and groups of tiles, whose weights lie
        together."""
        work: Work = commands[0].work  # type: ignore[assignment]
        if (
            work.opcode not in (Opcode.MATMUL, Opcode.CONV2D)
            or work.fields["flags"] & Flag.DIAGONAL
        ):
            return None
        word = self._config.bus_bytes // ElementFormat(work.fields["y_format"]).nbytes
        n, group = (
            work.fields["n"],
            lcm(self._config.group_tiles * self._config.array_columns, word),
        )
        groups, count = -(-n // group), len(self._cores)
        if groups < 2 or any(command.work.fields["n"] != n for command in commands):  # type: ignore[attr-defined]
            return None
        ends = [min(groups * part // count * group, n) for part in range(count + 1)]
        parts = [
            (core, range(start, stop))
            for core, (start, stop) in zip(self._cores, pairwise(ends), strict=True)
            if stop > start
        ]
        made = {
            id(command): [
                channels_of(command, chosen, core, self._config) for core, chosen in parts
            ]
            for command in commands
        }
        return self._way(made)

    def _way(self, parts: Mapping[int, list[Command]], rows: Bounds | None = None) -> _Way:
        """As if all lay in far memory but weights that cores have room for."""
        busy: dict[int, float] = defaultdict(float)
        moved = 0.0
        for part in chain.from_iterable(parts.values()):
            busy[_core(part)] += part.cycles
            for region in (*part.reads, *part.writes):
                held = region.buffer.contents is not None
                if not (held and self._weights_are_near) or region.buffer.held in self._far:
                    moved += region.traffic
        longest = max(busy.values()) + costs.START_CYCLES * (len(busy) > 1)
        far = moved / costs.streamed_bytes_per_cycle(self._config)
        return _Way(parts, longest, far, rows)


def channels_of(command: Command, chosen: range, core: int, config: CardConfig) -> Command:
    """Some channels of y of a product, from and to whole groups of tiles."""
    work: Work = command.work  # type: ignore[assignment]
    v = dict(work.fields)
    taps = v.get("kernel_height", 1) * v.get("kernel_width", 1)
    size = ElementFormat(v["y_format"]).nbytes

    def weight_bytes(n: int) -> int:
        return taps * costs.tiles(config, v["k"], n) * config.weight_tile_bytes

    start, nbytes = weight_bytes(chosen.start), weight_bytes(len(chosen))
    moved = {
        "x": (0, None), "w": (start, nbytes),
        "params": (PARAM.itemsize * chosen.start, PARAM.itemsize * len(chosen)),
        "y": (size * chosen.start, size * len(chosen)),
    }  # fmt: skip
    places = {
        (id(v[name].buffer), v[name].offset): how
        for name, how in moved.items()
        if isinstance(v[name], Place)
    }

    def regions(found: Iterable[Region]) -> list[Region]:
        made = []
        for region in found:
            extent = region.extent
            offset, row_bytes = places[id(region.buffer), extent.start]
            extent = replace(
                extent, start=extent.start + offset, row_bytes=row_bytes or extent.row_bytes
            )
            made.append(Region(region.buffer, extent))
        return made

    fields = {
        name: value + moved[name][0] if name in moved and isinstance(value, Place) else value
        for name, value in v.items()
    }
    part = replace(
        command, work=Work(work.opcode, {**fields, "n": len(chosen)}, core=core),
        reads=regions(command.reads), writes=regions(command.writes),
    )  # fmt: skip
    return _costed(part, config)


def _readers(commands: Sequence[Command]) -> dict[int, list[Command]]:
    """By identity of each command that fills a strip of near memory those that read it there."""
    found: dict[int, list[Command]] = {}
    filled: dict[int, Command] = {}
    for command in commands:
        for region in command.reads:
            if region.buffer.staging and id(region.buffer) in filled:
                found[id(filled[id(region.buffer)])].append(command)
        for region in command.writes:
            if region.buffer.staging:
                filled[id(region.buffer)] = command
                found[id(command)] = []
    return found


def _pooling(commands: Sequence[Command]) -> dict[int, int]:
    """By identity of each pooling, and of what brings its indices, its core."""
    indices = {
        id(buffer): buffer.core
        for buffer in (_place(each, "indices").buffer for each in commands if _pools(each))
    }
    return {
        id(command): indices[id(region.buffer)]
        for command in commands
        for region in (command.reads if _pools(command) else command.writes)
        if id(region.buffer) in indices
    }


def _pools(command: Command) -> bool:
    return _opcode(command) is Opcode.GATHER


def _on(command: Command, core: int) -> Command:
    """The same on a core."""
    return replace(command, work=replace(command.work, core=core))  # type: ignore[type-var]


def _core(command: Command) -> int:
    return command.work.core  # type: ignore[attr-defined]


def _opcode(command: Command) -> Opcode:
    return command.work.opcode  # type: ignore[attr-defined]


def _place(command: Command, name: str) -> Place:
    return command.work.fields[name]  # type: ignore[attr-defined]


def _width(work: Work) -> int:
    """Rows of y in a step of a command."""
    return work.fields["out_width"] if work.opcode in bands.WINDOWS else 1


def _unit(command: Command, config: CardConfig) -> int:
    """Rows, or bytes of one row, in whose multiples a node is cut."""
    work: Work = command.work  # type: ignore[assignment]
    return _width(work) * bands.steps(work, config)[1]


def _stride(command: Command, name: str = "y") -> int:
    """Bytes from one row of an operand to the next: of one row of bytes, one."""
    work: Work = command.work  # type: ignore[assignment]
    if bands.is_flat(work):
        return 1
    return work.fields.get(f"{name}_stride", 0)


def _row(command: Command) -> int:
    """The row of y, or the byte, at which a command begins, counted from that of the buffer."""
    return _place(command, "y").offset // (_stride(command) or 1)


def _span(commands: Sequence[Command]) -> tuple[int, int]:
    """The first row of y of some commands, and that after the last."""
    firsts = [_row(command) for command in commands]
    sizes = [_size(command.work) for command in commands]  # type: ignore[arg-type]
    return min(firsts), max(first + size for first, size in zip(firsts, sizes, strict=True))


def _size(work: Work) -> int:
    """Rows of y, or bytes of its one row."""
    fields = work.fields
    if work.opcode in bands.WINDOWS:
        return fields["out_height"] * fields["out_width"]
    return (
        fields["m"]
        if work.opcode is Opcode.MATMUL
        else fields["columns" if bands.is_flat(work) else "rows"]
    )


def _is_cut(commands: Sequence[Command]) -> bool:
    """Whether all commands of a node can be cut, and along rows of one stride."""
    works: list[Work] = [command.work for command in commands]  # type: ignore[misc]
    able = works[0].opcode in (*bands.WINDOWS, *bands.ROWS, Opcode.MATMUL)
    return (
        able and len({_stride(command) for command in commands}) == 1 and _stride(commands[0]) > 0
    )


def _costed(part: Command, config: CardConfig) -> Command:
    """A product with what it is expected to take and to fetch; anything else as it is."""
    work: Work = part.work  # type: ignore[assignment]
    v = work.fields
    if work.opcode is Opcode.MATMUL:
        window = Window((v["m"], 1), v["k"], v["n"], (v["m"], 1), (1, 1), (1, 1), (0, 0), (1, 1))
    elif work.opcode is Opcode.CONV2D:
        window = window_of(v)
    else:
        return part
    fetched = zip((v["x"], v["w"]), costs.fetched(config, window), strict=True)
    moved = {(id(place.buffer), place.offset): nbytes for place, nbytes in fetched}
    reads = [
        replace(region, moved=moved.get((id(region.buffer), region.extent.start), region.moved))
        for region in part.reads
    ]
    return replace(part, work=work.taking(costs.convolution(config, window)), reads=reads)
