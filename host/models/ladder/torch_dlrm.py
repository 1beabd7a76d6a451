"""A DLRM as a PyTorch module; `halfdome.host.models.dlrm` says what it is."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from halfdome.host.models.dlrm import Architecture, Dlrm
from halfdome.host.models.features import Batch


class TorchDlrm(nn.Module):
    """The model of `architecture`; its parameters have the names of `Architecture.shapes`."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.emb_l = nn.ModuleList(
            nn.EmbeddingBag(rows, architecture.dim, mode="sum", sparse=True)
            for rows in architecture.table_rows
        )
        self.bot_l = _perceptron(architecture.bottom)
        self.top_l = _perceptron(architecture.top)[:-1]
        self.interaction = architecture.interaction
        segments = len(architecture.table_rows) + 1
        rows, columns = np.tril_indices(segments, -1)
        self.register_buffer("_lower", torch.from_numpy(rows * segments + columns), False)

    @classmethod
    def of(cls, model: Dlrm) -> "TorchDlrm":
        """The module that computes what `model` does."""
        module = cls(model.architecture)
        module.load_state_dict({k: torch.from_numpy(v) for k, v in model.parameters.items()})
        return module.eval()

    def forward(
        self, dense: torch.Tensor, indices: Sequence[torch.Tensor], offsets: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Probabilities float32[n, 1]; indices and offsets have a tensor for each table."""
        bottom = self.bot_l(dense)
        bags = zip(self.emb_l, indices, offsets, strict=True)
        segments = [bottom, *(table(index, offset) for table, index, offset in bags)]
        if self.interaction == "dot":
            stacked = torch.stack(segments, 1)
            products = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1)
            segments = [bottom, products.index_select(1, self._lower)]
        return torch.sigmoid(self.top_l(torch.cat(segments, 1)))


def arguments(batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """What `TorchDlrm` is called with for a batch of samples."""
    indices = [torch.from_numpy(bags.indices.astype(np.int64)) for bags in batch.sparse]
    starts = [np.cumsum(bags.lengths, dtype=np.int64) - bags.lengths for bags in batch.sparse]
    return torch.from_numpy(batch.dense), indices, [torch.from_numpy(each) for each in starts]


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k, n in itertools.pairwise(widths):
        layers += [nn.Linear(k, n), nn.ReLU()]
    return nn.Sequential(*layers)
