"""The link bench: limits in closed form, and what a card really reaches."""

import pytest

from halfdome.hdl.config import CardConfig, preset
from halfdome.host.bench import link
from halfdome.host.bench.link import Transfer
from halfdome.host.platform import open

DEFAULT, TINY = preset("default"), preset("tiny")
"""Cards that other tests compile too."""


def test_limits_of_a_link():
    assert link.link_bytes_per_second(CardConfig()) == pytest.approx(3.938e9, rel=1e-3)
    gen1 = CardConfig(pcie_generation=1, pcie_lanes=16)
    assert link.link_bytes_per_second(gen1) == 4e9
    assert link.payload_limit(CardConfig(), "read") == pytest.approx(256 / 276)
    mutual = link.payload_limit(CardConfig(), "read", mutual=True)
    assert mutual == pytest.approx(512 / (2 * 276 + 24))
    assert link.payload_limit(CardConfig(max_payload_bytes=128), "write") == pytest.approx(
        128 / 152
    )


def test_six_cards_share_the_uplink_to_the_host_and_nothing_else():
    card, uplink = link.link_bytes_per_second(DEFAULT), (3, 16)
    shares = [
        link.shared_bytes_per_second(DEFAULT, uplink, end, cards) / card
        for end, cards in (("host", 1), ("host", 6), ("peer", 6))
    ]
    assert shares == pytest.approx([1, 4, 6])


@pytest.fixture(scope="module")
def runtime():
    with open(cards=2, config=DEFAULT) as runtime:
        yield runtime


@pytest.mark.slow
@pytest.mark.parametrize("transfer", link.TRANSFERS)
def test_16_kib_transfers_reach_the_bar(runtime, transfer):
    row = link._row(runtime, transfer, 16 * 1024, 1)
    assert link.BAR <= row["of_payload_limit"] <= 1
    limit = link.payload_limit(DEFAULT, transfer.kind)
    assert row["link_efficiency"] == pytest.approx(row["of_payload_limit"] * limit)
    moved = row["bytes"] * row["transfers_per_card"]
    assert row["bytes_per_second"] == pytest.approx(moved / row["cycles"] * 400e6)


@pytest.mark.slow
def test_small_transfers_pay_for_their_headers(runtime):
    shares = [link._row(runtime, Transfer("write", "host"), n, 1) for n in (64, 256, 4096)]
    efficiency = [row["link_efficiency"] for row in shares]
    assert efficiency == sorted(efficiency)
    assert efficiency[0] <= 64 / (64 + 24)


@pytest.mark.slow
def test_too_few_tags_leave_the_link_waiting():
    row = link.tags_row(TINY, "native", lambda rows: None)
    assert row["bytes_in_flight"] == (TINY.dma_tags - 1) * TINY.max_read_request_bytes
    # So much in a round trip of at least twice eight ports, switch and host.
    assert row["bytes_per_second"] < row["bytes_in_flight"] / (4 * 50 + 2 * 50 + 300) * 1e9
    assert row["of_payload_limit"] < link.BAR


@pytest.mark.slow
def test_every_row_of_the_table_is_told(monkeypatch):
    monkeypatch.setattr(link, "SIZES", (64,))
    monkeypatch.setattr(link, "TAGS", (TINY.dma_tags,))
    monkeypatch.setattr(link, "_few_engines", lambda config: config)
    monkeypatch.setattr(link, "MOVED_BYTES", 256)
    told = []
    result = link.measure(TINY, "native", told.append)
    assert sum(told) == link.steps() == len(result["rows"]) + 1
    assert {(r["kind"], r["end"], r["cards"]) for r in result["rows"]} == {
        (kind, end, cards) for kind in ("read", "write") for end in ("host", "peer")
        for cards in (1, 6)
    }  # fmt: skip
    assert result["config_hash"] == TINY.hash
    assert all(0 < row["of_payload_limit"] < 1 for row in result["rows"])
