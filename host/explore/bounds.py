"""What no point of a design can better, told without a simulation.

Each is a bound for certain: multiply-accumulates that nets need against those that all arrays do in
a cycle, elements that bags pool against lanes, rows that fit no scratchpad against the DRAM. So a
point whose bounds another point beats in every objective is not on the front, whatever it does.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from halfdome.host.compiler import costs
from halfdome.host.explore import area, energy
from halfdome.host.explore.metrics import METRICS, as_costs
from halfdome.host.explore.parameters import Design, Value
from halfdome.host.explore.simulate import SAMPLES
from halfdome.host.explore.study import Recommender, Study
from halfdome.host.explore.workloads import shape

if TYPE_CHECKING:
    from halfdome.host.explore.search import Point


def bounds(study: Study, design: Design) -> dict[str, float]:
    """Of some metrics the best that a point can have; those of area are what it has.

    Of another workload than a recommender, areas alone.
    """
    card = design.card
    found = {
        "area_lut4_equivalents": float(design.cards * area.lut4_equivalents(card)),
        **{f"card_{name}": float(taken) for name, taken in area.of_card(card).items()},
    }
    said = study.workload
    if not isinstance(said, Recommender):
        return found
    architecture, pooling = shape(said)
    layers = (*pairwise(architecture.bottom), *pairwise(architecture.top))
    macs = sum(inputs * outputs for inputs, outputs in layers)
    elements = len(architecture.table_rows) * pooling * architecture.dim
    cycles = (
        max(
            macs / (card.cores * card.array_rows * card.array_columns),
            elements / (card.cores * card.lanes),
            _far_bytes(said, design) / costs.dram_bytes_per_cycle(card),
        )
        / design.cards
    )
    batch, hertz = design.batch or SAMPLES, card.clock_mhz * 1e6
    spent = energy.of(study.action_costs, {"mac_int8": macs, "pool_element": elements})
    rates = {"samples_per_second": hertz / cycles, "queries_per_second": hertz / cycles / batch}
    return found | rates | {f"{name}_at_p99": rate for name, rate in rates.items()} | {
        "latency_us": batch * cycles / card.clock_mhz,
        "energy_uj_per_sample": sum(spent.values()),
    }  # fmt: skip


def _far_bytes(said: Recommender, design: Design) -> float:
    """Bytes of rows that a sample needs from DRAM, were all scratchpads full of tables; with a
    cache perhaps none."""
    card = design.card
    if card.gather_cache_bytes:
        return 0
    architecture, pooling = shape(said)
    row_bytes = architecture.dim * design.table_bits / 8
    room = design.cards * card.cores * card.scratchpad_bytes
    far = 0
    for rows in sorted(architecture.table_rows):
        room -= rows * row_bytes
        far += room < 0
    return far * pooling * row_bytes


def beaten_by(
    study: Study, values: Mapping[str, Value], points: "Iterable[Point]"
) -> "Point | None":
    """One of the points that is better in every objective than a point with these values can be;
    None if there is none, or no such design."""
    try:
        best = bounds(study, study.design(values))
    except ValueError:
        return None
    if not best.keys() >= {*study.objectives}:
        return None
    least = as_costs(study.objectives, best)
    for point in points:
        own = as_costs(study.objectives, point.row)
        if own != least and all(a <= b for a, b in zip(own, least, strict=True)):
            return point
    return None


def told(study: Study, values: Mapping[str, Value], point: "Point") -> str:
    """Why a point with these values is not simulated: another beats its bounds."""
    best = bounds(study, study.design(values))
    words = (
        f"{name} is {best[name]:.4g} at {'most' if METRICS[name].better == 'maximize' else 'least'}"
        f" where that has {point.row[name]:.4g}"
        for name in study.objectives
    )
    return f"bound dominated by point {point.number}: {', '.join(words)}"
