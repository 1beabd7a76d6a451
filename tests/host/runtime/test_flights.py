"""What a response tells beside its outputs: when each command ran, and where none did."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import preset
from halfdome.host.compiler.compile import compile
from halfdome.host.runtime.deployment import Deployment
from tests.host.golden_platform import GoldenPlatform
from tests.host.recommenders import Recommender

TINY = preset("tiny")


@given(seed=st.integers(0, 1 << 30), cards=st.integers(1, 3), requests=st.integers(1, 4))
def test_a_response_tells_when_each_command_ran(seed, cards, requests):
    made = Recommender(seed)
    program = compile(made.graph, TINY, cards)
    platform = GoldenPlatform(TINY, cards, seed)
    served = Deployment(platform.session, platform.accelerators, program, lambda: 0)
    for card in platform.bus.cards:
        card.cycle = 2**32 - 20  # the counts wrap soon
    responses = served.run([made.request() for _ in range(requests)])
    seen = [np.concatenate([each.spans[card] for each in responses]) for card in range(cards)]
    for card, part in enumerate(program.parts):
        for response in responses:
            assert response.spans[card].shape == (len(part), 2)
            assert (response.spans[card][:, 1] - response.spans[card][:, 0] == 3).all()
            for queue in np.unique(part.queue):  # which runs in order, of a stage as it is issued
                for stage in np.unique(part.stage):
                    mine = (part.queue == queue) & (part.stage == stage)
                    assert (np.diff(response.spans[card][mine, 0]) > 0).all()
        assert len(np.unique(seen[card][:, 0])) == requests * len(part), "each ran by itself"
    for response in responses:
        every = np.concatenate(response.spans)
        assert response.latency_cycles == every[:, 1].max() - every[:, 0].min()
