"""What the timing card says against what hardware takes: the same commands on both, in one run."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import PRESETS, CardConfig, ConfigError
from halfdome.hdl.descriptors import HEADER, fields, unpack
from halfdome.hdl.registers import ACTIVITIES, GATHER_WAITS
from halfdome.host.bench.dlrm import SEED
from halfdome.host.graph.fused_rows import fuse_8bit
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.card import Card

BAR = 0.0
"""The largest relative error that is accepted, of a command's cycles and of a whole call's."""
STALL_BAR = 0.03
"""Likewise, of what engines did in a call, in parts of its cycles: busy, starved, blocked, idle,
and what a gather waited for."""

_DRAWN: Mapping[str, Sequence[int]] = {
    "cores": (1, 2), "array_rows": (2, 4, 8, 16, 32), "array_columns": (2, 4, 8, 16, 32),
    "accumulator_rows": (16, 32, 64), "activation_rows": (8, 16, 32), "lanes": (1, 2, 4, 8, 16),
    "gather_outstanding": (2, 8, 16), "gather_float_stages": (1, 2),
    "gather_cache_bytes": (0, 0, 2048), "gather_cache_ways": (1, 2, 4),
    "scratchpad_bytes": (1 << 14, 1 << 15), "scratchpad_banks": (1, 2, 4, 8),
    "bus_bytes": (16, 32, 64), "byte_word_cycles": (1, 2, 4), "float_word_cycles": (1, 2, 4),
    "dma_tags": (2, 4, 16), "max_payload_bytes": (128, 256), "max_read_request_bytes": (128, 512),
    "queue_depth": (2, 4, 8),
}  # fmt: skip
"""What drawn cards are made of."""

_ACTIVITIES = (
    *(f"_{activity}_cycles" for activity in ACTIVITIES),
    *(f"gather_{wait}_cycles" for wait in GATHER_WAITS),
)

Call = Callable[[Card, np.random.Generator], object]


def _bytes(rng: np.random.Generator, *most: int, dtype: type = np.uint8) -> np.ndarray:
    """Random bytes, each side from 1 to what is given."""
    shape = [int(rng.integers(1, side + 1)) for side in most]
    return rng.integers(0, 256, shape).astype(np.uint8).view(dtype)


def _linear(card: Card, rng: np.random.Generator) -> object:
    x = _bytes(rng, 48, 96)
    weight = rng.integers(-128, 128, (int(rng.integers(1, 49)), x.shape[1])).astype(np.int8)
    return card.linear(x, weight, 0.01, relu=bool(rng.integers(2)))


def _matmul(card: Card, rng: np.random.Generator) -> object:
    x = _bytes(rng, 3, 20, 40)
    w = rng.integers(-128, 128, (x.shape[0], x.shape[2], int(rng.integers(1, 30)))).astype(np.int8)
    return card.matmul(x, w, 0.01)


def _conv2d(card: Card, rng: np.random.Generator) -> object:
    x = rng.integers(0, 256, (7, 9, int(rng.integers(1, 24)))).astype(np.uint8)
    weight = rng.integers(-128, 128, (int(rng.integers(1, 20)), 3, 3, x.shape[2])).astype(np.int8)
    return card.conv2d(x, weight, 0.01, pads=1, stride=int(rng.integers(1, 3)))


def _depthwise(card: Card, rng: np.random.Generator) -> object:
    channels = int(rng.integers(2, 70))
    x = rng.integers(0, 256, (7, 9, channels)).astype(np.uint8)
    weight = rng.integers(-128, 128, (channels, 3, 3, 1)).astype(np.int8)
    return card.conv2d(x, weight, 0.01, pads=1, groups=channels)


def _floats(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(int(rng.integers(1, 20)), int(rng.integers(1, 80)))).astype(np.float32)


def _add(card: Card, rng: np.random.Generator) -> object:
    a = _floats(rng)
    return card.add(a, rng.normal(size=a.shape).astype(np.float32), 0.5)


def _multiply(card: Card, rng: np.random.Generator) -> object:
    a = _floats(rng)
    return card.multiply(a, a[:1], function="gelu")


def _pair(card: Card, rng: np.random.Generator) -> object:
    a = _bytes(rng, 20, 100)
    return card.add_quantised(a, a[::-1].copy(), 0.5, 0.25)


def _gather(card: Card, rng: np.random.Generator) -> object:
    rows = rng.normal(size=(64, int(rng.integers(1, 65)))).astype(np.float32)
    lengths = rng.integers(0, 12, int(rng.integers(1, 12)))
    indices = rng.integers(0, len(rows), int(lengths.sum()))
    table = card.table(fuse_8bit(rows))
    pooled = card.embedding_bag(table, indices, np.cumsum(lengths) - lengths)
    card.release(table)
    return pooled


def _transpose(card: Card, rng: np.random.Generator) -> object:
    return card.transpose(_bytes(rng, 80, 80))


CALLS: dict[str, Call] = {
    "linear": _linear,
    "matmul": _matmul,
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "affine": lambda card, rng: card.affine(_floats(rng), 2.0, reduce="sum"),
    "sigmoid": lambda card, rng: card.sigmoid(_bytes(rng, 20, 100), 0.1),
    "add": _add,
    "multiply": _multiply,
    "clamp": lambda card, rng: card.clamp(_floats(rng), -1.0, 1.0, dtype=np.float16),
    "quantise_linear": lambda card, rng: card.quantise_linear(_floats(rng), 0.02),
    "lookup": lambda card, rng: card.lookup(_bytes(rng, 20, 100), np.arange(256, dtype=np.uint8)),
    "add_quantised": _pair,
    "max_pool": lambda card, rng: card.max_pool(_bytes(rng, 9, 9, 40), 1),
    "embedding_bag": _gather,
    "transpose": _transpose,
}
"""Calls on small operands of random sizes."""


def draw(rng: np.random.Generator) -> CardConfig:
    """A card of random parameters, within the rules."""
    while True:
        chosen = {name: int(rng.choice(values)) for name, values in _DRAWN.items()}
        try:
            return PRESETS["tiny"].replace(**chosen)
        except ConfigError:
            continue


@dataclass(frozen=True)
class _Command:
    """A command as a card ran it: in cycles after the start of its call."""

    opcode: Opcode
    descriptor: bytes
    start: int
    end: int

    @property
    def cycles(self) -> int:
        return self.end - self.start

    @property
    def values(self) -> dict[str, int]:
        """Fields of its descriptor."""
        return unpack(fields(self.opcode), self.descriptor)


@dataclass(frozen=True)
class _Run:
    """One call on one engine, with every command that it took and what the card counted."""

    value: bytes
    cycles: int
    seconds: float
    commands: list[_Command]
    counted: dict[str, int]


def _run(runtime: Runtime, call: Call, rng: np.random.Generator) -> _Run:
    card = runtime.cards[0]
    before, card.device.history = card.counters(), []
    first, start = runtime.cycles, time.perf_counter()
    value = np.asarray(call(card, rng))
    seconds, cycles = time.perf_counter() - start, runtime.cycles - first
    commands = [
        _Command(
            Opcode(unpack(HEADER, each.descriptor)["opcode"]),
            each.descriptor,
            (each.completion.start_cycle - first) % (1 << 32),
            (each.completion.end_cycle - first) % (1 << 32),
        )
        for each in card.device.history
        if each.completion is not None
    ]
    counted = {name: count - before[name] for name, count in card.counters().items()}
    return _Run(value.tobytes(), cycles, seconds, commands, counted)


def _error(modelled: int, taken: int) -> float:
    """Relative; of nothing by the cycles themselves."""
    return abs(modelled - taken) / max(taken, 1)


def _stall_error(modelled: _Run, taken: _Run) -> float:
    """How far what engines did is from what it was, by the largest of all counts."""
    names = [name for name in taken.counted if name.endswith(_ACTIVITIES)]
    most = max(abs(modelled.counted[name] - taken.counted[name]) for name in names)
    return most / max(taken.cycles, 1)


def _row(name: str, pairs: list[tuple[int, int]]) -> dict:
    errors = [_error(*pair) for pair in pairs]
    return {
        "of": name,
        "count": len(errors),
        "cycles": sum(taken for _, taken in pairs),
        "median_error": float(np.median(errors)),
        "p95_error": float(np.percentile(errors, 95)),
        "worst_error": max(errors),
    }


def measure(
    configs: Sequence[CardConfig], draws: int, seed: int = SEED,
    progress: Callable[[int], object] = int,
) -> dict:  # fmt: skip
    """Errors of the timing card, by command and of whole calls, `draws` of each of `CALLS` on each
    of some configurations.

    A call's cycles are those of the platform: commands, their descriptors, and moves to the card
    and back. `worst` are the calls with the largest errors first, with every command's descriptor
    and cycles on both engines. `progress` is told of every call.
    """
    by_command: dict[Opcode, list[tuple[int, int]]] = {}
    by_call: dict[str, list[tuple[int, int]]] = {}
    calls, seconds = [], {"native": 0.0, "timing": 0.0}
    for number, config in enumerate(configs):
        with (
            open(cards=1, config=config, engine="native") as native,
            open(cards=1, config=config, engine="timing") as timing,
        ):
            for draw_number in range(draws):
                for name, call in CALLS.items():
                    own_seed = [seed, draw_number, len(name)]
                    taken = _run(native, call, np.random.default_rng(own_seed))
                    modelled = _run(timing, call, np.random.default_rng(own_seed))
                    seconds["native"] += taken.seconds
                    seconds["timing"] += modelled.seconds
                    by_call.setdefault(name, []).append((modelled.cycles, taken.cycles))
                    commands = list(zip(modelled.commands, taken.commands, strict=True))
                    for own, true in commands:
                        pair = own.cycles, true.cycles
                        by_command.setdefault(own.opcode, []).append(pair)
                    calls.append({
                        "call": name, "config": number, "draw": draw_number,
                        "native_cycles": taken.cycles, "timing_cycles": modelled.cycles,
                        "error": max(
                            _error(modelled.cycles, taken.cycles),
                            *(_error(own.cycles, true.cycles) for own, true in commands),
                        ),
                        "stall_error": _stall_error(modelled, taken),
                        "equal": taken.value == modelled.value,
                        "trace": [_traced(own, true) for own, true in commands],
                    })  # fmt: skip
                    progress(1)
    by_opcode = [_row(opcode.name, pairs) for opcode, pairs in sorted(by_command.items())]
    return {
        **stamp(configs[0], seed),
        "configs": [{"hash": config.hash, **asdict(config)} for config in configs],
        "commands": by_opcode,
        "calls": [_row(name, pairs) for name, pairs in by_call.items()],
        "worst": sorted(calls, key=lambda row: (-row["error"], -row["stall_error"])),
        "worst_stall_error": max(row["stall_error"] for row in calls),
        "values_equal": all(row["equal"] for row in calls),
        "bar": BAR,
        "stall_bar": STALL_BAR,
        "native_over_timing_seconds": seconds["native"] / seconds["timing"],
    }


def _traced(own: _Command, true: _Command) -> dict:
    """A command on both engines."""
    return {
        "command": true.opcode.name, "native": [true.start, true.end],
        "timing": [own.start, own.end], "descriptor": true.values,
    }  # fmt: skip
