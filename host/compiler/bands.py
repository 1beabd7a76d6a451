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
from halfdome.host.compiler.strips import strip_of
from halfdome.host.compiler.traffic import window_of
from halfdome.host.driver.kernels import Work

MOST, MOST_ALONE = 8, 16
"""Bands of a node on a card, its images and strips being some; of one whose channels are by
themselves, where products wait for both its first band and its last."""
START_SHARE = {Engine.MATMUL: 0.01, Engine.VECTOR: 0.05}
"""What of a band's cycles its start may be. The array is what others wait for."""
SHORT, STARTS = 20_000, 200
"""Cycles of a node that is short, and those that its bands may take to begin, all together: in the
array weights come from DRAM first, of windows the first taps and weights."""
PRODUCT_START, WINDOW_START = 150, 80
WINDOWS = (Opcode.CONV2D, Opcode.POOL, Opcode.AVERAGE, Opcode.DEPTHWISE)
"""What makes an image of an image."""
BYTES = (Opcode.LOOKUP, Opcode.ADD_QUANTISED, Opcode.MULTIPLY_QUANTISED)
"""What goes over bytes, wherever rows end."""
ROWS = (*BYTES, Opcode.AFFINE, Opcode.ADD, Opcode.MULTIPLY, Opcode.CLAMP)
"""What goes over elements, row by row."""
LEAST_BLOCK = 1 / 2
"""What of a block of the array's rows a band has at least: it fetches all weights again."""
FEW = 4
"""Bands at most of a product that has fewer blocks of rows: its bands may be less than a block."""
WEIGHTS_SHARE = 1 / 3
"""What of DRAM's bandwidth weights may take while the rows of such a band pass the array."""


@dataclass(frozen=True)
class Band:
    """Fields that are other ones than the whole command's, rows or bytes of operands by their field
    as first and number, and its share of the work."""

    fields: Mapping[str, int]
    rows: Mapping[str, range]
    share: float


def cut(commands: Sequence[Command], config: CardConfig) -> list[Command]:
    """The commands, those that are long in bands. None is cut that tells of another. DRAM is what
    the cores of a card share."""
    bound = {id(other) for each in commands for other in (*each.behind, *each.once_seen)}
    rows: dict[tuple, set[int]] = defaultdict(set)
    cores: dict[int, set[int]] = defaultdict(set)
    for command in commands:
        rows[node_of(command)].add(_row(command))
        cores[command.position].add(command.work.core)  # type: ignore[attr-defined]
    peak = costs.dram_bytes_per_cycle(config)
    made: list[Command] = []
    for (node, _), group in groupby(commands, lambda command: (node_of(command), _row(command))):
        piece = list(group)
        is_bound = any(each.behind or each.once_seen or id(each) in bound for each in piece)
        least = min(each.cycles for each in piece)
        count = 0 if is_bound else _count(_opcode(piece[0]), least, len(rows[node]))
        dram = peak / len(cores[piece[0].position])
        made += _cut(piece, count, config, dram) if count > 1 else piece
    return made


