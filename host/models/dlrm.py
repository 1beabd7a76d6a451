"""A deep learning recommendation model in fp32: embedding bags and a bottom MLP, then a top MLP.

The architecture is that of Naumov et al., "Deep Learning Recommendation Model for Personalization
and Recommendation Systems" (arXiv:1906.00091), with concatenation ("cat") or the dot products of
all pairs ("dot") as the feature interaction. Parameters carry the names that
`facebookresearch/dlrm` gives them.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from halfdome.host.models import features
from halfdome.host.models.features import Bags, Batch

WEIGHTS = Path(__file__).parent / "weights" / "dlrm_ml100k.safetensors"
"""The trained weights in this package; `python -m halfdome.host.models.train` makes them."""


class WeightsError(ValueError):
    """Weights are missing, damaged or not for this data. The message names file and tensor."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a DLRM: `table_rows` per table, `dim` of every row, widths of the two MLPs.

    The segments of a sample are the bottom output and one pooled row per table. `bottom` starts
    with the dense features and ends with `dim`; `top` starts with all segments ("cat"), or with the
    bottom output and the dot product of each segment with each one before it ("dot"), and ends with
    the one logit.
    """

    table_rows: tuple[int, ...]
    dim: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    interaction: str = "cat"

    def __post_init__(self) -> None:
        widths = (*self.table_rows, self.dim, *self.bottom, *self.top)
        if not all(type(width) is int and width > 0 for width in widths):
            raise ValueError(f"{self}: every size must be a positive int")
        if len(self.bottom) < 2 or self.bottom[-1] != self.dim:
            raise ValueError(
                f"bottom={self.bottom}: must be two widths or more, the last dim={self.dim}"
            )
        if self.interaction not in ("cat", "dot"):
            raise ValueError(f"interaction={self.interaction!r}: must be 'cat' or 'dot'")
        joined = self.interaction_width(len(self.table_rows), self.dim, self.interaction)
        if len(self.top) < 2 or (self.top[0], self.top[-1]) != (joined, 1):
            raise ValueError(f"top={self.top}: must lead from {joined} to 1")

    @classmethod
    def for_tables(
        cls, table_rows: tuple[int, ...], dim: int = 32, interaction: str = "cat"
    ) -> "Architecture":
        """The demo's model: bottom features-64-32, top interaction-128-64-1."""
        joined = cls.interaction_width(len(table_rows), dim, interaction)
        bottom = (len(features.DENSE), 64, dim)
        return cls(table_rows, dim, bottom, (joined, 128, 64, 1), interaction)

    @staticmethod
    def interaction_width(tables: int, dim: int, interaction: str) -> int:
        """Columns of the top net's input."""
        if interaction == "cat":
            return (tables + 1) * dim
        return dim + tables * (tables + 1) // 2

    def top_columns(self, segments: Sequence[int]) -> np.ndarray:
        """The columns of the top net's input if a sample's segments come in another order.

        `segments` starts with 0, the bottom output; 1 + t is table t. Returns int[columns]: for
        each column in that order its number in the model's own.
        """
        order = np.asarray(segments)
        if self.interaction == "cat":
            return (order[:, None] * self.dim + np.arange(self.dim)).reshape(-1)
        rows, columns = np.tril_indices(len(order), -1)
        one, other = order[rows], order[columns]
        high, low = np.maximum(one, other), np.minimum(one, other)
        pairs = self.dim + high * (high - 1) // 2 + low
        return np.concatenate([np.arange(self.dim), pairs])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter by name, in order of use."""
        shapes: dict[str, tuple[int, ...]] = {
            f"emb_l.{table}.weight": (rows, self.dim) for table, rows in enumerate(self.table_rows)
        }
        for name, widths in (("bot_l", self.bottom), ("top_l", self.top)):
            for layer, (k, n) in enumerate(itertools.pairwise(widths)):
                # Layers alternate with activations in one torch.nn.Sequential: 0, 2, 4...
                shapes[f"{name}.{2 * layer}.weight"] = (n, k)
                shapes[f"{name}.{2 * layer}.bias"] = (n,)
        return shapes


@dataclass(frozen=True)
class Dlrm:
    """A model: float32 parameters by name, shaped as `architecture.shapes()` says.

    `metadata` tells where the weights come from (data set, seed, AUC, feature version).
    """

    architecture: Architecture
    parameters: Mapping[str, np.ndarray]
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises `WeightsError` for a parameter that is missing or of another shape."""
        for name, shape in self.architecture.shapes().items():
            found = self.parameters.get(name)
            if found is None:
                raise WeightsError(f"parameter {name} is missing, must be float32{list(shape)}")
            if np.shape(found) != shape:
                raise WeightsError(f"parameter {name} is {np.shape(found)}, must be {shape}")

    @property
    def tables(self) -> list[np.ndarray]:
        """float32[rows, dim] per table."""
        count = len(self.architecture.table_rows)
        return [self.parameters[f"emb_l.{table}.weight"] for table in range(count)]

    def layers(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`weight` float32[n, k] and `bias` float32[n] of the layers of `bot_l` or `top_l`."""
        widths = self.architecture.bottom if name == "bot_l" else self.architecture.top
        for layer in range(len(widths) - 1):
            prefix = f"{name}.{2 * layer}"
            yield self.parameters[f"{prefix}.weight"], self.parameters[f"{prefix}.bias"]

    def pooled(self, batch: Batch) -> list[np.ndarray]:
        """Sums of embedding rows: float32[n, dim] per table.

        Raises `ValueError` for a batch with bags for more or fewer tables.
        """
        if len(batch.sparse) != len(self.tables):
            raise ValueError(
                f"batch: has bags for {len(batch.sparse)} tables, the model has {len(self.tables)}"
            )
        return [
            embedding_bag(table, bags)
            for table, bags in zip(self.tables, batch.sparse, strict=True)
        ]

    def activations(self, batch: Batch) -> dict[str, np.ndarray]:
        """The output of every layer by its name (`bot_l.0`, ...), after ReLU but for the logit.

        Entry `segments` is the bottom output, then the pooled rows: float32[n, tables + 1, dim];
        entry `interaction` is the input of `top_l.0`.
        """
        seen = {}
        x = batch.dense
        for number, (weight, bias) in enumerate(self.layers("bot_l")):
            x = seen[f"bot_l.{2 * number}"] = np.maximum(x @ weight.T + bias, 0)
        segments = seen["segments"] = np.stack([x, *self.pooled(batch)], axis=1)
        x = seen["interaction"] = interact(segments, self.architecture.interaction)
        last = len(self.architecture.top) - 2
        for number, (weight, bias) in enumerate(self.layers("top_l")):
            x = x @ weight.T + bias
            x = seen[f"top_l.{2 * number}"] = x if number == last else np.maximum(x, 0)
        return seen

    def logits(self, batch: Batch) -> np.ndarray:
        """float32[n] before the sigmoid."""
        return self.activations(batch)[f"top_l.{2 * len(self.architecture.top) - 4}"][:, 0]

    def forward(self, batch: Batch) -> np.ndarray:
        """Probability of the label 1: float32[n]."""
        return sigmoid(self.logits(batch))

    def check_tables(self, table_rows: tuple[int, ...]) -> None:
        """Raises `WeightsError` unless the weights are for these features and table sizes."""
        version = self.metadata.get("feature_version")
        if version != features.VERSION:
            raise WeightsError(
                f"feature_version={version}: the features are version {features.VERSION}; "
                "train again with `python -m halfdome.host.models.train`"
            )
        if tuple(table_rows) != self.architecture.table_rows:
            raise WeightsError(
                f"table_rows={self.architecture.table_rows}: the data needs {tuple(table_rows)}; "
                "train on this data with `python -m halfdome.host.models.train --data DIR`"
            )


def interact(segments: np.ndarray, interaction: str) -> np.ndarray:
    """float32[n, segments, dim] as the input of the top net: float32[n, columns]."""
    if interaction == "cat":
        return segments.reshape(len(segments), -1)
    products = segments @ segments.transpose(0, 2, 1)
    rows, columns = np.tril_indices(segments.shape[1], -1)
    return np.concatenate([segments[:, 0], products[:, rows, columns]], axis=1)


def embedding_bag(table: np.ndarray, bags: Bags) -> np.ndarray:
    """Sums of rows in index order: float32[rows, dim] and `Bags` of n to float32[n, dim]."""
    total = np.zeros((len(bags.lengths), table.shape[1]), np.float32)
    start = np.cumsum(bags.lengths, dtype=np.int64) - bags.lengths
    for position in range(int(bags.lengths.max(initial=0))):
        longer = np.flatnonzero(bags.lengths > position)
        total[longer] += table[bags.indices[start[longer] + position]]
    return total


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in float32, without overflow at either end."""
    logits = np.asarray(logits, np.float32)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def save(model: Dlrm, path: Path) -> None:
    """Writes parameters and metadata as safetensors; equal models give equal bytes."""
    about = json.dumps(
        {"architecture": asdict(model.architecture), **model.metadata}, sort_keys=True
    )
    tensors = {
        name: np.ascontiguousarray(model.parameters[name], np.float32)
        for name in model.architecture.shapes()
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # One key: the format keeps several in no certain order.
    Path(path).write_bytes(to_safetensors(tensors, metadata={"dlrm": about}))


def load(path: Path = WEIGHTS) -> Dlrm:
    """Reads what `save` wrote.

    Raises `WeightsError` for a file that is missing, truncated or of another kind, and for a tensor
    that is missing, surplus, of the wrong shape or type, or not finite.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = (file.metadata() or {}).get("dlrm")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: no such file; make it with `python -m halfdome.host.models.train`"
        ) from None
    except SafetensorError as error:
        raise WeightsError(f"{path}: truncated or not a safetensors file ({error})") from None
    if about is None:
        raise WeightsError(f"{path}: its header has no `dlrm` entry to tell the architecture")
    try:
        metadata = json.loads(about)
        sizes = metadata.pop("architecture")
        architecture = Architecture(
            **{name: tuple(v) if isinstance(v, list) else v for name, v in sizes.items()}
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: `dlrm` entry of its header: {error}") from None
    shapes = architecture.shapes()
    for name in shapes:
        if name not in tensors:
            raise WeightsError(f"{path}: tensor {name} is missing")
    for name, tensor in tensors.items():
        if name not in shapes:
            raise WeightsError(f"{path}: tensor {name} is not part of the architecture")
        if tensor.shape != shapes[name]:
            raise WeightsError(f"{path}: tensor {name} is {tensor.shape}, must be {shapes[name]}")
        if tensor.dtype != np.float32:
            raise WeightsError(f"{path}: tensor {name} is {tensor.dtype}, must be float32")
        if not np.isfinite(tensor).all():
            raise WeightsError(f"{path}: tensor {name} holds values that are not finite")
    return Dlrm(architecture, tensors, metadata)
