"""GATHER against what bounds it: which points are measured, on what data, with which bounds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from halfdome.hdl.commands import RowFormat
from halfdome.hdl.config import LINE_BYTES, CardConfig
from halfdome.hdl.registers import GATHER_WAITS
from halfdome.host.bench.traces import TRACES
from halfdome.host.compiler.placement import popular_first
from halfdome.host.driver.layout import round_up

DIMS = (16, 32, 64, 128, 256)
BITS = (8, 4)
POOLINGS = (1, 10, 32, 80, 120)
STRIDES = {"packed": 1, "padded": LINE_BYTES}
"""Row strides by name: rows start at multiples of so many bytes."""

FORMATS = {8: RowFormat.INT8, 4: RowFormat.INT4}
COMMAND_CYCLES = 20_000
"""Length of a command, roughly: a start of some hundred cycles does not show."""
FEWEST_BAGS = 64
"""A batch: fewer bags would not fill the unit at the end of a command."""
LEAST_WAIT = 0.03
"""Share of the cycles of a command below which a wait does not bind: start and end of it."""
TABLE_BYTES = 64 << 20
"""Size of a sweep point's table, where DRAM has room: far more than the rows DRAM can keep open."""


@dataclass(frozen=True)
class Point:
    """One GATHER to measure, for each of `tables` tables one after the other.

    `rows` of each table are scaled to the card's DRAM; 0 means as many as `TABLE_BYTES` hold.
    `order` of the rows is "plain" or "popular", as `placement.popular_first` has it.
    """

    dim: int
    bits: int
    pooling: int
    reuse: str = "uniform"
    stride: str = "packed"
    tables: int = 1
    rows: int = 0
    label: str = ""
    order: str = "plain"

    @property
    def name(self) -> str:
        """A short name, for people; trace and stride are told beside it."""
        return self.label or f"D{self.dim} {self.bits}b P{self.pooling}"

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, scale and bias included."""
        return self.dim + 8 if self.bits == 8 else -(-self.dim // 2) + 4

    @property
    def row_stride(self) -> int:
        """Bytes from one row to the next."""
        return round_up(self.row_bytes, STRIDES[self.stride])

    def table_rows(self, config: CardConfig) -> int:
        """Rows of each table: what is asked for, or what half of DRAM holds."""
        room = config.dram_bytes // 2 // self.tables // self.row_stride
        return min(self.rows or TABLE_BYTES // self.row_stride, room)


SHAPES = {
    "RM1": Point(32, 8, 80, tables=8, rows=4_000_000),
    "RM2": Point(64, 8, 120, tables=32, rows=500_000),
    "RM3": Point(32, 8, 20, tables=10, rows=2_000_000),
}
"""RMC1 to RMC3 (harvard-acc/DeepRecSys, models/configs): dim, pooling, tables, rows."""
PLATFORM_CARDS = 6
"""Cards that share the tables of `SHAPES`."""


def shapes(names: Iterable[str]) -> list[Point]:
    """One card's share of the tables of each shape, under every trace.

    Raises `ValueError` for an unknown shape.
    """
    points = []
    for name in names:
        if name not in SHAPES:
            raise ValueError(f"shape={name}: unknown; known are {', '.join(SHAPES)}")
        share = -(-SHAPES[name].tables // PLATFORM_CARDS)
        points += [replace(SHAPES[name], tables=share, reuse=reuse, label=name) for reuse in TRACES]
    return points


def sweep(
    dims: Sequence[int] = DIMS,
    bits: Sequence[int] = BITS,
    poolings: Sequence[int] = POOLINGS,
    reuses: Sequence[str] = tuple(TRACES),
    strides: Sequence[str] = tuple(STRIDES),
) -> list[Point]:
    """Every combination. Raises `ValueError` for a value that no card or trace knows."""
    for name, values, known in (("bits", bits, FORMATS), ("reuse", reuses, TRACES),
                                ("stride", strides, STRIDES)):  # fmt: skip
        for value in values:
            if value not in known:
                raise ValueError(f"{name}={value}: unknown; known are {', '.join(map(str, known))}")
    for name, values in (("dim", dims), ("pooling", poolings)):
        for value in values:
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
    return [Point(*values) for values in product(dims, bits, poolings, reuses, strides)]


@dataclass(frozen=True)
class Bags:
    """One table's lookups: `indices` is int32[lookups], every bag holds the same number."""

    indices: np.ndarray = field(repr=False)
    bags: int

    @property
    def lengths(self) -> np.ndarray:
        """int32[bags]."""
        return np.full(self.bags, len(self.indices) // self.bags, np.int32)


def draw(point: Point, config: CardConfig, seed: int, lookups: int | None = None) -> list[Bags]:
    """The lookups of each table, the same whatever other points are measured.

    `lookups` is the number for each table, in whole bags; by default as many as take about
    `COMMAND_CYCLES`, if indices and pooled rows fit the scratchpad. Raises `ValueError` if one bag
    of each table does not.
    """
    bag_bytes = round_up(4 * point.dim, config.bus_bytes) + 4 * point.pooling + 4
    most = (config.scratchpad_bytes - 4 * LINE_BYTES * point.tables) // (bag_bytes * point.tables)
    if most < 1:
        raise ValueError(
            f"scratchpad_bytes={config.scratchpad_bytes}: a bag of {point.name} takes {bag_bytes}"
        )
    if lookups is None:
        bags = max(FEWEST_BAGS, round(COMMAND_CYCLES / (point.pooling * _cycles(point, config))))
    else:
        bags = -(-lookups // point.pooling)
    bags = min(bags, most)
    axes = (point.dim, point.bits, point.pooling, list(TRACES).index(point.reuse),
            list(STRIDES).index(point.stride))  # fmt: skip
    rng = np.random.default_rng([seed, *axes])
    rows = point.table_rows(config)
    lookups_of_tables = []
    for _ in range(point.tables):
        indices = TRACES[point.reuse](rng, rows, bags * point.pooling)
        if point.order == "popular":
            counts = np.bincount(indices, minlength=rows)
            indices = popular_first(counts, point.row_stride, config)[indices].astype(np.int32)
        lookups_of_tables.append(Bags(indices, bags))
    return lookups_of_tables


def _cycles(point: Point, config: CardConfig) -> float:
    """Cycles of a lookup, roughly: its activate, four of which may fall in 40 ns, or more.

    Of a card with one channel: designs with more of them pool the same lookups.
    """
    activate = 10e-3 * config.clock_mhz
    words = point.row_bytes / config.bus_bytes
    return max(activate, words, *(n / point.pooling for n in _per_bag(point, config)))


def _per_bag(point: Point, config: CardConfig) -> tuple[int, int]:
    """Cycles that lanes and output take for a bag."""
    lanes = point.pooling * -(-point.dim // config.lanes)
    return lanes, -(-4 * point.dim // config.bus_bytes)


def row_lines(
    starts: np.ndarray, row_bytes: int | np.ndarray, unit: int = LINE_BYTES
) -> np.ndarray:
    """Addresses of every `unit` bytes that rows at `starts` touch, row after row.

    `row_bytes` may be one number for each row.
    """
    first = np.asarray(starts, np.int64) // unit
    counts = (starts + row_bytes - 1) // unit - first + 1
    before = np.cumsum(counts) - counts
    within = np.arange(counts.sum()) - np.repeat(before, counts)
    return (np.repeat(first, counts) + within) * unit


def bounds(
    point: Point, config: CardConfig, lookups: Sequence[Bags], tables: Sequence[int]
) -> dict[str, int]:
    """Cycles that no card can beat, DRAM aside: tables start at the card addresses `tables`.

    `lanes`: chunks of `config.lanes` elements; `index`: bus words of indices; `output`: bus words
    of pooled rows; `bus`: bus words that the rows touch.
    """
    lanes, output = _per_bag(point, config)
    bags = sum(table.bags for table in lookups)
    words = sum(
        len(row_lines(starts, point.row_bytes, config.bus_bytes))
        for starts in row_starts(point, lookups, tables)
    )
    indices = sum(-(-table.indices.nbytes // config.bus_bytes) for table in lookups)
    return {"lanes": bags * lanes, "index": indices, "output": bags * output, "bus": words}


def row_starts(point: Point, lookups: Sequence[Bags], tables: Sequence[int]) -> list[np.ndarray]:
    """Card addresses of the rows of each table's lookups, in their order."""
    return [
        base + table.indices.astype(np.int64) * point.row_stride
        for table, base in zip(lookups, tables, strict=True)
    ]


def summary(rows: Sequence[dict]) -> dict:
    """Least and median efficiency, by pooling and over all, and the five worst points."""
    ordered = sorted(rows, key=lambda row: row["gather_efficiency"])
    groups = {
        "pooling 1": [r for r in rows if r["pooling"] == 1],
        "pooling 10 or more": [r for r in rows if r["pooling"] >= 10],
        "all": list(rows),
    }
    return {
        "efficiency": {
            name: {
                "points": len(group),
                "least": min(row["gather_efficiency"] for row in group),
                "median": float(np.median([row["gather_efficiency"] for row in group])),
            }
            for name, group in groups.items()
            if group
        },
        "worst": [
            {name: row[name] for name in ("point", "reuse", "stride")} | {"why": why(row)}
            for row in ordered[:5]
        ],
    }


def counted_bound(row: dict) -> str:
    """The bound as the card's counters name it, one of `GATHER_WAITS`.

    Lanes are counted while they add, whatever the unit waits for between two additions. So of the
    other counts the largest names the bound, unless it is below `LEAST_WAIT` of the cycles.
    """
    waits = {w: row[f"gather_{w}_cycles"] / row["cycles"] for w in GATHER_WAITS if w != "lanes"}
    longest = max(waits, key=lambda wait: waits[wait])
    return longest if waits[longest] >= LEAST_WAIT else "lanes"


def why(row: dict) -> str:
    """What the counters say of a point, in words."""
    cycles = row["cycles"]
    shares = ", ".join(f"{w} {row[f'gather_{w}_cycles'] / cycles:.0%}" for w in GATHER_WAITS)
    lines = row["dram_reads"]
    return (
        f"{row['gather_efficiency']:.3f} of the {row['tightest_bound']} bound; {shares}; "
        f"{lines / row['lookups']:.2f} lines a lookup, {row['dram_row_hits'] / max(1, lines):.0%} "
        f"row hits, {row['dram_refreshes']} refreshes"
    )
