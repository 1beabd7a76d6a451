"""Four cores of `default` on one card: all of them compute a product, with the bits of one."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.config import PRESETS
from halfdome.host.runtime.transfers import Transfers
from halfdome.host.serving.deploy import deploy
from tests.host.compiler.test_cores import product
from tests.host.recommenders import check_responses


@pytest.mark.slow
@pytest.mark.long
def test_all_cores_of_a_quad_share_a_product():
    graph = product(128, 256, 256)
    [x] = graph.inputs
    rng = np.random.default_rng(1)
    requests = [{x.name: rng.integers(0, 256, x.shape).astype(np.uint8)} for _ in range(2)]
    with halfdome.open(cards=1, config="quad") as runtime:
        responses = deploy(runtime, graph).run(requests)
        counters = runtime.cards[0].counters()
    check_responses(graph, requests, responses, Transfers())
    cores = range(PRESETS["quad"].cores)
    busy = [counters[f"core{core}_matmul_busy_cycles"] for core in cores]
    assert min(busy) > 0.9 * max(busy)
