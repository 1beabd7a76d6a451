"""One operator at a time on one card: how close a command comes to what bounds it."""

from collections.abc import Sequence

import numpy as np

from hdl.commands import Opcode, pack
from hdl.config import CardConfig
from host.bench.dlrm import SEED
from host.report.stamp import stamp
from host.runtime.card import Card
from host.runtime.layout import pack_params, pack_weights, round_up
from host.runtime.runtime import open


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
            params = pack_params(weight, np.full(n, 0.01, np.float32), np.zeros(n, np.int32), 0)
            values = [x, pack_weights(weight, config), params]
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
