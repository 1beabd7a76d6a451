"""Trains the demo's DLRM on MovieLens-100K: `python -m halfdome.host.models.train --help`.

Needs the `torch` extra. One thread and one seed: the same machine writes the same file again.
"""

import argparse
import copy
import importlib
import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console

from halfdome.host.models import dlrm, features, movielens
from halfdome.host.models.dlrm import Architecture, Dlrm
from halfdome.host.models.features import Batch, Samples
from halfdome.host.models.metrics import roc_auc

_ID_TABLES = tuple(features.TABLES.index(name) for name in ("user", "item"))


@dataclass(frozen=True)
class Recipe:
    """How to train.

    The dropout of whole pooled rows and of identities is what keeps the model general: most users
    of the held-out period are new, so it must not lean on knowing them.
    """

    seed: int = 0
    epochs: int = 4
    patience: int = 2
    """Epochs without a better validation AUC after which training ends."""
    batch: int = 256
    learning_rate: float = 1e-3
    table_learning_rate: float = 1e-3
    validation: float = 0.1
    """Share of the train split, its latest part, that only decides when to stop."""
    dropout: float = 0.3
    """Share of the interaction's elements dropped."""
    table_dropout: float = 0.3
    """Share of pooled rows dropped whole."""
    identity_dropout: float = 0.1
    """Share of users and items shown as unknown (row 0)."""
    interaction: str = "cat"
    """How segments meet in front of the top net: "cat" or "dot"."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.batch) < 1:
            raise ValueError(f"{self}: epochs, patience and batch must be at least 1")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation={self.validation}: must be between 0 and 1")


def _torch() -> ModuleType:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError:
        raise RuntimeError(
            "training needs PyTorch: `pip install 'halfdome[torch]'`; "
            "running the trained model does not"
        ) from None


def train(
    samples: Samples, recipe: Recipe | None = None, log: Callable[[str], None] = lambda line: None
) -> Dlrm:
    """Trains on `samples.train` and keeps the weights of the epoch with the best validation AUC.

    `log` receives a line per epoch. Raises `RuntimeError` if PyTorch is not installed.
    """
    recipe = recipe or Recipe()
    torch = _torch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order
    try:
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            return _train(torch, samples, recipe, log)
    finally:
        torch.set_num_threads(threads)


def _train(torch: Any, samples: Samples, recipe: Recipe, log: Callable[[str], None]) -> Dlrm:
    architecture = Architecture.for_tables(samples.table_rows, interaction=recipe.interaction)
    rng = np.random.default_rng(recipe.seed)
    fitted = int(len(samples.train) * (1 - recipe.validation))
    fit = samples.train.take(range(fitted))
    validation = samples.train.take(range(fitted, len(samples.train)))
    network = _network(torch, architecture)
    optimiser = torch.optim.Adam(
        [
            {"params": network["emb_l"].parameters(), "lr": recipe.table_learning_rate},
            {"params": [*network["bot_l"].parameters(), *network["top_l"].parameters()]},
        ],
        lr=recipe.learning_rate,
    )
    steps = recipe.epochs * -(-fitted // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    best: tuple[float, Dlrm | None] = (-1.0, None)
    since_best = 0
    for epoch in range(recipe.epochs):
        order = rng.permutation(fitted)
        total = 0.0
        for start in range(0, fitted, recipe.batch):
            batch = fit.take(order[start : start + recipe.batch])
            for table in _ID_TABLES:
                hidden = rng.random(len(batch)) < recipe.identity_dropout
                batch.sparse[table].indices[hidden] = 0
            logits = _forward(torch, network, batch, recipe)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, torch.from_numpy(batch.label)
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(batch)
        model = _export(network, architecture, fit)
        auc = roc_auc(validation.label, model.logits(validation))
        log(f"epoch {epoch + 1}: loss {total / fitted:.4f}, validation AUC {auc:.4f}")
        since_best += 1
        if auc > best[0]:
            best, since_best = (auc, model), 0
        if since_best == recipe.patience:
            break
    auc, model = best
    if model is None:
        raise RuntimeError("no epoch gave a validation AUC")
    return Dlrm(
        architecture, model.parameters,
        {
            "data_set": "MovieLens-100K", "feature_version": features.VERSION,
            "recipe": asdict(recipe), "torch": str(torch.__version__),
            "train_samples": fitted, "held_out_samples": len(samples.held_out),
            "validation_auc": round(auc, 6),
            "held_out_auc": round(
                roc_auc(samples.held_out.label, model.logits(samples.held_out)), 6
            ),
        },
    )  # fmt: skip


def _network(torch: Any, architecture: Architecture) -> Any:
    """Modules named so that their state has the parameter names of `Architecture.shapes`."""
    nn = torch.nn

    def mlp(widths: tuple[int, ...]) -> Any:
        layers: list[Any] = []
        for k, n in itertools.pairwise(widths):
            layers += [nn.Linear(k, n), nn.ReLU()]
        return nn.Sequential(*layers)

    tables = [
        nn.EmbeddingBag(rows, architecture.dim, mode="sum") for rows in architecture.table_rows
    ]
    for table in tables:
        nn.init.normal_(table.weight, std=0.01)
    return nn.ModuleDict(
        {
            "emb_l": nn.ModuleList(tables),
            "bot_l": mlp(architecture.bottom),
            "top_l": mlp(architecture.top)[:-1],
        }
    )


def _forward(torch: Any, network: Any, batch: Batch, recipe: Recipe) -> Any:
    """Logits of a training batch, with dropout."""
    joined = [network["bot_l"](torch.from_numpy(batch.dense))]
    for table, bags in zip(network["emb_l"], batch.sparse, strict=True):
        offsets = np.cumsum(bags.lengths, dtype=np.int64) - bags.lengths
        pooled = table(torch.from_numpy(bags.indices.astype(np.int64)), torch.from_numpy(offsets))
        kept = torch.rand(len(batch), 1) >= recipe.table_dropout
        joined.append(pooled * kept / (1 - recipe.table_dropout))
    if recipe.interaction == "dot":
        segments = torch.stack(joined, 1)
        rows, columns = torch.tril_indices(len(joined), len(joined), -1)
        joined[1:] = [(segments @ segments.transpose(1, 2))[:, rows, columns]]
    x = torch.nn.functional.dropout(torch.cat(joined, 1), recipe.dropout)
    return network["top_l"](x)[:, 0]


def _export(network: Any, architecture: Architecture, fit: Batch) -> Dlrm:
    """The network's parameters as numpy; users and items never met become the unknown one."""
    parameters = {
        name: copy.deepcopy(tensor.detach().numpy())
        for name, tensor in network.state_dict().items()
    }
    for table in _ID_TABLES:
        weight = parameters[f"emb_l.{table}.weight"]
        weight[np.setdiff1d(np.arange(len(weight)), fit.sparse[table].indices)] = weight[0]
    return Dlrm(architecture, parameters)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m halfdome.host.models.train", description="Train the DLRM on MovieLens-100K."
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with ml-100k.inter etc.")
    parser.add_argument("--output", type=Path, default=dlrm.WEIGHTS, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interaction", choices=("cat", "dot"), default="cat")
    options = parser.parse_args()
    console = Console()
    try:
        samples = features.build(movielens.load(options.data))
        model = train(
            samples, Recipe(seed=options.seed, interaction=options.interaction), console.print
        )
    except (movielens.DataError, RuntimeError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    dlrm.save(model, options.output)
    console.print(
        f"held-out AUC {model.metadata['held_out_auc']:.4f} over "
        f"{model.metadata['held_out_samples']} samples; written to {options.output}"
    )


if __name__ == "__main__":
    main()
