"""Recorded packets: all of them, each once, where and when they were on the wire."""

import numpy as np
import pytest

import halfdome.sim.platform as platform_module
from halfdome.hdl.config import PRESETS
from halfdome.sim.platform import Platform
from tests.sim.program import start_transfer
from tests.sim.standin import READS, WRITES, StandIn

TINY = PRESETS["tiny"]


@pytest.fixture
def platform():
    with Platform(TINY, cards=3, card_factory=StandIn) as platform:
        platform.record_packets()
        yield platform


def work(platform):
    """Reads and writes of host memory, a write to a peer, a read by the host."""
    buffer = platform.bus.map(4096)
    start_transfer(platform, 0, READS, buffer.address + 32, 5)
    start_transfer(platform, 1, WRITES, platform.bars[2].bar2, 3)
    platform.bus.read(platform.bars[2].bar2, 320)
    platform.run(3000)


def link(platform, name):
    return next(link for link in platform.packets() if link.name == name)


def test_records_add_up_to_the_counters(platform):
    work(platform)
    traffic = platform.traffic()
    for link in platform.packets():
        if link.card is None:
            counted, prefix = traffic["uplink"], "to_cards" if link.down else "to_host"
        else:
            counted, prefix = traffic["cards"][link.card], "to_card" if link.down else "from_card"
        assert len(link.records) == counted[f"{prefix}_tlps"]
        for name in ("payload_bytes", "wire_bytes"):
            assert link.records[name].sum() == counted[f"{prefix}_{name}"]
        assert sum(p.payload_bytes for p in link.packets()) == link.records["payload_bytes"].sum()
        assert link.left_out == 0


def test_packets_of_a_direction_follow_each_other(platform):
    work(platform)
    for link in platform.packets():
        starts, ends = link.records["start_fs"], link.records["end_fs"]
        assert (starts < ends).all()
        assert (starts[1:] >= ends[:-1]).all()
        # Gen3 x4 and x16: 8 GT/s, 128 bits of 130.
        lanes = 16 if link.card is None else TINY.pcie_lanes
        exact = link.records["wire_bytes"] * 8 * 130 / 128 / 8 / lanes * 1e6
        np.testing.assert_allclose(ends - starts, exact, atol=1)


def test_packets_say_who_sends_what_to_whom(platform):
    work(platform)
    (*_, last) = link(platform, "card 1 to switch").packets()
    peers = [p for p in link(platform, "card 1 to switch").packets() if p.destination == "card 2"]
    assert [(p.kind, p.source, p.payload_bytes) for p in peers] == [("MWr", "card 1", 128)] * 3
    assert [p.address - platform.bars[2].bar2 for p in peers] == [0, 128, 256]
    assert (last.kind, last.destination) == ("MWr", "host")  # the interrupt
    reads = [p for p in link(platform, "card 0 to switch").packets() if p.kind == "MRd"]
    assert [(p.bytes, p.payload_bytes, p.destination) for p in reads] == [(128, 0, "host")] * 5
    answers = [p for p in link(platform, "switch to card 0").packets() if p.kind == "CplD"]
    assert sum(p.payload_bytes for p in answers) == 5 * 128
    assert {(p.source, p.destination, p.requester) for p in answers} == {
        ("host", "card 0", "card 0")
    }
    assert [(p.payload_bytes, p.last) for p in answers] == [(96, False), (32, True)] * 5
    assert sorted(p.tag for p in answers if p.last) == sorted(p.tag for p in reads)
    uplink = [p for p in link(platform, "switch to host").packets() if p.requester == "host"]
    assert sum(p.payload_bytes for p in uplink) == 320
    assert all(p.last for p in uplink)


def test_what_does_not_fit_is_counted(platform, monkeypatch):
    work(platform)
    whole = {link.name: link.records for link in platform.packets()}
    with Platform(TINY, cards=3, card_factory=StandIn) as again:
        monkeypatch.setattr(platform_module, "MOST_PACKETS", 4)
        again.record_packets()
        work(again)
        for link in again.packets():
            assert link.records.tolist() == whole[link.name][:4].tolist()
            assert len(link.records) + link.left_out == len(whole[link.name])
        again.record_packets(False)
        again.bus.read(again.bars[0].bar2, 32)
        assert all(len(link.records) == link.left_out == 0 for link in again.packets())
