"""Parts of random cards, synthesised, beside what the fit of studies says of them."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from halfdome.hdl.config import ConfigError
from halfdome.hdl.parts import PARTS, count
from halfdome.host.explore import area

DRAWN = {
    "array_rows": (2, 4, 8), "array_columns": (2, 4, 8, 16),
    "accumulator_rows": (16, 32, 64, 128, 256, 512), "activation_rows": (4, 8, 16, 32, 64, 128),
    "gather_float_stages": (1, 2), "lanes": (1, 4), "float_word_cycles": (1, 2, 4),
    "gather_outstanding": (4, 8, 16, 32, 64, 128, 160),
    "gather_cache_bytes": (4096, 8192, 16384), "gather_cache_ways": (1, 2, 4),
    "bus_bytes": (16, 32), "scratchpad_bytes": (8192, 16384, 32768, 65536, 131072),
    "scratchpad_banks": (1, 2, 4), "queue_depth": (2, 4, 8, 16, 32, 64),
    "dram_bytes": (1 << 20, 1 << 25, 1 << 30), "counters": (16, 32, 64, 128), "cores": (1, 2, 3),
    "dma_tags": (4, 8, 16, 32, 64), "max_read_request_bytes": (128, 256, 512),
}  # fmt: skip
"""What a field may be of the cards that are drawn: their parts are synthesised in seconds."""


def drawn(part: str, draws: int, seed: int) -> Iterator[str]:
    """Settings of the fields on which a part depends, at random, as `area.csv` has them; what no
    card can have is drawn again."""
    rng = np.random.default_rng([seed, *part.encode()])
    left = draws
    while left:
        settings = " ".join(
            f"{name}={rng.choice(DRAWN[name])}" for name in area.PARTS[part].fields
        )  # fmt: skip
        try:
            area.card(settings)
        except ConfigError:
            continue
        left -= 1
        yield settings


def measure(
    parts: Sequence[str], draws: int, seed: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Synthesises each part of as many random cards.

    Returns `rows`, one a part of a card: `part`, `settings`, and of each resource what Yosys counts
    and `..._error_percent` of the fit; and `p95_percent` of these, by resource. Raises `ValueError`
    for an unknown part.
    """
    rows = []
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"--part {part}: is none; there are {', '.join(PARTS)}")
        for settings in drawn(part, draws, seed):
            config = area.card(settings)
            counted = count(partial(PARTS[part], config))
            rows.append({"part": part, "settings": settings, **counted}
                        | errors(counted, area.of_part(part, config)))  # fmt: skip
            progress(f"{part} {settings}")
    return {"rows": rows, "p95_percent": p95(rows), "yosys": version("pyosys"), "seed": seed}


def errors(counted: Mapping[str, int], fitted: Mapping[str, float]) -> dict[str, float]:
    """By how many percent of what was counted a fit differs, of each resource that there is."""
    return {
        f"{name}_error_percent": 100 * (fitted[name] - counted[name]) / counted[name]
        for name in area.RESOURCES if counted[name]
    }  # fmt: skip


def p95(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The 95th percentile of the errors of each resource, without signs."""
    found = {}
    for name in area.RESOURCES:
        of_resource = [abs(row[key]) for row in rows if (key := f"{name}_error_percent") in row]
        if of_resource:
            found[name] = float(np.percentile(of_resource, 95))
    return found


def add(path: Path, result: Mapping[str, Any], fitted: bool) -> None:
    """Adds the rows of a result to a file like `area.csv`, for the fit or to test it with."""
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in result["rows"]:
            counted = [row[name] for name in area.RESOURCES]
            writer.writerow([row["part"], row["settings"], "yes" if fitted else "no", *counted,
                             result["yosys"]])  # fmt: skip
