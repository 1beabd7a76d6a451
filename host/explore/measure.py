"""One point of a study: what its platform achieves, in numbers that have names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from halfdome.hdl.commands import Engine
from halfdome.hdl.registers import ACTIVITIES
from halfdome.host import platform
from halfdome.host.compiler import costs
from halfdome.host.explore import area, energy, kept, queueing, simulate
from halfdome.host.explore.parameters import RTL, Design, Value
from halfdome.host.explore.simulate import Ran
from halfdome.host.explore.study import Model, Study
from halfdome.host.report.stamp import stamp


def measure(study: Study, values: Mapping[str, Value]) -> dict[str, Any]:
    """What a point of a study achieves: metrics by name, and beside them what explains them.

    Raises `ValueError` or `MemoryError` that says why there is no such platform, or why it cannot
    do the work.
    """
    design = study.design(values)
    ran = kept.kept(study.seen_by_cards(design), lambda: _ran(study, design))
    return metrics(study, design, ran)


def _ran(study: Study, design: Design) -> Ran:
    if study.rtl is not None and design.engine == RTL:
        platform.compile_within(design.card, study.rtl.build_s)
    at_random = study.arrivals is not None
    if isinstance(study.workload, Model):
        from halfdome.host.explore.simulate_model import run_model  # which wants ONNX

        return run_model(study.workload, design, at_random)
    return simulate.run_graph(study.workload, design, at_random)


def metrics(study: Study, design: Design, ran: Ran) -> dict[str, Any]:
    """The row of a point: what `METRICS` names, and `engines`, `shares`, `energy_uj` beside it."""
    config = design.card
    hertz = config.clock_mhz * 1e6
    rate = hertz / float(np.mean(ran.interval))
    acted = actions(design, ran)
    spent = energy.of(study.action_costs, acted)
    microjoules = {name: each / ran.rows for name, each in spent.items()}
    row: dict[str, Any] = {
        "engine": design.engine,
        "samples_per_second": rate * ran.samples,
        "queries_per_second": rate,
        "latency_us": float(np.median(ran.latency)) / config.clock_mhz,
        "energy_uj_per_sample": sum(microjoules.values()),
        "power_w": sum(microjoules.values()) * 1e-6 * rate * ran.samples,
        "area_lut4_equivalents": design.cards * area.lut4_equivalents(config),
        **{f"card_{resource}": taken for resource, taken in area.of_card(config).items()},
        "host_link_bytes_per_sample": ran.host_bytes / ran.rows,
        "dram_bytes": ran.dram_bytes,
        "samples_of_a_request": ran.samples,
        "interval_cycles": list(ran.interval),
        "latency_cycles": list(ran.latency),
        "in_flight": ran.line.slots,
        "mismatching_samples": ran.mismatching,
        "energy_uj": microjoules,
        "engines": engines(ran),
        "shares": shares(design, ran),
        "macs_per_sample": acted["mac_int8"] / ran.rows,
        "dram_bytes_per_sample": _sum(ran.cards, "dram_read_bytes", "dram_write_bytes") / ran.rows,
        **{name: value for name, value in stamp(config, 0).items() if name != "config"},
    }
    if study.arrivals is not None:
        bound = study.arrivals.p99_us * config.clock_mhz
        service = queueing.fit(ran.line, ran.answered)
        found = queueing.highest_rate(
            service, bound, rate / hertz, study.arrivals.requests, study.arrivals.seed
        )
        row["queries_per_second_at_p99"] = found * hertz
        row["samples_per_second_at_p99"] = found * hertz * ran.samples
    return row


def actions(design: Design, ran: Ran) -> dict[str, float]:
    """How often each action of the energy table happened, all cards together."""
    adding = _sum(ran.cards, "gather_lanes_cycles")
    return {
        "mac_int8": ran.macs,
        "pool_element": adding * design.card.lanes,
        "scratchpad_byte": ran.scratchpad_bytes,
        "dram_bit": 8 * _sum(ran.cards, "dram_read_bytes", "dram_write_bytes"),
        "pcie_bit": 8 * (_sum(ran.cards, "pcie_read_bytes", "pcie_write_bytes") + ran.host_bytes),
        "card_second": len(ran.cards) * ran.cycles / (design.card.clock_mhz * 1e6),
    }  # fmt: skip


def _sum(cards: Sequence[Mapping[str, int]], *names: str) -> int:
    return sum(card[name] for card in cards for name in names)


def engines(ran: Ran) -> dict[str, dict[str, float]]:
    """Share of all cycles of all cards that each engine spent on each activity."""
    found = {}
    for engine in Engine:
        name = engine.name.lower()
        counts = Counter()
        for card in ran.cards:
            for key, value in card.items():
                for activity in ACTIVITIES:
                    if key.endswith(f"_{name}_{activity}_cycles"):
                        counts[activity] += value
        total = max(1, counts.total())
        found[name] = {activity: counts[activity] / total for activity in ACTIVITIES}
    return found


def shares(design: Design, ran: Ran) -> dict[str, float]:
    """How much of what it could do each resource did, of each kind the busiest."""
    config, cycles = design.card, ran.cycles
    of_cores: dict[str, list[float]] = {}
    for card in ran.cards:
        for core in range(config.cores):
            for engine in Engine:
                name = engine.name.lower()
                idle = card[f"core{core}_{name}_idle_cycles"]
                of_cores.setdefault(name, []).append(1 - idle / card["cycles"])
    dram = costs.dram_bytes_per_cycle(config) * cycles
    link = costs.link_bytes_per_cycle(config) * cycles
    fabric = platform.fabric(**design.fabric)
    uplink = config.replace(
        pcie_generation=fabric.uplink_generation, pcie_lanes=fabric.uplink_lanes
    )
    return {
        **{name: max(each) for name, each in of_cores.items()},
        "dram": max(c["dram_read_bytes"] + c["dram_write_bytes"] for c in ran.cards) / dram,
        "link": max(max(c["pcie_read_bytes"], c["pcie_write_bytes"]) for c in ran.cards) / link,
        "uplink": ran.uplink_bytes / (costs.link_bytes_per_cycle(uplink) * cycles),
    }
