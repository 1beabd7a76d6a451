"""What the runtime asks of accelerators, of two kinds that have nothing else in common."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import preset
from halfdome.host.compiler.compile import compile
from halfdome.host.driver.accelerator import CardState
from halfdome.host.driver.errors import CardError
from halfdome.host.driver.memory import CardFull
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.placement import LOOK_CYCLES
from halfdome.host.runtime.program import Program, ProgramError
from halfdome.host.runtime.transfers import Transfers
from tests.host.golden_platform import GoldenPlatform
from tests.host.numpy_platform import NumpyPlatform
from tests.host.recommenders import Recommender, check_responses

KINDS = {
    "halfdome": lambda cards: GoldenPlatform(preset("tiny"), cards, patience_cycles=2000),
    "numpy": NumpyPlatform,
}
RNG = np.random.default_rng(3)


@pytest.fixture(params=list(KINDS))
def platform_of(request):
    """Makes a platform of so many accelerators."""
    return KINDS[request.param]


class Served:
    """A random recommender on some accelerators, and what they own without it."""

    def __init__(self, platform, seed=1, **options):
        self.platform, self.made, self.cycle = platform, Recommender(seed), 0
        self.empty = platform.owned()

        def plan(numbers, before):
            return compile(self.made.graph, platform.design, len(numbers), **options)

        self.deployment = Deployment(
            platform.session, platform.accelerators, plan, lambda: self.cycle
        )

    def check(self, requests=4):
        """Answers some requests, right in every bit."""
        asked = [self.made.request() for _ in range(requests)]
        answers = self.deployment.run(asked)
        check_responses(self.made.graph, asked, answers, Transfers())

    def end(self):
        self.deployment.release()
        assert self.platform.owned() == self.empty


def test_bytes_come_back_as_they_went(platform_of):
    [card] = platform_of(1).accelerators
    [memory] = [card.memories[name] for name in list(card.memories)[-1:]]
    for nbytes in (1, 7, 64, 5000):
        block, values = memory.allocate(nbytes), RNG.integers(0, 256, nbytes, np.uint8)
        card.upload(block, values)
        np.testing.assert_array_equal(card.download(block, nbytes), values)
        memory.release(block)
    with pytest.raises(CardFull):
        memory.allocate(memory.free_bytes + 1)


def test_what_one_has_loaded_is_passed_on_to_others(platform_of):
    platform = platform_of(3)
    cards, session = platform.accelerators, platform.session
    name = list(cards[0].memories)[-1]
    values = RNG.integers(0, 256, 300, np.uint8)
    staging = session.map(len(values))
    staging.array[: len(values)] = values
    blocks = [card.memories[name].allocate(len(values)) for card in cards]
    after = cards[0].load([(staging.address, blocks[0], len(values))])
    for peer, block in zip(cards[1:], blocks[1:], strict=True):
        cards[0].pass_on(peer, [(blocks[0], block, len(values))], after)
    tickets = [card.flush() for card in cards]
    for card, own in zip(cards, tickets, strict=True):
        card.wait(own)
    for card, block in zip(cards, blocks, strict=True):
        np.testing.assert_array_equal(card.download(block, len(values)), values)


@given(seed=st.integers(0, 1 << 30), cards=st.integers(1, 4), kind=st.sampled_from(list(KINDS)))
def test_any_recommender_is_served(seed, cards, kind):
    served = Served(KINDS[kind](cards), seed)
    served.check()
    assert served.deployment.incidents == []
    served.end()


def test_two_models_are_served_side_by_side(platform_of):
    platform = platform_of(2)
    one, two = Served(platform, 1), Served(platform, 2)
    for served in (one, two, two, one):
        served.check()
    two.end()
    one.check()
    one.end()


def test_a_program_is_saved_loaded_and_runs(platform_of, tmp_path):
    platform, made = platform_of(2), Recommender(4)
    compile(made.graph, platform.design, 2).save(tmp_path / "program.safetensors")
    program = Program.load(tmp_path / "program.safetensors")
    served = Deployment(platform.session, platform.accelerators, program, lambda: 0)
    requests = [made.request() for _ in range(3)]
    check_responses(made.graph, requests, served.run(requests), Transfers())


def test_a_program_for_others_is_refused_and_nothing_is_left(platform_of):
    platform = platform_of(2)
    other = next(make(2) for make in KINDS.values() if make is not platform_of)
    empty = platform.owned()
    for design, cards in ((other.design, 2), (platform.design, 3)):
        program = compile(Recommender(4).graph, design, cards)
        with pytest.raises(ProgramError):
            Deployment(platform.session, platform.accelerators, program, lambda: 0)
        assert platform.owned() == empty


def test_others_serve_while_one_is_silent_and_it_comes_back(platform_of):
    platform = platform_of(3)
    served = Served(platform)
    served.check()
    platform.silence(1)
    assert platform.accelerators[1].state() is CardState.SILENT
    served.check()
    assert [card.index for card in served.deployment.cards] == [0, 2]
    platform.silence(1, False)
    served.check()
    assert len(served.deployment.cards) == 2, "it is looked at seldom"
    served.cycle += LOOK_CYCLES
    served.check()
    assert [card.index for card in served.deployment.cards] == [0, 1, 2]
    assert all(incident.cards for incident in served.deployment.incidents)
    served.end()


def test_nobody_serves_when_all_are_silent_and_all_come_back(platform_of):
    platform = platform_of(2)
    served = Served(platform)
    for index in range(2):
        platform.silence(index)
    with pytest.raises((CardError, TimeoutError)):
        served.check()
    for index in range(2):
        platform.silence(index, False)
    served.deployment.revive()
    served.check()
    served.end()


def test_a_call_that_fails_leaves_nothing_behind(platform_of, monkeypatch):
    platform = platform_of(2)
    served = Served(platform)
    requests = [served.made.request() for _ in range(3)]
    card = platform.accelerators[1]
    submitted, before = card.submit, platform.owned()

    def fail(installed, issue, as_list):
        submitted(installed, issue, as_list)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(card, "submit", fail)
    with pytest.raises(KeyboardInterrupt):
        served.deployment.run(requests)
    served.check()
    assert platform.owned() == before
    served.end()
