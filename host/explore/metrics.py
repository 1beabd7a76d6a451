"""What is measured of a point: names with units, and which way is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and which way is better."""

    title: str
    better: Literal["maximize", "minimize"]


METRICS = {
    "samples_per_second": Metric("samples/s, all cards busy", "maximize"),
    "queries_per_second": Metric("requests/s, all cards busy", "maximize"),
    "samples_per_second_at_p99": Metric("samples/s within the bound on p99", "maximize"),
    "queries_per_second_at_p99": Metric("requests/s within the bound on p99", "maximize"),
    "latency_us": Metric("latency of a request alone, µs", "minimize"),
    "energy_uj_per_sample": Metric("energy of a sample, µJ (model)", "minimize"),
    "power_w": Metric("power, W (model)", "minimize"),
    "area_lut4_equivalents": Metric("area of all cards, LUT4 equivalents (a fit)", "minimize"),
    "card_lut": Metric("LUT4 of a card on an ECP5, at the least", "minimize"),
    "card_ff": Metric("flip-flops of a card on an ECP5, at the least", "minimize"),
    "card_dsp": Metric("MULT18X18D of a card on an ECP5, at the least", "minimize"),
    "card_bram": Metric("block RAMs of a card on an ECP5, at the least", "minimize"),
    "card_gates": Metric("logic of a card in silicon, NAND2 gates, at the least", "minimize"),
    "card_bits": Metric("memory of a card in silicon, bits, at the least", "minimize"),
    "host_link_bytes_per_sample": Metric("bytes of a sample over the host's link", "minimize"),
    "dram_bytes": Metric("DRAM taken on the fullest card, bytes", "minimize"),
}
"""What can be an objective or be constrained, by name."""

_SIGNS = {"minimize": 1, "maximize": -1}


def as_costs(objectives: Sequence[str], row: Mapping[str, Any]) -> list[float]:
    """The objectives of a row, all to be small."""
    return [_SIGNS[METRICS[name].better] * row[name] for name in objectives]


TIMED = (
    "samples_per_second", "samples_per_second_at_p99", "latency_us", "energy_uj_per_sample",
)  # fmt: skip
"""What tells an engine's times from another's."""

OF_BOUND = ("samples_per_second_at_p99", "queries_per_second_at_p99")
"""Metrics that there are only with a bound on the latency."""
