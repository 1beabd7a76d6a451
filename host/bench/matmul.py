"""Matrix products on one card: how much of the array works, against what bounds it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product

import numpy as np

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import pack
from halfdome.host.bench.dlrm import SEED
from halfdome.host.driver.layout import PARAM, pack_params, pack_weights, pad_rows, row_stride
from halfdome.host.driver.memory import Block
from halfdome.host.driver.rings import span_cycles
from halfdome.host.platform import open
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.card import Card

Shape = tuple[int, int, int]

START_CYCLES = 64
"""What a command may take beyond the closed form of its dataflow."""
DRAM_START_CYCLES = 176
"""The same if its weights are in DRAM: on `default` the first word's bank may be refreshed for 43
cycles, the word comes 17 later, and there is the way there and back."""
DRAM_SHARE = 0.95
"""What such a command must reach of its bound, start left out."""
DLRM: tuple[Shape, ...] = (
    (128, 13, 512), (128, 512, 256), (128, 256, 64),
    (128, 512, 512), (128, 512, 256), (128, 256, 1),
)  # fmt: skip
"""The layers of a recommendation model's two nets, batch 128."""
SHAPES: tuple[Shape, ...] = ((512, 512, 512), (64, 512, 512), (1, 512, 512), *dict.fromkeys(DLRM))
"""What is measured if nothing is asked for."""
GRID = (1, 3, 5, 7, 16, 17, 33, 64, 128, 200, 512)
"""Sizes whose every combination `grid` measures."""
PLACES = {"scratchpad": (), "weights in DRAM": ("w",), "all in DRAM": ("y", "x", "params", "w")}
"""Which operands are kept out of the scratchpad."""
GRID_PLACES = ("scratchpad", "weights in DRAM")
"""Where `grid` measures its products."""


