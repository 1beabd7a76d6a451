"""The work of a study as the platform takes it: a model, and requests for it."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from halfdome.host.bench import dlrm as demo
from halfdome.host.bench.gather import SHAPES
from halfdome.host.bench.traces import TRACES
from halfdome.host.explore.study import Demo, Recommender
from halfdome.host.graph.graph import Graph
from halfdome.host.models.dlrm import WEIGHTS, Architecture, Dlrm
from halfdome.host.models.features import Bags, Batch
from halfdome.host.models.quantise import longest_bags, quantise, request

NETS = {
    "RM1": ((128, 64, 32), (256, 64, 1)),
    "RM2": ((256, 128, 64), (128, 64, 1)),
    "RM3": ((2560, 1024, 256, 32), (512, 256, 1)),
}
"""Bottom and top nets of RMC1 to RMC3 (harvard-acc/DeepRecSys, models/configs), the top without its
input, which tables and interaction tell."""

CALIBRATION_SAMPLES = 64


@dataclass(frozen=True)
class Work:
    """A graph and requests for it."""

    graph: Graph
    requests: tuple[dict[str, np.ndarray], ...]
    samples: tuple[int, ...]

    @cached_property
    def expected(self) -> list[dict[str, np.ndarray]]:
        """What the golden model answers to each."""
        return [self.graph.run(request) for request in self.requests]


@lru_cache(maxsize=4)
def work(said: Demo | Recommender, batch: int, table_bits: int = 8) -> Work:
    """The work in requests of `batch` samples; `table_bits` are a recommender's. Raises
    `ValueError` for what there is not."""
    if isinstance(said, Demo):
        loaded = demo.workload(said.data, said.weights or WEIGHTS, said.samples, batch)
        return _work(loaded.graph, loaded.batches)
    architecture, pooling = shape(said)
    rng = np.random.default_rng(said.seed)
    model = Dlrm(architecture, {
        name: rng.standard_normal(size, np.float32) / np.float32(max(1.0, size[-1] ** 0.5))
        for name, size in architecture.shapes().items()
    })  # fmt: skip
    drawn = _batches(said, architecture, pooling, [batch] * said.requests, rng)
    [calibration] = _batches(said, architecture, pooling, [CALIBRATION_SAMPLES], rng)
    graph = quantise(model, calibration, batch, longest_bags(drawn), table_bits)
    return _work(graph, drawn)


def shape(said: Recommender) -> tuple[Architecture, int]:
    """The architecture and the rows of a bag. Raises `ValueError` for what is not told."""
    own: dict[str, Any] = {}
    if said.shape is not None:
        published = SHAPES[said.shape]
        bottom, top = NETS[said.shape]
        own = {
            "tables": (published.rows,) * published.tables, "dim": published.dim,
            "pooling": published.pooling, "bottom": bottom, "top": top,
        }  # fmt: skip
    for name in ("tables", "dim", "pooling", "bottom", "top"):
        if (given := getattr(said, name)) is not None:
            own[name] = given
        elif name not in own:
            raise ValueError(f"workload.{name}: is missing; give it, or shape")
    tables = tuple(max(1, round(rows * said.rows_scale)) for rows in own["tables"])
    joined = Architecture.interaction_width(len(tables), own["dim"], said.interaction)
    top = (joined, *own["top"])
    return Architecture(tables, own["dim"], own["bottom"], top, said.interaction), own["pooling"]


def _batches(
    said: Recommender, architecture: Architecture, pooling: int, sizes: list[int],
    rng: np.random.Generator,
) -> list[Batch]:  # fmt: skip
    """Batches of these sizes; a table's lookups are one trace over all of them."""
    samples = sum(sizes)
    dense = rng.standard_normal((samples, architecture.bottom[0]), np.float32)
    bags = []
    for rows in architecture.table_rows:
        indices = TRACES[said.reuse](rng, rows, samples * pooling)
        bags.append(Bags(indices, np.full(samples, pooling, np.int32)))
    whole = Batch(dense, tuple(bags), np.zeros(samples, np.float32))
    ends = np.cumsum(sizes)
    return [whole.take(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]


def _work(graph: Graph, batches: Any) -> Work:
    return Work(graph, tuple(map(request, batches)), tuple(map(len, batches)))
