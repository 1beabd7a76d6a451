"""Cards after a failure: who lives, whose memory is trusted, and what each was asked to do."""

import pytest

from halfdome.host.driver.accelerator import CardState
from halfdome.host.driver.settle import settle
from tests.host.driver.fakes import Accelerator


@pytest.fixture
def cards():
    return [Accelerator(index) for index in range(3)]


def indices(cards):
    return [card.index for card in cards]


def outcome(settled):
    return [indices(group) for group in (settled.living, settled.whole, settled.reset)]


def test_cards_that_end_what_they_do_are_left_alone(cards):
    assert outcome(settle(cards, cards)) == [[0, 1, 2], [0, 1, 2], []]
    for card in cards:
        assert card.log == ["drop", ("catch up", [0, 1, 2]), "drain"]


def test_all_are_let_go_before_any_is_waited_for(cards):
    """Else one would wait for a peer that has failed."""
    told = []
    for card in cards:
        card.at_drain = lambda: told.append([each.log[-1][0] == "catch up" for each in cards])
    settle(cards, cards)
    assert told[0] == [True, True, True]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"drains": False}, [[0, 1, 2], [0, 1, 2], [1]]),
        ({"drains": False, "restarts": False}, [[0, 2], [0, 2], []]),
        ({"found": CardState.STOPPED}, [[0, 1, 2], [0, 1, 2], [1]]),
        ({"found": CardState.RESET}, [[0, 1, 2], [0, 2], [1]]),
        ({"found": CardState.RESET, "restarts": False}, [[0, 2], [0, 2], []]),
        ({"found": CardState.SILENT}, [[0, 2], [0, 2], []]),
        ({"strayed": True, "drains": False}, [[0, 1, 2], [0, 2], [1]]),
    ],
)
def test_a_card_that_failed_is_reset_or_given_up(cards, change, expected):
    vars(cards[1]).update(change)
    assert outcome(settle(cards, cards)) == expected
    assert ("give up" in cards[1].log) == (1 not in expected[0])
    assert ("restart" in cards[1].log) == (cards[1].found is not CardState.SILENT)


def test_a_suspect_is_reset_though_it_runs_and_its_memory_is_not_trusted(cards):
    assert outcome(settle(cards, cards, [cards[2]])) == [[0, 1, 2], [0, 1], [2]]
    assert cards[2].log == ["drop", "restart"]


def test_cards_that_are_not_concerned_are_only_listened_to(cards):
    settle(cards[:1], cards)
    assert cards[0].log[1] == ("catch up", [0, 1, 2])
    assert cards[1].log == cards[2].log == []
