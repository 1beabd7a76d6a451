"""What several cores of a card are worth: known shapes on one core of it, on two, on all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halfdome.hdl.commands import Opcode, RowFormat
from halfdome.hdl.config import LINE_BYTES, PLATFORM_CARDS, CardConfig
from halfdome.hdl.descriptors import HEADER, fields, unpack
from halfdome.host.bench import dlrm, shapes
from halfdome.host.bench.answers import differing, span_cycles
from halfdome.host.bench.gather import row_lines
from halfdome.host.compiler import costs
from halfdome.host.compiler.bags import bag_nodes
from halfdome.host.compiler.compile import placement
from halfdome.host.driver.device import Submitted
from halfdome.host.graph.graph import Graph
from halfdome.host.models.dlrm import WEIGHTS
from halfdome.host.models.movielens import DataError
from halfdome.host.models.quantise import request as request_of
from halfdome.host.platform import Runtime, open
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.requests import Request
from halfdome.host.serving.deploy import deploy

DEMO = "demo"
ENGINES = ("matmul", "gather", "vector")
"""What computes."""
WORKLOADS = (DEMO, *shapes.RECOMMENDERS, *shapes.BLOCKS)
COUNTS = (1, 2, 4)
DEMO_BATCH = 128
FIRST = 4
"""Requests that fill the card, as many as are in flight and more: what they take is not counted."""
REQUESTS = 8
"""Requests that are counted: what they add to the time of the first ones."""


def measure(
    config: CardConfig, workloads: Sequence[str] = WORKLOADS,
    counts: Sequence[int] = COUNTS, *,
    data: Path | None = None, engine: str = "timing", requests: int = REQUESTS,
    values: bool = True, progress: Callable[[str], None] = lambda name: None,
) -> dict:  # fmt: skip
    """A row for each workload and number of cores, on one card; JSON-able.

    A row tells of a full card: of what `requests` add to the time of `FIRST`. Shares are of the
    cycles of a request: of what is busy, what the busiest core's engine is; of the link, its bytes
    at its peak; of DRAM, rows as DRAM alone reads them, in the order in which cores ask for them,
    and all other bytes at its peak. `binds` is the largest of them, and `of_bound` how large it is.
    `cores_bind` is for each core what it does longest: an engine works, or waits for data.
    Without `values`, which the timing engine alone can do without, `mismatching_values` is None.

    Raises `ValueError` for a workload that there is not, and more cores than a card has.
    """
    for name in workloads:
        if name not in WORKLOADS:
            raise ValueError(f"--workload {name}: unknown; known are {', '.join(WORKLOADS)}")
    for count in counts:
        if not 1 <= count <= config.cores:
            raise ValueError(f"--cores {count}: must be 1 to {config.cores}, those of a card")
    rows: list[dict] = []
    with open(cards=1, config=config, engine=engine, values=values) as runtime:
        for name in workloads:
            made = _workload(name, data, FIRST + requests)
            if isinstance(made, str):
                rows.append({"workload": name, "missing": made})
                continue
            (graph, asked), alone = made, 0.0
            expected = list(map(graph.run, asked)) if values else []
            for count in counts:
                progress(f"{name} on {count}")
                row, answers = _row(runtime, config, graph, asked, count)
                wrong = differing(answers, expected) if values else None
                alone = alone or row["cycles_per_request"]
                speedup = alone / row["cycles_per_request"]
                about = {"workload": name, "cores": count, "speedup": speedup}
                if bag_nodes(graph):
                    about["gather_imbalance_of_cards"] = imbalance(graph, config)
                rows.append(about | row | {"mismatching_values": wrong})
    about = {**stamp(config, 0), "engine": engine, "requests": requests}
    return about | {"rows": rows}


def imbalance(graph: Graph, config: CardConfig) -> float:
    """Of all cards of a platform, the busiest one's poolings over the mean."""
    return placement(graph, config, PLATFORM_CARDS).imbalance


def _workload(name: str, data: Path | None, requests: int) -> tuple[Graph, list[Request]] | str:
    """Graph and requests, or what to do about what is missing."""
    if name == DEMO:
        try:
            work = dlrm.workload(data, WEIGHTS, requests * DEMO_BATCH, DEMO_BATCH)
        except DataError as error:
            return str(error)
        return work.graph, [request_of(batch) for batch in work.batches]
    return shapes.named(name, requests)


