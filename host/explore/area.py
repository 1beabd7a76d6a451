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
from typing import NamedTuple

import numpy as np

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig, preset
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES

SYNTHESISED = Path(__file__).parent / "area.csv"
BASE = "tiny"
"""The preset whose fields a row of the file sets."""
RESOURCES = ("lut", "ff", "dsp", "bram", "gates", "bits")
"""Of an ECP5; and of silicon, gates as large as a NAND of two inputs, and bits of memory."""

LUT4_PER_DSP = 250
"""An 18x18 multiplier made of LUTs, about 18*18 full adders less the first row, with registers."""
LUT4_PER_BRAM = 576
"""18 kbit in LUT RAMs that hold 32 bits each."""

COMMAND_BITS = 56
"""What a queue keeps of a command beside its descriptor."""
LUT_RAMS_PER_BLOCK = 24
"""LUT RAMs of 16x4 bits from which Yosys takes a block RAM instead: it did for 24, not for 22."""


class Memory(NamedTuple):
    """Words of so many bits.

    Attributes
    ----------
    copies : int, of it on an FPGA: one for each that reads
    by_bytes : bool, whether each byte is written by itself: a block RAM's ninth bit is then lost
    """

    width: int
    depth: int
    copies: int = 1
    by_bytes: bool = False


