"""How large a card is on an ECP5: a fit to what Yosys made of those of its parts that parameters
make larger.

`area.csv` has the parts that were synthesised, `halfdome bench area` synthesises more. A part's
features say what grows with which parameter. What is alike on all cards, and the engines' own
control, counts nothing: this orders designs, and is the least that a device must hold.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, log2
from pathlib import Path

import numpy as np

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig, preset
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES

SYNTHESISED = Path(__file__).parent / "area.csv"
BASE = "tiny"
"""The preset whose fields a row of the file sets."""
RESOURCES = ("lut", "ff", "dsp", "bram")

LUT4_PER_DSP = 250
"""An 18x18 multiplier made of LUTs, about 18*18 full adders less the first row, with registers."""
LUT4_PER_BRAM = 576
"""18 kbit in LUT RAMs that hold 32 bits each."""

READ_BITS = 90
"""What the requester keeps of a read in flight."""
LUT_RAMS_PER_BLOCK = 24
"""LUT RAMs of 16x4 bits from which Yosys takes a block RAM instead: it did for 24, not for 22."""


@dataclass(frozen=True)
class Part:
    """A part of a card, of `halfdome.hdl.parts.PARTS`.

    Attributes
    ----------
    number : how many a card has
    fields : of the card that it depends on
    features : what it consists of: each resource is a sum of these, each times a constant; the
        last are its block RAMs, and tell those alone
    """

    number: Callable[[CardConfig], int]
    fields: tuple[str, ...]
    features: Callable[[CardConfig], Sequence[float]]


def memory(width: int, depth: int) -> tuple[int, int]:
    """LUT4 of LUT RAMs of 16x4 bits and of what chooses between them, or block RAMs."""
    across, down = ceil(width / 4), ceil(depth / 16)
    shapes = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
    blocks = min(ceil(width / wide) * ceil(depth / deep) for wide, deep in shapes)
    if across * down >= LUT_RAMS_PER_BLOCK * blocks:
        return 0, blocks
    return 4 * across * down + width * (down - 1), 0


def queue(width: int, depth: int) -> tuple[int, int]:
    """The memory of a queue whose last place is a register."""
    return memory(width, max(1, depth - 1))


def _array(config: CardConfig) -> Sequence[float]:
    """Multipliers, bits of registers, and LUT4 of adders: a third operand takes two more a bit."""
    rows, columns, at_once = config.array_rows, config.array_columns, config.rows_per_stage
    stages = rows // at_once
    sums = [17 + ceil(log2((stage + 1) * at_once)) for stage in range(stages)]
    skewed = at_once * 9 * (columns * (columns + 1) + stages * (stages + 1)) // 2
    waiting = columns * (columns - 1) // 2 * sums[-1]
    registers = 44 * rows * columns + columns * sum(sums) + skewed + waiting
    adders = columns * (sums[0] * (at_once - 1) + sum(sums[1:]) * (2 * at_once - 1))
    return rows * columns, registers, adders, 0


def _accumulators(config: CardConfig) -> Sequence[float]:
    columns, depth = config.array_columns, config.accumulator_rows
    luts, blocks = memory(32 * columns, depth)
    return columns, log2(depth), luts, columns * (blocks > 0), blocks


def _activations(config: CardConfig) -> Sequence[float]:
    rows, bits = config.activation_rows, 8 * config.bus_bytes
    luts, blocks = memory(bits, 2 * rows * config.burst_words)
    return 1, bits, bits * (blocks > 0), config.address_bits, luts, blocks


def _row_fetcher(config: CardConfig) -> Sequence[float]:
    outstanding, bits = config.gather_outstanding, 8 * config.bus_bytes
    of_tags = queue(37 + int(log2(config.bus_bytes)), outstanding)
    of_words = queue(bits + 1, outstanding * config.burst_words + 1)
    luts, blocks = map(sum, zip(of_tags, of_words, strict=True))
    waits = bits * (of_words[1] > 0)
    return 1, log2(outstanding), bits, waits, config.address_bits, luts, blocks


def _row_cache(config: CardConfig) -> Sequence[float]:
    words, ways = config.burst_words, config.gather_cache_ways
    line = max(64, config.bus_bytes)
    sets = config.gather_cache_bytes // (line * ways)
    tag = 2 + int(log2(config.dram_bytes // (line * sets)))
    bits = 8 * config.bus_bytes
    words_read = queue(bits + 1, config.gather_outstanding * words + 1)
    memories = (
        memory(tag * ways, sets), memory(bits, sets * ways * words), words_read,
        queue(2 + int(log2(sets * ways * words**2)), 2 * config.gather_outstanding * words),
    )  # fmt: skip
    luts, blocks = map(sum, zip(*memories, strict=True))
    return 1, bits, ways, bits * (words_read[1] > 0), luts, blocks


def _scratchpad(config: CardConfig) -> Sequence[float]:
    banks, bits = config.scratchpad_banks, 8 * config.bus_bytes
    depth = config.scratchpad_bytes // config.bus_bytes // banks
    # A block RAM has a ninth bit for each byte that is written by itself, and it is not used.
    blocks = banks * memory(bits * 9 // 8, depth)[1]
    return 1, bits, bits * (banks - 1), banks - 1, config.address_bits, blocks


def _queue(config: CardConfig) -> Sequence[float]:
    return 1, *queue(8 * DESCRIPTOR_BYTES + 48, config.queue_depth)


def _counters(config: CardConfig) -> Sequence[float]:
    depth, ports = 1 << (config.counters - 1).bit_length(), config.cores + 1
    luts, blocks = memory(32, depth)
    return blocks > 0, ports, ports * (blocks == 0), ports * luts, ports * blocks


def _fetcher(config: CardConfig) -> Sequence[float]:
    batch = config.max_read_request_bytes // DESCRIPTOR_BYTES
    luts, blocks = queue(8 * DESCRIPTOR_BYTES, 2 * batch)
    return 1, config.cores, config.cores * luts, config.cores * blocks


def _requester(config: CardConfig) -> Sequence[float]:
    luts, blocks = memory(READ_BITS, 1 << (config.dma_tags - 1).bit_length())
    return (
        8 * config.bus_bytes, config.cores, config.dma_tags, config.address_bits, luts, blocks,
    )  # fmt: skip


def _float_stages(config: CardConfig) -> Sequence[float]:
    return config.gather_float_stages == 1, config.gather_float_stages == 2, 0


def _alike(config: CardConfig) -> Sequence[float]:
    return 1, 0


def _elements(config: CardConfig) -> int:
    """Elements that the fp32 lanes of a card's vector engines take in a cycle."""
    return config.cores * config.vector_lanes


