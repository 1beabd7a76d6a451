"""Matrix products on one card: how much of the array works, against what bounds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from hdl.commands import Opcode, pack
from hdl.config import CardConfig
from host.bench.dlrm import SEED
from host.report.stamp import stamp
from host.runtime.card import Card
from host.runtime.layout import pack_params, pack_weights, pad_rows, round_up
from host.runtime.memory import Block
from host.runtime.runtime import open

Shape = tuple[int, int, int]

START_CYCLES = 64
"""What a command may take beyond the closed form of its dataflow."""
DLRM: tuple[Shape, ...] = (
    (128, 13, 512), (128, 512, 256), (128, 256, 64),
    (128, 512, 512), (128, 512, 256), (128, 256, 1),
)  # fmt: skip
"""The layers of a recommendation model's two nets, batch 128."""
SHAPES: tuple[Shape, ...] = ((512, 512, 512), (64, 512, 512), (1, 512, 512), *dict.fromkeys(DLRM))
"""What is measured if nothing is asked for."""
GRID = (1, 3, 5, 7, 16, 17, 33, 64, 128, 200, 512)
"""Sizes whose every combination `grid` measures."""
PLACES = ("scratchpad", "dram")


@dataclass(frozen=True)
class Operands:
    """Blocks of y, x, params and w: in this order they claim the scratchpad.

    Outputs come in pieces of `array_columns` bytes, each of which costs DRAM a whole burst.
    """

    y: Block
    x: Block
    params: Block
    w: Block

    def __iter__(self):
        return iter((self.y, self.x, self.params, self.w))


