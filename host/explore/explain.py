"""Why a point is as fast as it is: what binds, what has headroom, what doubling parameters buys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from halfdome.host.explore.parameters import COMPILED, DEFAULTS, FABRIC, Value
from halfdome.host.explore.search import Point, only
from halfdome.host.explore.study import Model, Study

BUSY = 0.6
"""Share of the time from which a resource binds; below, requests wait for latencies."""
LATENCY = "latency"

REMEDIES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "matmul": (("array_rows", "array_columns", "clock_mhz"), "give it a larger array"),
    "gather": (
        ("lanes", "gather_cache_bytes", "gather_outstanding"),
        "give it more lanes if it is busy, and if it is starved a hot-row cache or faster DRAM",
    ),
    "vector": (("bus_bytes",), "widen the bus, or set byte_word_cycles or float_word_cycles to 1"),
    "load": (("dma_tags", "pcie_lanes"), "keep more reads in flight, or widen the card's link"),
    "store": (("max_payload_bytes", "pcie_lanes"), "send larger payloads, or widen the link"),
    "dram": (("dram_channels",), "add DRAM channels, or take a faster dram_preset"),
    "link": (("pcie_lanes",), "widen the cards' links, or send less: half_inputs, narrow_indices"),
    "uplink": (("uplink_lanes",), "widen the host's link, or let cards pass on: broadcast"),
    LATENCY: (("batch", "in_flight"), "nothing is busy: enlarge requests, or have more in flight"),
}
"""Of each resource the parameters that relieve it, and what to do, in words."""


@dataclass(frozen=True)
class Doubled:
    """What came of a point with one parameter twice as large.

    Attributes
    ----------
    name : str, the parameter
    before, after : int
    gain : samples a second, of those before; None if that is infeasible
    why : str, why it is infeasible
    """

    name: str
    before: int
    after: int
    gain: float | None
    why: str = ""


@dataclass(frozen=True)
class Explained:
    """What is to be said of a point.

    Attributes
    ----------
    binds : str, a resource, or `LATENCY`
    shares : how busy each resource is, busiest first
    doubled : the best first
    advice : str
    """

    binds: str
    shares: dict[str, float]
    doubled: list[Doubled]
    advice: str


def binds(row: Mapping[str, Any]) -> str:
    """The busiest resource of a row, or `LATENCY` if none is busy."""
    name = max(row["shares"], key=row["shares"].__getitem__)
    return name if row["shares"][name] >= BUSY else LATENCY


def explain(
    study: Study, point: Point, storage: str,
    told: Callable[[str], None] = lambda text: None,
) -> Explained:  # fmt: skip
    """Measures a point again with parameters doubled: its own, and those that relieve what binds.

    What is measured is kept in the storage, as points of studies of their own.
    """
    row = point.row
    bound = binds(row)
    doubled = []
    for name, value in _numbers(study, point, bound).items():
        told(f"{name}={2 * value}")
        found = only(study.alone(_with(point, name, 2 * value)), storage)
        gain = None
        if found.row:
            gain = found.row["samples_per_second"] / row["samples_per_second"]
        doubled.append(Doubled(name, value, 2 * value, gain, found.why))
    doubled.sort(key=lambda each: -(each.gain or 0))
    ordered = dict(sorted(row["shares"].items(), key=lambda item: -item[1]))
    return Explained(bound, ordered, doubled, _advice(bound, doubled))


def _numbers(study: Study, point: Point, bound: str) -> dict[str, int]:
    """The parameters that are doubled, with what they are at the point."""
    design = study.design(point.values)
    known = vars(design.card) | FABRIC | dict(design.fabric) | {
        "cards": design.cards, "in_flight": point.row["in_flight"],
        "batch": design.batch or round(point.row["samples_of_a_request"]),
    }  # fmt: skip
    names = [*point.values, *REMEDIES[bound][0]]
    if "array" in names:
        names += ["array_rows", "array_columns"]
    if isinstance(study.workload, Model) and study.workload.is_compiled:
        names = [name for name in names if name not in COMPILED]
    return {
        name: known[name] for name in dict.fromkeys(names)
        if type(DEFAULTS[name]) is int and known[name]
    }  # fmt: skip


def _with(point: Point, name: str, value: Value) -> dict[str, Value]:
    """The values of a point but for one parameter."""
    values = dict(point.values)
    if name in ("array_rows", "array_columns") and "array" in values:
        rows, _, columns = str(values.pop("array")).partition("x")
        values |= {"array_rows": int(rows), "array_columns": int(columns)}
    return values | {name: value}


def _advice(bound: str, doubled: list[Doubled]) -> str:
    said = f"{bound} binds: {REMEDIES[bound][1]}."
    useful = [each for each in doubled if each.gain and each.gain >= 1.05]
    if useful:
        best = useful[0]
        said += (
            f" Of all that was tried, {best.name}={best.after} gives {best.gain:.2f} times as much."
        )
    else:
        said += " Doubling one parameter alone gives less than 5 % more: change several at once."
    return said