def _row(
    runtime: Runtime, config: CardConfig, graph: Graph, asked: Sequence[Request], count: int
) -> tuple[dict, list[Response]]:
    """What the requests after the first ones take, and what binds them; answers of all."""
    served = deploy(runtime, graph, cores=range(count))
    few, many = _run(runtime, served, asked[:FIRST]), _run(runtime, served, asked)
    about = served.program.about
    served.release()
    counted = len(asked) - FIRST
    cycles = (many.cycles - few.cycles) / counted
    spent = {name: (many.spent[name] - few.spent[name]) / counted for name in many.spent}
    busy, starved = (
        {
            engine: [spent[f"core{core}_{engine}_{activity}_cycles"] for core in range(count)]
            for engine in ENGINES
        }
        for activity in ("busy", "starved")
    )
    moved = spent["dram_read_bytes"] + spent["dram_write_bytes"]
    peak = costs.dram_bytes_per_cycle(config)
    lines = _pooled_lines(config, many.gathers)
    alone = runtime.platform.dram_cycles(lines) / len(asked)
    rest = moved - lines.size * LINE_BYTES / len(asked)
    link = max(spent["pcie_read_bytes"], spent["pcie_write_bytes"])
    shares = {engine: max(each) / cycles for engine, each in busy.items()}
    shares["dram"] = (alone + rest / peak) / cycles
    shares["link"] = link / (costs.link_bytes_per_cycle(config) * cycles)
    binds = max(shares, key=lambda name: shares[name])
    return {
        "cycles_per_request": cycles, "binds": binds, "of_bound": shares[binds],
        **{f"{name}_share": share for name, share in shares.items()},
        "dram_of_peak": moved / (peak * cycles),
        "balance": min(busy[binds]) / max(busy[binds]) if binds in busy else 1.0,
        "cores_bind": [_binding(core, busy, starved) for core in range(count)],
        "cores_sparse": about["cores_sparse"], "expected_cycles": about["interval_cycles"],
    }, many.answers  # fmt: skip


def _binding(
    core: int, busy: Mapping[str, Sequence[float]], starved: Mapping[str, Sequence[float]]
) -> str:
    """What a core does longest: an engine works, or waits for data."""
    taken = {engine: busy[engine][core] for engine in ENGINES}
    taken |= {f"{engine} waits": starved[engine][core] for engine in ENGINES}
    return max(taken, key=lambda name: taken[name])


@dataclass(frozen=True)
class _Run:
    """Some requests: cycles from the first command's start to the last one's end, what the card
    counted meanwhile, and the GATHERs."""

    answers: list[Response]
    cycles: int
    spent: dict[str, int]
    gathers: list[Submitted]


def _run(runtime: Runtime, served: Deployment, asked: Sequence[Request]) -> _Run:
    card = runtime.cards[0]
    before, card.device.history = card.counters(), []
    answers = served.run(asked)
    history, card.device.history = card.device.history, None
    spent = {name: value - before[name] for name, value in card.counters().items()}
    gathers = [
        each for each in history if unpack(HEADER, each.descriptor)["opcode"] == Opcode.GATHER
    ]
    return _Run(answers, span_cycles(answers), spent, gathers)


def _pooled_lines(config: CardConfig, gathers: Sequence[Submitted]) -> np.ndarray:
    """Card addresses of the lines of DRAM that GATHERs read as rows, in the order of their cycles.

    Rows are drawn again, uniformly, and asked for evenly from a command's start to its end.
    """
    rng = np.random.default_rng(0)
    starts, sizes, cycles = [], [], []
    for each in gathers:
        command = unpack(fields(Opcode.GATHER), each.descriptor)
        if command["table"] >= config.scratchpad_base or each.completion is None:
            continue
        rows = rng.integers(0, command["rows"], command["index_count"])
        starts.append(command["table"] + rows * command["row_stride"])
        sizes.append(np.full(rows.size, RowFormat(command["format"]).row_bytes(command["dim"])))
        ran = each.completion.start_cycle, each.completion.end_cycle
        cycles.append(np.linspace(*ran, rows.size))
    if not starts:
        return np.zeros(0, np.int64)
    order = np.argsort(np.concatenate(cycles), kind="stable")
    return row_lines(np.concatenate(starts)[order], np.concatenate(sizes)[order])
