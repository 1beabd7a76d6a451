"""What requests used of arrays and links, by requests that take so long as is said."""

from dataclasses import replace

import numpy as np
import pytest

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import preset
from halfdome.host.compiler import costs
from halfdome.host.compiler.compile import compile
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from halfdome.host.report import utilisation
from halfdome.host.runtime.deployment import Deployment
from tests.host.golden_platform import GoldenPlatform

TINY = preset("tiny")
ROWS, K, N = 8, 48, 20


def lasting(response, start, end):
    """The response as if all commands that ran had begun and ended then."""
    spans = (np.where(each >= 0, (start, end), -1) for each in response.spans)
    return replace(response, spans=tuple(spans))


@pytest.fixture
def served():
    """The answers of two cards to three requests, the last of which is for one of them alone."""
    constants = {
        "w": np.ones((N, K), np.int8), "b": np.zeros(N, np.int32), "m": np.ones(N, np.float32)
    }  # fmt: skip
    node = Node("linear", ("x", "w", "b", "m"), "y")
    graph = Graph([Value("x", (ROWS, K), ElementFormat.UINT8)], ["y"], [node], constants)
    program = compile(graph, TINY, 2)
    platform = GoldenPlatform(TINY, 2)
    served = Deployment(platform.session, platform.accelerators, program, lambda: 0)
    requests = [{"x": np.zeros((rows, K), np.uint8)} for rows in (ROWS, ROWS, ROWS // 2)]
    return program, served.run(requests)


def test_what_arrays_and_links_are_used_for(served):
    program, responses = served
    spans = [(1000, 1900), (1500, 2500), (2500, 3000)]
    made = [lasting(each, *span) for each, span in zip(responses, spans, strict=True)]
    found = utilisation.of([(program, made)], TINY)
    assert (found.cards, found.rows, found.cycles) == (2, 20, 2000)
    assert found.macs == 20 * K * N
    assert found.useful_mac_share == found.macs / (16 * 2000 * 2)
    assert (found.link_bytes_in, found.link_bytes_out) == (48, 32)  # whole bus words of a row
    busiest = 12 * 48  # bytes of the first card, which has samples of all requests
    assert found.link_share == pytest.approx(busiest / costs.link_bytes_per_cycle(TINY) / 2000)
    host = costs.link_bytes_per_cycle(TINY.replace(**utilisation.UPLINK))
    assert found.uplink_share == pytest.approx(20 * 48 / host / 2000)


def test_steps_follow_each_other(served):
    program, responses = served
    made = [lasting(each, 100, 200) for each in responses]
    once = utilisation.of([(program, made)], TINY)
    twice = utilisation.of([(program, made), (program, made)], TINY)
    assert (twice.cycles, twice.macs, twice.rows) == (2 * once.cycles, 2 * once.macs, once.rows)
    assert twice.useful_mac_share == once.useful_mac_share
    assert twice.link_bytes_in == 2 * once.link_bytes_in


def test_a_model_without_steps_on_cards_uses_nothing():
    found = utilisation.of([], TINY)
    assert (found.cards, found.cycles, found.useful_mac_share, found.link_share) == (0, 0, 0, 0)
