"""Whether cores that ask for more memory than there is get equal shares of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from halfdome.hdl.commands import ElementFormat, Opcode, RowFormat
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import pack
from halfdome.host.compiler import costs
from halfdome.host.driver import kernels
from halfdome.host.driver.kernels import Rows, Work
from halfdome.host.driver.layout import round_up
from halfdome.host.driver.rings import spans
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp

WINDOW_CYCLES = 10_000
WINDOWS = 3
"""So many the streams take if DRAM is at its peak and all cores get their share."""
STREAMS = (("copies",), ("gathers",), ("copies", "gathers"), ("products",))
"""What each core runs, in turn."""

_TABLE_ROWS, _ROWS, _BAG_ROWS, _ROW_BYTES = 1024, 256, 8, 64
_BAGS = _ROWS // _BAG_ROWS


@dataclass(frozen=True)
class _Kind:
    """Equal commands of a stream, and what each reads of the memory that it waits for. They take as
    many cycles as is said, or as DRAM takes."""

    work: Work
    nbytes: int


def bench(config: CardConfig, engine: str) -> dict:
    """What `measure` says of one card; JSON-able."""
    with open(cards=1, config=config, engine=engine) as runtime:
        rows = measure(runtime)
    return {**stamp(config, 0), "engine": engine, "rows": rows}


def measure(runtime: Runtime) -> list[dict]:
    """A row for each of `STREAMS`; JSON-able.

    Each core of card 0 runs the same commands on operands of its own: copies of DRAM,
    bags of rows in DRAM, products of its scratchpad. `least_of_share` is what the core that got
    least got of its share of what all of them read, in the worst window of `WINDOW_CYCLES`;
    `bytes_per_cycle` is what all of them read.
    """
    card, config, cores = runtime.cards[0], runtime.cards[0].config, runtime.cards[0].config.cores
    table_bytes = _TABLE_ROWS * _ROW_BYTES
    tables = card.dram.allocate(cores * table_bytes)
    indices = np.random.default_rng(0).integers(0, _TABLE_ROWS, _ROWS).astype(np.int32)
    lengths = np.full(_BAGS, _BAG_ROWS, np.int32)
    kinds = []
    for core in range(cores):
        near = config.scratchpad_address(core)
        for place, values in zip(_lookups(config, near), (lengths, indices), strict=True):
            card.device.bus.write(card.device.bar2 + place, values.tobytes())
        kinds.append(_kinds(config, tables.address + core * table_bytes, near))
    rows = []
    for stream in STREAMS:
        shares = _shares(runtime, [[each[name] for name in stream] for each in kinds])
        rows.append({"stream": " and ".join(stream), "cores": cores} | shares)
    card.release(tables)
    return rows


def _lookups(config: CardConfig, near: int) -> tuple[int, int]:
    """Where a core has lengths and indices of its bags."""
    return near, near + round_up(4 * _BAGS, config.bus_bytes)


def _kinds(config: CardConfig, far: int, near: int) -> Mapping[str, _Kind]:
    """What a core with its table at `far` and its scratchpad at `near` runs."""
    lengths, indices = _lookups(config, near)
    free = indices + 4 * _ROWS
    copied = min(config.scratchpad_bytes, _TABLE_ROWS * _ROW_BYTES) // 4
    dim = _ROW_BYTES - RowFormat.INT8.tail_bytes
    pooled = Rows(free, _ROW_BYTES * 4, ElementFormat.FLOAT32)
    m, k, n = config.activation_rows, config.line_bytes, config.array_columns
    x = Rows(free, config.line_bytes)
    w = free + m * k
    w_bytes = costs.tiles(config, k, n) * config.weight_tile_bytes
    sums = Rows(w + w_bytes, round_up(4 * n, config.bus_bytes), ElementFormat.INT32)
    return {
        "copies": _Kind(
            kernels.move(Opcode.COPY, far, copied, free, copied, 1, copied), copied
        ),
        "gathers": _Kind(
            kernels.gather(
                far, RowFormat.INT8, _ROW_BYTES, _TABLE_ROWS, dim, indices, _ROWS, lengths, _BAGS,
                pooled,
            ),
            _ROWS * _ROW_BYTES,
        ),
        "products": _Kind(
            kernels.linear(x, w, 0, sums, m, k, n).taking(costs.product(config, m, k, n)),
            m * k + w_bytes,
        ),
    }  # fmt: skip


def _shares(runtime: Runtime, streams: Sequence[Sequence[_Kind]]) -> dict[str, float]:
    """The least share, and bytes a cycle, if each core runs the commands of its stream in turn."""
    card = runtime.cards[0]
    peak = costs.dram_bytes_per_cycle(card.config) / len(streams)
    turn = sum(kind.work.cycles or kind.nbytes / peak for kind in streams[0])
    turns = ceil(WINDOWS * WINDOW_CYCLES / turn)
    raw = [
        pack(kind.work.opcode, core=core, **kind.work.fields)
        for _ in range(turns)
        for core, stream in enumerate(streams)
        for kind in stream
    ]
    ran = spans(card.device.check(card.device.submit(raw)))
    ran = ran.reshape(turns, len(streams), len(streams[0]), 2)
    # While all of them run.
    first, last = ran[0, ..., 0].max(), ran[-1, ..., 1].min()
    edges = np.arange(first, last + 1, WINDOW_CYCLES)
    read = np.zeros((len(streams), len(edges) - 1))
    for core, stream in enumerate(streams):
        for number, kind in enumerate(stream):
            done = kind.nbytes * np.arange(turns)[:, None] + (0, kind.nbytes)
            by_edge = np.interp(edges, ran[:, core, number].ravel(), done.ravel())
            read[core] += np.diff(by_edge)
    return {
        "least_of_share": float((read / read.mean(axis=0)).min()),
        "bytes_per_cycle": float(read.sum(axis=0).mean() / WINDOW_CYCLES),
    }