def _count(opcode: Opcode, cycles: float, pieces: int) -> int:
    """Bands at most of a piece that takes so many cycles, of so many of a node."""
    most = MOST_ALONE if opcode is Opcode.DEPTHWISE else MOST
    share = START_SHARE.get(opcode.engine, 0.0)
    start = PRODUCT_START if opcode.engine is Engine.MATMUL else WINDOW_START
    if cycles * pieces < SHORT and (opcode.engine is Engine.MATMUL or opcode in WINDOWS):
        most = min(most, STARTS // start)
    return min(int(cycles * share / costs.START_CYCLES), most // pieces)


def _opcode(command: Command) -> Opcode:
    return command.work.opcode  # type: ignore[attr-defined]


def node_of(command: Command) -> tuple[int, int, str, Opcode, int]:
    """What commands of one core have in common that make one tensor."""
    work: Work = command.work  # type: ignore[assignment]
    y = work.fields.get("y")
    return command.position, work.core, command.label, work.opcode, id(y.buffer) if y else 0


def _row(command: Command) -> int:
    """The row of y at which a command begins."""
    fields = command.work.fields  # type: ignore[attr-defined]
    return fields["y"].offset // (fields["y_stride"] or 1) if "y" in fields else 0


def _cut(piece: Sequence[Command], count: int, config: CardConfig, dram: float) -> list[Command]:
    """Commands for the same rows of y in bands, all of them for the first band first; their core
    has `dram` bytes a cycle of DRAM."""
    cut = [
        [part_of(command, band) for band in _bands(command.work, count, config, dram)]  # type: ignore[arg-type]
        for command in piece
    ]
    return [each for band in zip(*cut, strict=True) for each in band] if cut[0] else list(piece)


def _bands(work: Work, count: int, config: CardConfig, dram: float) -> Iterator[Band]:
    """At most `count` bands of a command; none if it has no steps to be cut along."""
    total, unit = steps(work, config)
    if work.opcode in WINDOWS:
        parts = _heights(work, count, config, dram)
    elif work.opcode is not Opcode.MATMUL:
        parts = _even(total, count, unit)
    elif few := _few(total, count, config, dram):
        parts = _even(total, few, unit)
    else:
        parts = _even(total, count, config.activation_rows)
    found = [band(work, part) for part in parts]
    if None not in found:
        yield from found  # type: ignore[misc]


def steps(work: Work, config: CardConfig) -> tuple[int, int]:
    """What a command can be cut along: how many rows of y, of images rows of pixels, or bytes of
    one row, and the number of them in whose multiples; none if it cannot be cut."""
    match work.opcode:
        case Opcode.CONV2D | Opcode.POOL | Opcode.AVERAGE | Opcode.DEPTHWISE:
            return work.fields["out_height"], 1
        case Opcode.MATMUL:
            return work.fields["m"], 1
        case _ if is_flat(work):
            return work.fields["columns"], config.bus_bytes
        case _ if work.opcode in ROWS:
            return work.fields["rows"], 1
    return 0, 1


def band(work: Work, part: range) -> Band | None:
    """Some steps of a command. None if there is no such command: an image of which its windows see
    nothing, or leap over."""
    total, fields = 0, {}
    if work.opcode in WINDOWS:
        return _window(work, part)
    if work.opcode is Opcode.MATMUL:
        total, fields, names = work.fields["m"], {"m": len(part)}, ["x", "y"]
    elif is_flat(work):
        total, fields, names = work.fields["columns"], {"columns": len(part)}, ["a", "y"]
        if "b" in work.fields and not work.fields["flags"] & Flag.BROADCAST:
            names.append("b")
    else:
        total, fields = work.fields["rows"], {"rows": len(part)}
        names = [name for name in ("a", "b", "y") if name in work.fields]
    return Band(fields, dict.fromkeys(names, part), len(part) / total)


def is_flat(work: Work) -> bool:
    """Whether all is one row of bytes."""
    return work.opcode in BYTES and work.fields["rows"] == 1


def _even(total: int, count: int, unit: int) -> list[range]:
    """So many ranges or fewer, each of whole units but for the last."""
    units = -(-total // unit)
    count = min(count, units)
    ends = [min(units * part // count * unit, total) for part in range(count + 1)] if count else []
    return [range(*ends) for ends in pairwise(ends)]


def _few(rows: int, count: int, config: CardConfig, dram: float) -> int:
    """Bands of a product of few blocks of rows; 0 for one of more, whose bands are whole blocks."""
    if rows > (FEW - 1) * config.activation_rows:
        return 0
    weights = config.weight_tile_bytes / dram
    return max(1, min(count, FEW, int(rows * WEIGHTS_SHARE / weights)))


def _heights(work: Work, count: int, config: CardConfig, dram: float) -> list[range]:
    """The rows of pixels of each band; of products those with the fewest blocks."""
    height, width = window_of(work.fields).out
    if work.opcode is not Opcode.CONV2D:
        rows = -(-height // count)
    elif few := _few(height * width, count, config, dram):
        rows = -(-height // few)
    else:
        block = config.activation_rows
        count = min(count, int(height * width / (block * LEAST_BLOCK)))
        heights = {-(-height // parts) for parts in range(max(1, count // 2), count + 1)}

        def blocks(rows: int) -> int:  # of which each fetches all weights
            whole, rest = divmod(height, rows)
            return whole * -(-rows * width // block) - (-rest * width // block)

        rows = min(heights, key=lambda rows: (blocks(rows), rows), default=height)
    return [range(first, min(first + rows, height)) for first in range(0, height, rows)]


def _window(work: Work, part: range) -> Band | None:
    """Rows of pixels, with those of x that they are made of."""
    window = window_of(work.fields)
    strip = strip_of(window, part, alone=work.opcode is not Opcode.CONV2D)
    if strip is None:
        return None
    fields = {"height": len(strip.image), "out_height": len(strip.out), "pad_top": strip.pad}
    columns, width = window.image[1], window.out[1]
    x = range(strip.image.start * columns, strip.image.stop * columns)
    y = range(part.start * width, part.stop * width)
    return Band(fields, {"x": x, "y": y}, len(part) / window.out[0])


def part_of(command: Command, band: Band) -> Command:
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
        command, work=Work(work.opcode, fields, cycles, work.core),
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
