"""Runs GATHER points on the cards of a platform, several at once, and checks what they answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import ElementFormat, Engine, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.registers import ACTIVITIES, GATHER_WAITS, activity_offset, traffic_offset
from halfdome.host.bench.gather import (
    FORMATS,
    Bags,
    Point,
    bounds,
    counted_bound,
    draw,
    row_lines,
    row_starts,
    summary,
)
from halfdome.host.driver.bus import DmaBuffer
from halfdome.host.driver.layout import round_up
from halfdome.host.driver.memory import Block
from halfdome.host.driver.rings import span_cycles
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.card import Card

CHECKED_BAGS = 16
"""Bags of each table that are brought home and compared with the golden model."""
CACHE_COUNTS = ("gather_cache_hits", "gather_cache_misses")


def measure(
    points: Sequence[Point],
    config: CardConfig,
    *,
    engine: str = "native",
    cards: int = 6,
    seed: int = 0,
    lookups: int | None = None,
    progress: Callable[[int], None] = lambda points: None,
) -> dict:
    """Efficiency of every point: cycles of its tightest bound over cycles taken.

    A point runs alone on its card, its table in DRAM, put there without simulating the transfer;
    indices and pooled rows lie in the scratchpad, where a served model has them, so that DRAM
    carries nothing but rows. `progress` is told how many points are done.
    """
    work = [(point, draw(point, config, seed, lookups)) for point in points]
    # Points of like length side by side: a card that is done waits for the others.
    work.sort(key=lambda item: -sum(len(bags.indices) for bags in item[1]) * item[0].dim)
    rows: dict[Point, dict] = {}
    with open(cards=min(cards, len(points)), config=config, engine=engine) as runtime:
        count = len(runtime.cards)
        for start in range(0, len(work), count):
            batch = [
                _Run(runtime, card, *item)
                for card, item in zip(runtime.cards, work[start : start + count], strict=False)
            ]
            for run in batch:
                rows[run.point] = run.finish()
            progress(len(batch))
    ordered = [rows[point] for point in points]
    return {
        **stamp(config, seed),
        "engine": engine,
        "cards": cards,
        "operands": "rows in DRAM, indices and pooled rows in the scratchpad",
        "rows": ordered,
        "summary": summary(ordered),
    }


@dataclass
class _Table:
    """One table of a point, its operands on the card, and where its checked bags arrive."""

    lookups: Bags
    block: Block
    content: np.ndarray  # uint8[unique rows, row_bytes]
    position: np.ndarray  # of each lookup's row in `content`
    landing: DmaBuffer
    gather: int  # number of its GATHER among the commands of the point


class _Run:
    """One point on one card, from its first command to its result."""

    def __init__(self, runtime: Runtime, card: Card, point: Point, lookups: Sequence[Bags]):
        self.point = point
        self._runtime = runtime
        self._card = card
        self._lookups = lookups
        self._blocks: list[Block] = []
        self._buffers: list[DmaBuffer] = []
        self._counts = _counts(card)
        self._traffic = self._dram()
        rng = np.random.default_rng(len(lookups[0].indices))
        self._commands = 0
        self._tables = [self._issue(rng, table) for table in lookups]
        self._ids = card.accelerator.timeline.flush()

    def _issue(self, rng: np.random.Generator, lookups: Bags) -> _Table:
        point, card, config = self.point, self._card, self._card.config
        block = self._dram_block(point.table_rows(config) * point.row_stride)
        unique, position = np.unique(lookups.indices, return_inverse=True)
        content = rng.integers(0, 256, (len(unique), point.row_bytes), np.uint8)
        real = np.float32 if point.bits == 8 else np.float16
        factors = rng.normal(size=(len(unique), 2)).astype(real).view(np.uint8)
        content[:, -factors.shape[1] :] = factors
        memory = self._runtime.platform.memory(card.index)
        rows = memory[block.address : block.address + block.nbytes]
        rows = rows[: point.table_rows(config) * point.row_stride].reshape(-1, point.row_stride)
        rows[unique, : point.row_bytes] = content
        card.accelerator.announce(block)

        # Lengths, then indices, in one transfer.
        lengths = round_up(lookups.lengths.nbytes, config.bus_bytes)
        operands = self._place(lengths + lookups.indices.nbytes)
        staging = self._map(operands.nbytes)
        staging.array[: lookups.lengths.nbytes] = lookups.lengths.view(np.uint8)
        staging.array[lengths : lengths + lookups.indices.nbytes] = lookups.indices.view(np.uint8)
        stride = round_up(4 * point.dim, config.bus_bytes)
        output = self._place(lookups.bags * stride)
        checked = _checked(lookups)
        landing = self._map(len(checked) * stride)

        timeline = card.accelerator.timeline
        loaded = timeline.issue(
            Opcode.LOAD, source=staging.address, source_stride=operands.nbytes,
            destination=operands.address, destination_stride=operands.nbytes, rows=1,
            row_bytes=lengths + lookups.indices.nbytes,
        )  # fmt: skip
        gathered = timeline.issue(
            Opcode.GATHER, after=(loaded,), table=block.address,
            rows=point.table_rows(config), row_stride=point.row_stride, dim=point.dim,
            format=FORMATS[point.bits], indices=operands.address + lengths,
            index_count=len(lookups.indices), lengths=operands.address, bags=lookups.bags,
            output=output.address, output_stride=stride, output_format=ElementFormat.FLOAT32,
        )  # fmt: skip
        step = stride * (checked[1] - checked[0] if len(checked) > 1 else 1)
        timeline.issue(
            Opcode.STORE, after=(gathered,), source=output.address, source_stride=step,
            destination=landing.address, destination_stride=stride, rows=len(checked),
            row_bytes=stride,
        )  # fmt: skip
        self._commands += 3
        return _Table(lookups, block, content, position, landing, self._commands - 2)

    def _dram_block(self, nbytes: int) -> Block:
        self._blocks.append(self._card.dram.allocate(nbytes))
        return self._blocks[-1]

    def _place(self, nbytes: int) -> Block:
        self._blocks.append(self._card.scratchpad.allocate(nbytes))
        return self._blocks[-1]

    def _map(self, nbytes: int) -> DmaBuffer:
        self._buffers.append(self._runtime.platform.bus.map(nbytes))
        return self._buffers[-1]

    def _dram(self) -> dict[str, int]:
        traffic = self._runtime.platform.traffic()["cards"][self._card.index]
        return {name: count for name, count in traffic.items() if name.startswith("dram_")}

    def finish(self) -> dict:
        """Waits for the card, gives everything back and returns the point's row."""
        point, card = self.point, self._card
        completions = card.device.check(self._ids)
        gathers = completions[[table.gather for table in self._tables]]
        start, cycles = int(gathers.start_cycle[0]), span_cycles(gathers)
        bases = [table.block.address for table in self._tables]
        limits = bounds(point, card.config, self._lookups, bases)
        lines = [row_lines(s, point.row_bytes) for s in row_starts(point, self._lookups, bases)]
        limits = {"dram": self._runtime.platform.dram_cycles(np.concatenate(lines), start)} | limits
        tightest = max(limits, key=lambda name: limits[name])
        wrong = sum(self._mismatches(table) for table in self._tables)
        counts = {
            name: (count - self._counts[name]) & 0xFFFF_FFFF
            for name, count in _counts(card).items()
        }
        dram = {name: count - self._traffic[name] for name, count in self._dram().items()}
        for block in self._blocks:
            card.release(block)
        for buffer in self._buffers:
            buffer.release()
        lookups = sum(len(table.indices) for table in self._lookups)
        row = {
            "point": point.name,
            "dim": point.dim,
            "bits": point.bits,
            "pooling": point.pooling,
            "reuse": point.reuse,
            "stride": point.stride,
            "tables": point.tables,
            "table_rows": point.table_rows(card.config),
            "row_bytes": point.row_bytes,
            "row_stride_bytes": point.row_stride,
            "bags": sum(table.bags for table in self._lookups),
            "lookups": lookups,
            "unique_rows": sum(len(table.content) for table in self._tables),
            "cycles": cycles,
            **{f"{name}_bound_cycles": value for name, value in limits.items()},
            "tightest_bound": tightest,
            "gather_efficiency": limits[tightest] / cycles,
            "row_gb_per_s": lookups * point.row_bytes / cycles * card.config.clock_mhz / 1e3,
            **counts,
            **dram,
            "mismatching_values": wrong,
        }
        return row | {"counted_bound": counted_bound(row)}

    def _mismatches(self, table: _Table) -> int:
        """Values of the checked bags that differ from the golden model."""
        pooling, dim = self.point.pooling, self.point.dim
        checked = _checked(table.lookups)
        positions = table.position.reshape(-1, pooling)[checked].reshape(-1).astype(np.int32)
        offsets = np.arange(len(checked), dtype=np.int32) * pooling
        golden = self._runtime.reference.embedding_bag(
            table.content, positions, offsets, bits=self.point.bits
        )
        stride = round_up(4 * dim, self._card.config.bus_bytes)
        got = table.landing.array[: len(checked) * stride].view(np.uint32)
        got = got.reshape(len(checked), -1)[:, :dim]
        return int((got != golden[:, :dim].view(np.uint32)).sum())


def _checked(lookups: Bags) -> np.ndarray:
    """Evenly spaced bags, the first among them."""
    step = max(1, lookups.bags // CHECKED_BAGS)
    return np.arange(0, lookups.bags, step)[:CHECKED_BAGS]


def _counts(card: Card) -> dict[str, int]:
    """What the gather engine and its cache have counted, modulo 2**32."""
    card.device.read("CYCLES_LO")
    offsets = {
        f"{name}_cycles": activity_offset(0, Engine.GATHER, name)
        for name in ACTIVITIES
        if name != "idle"
    }
    offsets |= {f"gather_{w}_cycles": traffic_offset(f"gather_{w}_cycles") for w in GATHER_WAITS}
    if card.config.gather_cache_bytes:
        offsets |= {name: traffic_offset(name) for name in CACHE_COUNTS}
    counts = {name: card.device.read_at(offset, 4) for name, offset in offsets.items()}
    return dict.fromkeys(CACHE_COUNTS, 0) | counts
