"""What several cores of a card are worth: known shapes on one core of it, on two, on all."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from halfdome.hdl.config import MOST_CARDS, CardConfig
from halfdome.host.bench import dlrm, shapes
from halfdome.host.compiler import costs
from halfdome.host.compiler.bags import bag_nodes
from halfdome.host.compiler.compile import placement
from halfdome.host.graph.graph import Graph
from halfdome.host.models.dlrm import WEIGHTS
from halfdome.host.models.movielens import DataError
from halfdome.host.models.quantise import request as request_of
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.requests import Request
from halfdome.host.serving.deploy import deploy

DEMO = "demo"
WORKLOADS = (DEMO, *shapes.RECOMMENDERS, *shapes.BLOCKS)
COUNTS = (1, 2, 4)
DEMO_BATCH = 128
BATCH = 64
"""Samples of a request of a recommender."""
TABLE_ROWS = 4096
"""Rows of a table: far more than DRAM keeps open, few enough to be brought over a link."""
REQUESTS = 4
"""Answered one after the other: as many as are in flight at a time, and more."""


def measure(
    config: CardConfig, workloads: Sequence[str] = WORKLOADS,
    counts: Sequence[int] = COUNTS, *,
    data: Path | None = None, engine: str = "native", requests: int = REQUESTS,
    progress: Callable[[str], None] = lambda name: None,
) -> dict:  # fmt: skip
    """A row for each workload and number of cores, on one card; JSON-able.

    Raises `ValueError` for a workload that there is not, and more cores than a card has.
    """
    for name in workloads:
        if name not in WORKLOADS:
            raise ValueError(f"--workload {name}: unknown; known are {', '.join(WORKLOADS)}")
    for count in counts:
        if not 1 <= count <= config.cores:
            raise ValueError(f"--cores {count}: must be 1 to {config.cores}, those of a card")
    rows: list[dict] = []
    with open(cards=1, config=config, engine=engine) as runtime:
        for name in workloads:
            made = _workload(name, data, requests)
            if isinstance(made, str):
                rows.append({"workload": name, "missing": made})
                continue
            (graph, asked), alone = made, 0.0
            expected = list(map(graph.run, asked))
            for count in counts:
                progress(f"{name} on {count}")
                row, answers = _row(runtime, config, graph, asked, count)
                wrong = sum(map(_differing, answers, expected))
                alone = alone or row["cycles_per_request"]
                speedup = alone / row["cycles_per_request"]
                about = {"workload": name, "cores": count, "speedup": speedup}
                if bag_nodes(graph):
                    about["gather_imbalance_of_cards"] = imbalance(graph, config)
                rows.append(about | row | {"mismatching_values": wrong})
    return {**stamp(config, 0), "engine": engine, "requests": requests, "rows": rows}


def imbalance(graph: Graph, config: CardConfig) -> float:
    """Of all cards of a platform, the busiest one's poolings over the mean."""
    return placement(graph, config, MOST_CARDS).imbalance


def _workload(name: str, data: Path | None, requests: int) -> tuple[Graph, list[Request]] | str:
    """Graph and requests, or what to do about what is missing."""
    if name == DEMO:
        try:
            work = dlrm.workload(data, WEIGHTS, requests * DEMO_BATCH, DEMO_BATCH)
        except DataError as error:
            return str(error)
        return work.graph, [request_of(batch) for batch in work.batches]
    if name in shapes.RECOMMENDERS:
        graph, draw = shapes.recommender(shapes.RECOMMENDERS[name], BATCH, TABLE_ROWS)
    else:
        graph, draw = shapes.bottlenecks(shapes.BLOCKS[name])
    return graph, [draw() for _ in range(requests)]


def _row(
    runtime: Runtime, config: CardConfig, graph: Graph, asked: Sequence[Request], count: int
) -> tuple[dict, list[Response]]:
    """What so many cores take for some requests, and what binds them; their answers."""
    served = deploy(runtime, graph, cores=range(count))
    card = runtime.cards[0]
    before = card.counters()
    answers = served.run(asked)
    spent = {name: value - before[name] for name, value in card.counters().items()}
    about = served.program.about
    served.release()
    ran = [answer.spans[0][answer.spans[0][:, 0] >= 0] for answer in answers]
    cycles = int(max(each[:, 1].max() for each in ran) - min(each[:, 0].min() for each in ran))
    busy = {
        engine: [spent[f"core{core}_{engine}_busy_cycles"] for core in range(count)]
        for engine in ("matmul", "gather", "vector")
    }
    moved = spent["dram_read_bytes"] + spent["dram_write_bytes"]
    shares = {engine: max(each) / cycles for engine, each in busy.items()}
    shares["dram"] = moved / (costs.dram_bytes_per_cycle(config) * cycles)
    link = max(spent["pcie_read_bytes"], spent["pcie_write_bytes"])
    shares["link"] = link / (costs.link_bytes_per_cycle(config) * cycles)
    binds = max(shares, key=lambda name: shares[name])
    fairness = min(busy[binds]) / max(busy[binds]) if binds in busy else 1.0
    return {
        "cycles_per_request": cycles / len(asked), "binds": binds,
        **{f"{name}_share": share for name, share in shares.items()},
        "fairness": fairness, "cores_sparse": about["cores_sparse"],
        "expected_cycles": about["interval_cycles"],
    }, answers  # fmt: skip


def _differing(answer: Response, expected: Mapping[str, np.ndarray]) -> int:
    return sum(int((answer.outputs[name] != expected[name]).sum()) for name in answer.outputs)
