"""The main job, measured: held-out interactions answered by six cards, checked bit for bit."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig
from halfdome.hdl.registers import ACTIVITIES, TRAFFIC
from halfdome.host.compiler.compile import placement
from halfdome.host.graph.graph import Graph
from halfdome.host.models import dlrm, features, movielens
from halfdome.host.models.features import Batch
from halfdome.host.models.metrics import roc_auc
from halfdome.host.models.quantise import OUTPUT, longest_bags, quantise, request
from halfdome.host.platform import check, check_faults, open
from halfdome.host.report.faults import account as fault_account
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.flights import Response
from halfdome.host.serving.deploy import deploy

SEED = 0
"""The run itself draws nothing at random; data order and weights are fixed."""

FAULT_PATIENCE_CYCLES = 100_000
"""Patience where faults are awaited: longer than any card is idle while others work."""


@dataclass(frozen=True)
class Workload:
    """A model, its graph in the cards' arithmetic, and the batches to answer with it."""

    model: dlrm.Dlrm
    graph: Graph
    batches: tuple[Batch, ...]

    @property
    def samples(self) -> int:
        """Samples in all batches."""
        return sum(len(batch) for batch in self.batches)


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    `report` is the machine-readable result: names carry units; what is said of answers is None if
    values were left out. `mismatches` counts samples whose probability differs from the golden
    model.
    """

    report: dict
    mismatches: int


def workload(data: Path | None, weights: Path, samples: int, batch_size: int) -> Workload:
    """Reads data and weights, calibrates the quantisation, cuts held-out samples into batches.

    Raises `ValueError` if `samples` exceeds the held-out interactions, and what reading raises.
    """
    every = features.build(movielens.load(data))
    model = dlrm.load(weights)
    model.check_tables(every.table_rows)
    if not 1 <= samples <= len(every.held_out):
        raise ValueError(f"samples={samples}: must be 1 to {len(every.held_out)}, the held-out set")
    if batch_size < 1:
        raise ValueError(f"batch={batch_size}: must be at least 1")
    held_out = every.held_out.take(range(samples))
    batches = tuple(held_out.batches(batch_size))
    size = max(map(len, batches))
    graph = quantise(model, every.calibration, size, longest_bags(batches))
    return Workload(model, graph, batches)


def check_design(
    work: Workload, config: CardConfig, *, cards: int, engine: str, values: bool = True,
    faults: Sequence[str] = (),
) -> None:  # fmt: skip
    """Raises what `run` would, as far as that is known without building the cards."""
    check(config, cards, engine, values)
    check_faults(faults, cards)
    placement(work.graph, config, cards)


def run(
    work: Workload,
    config: CardConfig,
    *,
    cards: int = 6,
    engine: str = "native",
    values: bool = True,
    progress: Callable[[int], None] = lambda samples: None,
    trace: Path | None = None,
    faults: Sequence[str] = (),
    **platform_options: object,
) -> Outcome:
    """Answers the workload on a freshly opened platform and compares with golden model and fp32,
    unless `values` are left out.

    `progress` is told the samples of each batch that is answered; a timeline of the answering goes
    to the file `trace`; `faults` happen meanwhile, see `Runtime.inject`; `platform_options` are
    those of `halfdome.open`. Raises `ValueError` or `MemoryError` for a configuration that cannot
    serve the model.
    """
    check_design(work, config, cards=cards, engine=engine, values=values, faults=faults)
    with open(
        cards=cards, config=config, engine=engine, values=values, **platform_options
    ) as runtime:
        served = deploy(runtime, work.graph)
        before = [card.counters() for card in runtime.cards]
        start = runtime.cycles
        runtime.inject(faults)
        with runtime.trace(trace) if trace else nullcontext():
            answers = served.run([request(batch) for batch in work.batches], progress)
        cycles = runtime.cycles - start
        after = {card.index: runtime.cards[card.index].counters() for card in served.cards}
        account = fault_account(runtime, served.incidents) if faults else None
        tables = served.program.about["tables"]
        numbers = [card.index for card in served.cards]
    mismatches = None
    if values:
        expected = [golden(work.graph, batch) for batch in work.batches]
        mismatches = differing(answers, expected)
    report = {
        **stamp(config, SEED),
        "engine": engine,
        "values": values,
        "cards": cards,
        "samples": work.samples,
        "batch_size": work.graph.batch,
        "mismatching_samples": mismatches,
        "total_cycles": cycles,
        "total_us": cycles / config.clock_mhz,
        "samples_per_second": work.samples / (cycles / config.clock_mhz) * 1e6,
        "placement_cards_of_table": _placed(tables, numbers),
        **_quality(work, answers if values else None),
        "latency_cycles": [answer.latency_cycles for answer in answers],
        "latency_us": [answer.latency_cycles / config.clock_mhz for answer in answers],
        "per_card": [
            {"card": index} | _card_report(before[index], counted)
            for index, counted in after.items()
        ],
    }
    if account:
        report["faults"] = account
    return Outcome(report, mismatches or 0)


def golden(graph: Graph, batch: Batch) -> np.ndarray:
    """The probabilities float32[n] that the golden operators compute."""
    return graph.run(request(batch))[OUTPUT][:, 0]


def probabilities(response: Response) -> np.ndarray:
    """What the cards said of a batch: float32[n]."""
    return response.outputs[OUTPUT][:, 0]


def differing(answers: Sequence[Response], expected: Sequence[np.ndarray]) -> int:
    """Samples of all batches whose probability is not bit for bit the expected one."""
    return sum(
        int((probabilities(answer) != right).sum())
        for answer, right in zip(answers, expected, strict=True)
    )


def _placed(tables: dict[str, list], numbers: Sequence[int]) -> list[list[int]]:
    """The cards that pool each table."""
    return [sorted({numbers[task[0]] for task in tasks}) for tasks in tables.values()]


def _quality(work: Workload, answers: Sequence[Response] | None) -> dict:
    if answers is None:
        return dict.fromkeys(("auc_fp32", "auc_cards", "auc_difference"))
    label = np.concatenate([batch.label for batch in work.batches])
    fp32 = np.concatenate([work.model.forward(batch) for batch in work.batches])
    cards = np.concatenate([probabilities(answer) for answer in answers])
    auc_fp32, auc_cards = roc_auc(label, fp32), roc_auc(label, cards)
    return {
        "auc_fp32": auc_fp32,
        "auc_cards": auc_cards,
        "auc_difference": auc_cards - auc_fp32,
    }


def _card_report(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What one card counted during the run; activities summed over cores."""
    spent = {name: after[name] - before[name] for name in after}
    report = {"cycles": spent["cycles"]}
    for engine in Engine:
        for activity in ACTIVITIES:
            suffix = f"_{engine.name.lower()}_{activity}_cycles"
            report[suffix[1:]] = sum(v for name, v in spent.items() if name.endswith(suffix))
    return report | {name: spent[name] for name in TRAFFIC}
