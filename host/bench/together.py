"""What two models on cores of their own cost each other: they share DRAM and the link."""

from collections.abc import Mapping, Sequence

from halfdome.hdl.config import CardConfig
from halfdome.host.bench import shapes
from halfdome.host.bench.answers import differing, span_cycles
from halfdome.host.graph.graph import Graph
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.deployment import run_together
from halfdome.host.runtime.requests import Request
from halfdome.host.serving.deploy import deploy

MODELS = {"RM1": 12, "resnet50 stage 4": 1}
"""Two models that share a card, and how many requests take each of them about as long."""


def bench(config: CardConfig, engine: str) -> dict:
    """What `measure` says of `MODELS` on one card; JSON-able.

    Raises `ValueError` for a card with fewer cores than models.
    """
    if config.cores < len(MODELS):
        raise ValueError(
            f"cores={config.cores}: {len(MODELS)} models need a core each: take a card with more, "
            "such as quad"
        )
    models = {name: shapes.named(name, count) for name, count in MODELS.items()}
    with open(cards=1, config=config, engine=engine) as runtime:
        rows = measure(runtime, models)
    return {**stamp(config, 0), "engine": engine, "rows": rows}


def measure(runtime: Runtime, models: Mapping[str, tuple[Graph, Sequence[Request]]]) -> list[dict]:
    """A row for each of the models, by name with what they are asked; JSON-able.

    Each has an equal part of the cores of card 0. It answers its requests by itself, and then
    while the others do: `times_as_long` is what that takes of what it took alone.
    """
    share = runtime.cards[0].config.cores // len(models)
    rows, jobs = [], []
    for number, (name, (graph, requests)) in enumerate(models.items()):
        cores = range(number * share, (number + 1) * share)
        served = deploy(runtime, graph, cores=cores)
        jobs.append((served, requests))
        alone = span_cycles(served.run(requests))
        rows.append({"workload": name, "cores": share, "alone_cycles": alone})
    for row, (graph, requests), answers in zip(
        rows, models.values(), run_together(jobs), strict=True
    ):
        if isinstance(answers, Exception):
            raise answers
        cycles = span_cycles(answers)
        row["together_cycles"], row["times_as_long"] = cycles, cycles / row["alone_cycles"]
        row["mismatching_values"] = differing(answers, map(graph.run, requests))
    for served, _ in jobs:
        served.release()
    return rows
