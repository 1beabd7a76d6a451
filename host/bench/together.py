"""What two models on cores of their own cost each other: they share DRAM and the link."""

from collections.abc import Mapping, Sequence

from halfdome.hdl.config import CardConfig
from halfdome.host.bench import shapes
from halfdome.host.bench.answers import differing, span_cycles
from halfdome.host.graph.graph import Graph
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.deployment import Deployment, run_together
from halfdome.host.runtime.flights import Response
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
    while the others do: `times_as_long` is what that takes of what it took alone if all have the
    same priority, `going_first` if it goes before the others, `going_last` if one of them does.
    """
    share = runtime.cards[0].config.cores // len(models)
    jobs, alone = [], []
    for number, (graph, requests) in enumerate(models.values()):
        served = deploy(runtime, graph, cores=range(number * share, (number + 1) * share))
        jobs.append((served, requests))
        alone.append(span_cycles(served.run(requests)))
    answers = {first: _together(jobs, first) for first in (None, *range(len(jobs)))}
    rows = []
    for number, (name, (graph, requests)) in enumerate(models.items()):
        expected = list(map(graph.run, requests))
        cycles = {first: span_cycles(each[number]) for first, each in answers.items()}
        last = max(each for first, each in cycles.items() if first not in (None, number))
        rows.append({
            "workload": name, "cores": share, "alone_cycles": alone[number],
            "together_cycles": cycles[None], "times_as_long": cycles[None] / alone[number],
            "going_first": cycles[number] / alone[number], "going_last": last / alone[number],
            "mismatching_values": sum(
                differing(each[number], expected) for each in answers.values()
            ),
        })  # fmt: skip
    for served, _ in jobs:
        served.release()
    return rows


def _together(
    jobs: Sequence[tuple[Deployment, Sequence[Request]]], first: int | None
) -> list[list[Response]]:
    """Answers of all, that of this number going before the others."""
    for number, (served, _) in enumerate(jobs):
        served.priority = int(number == first)
    found = []
    for answers in run_together(jobs):
        if isinstance(answers, Exception):
            raise answers
        found.append(answers)
    return found