def _tiles(config: CardConfig, k: int, n: int) -> int:
    """Weight tiles."""
    return -(-k // config.array_rows) * -(-n // config.array_columns)


def closed_form(config: CardConfig, m: int, k: int, n: int) -> int:
    """Cycles of a weight-stationary array that fills and drains for every weight tile: R to load
    it, then m rows on their way through R + C processing elements."""
    return _tiles(config, k, n) * (m + 2 * config.array_rows + config.array_columns - 2)


def dram_bytes_per_cycle(config: CardConfig) -> float:
    """What the card's DRAM moves in a card cycle at its peak: 4 bytes a transfer and channel."""
    megatransfers = int(config.dram_preset.rpartition("-")[2])
    return 4 * megatransfers * config.dram_channels / config.clock_mhz


def bound_cycles(config: CardConfig, m: int, k: int, n: int, dram_bytes: int) -> float:
    """What no product can beat: its blocks of rows pass through whole weight tiles, each pass as
    long as it has rows or as its tile takes to load; or `dram_bytes` over what DRAM moves."""
    load = config.tile_load_cycles
    whole, rest = divmod(m, config.activation_rows)
    rows = whole * max(config.activation_rows, load) + (max(rest, load) if rest else 0)
    return max(_tiles(config, k, n) * rows, dram_bytes / dram_bytes_per_cycle(config))


def _sizes(config: CardConfig, m: int, k: int, n: int) -> dict[str, int]:
    """Bytes of the operands."""
    return {
        "y": m * row_stride(n, config),
        "x": m * row_stride(k, config),
        "params": PARAM.itemsize * n,
        "w": _tiles(config, k, n) * config.weight_tile_bytes,
    }


@contextmanager
def _placed(
    card: Card, sizes: dict[str, int], place: str
) -> Iterator[tuple[dict[str, Block], list[str]]]:
    """Room for operands of `sizes` bytes in one of `PLACES`, which claim the scratchpad in their
    order; and those that are in DRAM, also because they did not fit."""
    with ExitStack() as stack:
        blocks = {}
        for name, size in sizes.items():
            take = card.dram.allocate if name in PLACES[place] else card.accelerator.place
            blocks[name] = take(size)
            stack.callback(card.release, blocks[name])
        top = card.config.scratchpad_base
        yield blocks, [name for name, block in blocks.items() if block.address < top]


def near_side(config: CardConfig) -> int:
    """The largest power of two that rows, columns and channels of a product may each number if all
    of it is to lie in the scratchpad."""
    side = 1
    while sum(_sizes(config, *[2 * side] * 3).values()) <= config.scratchpad_bytes:
        side *= 2
    return side


@contextmanager
def near(card: Card, side: int) -> Iterator[Callable[[], int]]:
    """A product of `side`, `near_side` at most, in the scratchpad: what runs it and returns its
    cycles."""
    sizes = _sizes(card.config, side, side, side)
    with _placed(card, sizes, "scratchpad") as (blocks, _):
        params = np.zeros(side, PARAM)
        params["multiplier"] = 1.0
        card.accelerator.upload(blocks["params"], params.view(np.uint8))
        yield lambda: _timed(card, blocks, side, side, side)


def measure(
    config: CardConfig,
    shapes: Sequence[Shape] = SHAPES,
    engine: str = "native",
    progress: Callable[[int], None] = lambda done: None,
    values: bool = True,
) -> dict:
    """Each M x K x N product in each of `PLACES`, with `values` or by cycles alone.

    `rows` has for each: `in_dram`, the operands that were in DRAM; `cycles` from the command's
    start to its completion; `bound_cycles`; `mac_utilisation`, useful multiply-accumulates over
    those of the array; `of_bound`; `mismatching_values` against the golden model, None without
    values. `dlrm` has the sums over `DLRM` if all its layers were measured. `progress` is told of
    every product.
    """
    rng = np.random.default_rng(SEED)
    rows = []
    with open(cards=1, config=config, engine=engine, values=values) as runtime:
        card = runtime.cards[0]
        for (m, k, n), place in product(shapes, PLACES):
            x = rng.integers(0, 256, (m, k), np.uint8)
            weight = rng.integers(-128, 128, (n, k), np.int8)
            multiplier = np.full(n, 0.02 / np.sqrt(k), np.float32)
            bias = rng.integers(-1000, 1000, n).astype(np.int32)
            sizes = _sizes(config, m, k, n)
            with _placed(card, sizes, place) as (blocks, in_dram):
                card.accelerator.upload(blocks["y"], np.zeros(sizes["y"], np.uint8))
                card.accelerator.upload(blocks["x"], pad_rows(x, row_stride(k, config)))
                card.accelerator.upload(blocks["params"], pack_params(weight, multiplier, bias, 0))
                card.accelerator.upload(blocks["w"], pack_weights(weight, config))
                cycles = _timed(card, blocks, m, k, n)
                y = card.accelerator.download(blocks["y"], sizes["y"]).reshape(m, -1)[:, :n]
            wrong = None
            if values:
                golden = runtime.reference.linear(x, weight, multiplier, bias, 0, 128)
                wrong = int((y != golden).sum())
            useful = m * k * n / (config.array_rows * config.array_columns)
            bound = bound_cycles(config, m, k, n, sum(sizes[name] for name in in_dram))
            rows.append(
                {
                    "m": m, "k": k, "n": n,
                    "in_dram": "all" if len(in_dram) == len(sizes) else " ".join(in_dram),
                    "cycles": cycles, "bound_cycles": bound,
                    "mac_utilisation": useful / cycles, "of_bound": bound / cycles,
                    "mismatching_values": wrong,
                }
            )  # fmt: skip
            progress(1)
    result = {**stamp(config, SEED), "engine": engine, "values": values, "rows": rows}
    by_place = {place: rows[i :: len(PLACES)] for i, place in enumerate(PLACES)}
    if set(DLRM) <= set(shapes):
        result["dlrm"] = [_sum(config, place, by_place[place]) for place in PLACES]
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
    values: bool = True,
) -> dict:
    """Every product of `sizes`, with operands in the scratchpad as far as they fit, and with its
    weights in DRAM.

    `rows` has for each the `least` that no array can beat, and the `most` it may take: the closed
    form and `START_CYCLES`; with weights in DRAM, `bound_cycles` over `DRAM_SHARE` and
    `DRAM_START_CYCLES`. `outside` lists those that break either. `progress` is told of every
    product.
    """
    rows = []
    with open(cards=1, config=config, engine=engine, values=values) as runtime:
        card = runtime.cards[0]
        most_n = max(sizes)
        params = pack_params(
            np.zeros((most_n, 1), np.int8),
            np.ones(most_n, np.float32),
            np.zeros(most_n, np.int32),
            x_zero_point=0,
        )
        for m, k, n in product(sizes, repeat=3):
            nbytes = _sizes(config, m, k, n)
            least = m * k * n / (config.array_rows * config.array_columns)
            for place in GRID_PLACES:
                with _placed(card, nbytes, place) as (blocks, in_dram):
                    card.accelerator.upload(blocks["params"], params[: nbytes["params"]])
                    cycles = _timed(card, blocks, m, k, n)
                if place == "scratchpad":
                    most: float = closed_form(config, m, k, n) + START_CYCLES
                else:
                    moved = sum(nbytes[name] for name in in_dram)
                    bound = bound_cycles(config, m, k, n, moved)
                    most = bound / DRAM_SHARE + DRAM_START_CYCLES
                rows.append(
                    {
                        "m": m, "k": k, "n": n, "in_dram": " ".join(in_dram), "cycles": cycles,
                        "least": least, "most": most,
                    }
                )  # fmt: skip
                progress(1)
    outside = [row for row in rows if not row["least"] <= row["cycles"] <= row["most"]]
    return {**stamp(config, SEED), "engine": engine, "rows": rows, "outside": outside}


def _timed(card: Card, blocks: dict[str, Block], m: int, k: int, n: int) -> int:
    """Cycles from the command's start to its completion."""
    addresses = {name: block.address for name, block in blocks.items()}
    command = pack(
        Opcode.MATMUL, **addresses, m=m, k=k, n=n, x_stride=row_stride(k, card.config),
        y_stride=row_stride(n, card.config), y_zero_point=128,
    )  # fmt: skip
    return span_cycles(card.device.check(card.device.submit([command])))
