"""The fabric beside an independent model of PCIe, cocotbext-pcie, with the same latencies.

That model sends acknowledgements and credit updates over the wire, this one does not.
"""

import json

import pytest

from halfdome.hdl.config import CardConfig
from tests.cocotb.link_reference import REFERENCE
from tests.sim.fabric.driver import HOST, Probe

FIGURES = json.loads(REFERENCE.read_text())
CARD = CardConfig(dram_bytes=1 << 20, max_payload_bytes=128, max_read_request_bytes=512)
DMA_BYTES, COPY_BYTES, TAGS = 1 << 16, 1 << 15, 32
CREDITS = {
    "posted_header_credits": 64, "posted_data_credits": 1024, "nonposted_header_credits": 64,
    "completion_header_credits": 64, "completion_data_credits": 1024, "credit_update_ns": 150,
}  # fmt: skip
"""What its ports advertise, and about how long they take to say that there is room again."""


@pytest.fixture(params=sorted(FIGURES, key=int))
def lanes(request):
    return int(request.param)


@pytest.fixture
def probe(lanes):
    return Probe(CARD, uplink_lanes=lanes, **CREDITS)


@pytest.mark.parametrize("nbytes", [4, 64, 256])
def test_reads_of_the_host_agree_within_1_percent(probe, lanes, nbytes):
    _, ns = probe.read(probe.bars[0].bar0, nbytes)
    assert ns == pytest.approx(FIGURES[str(lanes)][f"read_{nbytes}_bytes_ns"], rel=0.01)


@pytest.mark.parametrize(("cards", "figure"), [(1, "dma_read_ns"), (6, "six_dma_reads_ns")])
def test_dma_reads_agree_within_3_percent(probe, lanes, cards, figure):
    ns = probe.dma_read(cards, HOST, DMA_BYTES, TAGS)
    assert ns == pytest.approx(FIGURES[str(lanes)][figure], rel=0.03)


def test_peer_copy_agrees_within_3_percent(probe, lanes):
    assert peer_copy_ns(probe) == pytest.approx(FIGURES[str(lanes)]["peer_copy_ns"], rel=0.03)


def peer_copy_ns(probe):
    """Writes to a peer; the read behind the last write ends when that has arrived."""
    peer = probe.bars[1].bar0
    for start in range(0, COPY_BYTES, 128):
        probe.send_write(0, peer + start, bytes(128))
    probe.send_read(0, peer, 4)
    probe.run(20_000)
    [(_, _, ns)] = probe.completions(0)
    return ns


def test_a_narrow_uplink_slows_six_cards_but_no_copy_between_cards():
    ours = {}
    for lanes in (4, 16):
        six, copy = (Probe(CARD, uplink_lanes=lanes, **CREDITS) for _ in range(2))
        ours[str(lanes)] = {
            "six_dma_reads_ns": six.dma_read(6, HOST, DMA_BYTES, TAGS),
            "peer_copy_ns": peer_copy_ns(copy),
        }
    for figures in (FIGURES, ours):
        assert figures["4"]["six_dma_reads_ns"] > 3.9 * figures["16"]["six_dma_reads_ns"]
        wide = figures["16"]["peer_copy_ns"]
        assert figures["4"]["peer_copy_ns"] == pytest.approx(wide, rel=1e-3)
