"""Which files of `make models` are there."""

import pytest

from halfdome.host.models.ladder import wheels


def needs(path: str) -> pytest.MarkDecorator:
    """Skips a test without a file, by its path inside its wheel."""
    try:
        wheels.find(path)
    except wheels.MissingModel:
        return pytest.mark.skip(reason="trained models: `make models`")
    return pytest.mark.skipif(False, reason="")
