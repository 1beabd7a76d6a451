"""The RTL and the golden card agree on descriptors drawn at random; more by `fuzz_descriptors`."""

import pytest

from halfdome.hdl.commands import Status
from halfdome.sim.golden.card import GoldenCard
from tests.system.fuzz_descriptors import STUCK, Judge


@pytest.fixture(scope="module")
def judge():
    with Judge() as judge:
        yield judge


def test_random_descriptors_do_what_the_golden_card_does(judge):
    told = {seed: judge.episode(seed) for seed in range(60)}
    assert not any(told.values()), "\n".join(filter(None, told.values()))
    endings = {status for _, status in judge.seen}
    assert {"OK", "BAD_OVERLAP", "BAD_ALIGNMENT", "BAD_RANGE"} <= endings


def test_the_same_beside_a_core_whose_queues_are_full_for_ever():
    with Judge(STUCK) as judge:
        told = {seed: judge.episode(seed) for seed in range(1000, 1030)}
        assert not any(told.values()), "\n".join(filter(None, told.values()))
        assert not judge.is_free()
    endings = {status for _, status in judge.seen}
    assert {"OK", "BAD_OVERLAP", "BAD_FORMAT"} <= endings


def test_another_status_and_a_changed_byte_are_told(judge, monkeypatch):
    def differently(card, descriptor):
        card.memory[0x77] ^= 1
        card.memory[card.config.scratchpad_base + 5] ^= 1
        card.host.array[3] ^= 1
        return Status.BAD_INDEX, 9

    monkeypatch.setattr(GoldenCard, "execute", differently)
    told = judge.episode(1)
    assert "golden: BAD_INDEX, 9" in told
    for where in ("DRAM: 1 bytes differ, the first at 0x77", "scratchpad: 1", "host memory: 1"):
        assert where in told