def _of_core(config: CardConfig) -> int:
    return config.cores


def _of_card(config: CardConfig) -> int:
    return 1


PARTS: Mapping[str, Part] = {
    "array": Part(_of_core, ("array_rows", "array_columns"), _array),
    "accumulators": Part(
        _of_core, ("array_columns", "accumulator_rows", "activation_rows"), _accumulators
    ),
    "activations": Part(
        _of_core, ("activation_rows", "accumulator_rows", "bus_bytes", "dram_bytes"), _activations
    ),
    "requantiser": Part(
        lambda config: config.cores * config.array_columns, (), _alike
    ),
    "lane": Part(
        lambda config: config.cores * config.lanes, ("gather_float_stages",), _float_stages
    ),
    "quantiser": Part(
        lambda config: config.cores * min(config.lanes, config.bus_bytes // 4),
        ("gather_float_stages",), _float_stages,
    ),
    "decoder": Part(lambda config: 2 * _elements(config), (), _alike),
    **dict.fromkeys(("fma", "function", "encoder", "quotient"), Part(_elements, (), _alike)),
    "pair": Part(lambda config: config.cores * config.byte_lanes, (), _alike),
    "row_fetcher": Part(
        _of_core, ("gather_outstanding", "bus_bytes", "dram_bytes"), _row_fetcher
    ),
    "row_cache": Part(
        lambda config: config.cores * bool(config.gather_cache_bytes),
        ("gather_cache_bytes", "gather_cache_ways", "gather_outstanding", "bus_bytes",
         "dram_bytes"),
        _row_cache,
    ),
    "scratchpad": Part(
        _of_core, ("scratchpad_bytes", "scratchpad_banks", "bus_bytes", "dram_bytes"), _scratchpad
    ),
    "queue": Part(lambda config: config.cores * len(Engine), ("queue_depth",), _queue),
    "counters": Part(_of_card, ("counters", "cores"), _counters),
    "fetcher": Part(_of_card, ("cores", "max_read_request_bytes", "bus_bytes"), _fetcher),
    "requester": Part(_of_card, ("dma_tags", "bus_bytes", "cores", "dram_bytes"), _requester),
}  # fmt: skip


@dataclass(frozen=True)
class Synthesised:
    """A part as Yosys counted it; `fitted` says whether the fit knows it."""

    part: str
    config: CardConfig
    counted: Mapping[str, int]
    fitted: bool


@cache
def synthesised() -> tuple[Synthesised, ...]:
    """The rows of `area.csv`."""
    with SYNTHESISED.open(newline="") as file:
        return tuple(
            Synthesised(
                row["part"], card(row["settings"]), {name: int(row[name]) for name in RESOURCES},
                row["fitted"] == "yes",
            )
            for row in csv.DictReader(file)
        )  # fmt: skip


def card(settings: str) -> CardConfig:
    """The card of some settings, `FIELD=VALUE …`, all else as in `BASE`. Raises `ConfigError`."""
    fields = (each.split("=") for each in settings.split())
    return preset(BASE).replace(**{name: int(value) for name, value in fields})


@cache
def constants(part: str) -> dict[str, np.ndarray]:
    """What each feature of a part takes of each resource, float64[features]."""
    rows = [row for row in synthesised() if row.part == part and row.fitted]
    features = np.array([PARTS[part].features(row.config) for row in rows], float)
    found = {}
    for name in RESOURCES:
        counted = np.array([row.counted[name] for row in rows], float)
        blocks = features.shape[1] - 1
        found[name] = np.zeros(blocks + 1)
        if name == "bram":
            found[name][blocks] = 1
            continue
        chosen = range(blocks + (name != "dsp"))
        found[name][chosen] = _fitted(features[:, chosen], counted)
    return found


def _fitted(features: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The constants, none negative, of least squared relative error."""
    found = np.zeros(features.shape[1])
    weight = 1 / np.maximum(counted, 1)
    used = [
        place for place in range(features.shape[1]) if counted.any() and features[:, place].any()
    ]
    while used:
        told, *_ = np.linalg.lstsq(features[:, used] * weight[:, None], counted * weight)
        if told.min() >= -1e-9:
            found[used] = told
            break
        used.pop(int(told.argmin()))
    return found


def of_part(part: str, config: CardConfig) -> dict[str, float]:
    """What one such part takes of each resource."""
    features = np.array(PARTS[part].features(config), float)
    return {name: float(features @ told) for name, told in constants(part).items()}


def of_card(config: CardConfig) -> dict[str, int]:
    """What the parts of a card take of each resource, all together."""
    taken = dict.fromkeys(RESOURCES, 0.0)
    for name, part in PARTS.items():
        if number := part.number(config):
            for resource, each in of_part(name, config).items():
                taken[resource] += number * each
    return {resource: round(each) for resource, each in taken.items()}


def lut4_equivalents(config: CardConfig) -> int:
    """Area of a card, all resources as the LUTs that would stand in their place; of a flip-flop
    none, for each LUT has one beside it."""
    taken = of_card(config)
    return taken["lut"] + LUT4_PER_DSP * taken["dsp"] + LUT4_PER_BRAM * taken["bram"]
