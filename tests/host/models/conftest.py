"""Samples and a small model, shared by the tests of this folder."""

import numpy as np
import pytest

from halfdome.host.models import features, movielens
from halfdome.host.models.dlrm import Architecture, Dlrm
from tests.host.models import synthetic


@pytest.fixture(scope="session")
def interactions(tmp_path_factory):
    return movielens.load(synthetic.write(tmp_path_factory.mktemp("synthetic")))


@pytest.fixture(scope="session")
def samples(interactions):
    return features.build(interactions, train=0.6, calibration=0.2)


def random_model(samples, interaction):
    """Random weights, large enough for the answers to differ."""
    rng = np.random.default_rng(1)
    architecture = Architecture.for_tables(samples.table_rows, interaction=interaction)
    parameters = {}
    for name, shape in architecture.shapes().items():
        spread = (
            0.3 if name.startswith("emb_l") else (2 / shape[1]) ** 0.5 if len(shape) > 1 else 0.1
        )
        parameters[name] = rng.normal(0, spread, shape).astype(np.float32)
    return Dlrm(architecture, parameters, {"feature_version": features.VERSION})


@pytest.fixture(scope="session")
def model(samples):
    return random_model(samples, "cat")


@pytest.fixture(scope="session")
def dot_model(samples):
    return random_model(samples, "dot")
