"""Bands: the rows of y of a command in several commands, so that whoever reads the first of them
need not wait for the last.

While the array makes the second band of a tensor, the vector engine adds to its first; the next
product begins when that is done. Nodes are lowered to commands of whole tensors, and cut here by
what commands are: elements by rows, windows by rows of y with the rows of x that these see.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from halfdome.hdl.commands import Engine, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.host.compiler import costs
from halfdome.host.compiler.commands import Command, Extent, Place, Region
from halfdome.host.compiler.strips import strips
from halfdome.host.compiler.traffic import window_of
from halfdome.host.driver.kernels import Work

MOST = 8
"""Bands of a node on a card, its images and strips being some."""
START_SHARE = {Engine.MATMUL: 0.01, Engine.VECTOR: 0.05}
"""What of a band's cycles its start may be. The array is what others wait for."""
LEAST_BLOCK = 1 / 2
"""What of a block of the array's rows a band has at least: it fetches all weights again."""
FEW = 4
"""Bands at most of a product that has fewer blocks of rows: its bands may be less than a block."""
WEIGHTS_SHARE = 1 / 3
"""What of DRAM's bandwidth weights may take while the rows of such a band pass the array."""


@dataclass(frozen=True)
class _Band:
    """Fields that are other ones than the whole command's, rows or bytes of operands by their field
    as first and number, and its share of the work."""

    fields: Mapping[str, int]
    rows: Mapping[str, range]
    share: float


