"""A command line to try, and a small model to run on it."""

import sys

import numpy as np
import pytest

from halfdome.host import cli
from halfdome.host.cli import options
from halfdome.host.models import dlrm, features, movielens
from tests.host.models import synthetic


@pytest.fixture
def halfdome(monkeypatch, capsys):
    """Runs the command; returns exit status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["halfdome", *map(str, arguments)])
        monkeypatch.setattr(options.console, "stderr", False)  # as in a process of its own
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(halfdome):
    """Runs a command that must end with status 2 and one line that says `message`."""

    def run(message, *arguments):
        status, _, error = halfdome(*arguments)
        assert status == 2
        assert error.count("\n") == 1
        assert error.startswith("error: ")
        assert message in error

    return run


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    return synthetic.write(tmp_path_factory.mktemp("ratings"))


@pytest.fixture(scope="module")
def weights(ratings, tmp_path_factory):
    """A small model with random weights."""
    rows = features.build(movielens.load(ratings)).table_rows
    rng = np.random.default_rng(1)
    architecture = dlrm.Architecture(
        rows, 16, (len(features.DENSE), 8, 16), (16 * (len(rows) + 1), 8, 1)
    )
    parameters = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in architecture.shapes().items()
    }
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    dlrm.save(dlrm.Dlrm(architecture, parameters, {"feature_version": features.VERSION}), path)
    return path


@pytest.fixture
def small(ratings, weights):
    """Options of a short `run dlrm`."""
    return (
        "--data", ratings, "--weights", weights, "--samples", 12, "--batch", 6, "--cards", 2,
        "--config", "tiny",
    )  # fmt: skip
