"""Root complex, switch and links against closed forms and the rules of PCIe."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.config import CardConfig, ConfigError
from halfdome.sim.fabric.config import MESSAGE_BASE, FabricConfig
from tests.sim.fabric.driver import HOST, Probe

CARD = CardConfig(dram_bytes=1 << 16, scratchpad_bytes=1 << 14)
LANE = 8 * 128 / 130 / 8  # bytes per nanosecond of one Gen3 lane
UNSUPPORTED = 1


def link_ns(nbytes, lanes):
    return nbytes / (LANE * lanes) + 10


@pytest.mark.parametrize("lanes", [16, 8, 4])
@pytest.mark.parametrize("nbytes", [4, 64, 256])
def test_host_read_takes_wires_and_ports(nbytes, lanes):
    probe = Probe(CARD, uplink_lanes=lanes)
    _, ns = probe.read(probe.bars[2].bar0, nbytes)  # below 4 GiB: a 12-byte header
    expected = sum(link_ns(20, n) + link_ns(20 + nbytes, n) for n in (4, lanes))
    assert ns == pytest.approx(expected, abs=1e-3)


def test_4_byte_read_over_x16_takes_53_96_ns():
    _, ns = (probe := Probe(CARD)).read(probe.bars[0].bar0, 4)
    assert ns == pytest.approx(53.96, abs=0.005)


BYTES_PER_NS = {1: 0.25, 2: 0.5, 3: LANE, 4: 2 * LANE, 5: 4 * LANE}


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("generation", BYTES_PER_NS)
def test_generations_and_their_coding(generation, lanes):
    card = CARD.replace(pcie_generation=generation, pcie_lanes=lanes)
    probe = Probe(card, uplink_generation=generation, uplink_lanes=lanes)
    _, ns = probe.read(probe.bars[0].bar0, 128)
    expected = 40 + 2 * (20 + 148) / (lanes * BYTES_PER_NS[generation])
    assert ns == pytest.approx(expected, abs=1e-3)


def test_switch_latency_is_added_each_way():
    _, ns = (probe := Probe(CARD, switch_latency_ns=70)).read(probe.bars[0].bar0, 4)
    assert ns == pytest.approx(53.96 + 140, abs=0.005)


def test_host_read_latency_and_bandwidth_are_added():
    fast, slow = Probe(CARD), Probe(CARD, host_read_latency_ns=300, host_bandwidth_mb_s=1000)
    arrivals = []
    for probe in (fast, slow):
        probe.send_read(0, HOST, 128)
        probe.run(2000)
        arrivals.append(probe.completions(0)[0][2])
    assert arrivals[1] - arrivals[0] == pytest.approx(300 + 128, abs=0.2)


def stream_reads(probe, cards, nbytes=512, count=100):
    """Every card asks for `count` pieces of host memory; payload bytes per ns until the last."""
    for i in range(count):
        for card in range(cards):
            probe.send_read(card, HOST + i * nbytes, nbytes, tag=i)
    probe.run(1_000_000)
    ends = [c[2] for card in range(cards) for c in probe.completions(card)]
    return cards * count * nbytes / max(ends)


@pytest.mark.parametrize("lanes", [16, 8, 4])
def test_six_cards_share_the_uplink(lanes):
    card = CARD.replace(max_payload_bytes=128)
    rate = stream_reads(Probe(card, uplink_lanes=lanes), 6)
    assert rate == pytest.approx(min(LANE * lanes, 6 * 4 * LANE) * 128 / 148, rel=0.03)


def test_one_card_is_bound_by_its_own_link_whatever_the_uplink():
    rates = [stream_reads(Probe(CARD, uplink_lanes=n), 1) for n in (16, 4)]
    assert rates[0] == pytest.approx(4 * LANE * 256 / 276, rel=0.03)
    assert rates[1] == pytest.approx(rates[0], rel=0.03)


def test_uplink_is_shared_evenly():
    probe = Probe(CARD.replace(max_payload_bytes=128), uplink_lanes=4)
    for i in range(40):
        for card in range(6):
            probe.send_write(card, HOST + 4096 * card, bytes(128))
            probe.send_read(card, HOST, 4, tag=i)
    probe.run(1_000_000)
    ends = [probe.completions(card)[-1][2] for card in range(6)]
    assert max(ends) / min(ends) < 1.03


@pytest.mark.parametrize("lanes", [16, 1])
def test_peer_to_peer_stays_in_the_switch(lanes):
    probe = Probe(CARD, uplink_lanes=lanes)
    data = np.random.default_rng(0).integers(0, 256, 16 * 256, np.uint8).tobytes()
    for i in range(16):
        probe.send_write(1, probe.bars[4].bar2 + i * 256, data[i * 256 : i * 256 + 256])
    probe.run(10_000)
    assert probe.memories[4][: len(data)].tobytes() == data
    assert probe.counters()["uplink_up_tlps"] == probe.counters()["uplink_down_tlps"] == 0
    # Sent back to back, and the last one crosses the second link alone.
    expected = 17 * (link_ns(16 + 256 + 8, 4) - 10) + 20
    assert probe.log()["time"].max() / 1e6 == pytest.approx(expected, abs=1e-3)


def test_peer_read_is_answered_to_the_peer():
    probe = Probe(CARD)
    probe.memories[3][:64] = np.arange(64)
    probe.send_read(0, probe.bars[3].bar2, 64, tag=9)
    probe.run(1000)
    [(header, payload, _)] = probe.completions(0)
    assert header["tag"] == 9
    assert header["status"] == 0
    assert payload == bytes(range(64))


@given(
    offset=st.integers(0, 9000),
    nbytes=st.integers(1, 9000),
    payload=st.sampled_from([128, 256, 1024, 4096]),
    request=st.sampled_from([128, 512, 4096]),
)
def test_host_reaches_any_bytes_of_a_window(offset, nbytes, payload, request):
    card = CARD.replace(max_payload_bytes=payload, max_read_request_bytes=request)
    probe = Probe(card, cards=2)
    data = np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8).tobytes()
    probe.write(probe.bars[1].bar2 + offset, data)
    found, _ = probe.read(probe.bars[1].bar2 + offset, nbytes)
    assert found == data
    expected = np.zeros_like(probe.memories[1])
    expected[offset : offset + nbytes] = np.frombuffer(data, np.uint8)
    np.testing.assert_array_equal(probe.memories[1], expected)
    for packet in probe.log():
        words = packet["header"]
        start = int(words[3]) & ~3
        length = (int(words[0]) & 0x3FF or 1024) * 4
        limit = payload if words[0] >> 30 & 1 else request
        assert length <= limit
        assert start // 4096 == (start + length - 1) // 4096


@given(
    doubleword=st.integers(0, 1000),
    length=st.integers(1, 1024),
    first=st.integers(1, 15),
    last=st.integers(1, 15),
    payload=st.sampled_from([128, 256, 512]),
)
def test_host_memory_is_answered_in_pieces_cut_at_64_bytes(
    doubleword, length, first, last, payload
):
    probe = Probe(CARD.replace(max_payload_bytes=payload), cards=1)
    probe.host[:] = np.random.default_rng(length).integers(0, 256, len(probe.host), np.uint8)
    address = doubleword * 4
    probe.send_read(0, HOST + address, length * 4, first_be=first, last_be=last * (length > 1))
    probe.run(100_000)
    skip = (first & -first).bit_length() - 1
    end = (length - 1) * 4 + (last if length > 1 else first).bit_length()
    wanted = probe.host[address + skip : address + end].tobytes()
    found = b""
    for header, data, _ in probe.completions(0):
        assert header["byte_count"] == (len(wanted) - len(found)) & 0xFFF
        position = address + skip + len(found)
        assert header["lower_address"] == position & 0x7F
        assert len(data) == header["length"] * 4 or header["length"] == 0
        assert len(data) <= payload
        piece = data[position % 4 :][: len(wanted) - len(found)]
        found += piece
        assert (position + len(piece)) % 64 == 0 or len(found) == len(wanted)
    assert found == wanted


def test_byte_enables_of_a_write_to_host_memory():
    probe = Probe(CARD, cards=1)
    probe.host[:] = 0xEE
    from halfdome.hdl.pcie.tlp import RequestHeader
    from tests.sim.fabric.driver import header

    low = {"type": 0x60, "address_high": HOST >> 32}
    probe.send(0, header(RequestHeader, length=3, first_be=0b1100, last_be=0b0001, **low),
               bytes(range(12)))  # fmt: skip
    probe.send(0, header(RequestHeader, length=1, first_be=0b0110, address_low=32, **low),
               bytes(range(4)))  # fmt: skip
    probe.run(1000)
    e = 0xEE
    assert probe.host[:12].tolist() == [e, e, 2, 3, 4, 5, 6, 7, 8, e, e, e]
    assert probe.host[32:36].tolist() == [e, 1, 2, e]


def test_read_of_nothing_is_unsupported_and_reads_all_ones():
    probe = Probe(CARD)
    data, _ = probe.read(0x1000, 600)
    assert data == b"\xff" * 600
    assert probe.counters()["unsupported_reads"] == 2  # two requests of at most 512 bytes
    probe.memories[0][:4] = [1, 2, 3, 4]
    assert probe.read(probe.bars[0].bar2, 4)[0] == bytes([1, 2, 3, 4])


@pytest.mark.parametrize("address", [0x1000, HOST - 4096, HOST + (1 << 20) - 64, 1 << 62])
def test_card_read_of_nothing_is_answered_unsupported(address):
    probe = Probe(CARD)
    probe.send_read(5, address, 128, tag=77)
    probe.send_write(5, address, bytes(128))
    probe.send_read(5, HOST, 4, tag=78)
    probe.run(1000)
    first, second = probe.completions(5)
    assert (first[0]["status"], first[0]["tag"], first[1]) == (UNSUPPORTED, 77, b"")
    assert (second[0]["status"], second[0]["tag"]) == (0, 78)
    assert probe.counters()["unsupported_requests"] == 2


def test_late_completion_of_an_abandoned_read_is_dropped():
    probe = Probe(CARD)
    data, _ = probe.read(probe.bars[0].bar2, 4, ns=20)  # too short for any answer
    assert data is None
    probe.memories[0][:8] = range(8)
    assert probe.read(probe.bars[0].bar2, 8)[0] == bytes(range(8))
    assert probe.counters()["unexpected_completions"] == 1


def test_interrupt_follows_the_data_written_before_it():
    probe = Probe(CARD, uplink_lanes=1)
    probe.send_write(2, HOST, bytes([7]) * 256)
    probe.send_write(2, MESSAGE_BASE, bytes(4))
    while not probe.counters()["messages"]:
        assert probe.now_ns < 10_000
        probe.run(1)
    assert probe.host[:256].tolist() == [7] * 256


@pytest.mark.parametrize(
    ("field", "value"),
    [("uplink_lanes", 0), ("uplink_generation", 6), ("port_latency_ns", -1),
     ("host_memory_bytes", 1), ("host_bandwidth_mb_s", 2.5), ("posted_header_credits", 0),
     ("cut_through", 1)],
)  # fmt: skip
def test_fabric_config_names_the_bad_field(field, value):
    with pytest.raises(ConfigError, match=f"{field}={value}"):
        FabricConfig(**{field: value})
