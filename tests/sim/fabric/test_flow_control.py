"""Credits, ordering and cut-through of the links and the switch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.tlp import CompletionHeader
from tests.sim.fabric.driver import HOST, Probe, header

CARD = CardConfig(dram_bytes=1 << 16, scratchpad_bytes=1 << 14)
LANE = 8 * 128 / 130 / 8  # bytes per nanosecond of one Gen3 lane
READ, WRITE, COMPLETION = "read", "write", "completion"
KINDS = {0x00: READ, 0x20: READ, 0x40: WRITE, 0x60: WRITE, 0x0A: COMPLETION, 0x4A: COMPLETION}
RELAXED = 0b10


def arrivals(probe, card):
    """What reached a card, in order: (kind, number that the sender put in as address or tag)."""
    found = []
    log = probe.log()
    for words in log["header"][log["card"] == card]:
        kind = KINDS[int(words[0]) >> 24]
        number = words[2] >> 8 & 0xFF if kind == COMPLETION else words[3] // 4
        found.append((kind, int(number)))
    return found


def send(probe, kind, number, *, source=0, target=1, relaxed=False, nbytes=4):
    address = probe.bars[target].bar2 % (1 << 32)
    assert not address  # so that the low half of an address is the number
    if kind == READ:
        probe.send_read(source, probe.bars[target].bar2 + 4 * number, 4, tag=number)
    elif kind == WRITE:
        probe.send_write(source, probe.bars[target].bar2 + 4 * number, bytes(nbytes))
    else:
        attributes = RELAXED if relaxed else 0
        words = header(CompletionHeader, type=0x0A, tag=number, requester_id=(target + 3) << 8,
                       byte_count=4, attributes=attributes)  # fmt: skip
        probe.send(source, words)


class Wide(Probe):
    """Probes whose BAR2 starts at a multiple of 4 GiB."""

    def __init__(self, **fabric):
        super().__init__(CARD.replace(dram_bytes=1 << 31), **fabric)


def congested(kind):
    """A card that no longer takes requests, with `kind` filling every buffer on the way to it.

    One credit everywhere: the first is in the card, the second in the switch, the third waits.
    """
    probe = Wide(posted_header_credits=1, nonposted_header_credits=1, completion_header_credits=1)
    probe.full(1)
    for number in range(3):
        send(probe, kind, number)
    probe.run(5_000)
    assert arrivals(probe, 1) == [(kind, 0)]
    return probe


def test_a_full_receiver_stops_its_sender_and_loses_nothing():
    probe = congested(WRITE)
    probe.full(1, False)
    probe.run(5_000)
    assert arrivals(probe, 1) == [(WRITE, number) for number in range(3)]


@pytest.mark.parametrize("kind", [WRITE, COMPLETION])
def test_reads_that_wait_are_passed(kind):
    probe = congested(READ)
    send(probe, kind, 9)
    probe.run(5_000)
    assert arrivals(probe, 1) == [(READ, 0), (kind, 9)]
    probe.full(1, False)
    probe.run(5_000)
    assert arrivals(probe, 1) == [(READ, 0), (kind, 9), (READ, 1), (READ, 2)]


@pytest.mark.parametrize("kind", [READ, COMPLETION])
def test_writes_that_wait_are_not_passed(kind):
    probe = congested(WRITE)
    send(probe, kind, 9)
    probe.run(5_000)
    assert arrivals(probe, 1) == [(WRITE, 0)]
    probe.full(1, False)
    probe.run(5_000)
    assert arrivals(probe, 1) == [*((WRITE, number) for number in range(3)), (kind, 9)]


def test_completions_with_relaxed_ordering_pass_writes():
    probe = congested(WRITE)
    send(probe, COMPLETION, 9, relaxed=True)
    probe.run(5_000)
    assert arrivals(probe, 1) == [(WRITE, 0), (COMPLETION, 9)]


def test_a_full_card_holds_up_no_one_elses_traffic():
    probe = congested(READ)
    send(probe, WRITE, 5, source=3, target=2)
    send(probe, READ, 6, source=3, target=2)
    probe.memories[4][:4] = 7
    assert probe.read(probe.bars[4].bar2, 4)[0] == bytes([7] * 4)
    assert arrivals(probe, 2) == [(WRITE, 5), (READ, 6)]


@pytest.mark.parametrize("headers", [1, 2, 4])
def test_too_few_credits_bound_the_rate_by_their_round_trip(headers):
    probe = Probe(CARD, cards=2, posted_header_credits=headers, credit_update_ns=200)
    for number in range(64):
        probe.send_write(0, probe.bars[1].bar2 + 256 * number, bytes(256))
    probe.run(100_000)
    times = probe.log()["time"] / 1e6
    wire, ports = (16 + 256 + 8) / (4 * LANE), 10
    # There, through the next link out of the buffer, and the news back.
    loop = wire + ports + wire + 200 + 8 / (4 * LANE) + ports
    assert np.diff(times).sum() / 63 == pytest.approx(max(wire, loop / headers), rel=0.05)


def test_cut_through_saves_all_but_the_first_bytes_of_a_packet():
    nanoseconds = {}
    for cut_through in (False, True):
        probe = Probe(CARD, cut_through=cut_through, switch_latency_ns=50)
        probe.send_write(1, probe.bars[4].bar2, bytes(256))
        probe.run(1_000)
        nanoseconds[cut_through] = probe.log()["time"][0] / 1e6
    wire = (16 + 256 + 8) / (4 * LANE)
    assert nanoseconds[False] == pytest.approx(2 * (wire + 10) + 50, abs=1e-3)
    assert nanoseconds[True] == pytest.approx(wire + 16 / (4 * LANE) + 2 * 10 + 50, abs=1e-3)


@pytest.mark.parametrize("uplink", [1, 16])
def test_cut_through_does_not_overtake_the_incoming_packet(uplink):
    """Towards a faster link the switch starts late enough for the last byte to be there in time."""
    probe = Probe(CARD, cut_through=True, uplink_lanes=uplink)
    probe.send_write(0, HOST, bytes([1]) * 256)
    wire_in, wire_out = 280 / (4 * LANE), 280 / (uplink * LANE)
    starts = 16 / (4 * LANE) if uplink == 1 else wire_in - wire_out
    expected = starts + wire_out + 20
    probe.run(expected - 1)
    assert not probe.host[:256].any()
    probe.run(2)
    assert probe.host[:256].all()


def random_traffic(draw_from, count):
    rng = np.random.default_rng(draw_from)
    for number in range(count):
        source, target = rng.choice(6, 2, replace=False)
        yield int(source), int(target), (READ, WRITE)[rng.integers(2)], number


@given(
    seed=st.integers(0, 1 << 30),
    credits=st.integers(1, 3),
    cut_through=st.booleans(),
    lanes=st.sampled_from([1, 16]),
)
def test_everyone_writing_and_reading_everyone_ends_in_order(seed, credits, cut_through, lanes):
    probe = Wide(
        posted_header_credits=credits, nonposted_header_credits=credits,
        completion_header_credits=credits, posted_data_credits=8, completion_data_credits=8,
        cut_through=cut_through, uplink_lanes=lanes,
    )  # fmt: skip
    sent = {}
    for source, target, kind, number in random_traffic(seed, 100):
        send(probe, kind, number, source=source, target=target, nbytes=4 * (1 + number % 32))
        sent.setdefault((source, target), []).append((kind, number))
    probe.run(100_000)
    reads = sum(kind == READ for flow in sent.values() for kind, _ in flow)
    assert sum(len(probe.completions(card)) for card in range(6)) == reads
    received = [arrivals(probe, card) for card in range(6)]
    for (source, target), flow in sent.items():
        mine = {number for _, number in flow}
        got = [
            (kind, number) for kind, number in received[target]
            if kind != COMPLETION and number in mine
        ]  # fmt: skip
        assert sorted(got) == sorted(flow), (source, target)
        for kind in (READ, WRITE):
            assert [n for k, n in got if k == kind] == [n for k, n in flow if k == kind]
        for kind, number in flow:
            if kind == READ:  # every write sent before it has arrived before it
                before = got[: got.index((READ, number))]
                assert {(k, n) for k, n in flow if k == WRITE and n < number} <= set(before)
