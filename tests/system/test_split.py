"""One program over two cores: equal bits in fewer cycles."""

import numpy as np
import pytest

import halfdome
from halfdome.host.runtime.transfers import Transfers
from halfdome.host.serving.deploy import deploy
from tests.host.compiler.test_cores import product
from tests.host.networks import residual
from tests.host.recommenders import check_responses
from tests.system.test_cores import TWO

pytestmark = pytest.mark.slow


def served(graph, cores):
    """Cycles of a request on a card of so many cores, whose answers are right."""
    x = graph.inputs[0]
    rng = np.random.default_rng(1)
    requests = [{x.name: rng.integers(0, 256, x.shape).astype(np.uint8)} for _ in range(2)]
    with halfdome.open(cards=1, config=TWO.replace(cores=cores)) as runtime:
        deployment = deploy(runtime, graph)
        responses = deployment.run(requests)
        counters = runtime.cards[0].counters()
        deployment.release()
    check_responses(graph, requests, responses, Transfers())
    return responses[0].latency_cycles, [
        counters[f"core{core}_matmul_busy_cycles"] for core in range(cores)
    ]


@pytest.mark.parametrize(
    ("graph", "faster"),
    [(product(128, 64, 64), 1.6), (residual(16, 16, 2, kernel=3), 1.8)],
    ids=["product", "convolutions"],
)
def test_two_cores_answer_sooner_than_one(graph, faster):
    alone, [whole] = served(graph, 1)
    together, shares = served(graph, 2)
    assert alone > faster * together
    assert max(shares) < 0.52 * whole
