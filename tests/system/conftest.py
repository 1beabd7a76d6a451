"""One open platform for each file: opening takes longer than most tests."""

import pytest

import halfdome


@pytest.fixture(scope="module")
def runtime():
    """Two tiny cards on the native engine."""
    with halfdome.open(cards=2, config="tiny", engine="native") as platform:
        yield platform


@pytest.fixture(scope="module")
def card(runtime):
    """The first of them."""
    return runtime.cards[0]