def closed_form(config: CardConfig, m: int, k: int, n: int) -> int:
    """Cycles of a weight-stationary array that fills and drains for every weight tile: R to load
    it, then m rows on their way through R + C processing elements."""
    rows, columns = config.array_rows, config.array_columns
    tiles = -(-k // rows) * -(-n // columns)
    return tiles * (m + 2 * rows + columns - 2)


def dram_bytes_per_cycle(config: CardConfig) -> float:
    """What the card's DRAM moves in a card cycle at its peak: 4 bytes a transfer and channel."""
    megatransfers = int(config.dram_preset.rpartition("-")[2])
    return 4 * megatransfers * config.dram_channels / config.clock_mhz


def measure(
    config: CardConfig,
    shapes: Sequence[Shape] = SHAPES,
    engine: str = "native",
    progress: Callable[[int], None] = lambda done: None,
) -> dict:
    """Each M x K x N product with its operands in the scratchpad, as far as they fit there in the
    order of `Operands`, and again with all of them in DRAM.

    `rows` has for each: `cycles` from the command's start to its completion; `bound_cycles`, the
    larger of useful multiply-accumulates over processing elements and bytes of the operands in DRAM
    over what DRAM moves; `mac_utilisation`; `of_bound`; `mismatching_values` against the golden
    model. `dlrm` has the sums over `DLRM` if all its layers were measured. `progress` is told of
    every product.
    """
    rng = np.random.default_rng(SEED)
    rows = []
    with open(cards=1, config=config, engine=engine) as runtime:
        card = runtime.cards[0]
        for (m, k, n), place in product(shapes, PLACES):
            x = rng.integers(0, 256, (m, k), np.uint8)
            weight = rng.integers(-128, 128, (n, k), np.int8)
            multiplier = np.full(n, 0.02 / np.sqrt(k), np.float32)
            bias = rng.integers(-1000, 1000, n).astype(np.int32)
            x_stride, y_stride = (round_up(size, config.bus_bytes) for size in (k, n))
            values = {
                "y": np.zeros(m * y_stride, np.uint8),
                "x": pad_rows(x, x_stride),
                "params": pack_params(weight, multiplier, bias, 0),
                "w": pack_weights(weight, config),
            }
            take = card.place if place == "scratchpad" else card.dram.allocate
            blocks = Operands(*(take(value.size) for value in values.values()))
            for block, value in zip(blocks, values.values(), strict=True):
                card.upload(block, value)
            (cycles,) = _timed(card, [_command(config, blocks, m, k, n)])
            y = card.download(blocks.y, m * y_stride).reshape(m, -1)[:, :n]
            golden = runtime.reference.linear(x, weight, multiplier, bias, 0, 128)
            in_dram = [block.address < config.scratchpad_base for block in blocks]
            for block in blocks:
                card.release(block)
            compute = m * k * n / (config.array_rows * config.array_columns)
            moved = sum(v.size for v, far in zip(values.values(), in_dram, strict=True) if far)
            bound = max(compute, moved / dram_bytes_per_cycle(config))
            rows.append(
                {
                    "m": m, "k": k, "n": n,
                    "operands": "dram" if all(in_dram) else "both" if any(in_dram) else place,
                    "cycles": cycles, "bound_cycles": bound, "mac_utilisation": compute / cycles,
                    "of_bound": bound / cycles, "mismatching_values": int((y != golden).sum()),
                }
            )  # fmt: skip
            progress(1)
    result = {**stamp(config, SEED), "engine": engine, "rows": rows}
    by_shape = {place: rows[i :: len(PLACES)] for i, place in enumerate(PLACES)}
    if set(DLRM) <= set(shapes):
        result["dlrm"] = [_sum(config, place, by_shape[place]) for place in PLACES]
    return result


def _sum(config: CardConfig, place: str, rows: list[dict]) -> dict:
    cycles = {(row["m"], row["k"], row["n"]): row["cycles"] for row in rows}
    total = sum(cycles[layer] for layer in DLRM)
    useful = sum(m * k * n for m, k, n in DLRM) / (config.array_rows * config.array_columns)
    return {"operands": place, "cycles": total, "mac_utilisation": useful / total}


def grid(
    config: CardConfig,
    sizes: Sequence[int] = GRID,
    engine: str = "native",
    progress: Callable[[int], None] = lambda done: None,
) -> dict:
    """Every product of `sizes`, operands in the scratchpad as far as they fit, against the closed
    form plus `START_CYCLES` and against what no array can beat. `outside` lists those that break
    a bound. `progress` is told of every product."""
    rows = []
    with open(cards=1, config=config, engine=engine) as runtime:
        card = runtime.cards[0]
        most_n = max(sizes)
        params = pack_params(
            np.zeros((most_n, 1), np.int8),
            np.ones(most_n, np.float32),
            np.zeros(most_n, np.int32),
            x_zero_point=0,
        )
        for m, k, n in product(sizes, repeat=3):
            x_stride, y_stride = (round_up(size, config.bus_bytes) for size in (k, n))
            tiles = -(-k // config.array_rows) * -(-n // config.array_columns)
            nbytes = m * y_stride, m * x_stride, 8 * n, tiles * config.weight_tile_bytes
            blocks = Operands(*map(card.place, nbytes))
            card.upload(blocks.params, params[: 8 * n])
            (cycles,) = _timed(card, [_command(config, blocks, m, k, n)])
            for block in blocks:
                card.release(block)
            least = m * k * n / (config.array_rows * config.array_columns)
            most = closed_form(config, m, k, n) + START_CYCLES
            rows.append({"m": m, "k": k, "n": n, "cycles": cycles, "least": least, "most": most})
            progress(1)
    outside = [row for row in rows if not row["least"] <= row["cycles"] <= row["most"]]
    return {**stamp(config, SEED), "engine": engine, "rows": rows, "outside": outside}


def _command(config: CardConfig, blocks: Operands, m: int, k: int, n: int) -> bytes:
    return pack(
        Opcode.MATMUL, x=blocks.x.address, w=blocks.w.address, params=blocks.params.address,
        y=blocks.y.address, m=m, k=k, n=n, x_stride=round_up(k, config.bus_bytes),
        y_stride=round_up(n, config.bus_bytes), y_zero_point=128,
    )  # fmt: skip


def _timed(card: Card, commands: list[bytes]) -> list[int]:
    """Cycles from each command's start to its completion."""
    completions = card.device.check(card.device.submit(commands))
    return [(c.end_cycle - c.start_cycle) & 0xFFFF_FFFF for c in completions]