@dataclass(frozen=True)
class Part:
    """A part of a card, of `halfdome.hdl.parts.PARTS`.

    Attributes
    ----------
    number : how many a card has
    fields : of the card that it depends on
    logic : what its logic consists of: LUTs, flip-flops, multipliers and gates are sums of these,
        each times a constant
    memories : what it keeps
    joints : what joins memories to logic on an FPGA alone: of the card, and of its block RAMs
    """

    number: Callable[[CardConfig], int]
    fields: tuple[str, ...]
    logic: Callable[[CardConfig], Sequence[float]] = lambda config: (1,)
    memories: Callable[[CardConfig], Sequence[Memory]] = lambda config: ()
    joints: Callable[[CardConfig, int], Sequence[float]] = lambda config, blocks: ()

    def features(self, config: CardConfig) -> list[float]:
        """What it consists of: logic, joints, LUT4 of LUT RAMs, block RAMs, bits of memory."""
        memories = self.memories(config)
        taken = [
            (each.copies * luts, each.copies * blocks)
            for each in memories
            for luts, blocks in [memory(each.width * (8 + each.by_bytes) // 8, each.depth)]
        ]
        luts, blocks = (sum(each) for each in zip((0, 0), *taken, strict=True))
        bits = sum(each.width * each.depth for each in memories)
        return [*self.logic(config), *self.joints(config, blocks), luts, blocks, bits]


def memory(width: int, depth: int) -> tuple[int, int]:
    """LUT4 of LUT RAMs of 16x4 bits and of what chooses between them, or block RAMs."""
    across, down = ceil(width / 4), ceil(depth / 16)
    shapes = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
    blocks = min(ceil(width / wide) * ceil(depth / deep) for wide, deep in shapes)
    if across * down >= LUT_RAMS_PER_BLOCK * blocks:
        return 0, blocks
    return 4 * across * down + width * (down - 1), 0


def queue(width: int, depth: int) -> Memory:
    """The memory of a queue whose last place is a register."""
    return Memory(width, max(1, depth - 1))


def _array(config: CardConfig) -> Sequence[float]:
    """Multipliers, bits of registers, and LUT4 of adders: a third operand takes two more a bit."""
    rows, columns, at_once = config.array_rows, config.array_columns, config.rows_per_stage
    stages = rows // at_once
    sums = [17 + ceil(log2((stage + 1) * at_once)) for stage in range(stages)]
    skewed = at_once * 9 * (columns * (columns + 1) + stages * (stages + 1)) // 2
    waiting = columns * (columns - 1) // 2 * sums[-1]
    registers = 44 * rows * columns + columns * sum(sums) + skewed + waiting
    adders = columns * (sums[0] * (at_once - 1) + sum(sums[1:]) * (2 * at_once - 1))
    return rows * columns, registers, adders


def _accumulators(config: CardConfig) -> Sequence[float]:
    return config.array_columns, log2(config.accumulator_rows)


def _sums(config: CardConfig) -> Sequence[Memory]:
    return [Memory(32 * config.array_columns, config.accumulator_rows)]


def _activations(config: CardConfig) -> Sequence[float]:
    return 1, 8 * config.bus_bytes, config.address_bits


def _lines(config: CardConfig) -> Sequence[Memory]:
    """Lines of two tiles, and whether each is padding."""
    lines = 2 * config.activation_rows
    return Memory(8 * config.bus_bytes, lines * config.burst_words), Memory(1, lines)


def _row_fetcher(config: CardConfig) -> Sequence[float]:
    return 1, log2(config.gather_outstanding), 8 * config.bus_bytes, config.address_bits


def _bursts(config: CardConfig) -> Memory:
    """Words of the rows under way."""
    return queue(8 * config.bus_bytes + 1, config.gather_outstanding * config.burst_words + 1)


def _rows(config: CardConfig) -> Sequence[Memory]:
    tags = queue(37 + int(log2(config.bus_bytes)), config.gather_outstanding)
    return tags, _bursts(config)


def _row_cache(config: CardConfig) -> Sequence[float]:
    _, tag = _cache_sets(config)
    outstanding = log2(config.gather_outstanding)
    return 1, 8 * config.bus_bytes, config.gather_cache_ways * tag, config.address_bits, outstanding


def _cache_sets(config: CardConfig) -> tuple[int, int]:
    """Sets of a cache, and bits of a tag."""
    line = max(64, config.bus_bytes)
    sets = config.gather_cache_bytes // (line * config.gather_cache_ways)
    return sets, 2 + int(log2(config.dram_bytes // (line * sets)))


def _cached(config: CardConfig) -> Sequence[Memory]:
    words, ways = config.burst_words, config.gather_cache_ways
    sets, tag = _cache_sets(config)
    answers = queue(2 + int(log2(sets * ways * words**2)), 2 * config.gather_outstanding * words)
    misses = Memory(8 + int(log2(config.dram_bytes // config.bus_bytes)), 4)
    lines = Memory(8 * config.bus_bytes, sets * ways * words)
    return Memory(tag * ways, sets), lines, _bursts(config), answers, misses


def _scratchpad(config: CardConfig) -> Sequence[float]:
    banks, bits = config.scratchpad_banks, 8 * config.bus_bytes
    return 1, bits, bits * (banks - 1), banks - 1, config.address_bits


def _banks(config: CardConfig) -> Sequence[Memory]:
    banks = config.scratchpad_banks
    depth = config.scratchpad_bytes // config.bus_bytes // banks
    return banks * [Memory(8 * config.bus_bytes, depth, by_bytes=True)]


def _commands(config: CardConfig) -> Sequence[Memory]:
    return [queue(8 * DESCRIPTOR_BYTES + COMMAND_BITS, config.queue_depth)]


def _counters(config: CardConfig) -> Sequence[float]:
    return 1, config.cores + 1


def _counts(config: CardConfig) -> Sequence[Memory]:
    return [Memory(32, 1 << (config.counters - 1).bit_length(), copies=config.cores + 1)]


def _fetcher(config: CardConfig) -> Sequence[float]:
    return 1, config.cores, DESCRIPTOR_BYTES / config.bus_bytes


def _fetched(config: CardConfig) -> Sequence[Memory]:
    batch = config.max_read_request_bytes // DESCRIPTOR_BYTES
    return config.cores * [queue(8 * DESCRIPTOR_BYTES, 2 * batch)]


def _requester(config: CardConfig) -> Sequence[float]:
    return 1, 8 * config.bus_bytes, config.cores, config.dma_tags, config.address_bits


def _reads(config: CardConfig) -> Sequence[Memory]:
    """What is kept of each read in flight, free tags, and the words of a fetch."""
    tags = 1 << (config.dma_tags - 1).bit_length()
    opened = 60 + int(log2(tags)) + config.cores.bit_length()
    words = config.max_read_request_bytes // config.bus_bytes
    return [
        *(Memory(width, tags) for width in (13, 33, opened)), queue(int(log2(tags)), tags),
        Memory(8 * config.bus_bytes, words),
    ]  # fmt: skip


def _float_stages(config: CardConfig) -> Sequence[float]:
    return config.gather_float_stages == 1, config.gather_float_stages == 2


def _gather_lane(config: CardConfig) -> Sequence[float]:
    return 1, config.gather_float_stages == 2, not config.gather_in_turns


def _vector_lane(config: CardConfig) -> Sequence[float]:
    """What each lane has, and what takes no turns."""
    return 1, not config.lanes_in_turns


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
        _of_core, ("array_columns", "accumulator_rows", "activation_rows"), _accumulators, _sums,
        lambda config, blocks: (config.array_columns * (blocks > 0),),
    ),
    "activations": Part(
        _of_core, ("activation_rows", "accumulator_rows", "bus_bytes", "dram_bytes"), _activations,
        _lines, lambda config, blocks: (8 * config.bus_bytes * (blocks > 0),),
    ),
    "requantiser": Part(lambda config: config.cores * config.array_columns, ()),
    "lane": Part(
        lambda config: config.cores * config.lanes, ("gather_float_stages", "lanes"), _gather_lane
    ),
    "quantiser": Part(
        lambda config: config.cores * min(config.lanes, config.bus_bytes // 4),
        ("gather_float_stages",), _float_stages,
    ),
    "decoder": Part(lambda config: 2 * _elements(config), ()),
    **dict.fromkeys(("fma", "encoder"), Part(_elements, ())),
    **dict.fromkeys(
        ("function", "quotient"), Part(_elements, ("float_word_cycles",), _vector_lane)
    ),
    "pair": Part(lambda config: config.cores * config.byte_lanes, ()),
    "row_fetcher": Part(
        _of_core, ("gather_outstanding", "bus_bytes", "dram_bytes"), _row_fetcher, _rows,
        lambda config, blocks: (8 * config.bus_bytes * (blocks > 0),),
    ),
    "row_cache": Part(
        lambda config: config.cores * bool(config.gather_cache_bytes),
        ("gather_cache_bytes", "gather_cache_ways", "gather_outstanding", "bus_bytes",
         "dram_bytes"),
        _row_cache, _cached,
        lambda config, blocks: (8 * config.bus_bytes * (memory(*_bursts(config)[:2])[1] > 0),),
    ),
    "scratchpad": Part(
        _of_core, ("scratchpad_bytes", "scratchpad_banks", "bus_bytes", "dram_bytes"), _scratchpad,
        _banks,
    ),
    "queue": Part(
        lambda config: config.cores * len(Engine), ("queue_depth",), memories=_commands
    ),
    "counters": Part(
        _of_card, ("counters", "cores"), _counters, _counts,
        lambda config, blocks: (blocks > 0, (config.cores + 1) * (blocks == 0)),
    ),
    "fetcher": Part(
        _of_card, ("cores", "max_read_request_bytes", "bus_bytes"), _fetcher, _fetched
    ),
    "requester": Part(
        _of_card, ("dma_tags", "bus_bytes", "cores", "dram_bytes", "max_read_request_bytes"),
        _requester, _reads,
    ),
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
    every = range(features.shape[1])
    luts, blocks, bits = every[-3:]
    of_memory = {"lut": (luts, blocks), "ff": (blocks,), "dsp": ()}
    found = {name: np.zeros(len(every)) for name in RESOURCES}
    found["bram"][blocks] = found["bits"][bits] = 1
    used = {name: [*every[:luts], *memory] for name, memory in of_memory.items()}
    used["gates"] = [*every[: len(PARTS[part].logic(rows[0].config))]]
    for name, chosen in used.items():
        counted = np.array([row.counted[name] for row in rows], float)
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
