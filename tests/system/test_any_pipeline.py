"""Networks cut into sections on real cards: tensors go from card to card, every bit is right."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import halfdome
from halfdome.hdl.config import preset
from halfdome.host.graph.values import GraphError
from halfdome.host.runtime.transfers import Transfers
from halfdome.host.serving.deploy import deploy
from tests.host.networks import Network
from tests.host.recommenders import check_responses


@pytest.fixture(scope="module")
def runtime():
    with halfdome.open(cards=3, config=preset("tiny")) as runtime:
        yield runtime


@settings(max_examples=max(2, settings().max_examples // 2))
@given(seed=st.integers(0, 1 << 30))
def test_any_network_in_sections_has_the_bits_of_its_graph(runtime, seed):
    made, rng = Network(seed), np.random.default_rng(seed)
    try:
        served = deploy(runtime, made.graph, parallelism="pipeline")
    except (GraphError, MemoryError) as error:
        if not re.search("order of columns|does not become|fit no card", str(error)):
            raise
        return
    requests = [made.request() for _ in range(rng.integers(1, 5))]
    check_responses(made.graph, requests, served.run(requests), Transfers())
    assert served.incidents == []
    served.release()