def cut(commands: Sequence[Command], config: CardConfig) -> list[Command]:
    """The commands, those that are long in bands. None is cut that tells of another."""
    bound = {id(other) for each in commands for other in (*each.behind, *each.once_seen)}
    rows: dict[tuple, set[int]] = defaultdict(set)
    for command in commands:
        rows[_node(command)].add(_row(command))
    made: list[Command] = []
    for (node, _), group in groupby(commands, lambda command: (_node(command), _row(command))):
        piece = list(group)
        is_bound = any(each.behind or each.once_seen or id(each) in bound for each in piece)
        share = 0.0 if is_bound else START_SHARE.get(_opcode(piece[0]).engine, 0.0)
        least = min(each.cycles for each in piece)
        count = min(int(least * share / costs.START_CYCLES), MOST // len(rows[node]))
        made += _cut(piece, count, config) if count > 1 else piece
    return made


def _opcode(command: Command) -> Opcode:
    return command.work.opcode  # type: ignore[attr-defined]


def _node(command: Command) -> tuple[int, str, Opcode, int]:
    """What commands have in common that make one tensor."""
    y = command.work.fields.get("y")  # type: ignore[attr-defined]
    return command.position, command.label, _opcode(command), id(y.buffer) if y else 0


def _row(command: Command) -> int:
    """The row of y at which a command begins."""
    fields = command.work.fields  # type: ignore[attr-defined]
    return fields["y"].offset // (fields["y_stride"] or 1) if "y" in fields else 0


def _cut(piece: Sequence[Command], count: int, config: CardConfig) -> list[Command]:
    """Commands for the same rows of y in bands, all of them for the first band first."""
    cut = [
        [_part(command, band) for band in _bands(command.work, count, config)]  # type: ignore[arg-type]
        for command in piece
    ]
    return [each for band in zip(*cut, strict=True) for each in band] if cut[0] else list(piece)


def _bands(work: Work, count: int, config: CardConfig) -> Iterator[_Band]:
    """At most `count` bands of a command; none if it has no rows to be cut along."""
    match work.opcode:
        case Opcode.CONV2D | Opcode.POOL | Opcode.DEPTHWISE:
            yield from _windows(work, count, config)
        case Opcode.MATMUL:
            m, block = work.fields["m"], config.activation_rows
            few = _few(m, count, config)
            for rows in _even(m, few, 1) if few else _even(m, count, block):
                whole = {"x": rows, "y": rows}
                yield _Band({"m": len(rows)}, whole, len(rows) / work.fields["m"])
        case Opcode.LOOKUP | Opcode.ADD_QUANTISED | Opcode.MULTIPLY_QUANTISED if (
            work.fields["rows"] == 1
        ):
            columns = work.fields["columns"]
            names = ["a", "y"]
            if "b" in work.fields and not work.fields["flags"] & Flag.BROADCAST:
                names.append("b")
            for part in _even(columns, count, config.bus_bytes):
                yield _Band({"columns": len(part)}, dict.fromkeys(names, part), len(part) / columns)
        case (
            Opcode.AFFINE | Opcode.ADD | Opcode.MULTIPLY | Opcode.CLAMP | Opcode.LOOKUP
            | Opcode.ADD_QUANTISED | Opcode.MULTIPLY_QUANTISED
        ):  # fmt: skip
            for rows in _even(work.fields["rows"], count, 1):
                operands = {name: rows for name in ("a", "b", "y") if name in work.fields}
                yield _Band({"rows": len(rows)}, operands, len(rows) / work.fields["rows"])


def _even(total: int, count: int, unit: int) -> list[range]:
    """So many ranges or fewer, each of whole units but for the last."""
    units = -(-total // unit)
    count = min(count, units)
    ends = [min(units * part // count * unit, total) for part in range(count + 1)]
    return [range(*ends) for ends in pairwise(ends)]


def _few(rows: int, count: int, config: CardConfig) -> int:
    """Bands of a product of few blocks of rows; 0 for one of more, whose bands are whole blocks."""
    if rows > (FEW - 1) * config.activation_rows:
        return 0
    weights = config.weight_tile_bytes / costs.dram_bytes_per_cycle(config)
    return max(1, min(count, FEW, int(rows * WEIGHTS_SHARE / weights)))


def _windows(work: Work, count: int, config: CardConfig) -> Iterator[_Band]:
    window = window_of(work.fields)
    height, width = window.out
    if work.opcode is not Opcode.CONV2D:
        rows = -(-height // count)
    elif few := _few(height * width, count, config):
        rows = -(-height // few)
    else:
        block = config.activation_rows
        count = min(count, int(height * width / (block * LEAST_BLOCK)))
        heights = {-(-height // parts) for parts in range(max(1, count // 2), count + 1)}

        def blocks(rows: int) -> int:  # of which each fetches all weights
            whole, rest = divmod(height, rows)
            return whole * -(-rows * width // block) - (-rest * width // block)

        rows = min(heights, key=lambda rows: (blocks(rows), rows), default=height)
    for strip in strips(window, rows, alone=work.opcode is not Opcode.CONV2D):
        fields = {"height": len(strip.image), "out_height": len(strip.out), "pad_top": strip.pad}
        image, columns = strip.image, window.image[1]
        x = range(image.start * columns, image.stop * columns)
        y = range(strip.out.start * width, strip.out.stop * width)
        yield _Band(fields, {"x": x, "y": y}, len(strip.out) / height)


def _part(command: Command, band: _Band) -> Command:
    """A band of a command."""
    work: Work = command.work  # type: ignore[assignment]
    fields = {**work.fields, **band.fields}
    moved: dict[tuple[int, int], tuple[range, int]] = {}
    for name, rows in band.rows.items():
        place, stride = work.fields[name], work.fields[f"{name}_stride"]
        if "columns" in band.fields:  # of one row, which is cut by bytes
            stride = 1
        if stride:
            fields[name] = place + rows.start * stride
            moved[_key(place)] = rows, stride
    cycles = costs.START_CYCLES + (work.cycles - costs.START_CYCLES) * band.share
    return replace(
        command, work=Work(work.opcode, fields, cycles),
        reads=[_band_of(region, moved, band.share) for region in command.reads],
        writes=[_band_of(region, moved, band.share) for region in command.writes],
    )  # fmt: skip


def _key(place: Place) -> tuple[int, int]:
    return id(place.buffer), place.offset


def _band_of(
    region: Region, moved: Mapping[tuple[int, int], tuple[range, int]], share: float
) -> Region:
    """What a band touches of a region: its rows, if it is an operand of which it has some."""
    extent = region.extent
    nbytes = None if region.moved is None else region.moved * share
    found = moved.get((id(region.buffer), extent.start))
    if found is None:
        return replace(region, moved=nbytes)
    rows, stride = found
    start = extent.start + rows.start * stride
    touched = Extent(start, 1, len(rows), 0)
    if stride > 1:
        touched = replace(extent, start=start, rows=len(rows))
    return Region(region.buffer, touched, nbytes)
