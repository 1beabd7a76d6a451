"""Recommenders of any shape on real cards: every bit is that of the graph."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfdome
from halfdome.hdl.config import preset
from halfdome.host.compiler.compile import compile
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.transfers import Transfers
from tests.host.recommenders import Recommender, check_responses

TINY = preset("tiny")
CARDS = 4


@pytest.fixture(scope="module")
def runtime():
    with halfdome.open(cards=CARDS, config=TINY) as runtime:
        yield runtime


def check(runtime, seed, cards):
    """A random model on so many of the cards, transferred in some way, several requests at once."""
    rng, made = np.random.default_rng(seed), Recommender(seed)
    transfers = Transfers()
    if rng.integers(2):
        transfers = Transfers(**{field.name: bool(rng.integers(2)) for field in fields(Transfers)})
    program = compile(made.graph, TINY, cards, transfers=transfers)
    chosen = [runtime.accelerators[index] for index in rng.permutation(CARDS)[:cards]]
    free = [card.dram.free_bytes + card.scratchpad.free_bytes for card in runtime.cards]
    served = Deployment(
        runtime.session, chosen, program, lambda: runtime.platform.cycles,
        as_list=transfers.command_lists, pass_on=transfers.broadcast,
    )  # fmt: skip
    requests = [made.request(made.batch), *(made.request() for _ in range(rng.integers(4)))]
    check_responses(made.graph, requests, served.run(requests), transfers)
    assert served.incidents == []
    served.release()
    left = [card.dram.free_bytes + card.scratchpad.free_bytes for card in runtime.cards]
    assert left == free


@pytest.mark.parametrize("cards", range(1, CARDS + 1))
@given(seed=st.integers(0, 1 << 30))
def test_any_recommender_on_any_cards_has_the_bits_of_its_graph(runtime, cards, seed):
    check(runtime, seed, cards)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("block", range(8))
def test_two_hundred_recommenders(runtime, block):
    for seed in range(25 * block, 25 * (block + 1)):
        check(runtime, seed, 1 + seed % CARDS)
