"""Rung 13: recommenders that come in from PyTorch."""

from collections.abc import Sequence

import numpy as np

from halfdome.host.models import dlrm as weights
from halfdome.host.models import features, movielens
from halfdome.host.models.dlrm import Architecture
from halfdome.host.models.features import Bags, Batch
from halfdome.host.models.ladder.rung import Rung

ARCHITECTURE = Architecture(
    table_rows=(1000, 200, 5000, 50, 3000, 10, 700, 400), dim=32,
    bottom=(13, 64, 32), top=(32 + 36, 64, 1), interaction="dot",
)  # fmt: skip
LONGEST = 12
"""The most indices in a bag of the random requests."""


def random_dlrm(
    batch: int = 16, seed: int = 0, architecture: Architecture = ARCHITECTURE, count: int = 8
) -> Rung:
    """A DLRM with random weights and as many random requests of `batch` samples as `count` says.

    Its model is a `TorchModel`. Raises `ImportError` without PyTorch, `ValueError` for a `batch`
    or `count` below 1.
    """
    if min(batch, count) < 1:
        raise ValueError(f"batch={batch}, count={count}: must be at least 1 each")
    from halfdome.host.frontend.torch_export import torch
    from halfdome.host.models.ladder.torch_dlrm import TorchDlrm

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = TorchDlrm(architecture).eval()
    rng = np.random.default_rng(seed)
    made = [_random_batch(architecture, batch, rng) for _ in range(2 * count)]
    return _rung("DLRM", module, made[:count], made[count:])


def trained_dlrm(batch: int = 16) -> Rung:
    """The demo's trained model on MovieLens-100K, in requests of `batch` samples, with labels.

    Its model is a `TorchModel`. Raises `ImportError` without PyTorch, `movielens.DataError` without
    the data, `ValueError` for a batch without samples.
    """
    from halfdome.host.models.ladder.torch_dlrm import TorchDlrm

    samples = features.build(movielens.load())
    asked, seen = (
        [each for each in part.batches(batch) if len(each) == batch]
        for part in (samples.held_out, samples.calibration)
    )
    labels = np.concatenate([each.label for each in asked]).astype(np.int64)
    return _rung("DLRM on MovieLens", TorchDlrm.of(weights.load()), asked, seen[:32], labels)


def _rung(
    name: str, module, asked: Sequence[Batch], seen: Sequence[Batch],
    labels: np.ndarray | None = None,
) -> Rung:  # fmt: skip
    from halfdome.host.frontend.torch_export import from_torch
    from halfdome.host.models.ladder.torch_dlrm import arguments

    model = from_torch(module, arguments(seen[0]), outputs=("probability",))
    inputs, calibration = (
        [model.named(arguments(batch)) for batch in batches] for batches in (asked, seen)
    )
    return Rung(name, model, inputs, calibration, labels)


def _random_batch(architecture: Architecture, count: int, rng: np.random.Generator) -> Batch:
    lengths = [rng.integers(0, LONGEST + 1, count, np.int32) for _ in architecture.table_rows]
    sparse = tuple(
        Bags(rng.integers(0, rows, int(length.sum()), np.int32), length)
        for rows, length in zip(architecture.table_rows, lengths, strict=True)
    )
    dense = rng.standard_normal((count, architecture.bottom[0]), np.float32)
    return Batch(dense, sparse, np.zeros(count, np.float32))
