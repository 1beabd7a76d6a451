"""One operator at a time on one card: how close a command comes to what bounds it."""

from collections.abc import Sequence

import numpy as np

from hdl.commands import Opcode, RowFormat, pack
from hdl.config import CardConfig
from host.bench.dlrm import SEED
from host.models.fused_rows import fuse_8bit
from host.report.stamp import stamp
from host.runtime.card import Card
from host.runtime.layout import pack_weights, round_up
from host.runtime.runtime import open

TABLE_ROWS = 65_536
"""Rows of the bench's table: far more than DRAM can keep open."""


def _timed(card: Card, opcode: Opcode, **fields: int) -> int:
    """Cycles from a command's start to its completion."""
    (completion,) = card.device.check(card.device.submit([pack(opcode, **fields)]))
    return (completion.end_cycle - completion.start_cycle) & 0xFFFF_FFFF


def matmul(config: CardConfig, shapes: Sequence[tuple[int, int, int]], engine: str) -> dict:
    """MAC utilisation of M x K x N products, operands in the scratchpad where they fit."""
    rng = np.random.default_rng(SEED)
    rows = []
    with open(cards=1, config=config, engine=engine) as runtime:
        card = runtime.cards[0]
        for m, k, n in shapes:
            x_stride, y_stride = round_up(k, config.bus_bytes), round_up(n, config.bus_bytes)
            weight = rng.integers(-128, 128, (n, k)).astype(np.int8)
            x = rng.integers(0, 256, m * x_stride).astype(np.uint8)
            values = [x, pack_weights(weight, config), np.zeros(8 * n, np.uint8)]
            blocks = [card.place(v.size) for v in values] + [card.place(m * y_stride)]
            for block, value in zip(blocks, values, strict=False):
                card.upload(block, value)
            x_at, w_at, params_at, y_at = (block.address for block in blocks)
            cycles = _timed(
                card, Opcode.MATMUL, x=x_at, w=w_at, params=params_at, y=y_at, m=m, k=k, n=n,
                x_stride=x_stride, y_stride=y_stride,
            )  # fmt: skip
            in_scratchpad = [block.address >= config.scratchpad_base for block in blocks]
            for block in blocks:
                card.release(block)
            bound = m * k * n / (config.array_rows * config.array_columns)
            rows.append({
                "m": m, "k": k, "n": n, "cycles": cycles, "bound_cycles": bound,
                "mac_utilisation": bound / cycles,
                "operands_in_scratchpad": all(in_scratchpad),
            })  # fmt: skip
    return {**stamp(config, SEED), "engine": engine, "rows": rows}


def gather(config: CardConfig, bags: int, pooling: int, dim: int, engine: str) -> dict:
    """Efficiency of pooling random 8-bit rows from DRAM, against the tightest bound.

    Bounds in cycles: `lanes`, chunks of all rows; `bus`, bus words that the rows touch; `dram`, an
    activate for each row at the four-activate window's rate (40 ns for four) or a burst for each
    line, whichever is longer, with refresh left out.
    """
    rng = np.random.default_rng(SEED)
    with open(cards=1, config=config, engine=engine) as runtime:
        card = runtime.cards[0]
        table = card.table(
            fuse_8bit(rng.normal(size=(TABLE_ROWS, dim)).astype(np.float32)), preload=True
        )
        count = bags * pooling
        indices = rng.integers(0, TABLE_ROWS, count).astype(np.int32)
        lengths = np.full(bags, pooling, np.int32)
        stride = round_up(4 * dim, config.bus_bytes)
        values = [indices.view(np.uint8), lengths.view(np.uint8)]
        blocks = [card.place(v.size) for v in values]
        for block, value in zip(blocks, values, strict=True):
            card.upload(block, value)
        output = card.dram.allocate(bags * stride)
        cycles = _timed(
            card, Opcode.GATHER, table=table.block.address, rows=TABLE_ROWS,
            row_stride=table.row_bytes, dim=dim, format=RowFormat.INT8, indices=blocks[0].address,
            index_count=count, lengths=blocks[1].address, bags=bags, output=output.address,
            output_stride=stride,
        )  # fmt: skip
    start = indices.astype(np.int64) * table.row_bytes
    end = start + table.row_bytes - 1
    words = int((end // config.bus_bytes - start // config.bus_bytes + 1).sum())
    lines = int((end // 64 - start // 64 + 1).sum())
    activate_cycles = count * 10e-9 * config.clock_mhz * 1e6 / config.dram_channels
    bounds = {
        "lanes": count * -(-dim // config.lanes),
        "bus": words,
        "dram": max(activate_cycles, lines * 64 / config.bus_bytes),
    }
    tightest = max(bounds, key=lambda name: bounds[name])
    return {
        **stamp(config, SEED),
        "engine": engine,
        "bags": bags,
        "pooling": pooling,
        "dim": dim,
        "cycles": cycles,
        "bound_cycles": bounds,
        "tightest_bound": tightest,
        "gather_efficiency": bounds[tightest] / cycles,
    }
