"""What locality is worth: the same lookups with a hot-row cache, with rows in another order, with
more DRAM channels."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from halfdome.hdl.config import CardConfig
from halfdome.host.bench.gather import Point, sweep
from halfdome.host.bench.gather_run import measure
from halfdome.host.report.stamp import stamp

CACHE_BYTES = (0, 16 << 10, 64 << 10)
ORDERS = ("plain", "popular")
CHANNELS = (1, 2, 4)
STUDIES = ("cache", "placement", "channels")


def variants(study: str, config: CardConfig) -> list[tuple[str, CardConfig, str]]:
    """Name, configuration and order of rows of each variant; the first is what others are held to.

    Raises `ValueError` for an unknown study.
    """
    if study == "cache":
        return [
            (
                f"{size >> 10} KiB" if size else "none",
                config.replace(gather_cache_bytes=size),
                "plain",
            )
            for size in CACHE_BYTES
        ]
    if study == "placement":
        return [(order, config, order) for order in ORDERS]
    if study == "channels":
        return [
            (f"{channels} ch., {order}", config.replace(dram_channels=channels), order)
            for channels in CHANNELS
            for order in ORDERS
        ]
    raise ValueError(f"study={study}: unknown; known are {', '.join(STUDIES)}")


def points(dims: Sequence[int] = (32, 64), bits: Sequence[int] = (8, 4), poolings=(32,),
           strides: Sequence[str] = ("packed", "padded")) -> list[Point]:  # fmt: skip
    """The points of a study: production reuse, which is what there is to gain from."""
    return sweep(dims, bits, poolings, ["production"], strides)


def compare(
    study: str,
    chosen: Sequence[Point],
    config: CardConfig,
    *,
    engine: str = "native",
    cards: int = 6,
    seed: int = 0,
    lookups: int | None = None,
    progress: Callable[[int], None] = lambda points: None,
) -> dict:
    """Cycles of every point under every variant, and their ratio to those of the first variant."""
    rows: list[dict] = []
    first: list[int] = []
    for name, design, order in variants(study, config):
        ordered = [replace(point, order=order) for point in chosen]
        result = measure(
            ordered, design, engine=engine, cards=cards, seed=seed, lookups=lookups,
            progress=progress,
        )  # fmt: skip
        first = first or [row["cycles"] for row in result["rows"]]
        for row, plain in zip(result["rows"], first, strict=True):
            asked = row["gather_cache_hits"] + row["gather_cache_misses"]
            rows.append({
                "variant": name,
                "config_hash": design.hash,
                **row,
                "speed_up": plain / row["cycles"],
                "cache_hit_rate": row["gather_cache_hits"] / asked if asked else 0.0,
            })  # fmt: skip
    return {**stamp(config, seed), "engine": engine, "study": study, "rows": rows}
