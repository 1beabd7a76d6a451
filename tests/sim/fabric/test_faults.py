"""Faults on the links: what the link makes good, and what reaches its ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import CardConfig
from halfdome.sim.fabric.faults import Fault, FaultKind, FaultPlan, Flow, parse_fault, silence
from tests.sim.fabric.driver import HOST, Probe

CARD = CardConfig(dram_bytes=1 << 16, scratchpad_bytes=1 << 14)
SMALL_ROOM = {"posted_header_credits": 2, "nonposted_header_credits": 2,
              "completion_header_credits": 2}  # fmt: skip
UNSUPPORTED, ABORTED = 1, 4
LINK_KINDS = (FaultKind.CORRUPT, FaultKind.LOSE_ACK, FaultKind.DUPLICATE_ACK)
WAYS = [(0, False), (1, True), (None, False), (None, True)]
"""Every line that writes cross from card 0 to host, from host to card 1, or from 0 to 1."""


def send_writes(probe, count, start=0):
    """Writes with their numbers, from card 0 to card 1 and to the host, from the host to card 1."""
    for number in range(start, start + count):
        word = number.to_bytes(4, "little")
        probe.send_write(0, HOST + 4 * number, word)
        probe.send_write(0, probe.bars[1].bar2 + 4 * number, word)
        probe.write(probe.bars[1].bar2 + (1 << 14) + 4 * number, word)


def check_writes(probe, count, start=0):
    """Each has arrived, once, in order."""
    numbers = list(range(start, start + count))
    assert probe.host.view(np.uint32)[start : start + count].tolist() == numbers
    log = probe.log()
    log = log[(log["card"] == 1) & (log["bytes"] > 0)]
    value = np.ascontiguousarray(log["payload"][:, :4]).view(np.uint32).ravel()
    address = log["header"][:, 3] - probe.bars[1].bar2 % (1 << 32)
    fresh = value >= start
    for first in (0, 1 << 14):
        mine = (address >= first) & (address < first + (1 << 14)) & fresh
        assert value[mine].tolist() == numbers


@pytest.mark.parametrize(("card", "to_card"), WAYS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_corrupted_packet_is_sent_again_and_arrives_once_in_order(card, to_card, count):
    probe = Probe(CARD)
    probe.inject(
        Fault(kind=FaultKind.CORRUPT, card=card, to_card=to_card, skip=7, count=count)
    )  # fmt: skip
    send_writes(probe, 20)
    probe.run(100_000)
    check_writes(probe, 20)
    counts = probe.faults(card, to_card)
    assert counts.injected == counts.corrected == count
    assert counts.passed_on == 0
    assert counts.naks == 1
    assert counts.replayed >= count
    assert probe.faults(2) == probe.faults(3)  # all zero


def test_a_nak_is_cheap_and_a_silent_loss_costs_the_replay_timer():
    times = {}
    for count in (0, 1, 2):  # the replay after the NAK is corrupted too: no second NAK comes
        probe = Probe(CARD)
        if count:
            probe.inject(Fault(kind=FaultKind.CORRUPT, card=1, count=count))
        probe.send_write(0, probe.bars[1].bar2, bytes(256))
        probe.run(200_000)
        assert probe.faults(1).replay_timeouts == max(0, count - 1)
        times[count] = probe.log()["time"][-1] / 1e6
    # The NAK comes back over two ports, then the packet is on the wire once more.
    wire = 280 / 3.938
    assert times[1] - times[0] == pytest.approx(10 + 8 / 3.938 + wire + 10, rel=0.01)
    assert times[2] - times[1] > 3 * 115


def test_a_link_without_progress_is_trained_anew():
    probe = Probe(CARD)
    probe.inject(Fault(kind=FaultKind.CORRUPT, card=1, count=6))
    probe.send_write(0, probe.bars[1].bar2, bytes([3]) * 64)
    probe.run(1_000_000)
    assert len(probe.log()) == 1
    counts = probe.faults(1)
    assert counts.retrains == 1
    assert counts.injected == counts.corrected == 6


def test_a_lost_acknowledgement_of_the_last_packet_makes_a_duplicate_that_is_dropped():
    probe = Probe(CARD)
    probe.inject(Fault(kind=FaultKind.LOSE_ACK, card=0, to_card=False))
    probe.send_write(0, HOST, bytes([9]) * 64)
    probe.run(200_000)
    counts = probe.faults(0, False)
    assert (counts.replay_timeouts, counts.replayed, counts.duplicates) == (1, 1, 1)
    assert counts.injected == counts.corrected == 1
    assert probe.counters()["uplink_up_tlps"] == 1


def test_a_later_acknowledgement_covers_a_lost_one():
    probe = Probe(CARD)
    probe.inject(Fault(kind=FaultKind.LOSE_ACK, card=0, to_card=False, skip=3))
    send_writes(probe, 10)
    probe.run(200_000)
    check_writes(probe, 10)
    counts = probe.faults(0, False)
    assert (counts.replayed, counts.duplicates) == (0, 0)
    assert counts.injected == counts.corrected == 1


def test_a_second_acknowledgement_changes_nothing():
    probe = Probe(CARD)
    probe.inject(Fault(kind=FaultKind.DUPLICATE_ACK, card=0, to_card=False, count=5))
    send_writes(probe, 10)
    probe.run(200_000)
    check_writes(probe, 10)
    assert probe.faults(0, False).replayed == 0
    assert probe.faults(0, False).injected == probe.faults(0, False).corrected == 5


def test_sequence_numbers_go_round():
    probe = Probe(CARD, cards=2)
    probe.inject(
        *(Fault(kind=FaultKind.CORRUPT, card=0, to_card=False, skip=n) for n in (4094, 4099)),
        Fault(kind=FaultKind.LOSE_ACK, card=0, to_card=False, skip=4096, count=3),
    )
    for number in range(4200):
        probe.send_write(0, HOST + 4 * number, number.to_bytes(4, "little"))
    probe.run(1_000_000)
    assert probe.host.view(np.uint32)[:4200].tolist() == list(range(4200))
    counts = probe.faults(0, False)
    assert counts.injected == counts.corrected == 5
    assert probe.counters()["uplink_up_tlps"] == 4200


@given(
    seed=st.integers(0, 1 << 30), count=st.integers(1, 12), room=st.sampled_from([SMALL_ROOM, {}])
)
def test_whatever_the_link_makes_good_no_one_notices(seed, count, room):
    probe = Probe(CARD, **room)
    plan = FaultPlan.random(seed, cards=2, count=count, kinds=LINK_KINDS, packets=40)
    probe.inject(*plan.faults)
    send_writes(probe, 20)
    probe.run(1_000_000)
    check_writes(probe, 20)
    for card in range(2):
        for to_card in (True, False):
            counts = probe.faults(card, to_card)
            assert counts.injected == counts.corrected
            assert counts.passed_on == 0
    send_writes(probe, 20, start=20)  # all the room is there again
    probe.run(1_000_000)
    check_writes(probe, 20, start=20)


def test_a_poisoned_completion_is_no_data():
    probe = Probe(CARD)
    probe.memories[2][:64] = 5
    probe.inject(Fault(kind=FaultKind.POISON, card=2, to_card=False))
    assert probe.read(probe.bars[2].bar2, 64)[0] == b"\xff" * 64
    assert probe.read(probe.bars[2].bar2, 64)[0] == bytes([5] * 64)
    assert probe.faults(2, False).injected == probe.faults(2, False).passed_on == 1


@pytest.mark.parametrize(
    ("kind", "status"), [(FaultKind.REFUSE, UNSUPPORTED), (FaultKind.ABORT, ABORTED)]
)
@pytest.mark.parametrize("skip", [0, 1])
def test_an_error_ends_its_read_and_no_other(kind, status, skip):
    probe = Probe(CARD.replace(max_payload_bytes=128))
    probe.inject(Fault(kind=kind, card=3, flow=Flow.COMPLETION, skip=skip))
    for tag in (5, 6):
        probe.send_read(3, HOST + 512 * tag, 512, tag=tag)
    probe.run(10_000)
    found = [(header["tag"], header["status"], len(data))
             for header, data, _ in probe.completions(3)]  # fmt: skip
    assert found == [*[(5, 0, 128)] * skip, (5, status, 0), *[(6, 0, 128)] * 4]
    assert probe.faults(3).injected == probe.faults(3).passed_on == 1


def test_a_completion_that_never_comes():
    probe = Probe(CARD)
    probe.memories[1][:4] = 7
    probe.inject(Fault(kind=FaultKind.DROP, card=1, to_card=False, flow=Flow.COMPLETION))
    assert probe.read(probe.bars[1].bar2, 4, ns=100_000)[0] is None
    assert probe.read(probe.bars[1].bar2, 4)[0] == bytes([7] * 4)
    assert probe.counters()["unexpected_completions"] == 0


def test_a_late_completion_is_unexpected_and_the_rest_of_its_read_comes_after_it():
    probe = Probe(CARD.replace(max_payload_bytes=128))
    probe.inject(Fault(kind=FaultKind.DELAY, card=1, to_card=False, for_ns=5_000))
    assert probe.read(probe.bars[1].bar2, 256, ns=1_000)[0] is None
    probe.run(10_000)
    assert probe.counters()["unexpected_completions"] == 2
    probe.inject(Fault(kind=FaultKind.DELAY, card=4, for_ns=5_000))
    probe.send_read(4, HOST, 512, tag=1)
    probe.send_read(4, HOST, 4, tag=2)
    probe.run(20_000)
    times = {}
    for header, _, time in sorted(probe.completions(4), key=lambda item: item[2]):
        times.setdefault(header["tag"], []).append((time, header["byte_count"]))
    assert times[2][0][0] < times[1][0][0]
    assert [count for _, count in times[1]] == [512, 384, 256, 128]


@pytest.mark.parametrize("room", [SMALL_ROOM, {}])
def test_a_link_that_goes_down_takes_no_one_along_and_comes_back(room):
    probe = Probe(CARD, **room)
    for memory in probe.memories:
        memory[:4] = [1, 2, 3, 4]
    probe.inject(Fault(kind=FaultKind.LINK_DOWN, card=1, after_ns=500, for_ns=20_000))
    send_writes(probe, 40)
    for number in range(40):
        probe.send_write(1, probe.bars[2].bar2 + 256 + 4 * number, bytes(4))
    probe.run(8_000)
    start = probe.now_ns
    assert probe.read(probe.bars[1].bar2, 4)[0] == b"\xff" * 4
    assert probe.now_ns - start < 200  # the switch answers, no one waits
    assert probe.read(probe.bars[2].bar2, 4)[0] == bytes([1, 2, 3, 4])
    lost = probe.faults(1).lost + probe.faults(1, False).lost
    assert lost > 0
    probe.run(30_000)
    assert probe.host.view(np.uint32)[:40].tolist() == list(range(40))
    assert probe.read(probe.bars[1].bar0, 4)[0] is not None
    probe.host[:] = 0
    send_writes(probe, 40, start=40)
    probe.run(100_000)
    check_writes(probe, 40, start=40)
    assert probe.faults(1).lost + probe.faults(1, False).lost == lost


def test_a_silent_card_still_takes_what_it_gets():
    probe = Probe(CARD)
    probe.inject(silence(1, after_ns=100))
    assert probe.read(probe.bars[1].bar2, 4)[0] is not None
    probe.run(1_000)
    assert probe.read(probe.bars[1].bar2, 4, ns=50_000)[0] is None
    send_writes(probe, 5)
    probe.run(5_000)
    check_writes(probe, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"card": 6}, "card=6: must be 0 to 5"), ({"skip": -1}, "skip=-1"), ({"count": 0}, "count=0"),
     ({"kind": FaultKind.DELAY}, "for_ns=0: DELAY needs a length"),
     ({"kind": FaultKind.LINK_DOWN, "for_ns": 999}, "for_ns=999: LINK_DOWN lasts at least 1000 ns"),
     ({"kind": FaultKind.LINK_DOWN, "card": None, "for_ns": 1},
      "LINK_DOWN of the uplink: only the link of a card")],
)  # fmt: skip
def test_a_fault_that_fits_no_platform_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Probe(CARD).inject(Fault(**{"kind": FaultKind.CORRUPT, "card": 0} | fields))


def test_faults_are_written_as_text():
    assert parse_fault("corrupt") == Fault(kind=FaultKind.CORRUPT, card=0)
    assert parse_fault("poison:card=2,at=1.5,skip=3,count=2") == Fault(
        kind=FaultKind.POISON, card=2, flow=Flow.COMPLETION, after_ns=1500, skip=3, count=2
    )
    assert parse_fault("link-down:for=100") == Fault(
        kind=FaultKind.LINK_DOWN, card=0, for_ns=100_000
    )
    assert parse_fault("silent:card=1,at=2") == silence(1, after_ns=2000)
    assert parse_fault("poisoned-write:at=1,link=uplink") == Fault(
        kind=FaultKind.POISON, card=None, to_card=False, flow=Flow.POSTED, after_ns=1000
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sleepy:card=1", "fault sleepy:card=1: sleepy is unknown; known are corrupt, poison,"),
        ("poison:where=1", "where is unknown; known are card, at, for, skip, count, link"),
        ("poison:link=2", "fault poison:link=2: link=2 must be uplink; or say card=N"),
        ("poison:link=uplink,card=0", "card and link exclude each other"),
        ("poison:card", r"card= must be a whole number from 0 to 1e\+09"),
        ("poison:card=1.5", r"card=1\.5 must be a whole number from 0 to 1e\+09"),
        ("poison:at=-1", r"at=-1 must be a number from 0 to 1e\+09"),
        ("poison:at=inf", r"at=inf must be a number from 0 to 1e\+09"),
        ("silent:at=1e10", r"at=1e10 must be a number from 0 to 1e\+09"),
        ("poison:count=18446744073709551616", r"must be a whole number from 0 to 1e\+09"),
    ],
)
def test_a_text_that_is_no_fault_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_fault(text)
