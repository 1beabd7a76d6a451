"""Packets as PG054 draws them, and as the card's streams carry them, are the same packets."""

import random
from dataclasses import replace

import pytest

from halfdome.hdl.boards.hard_ip import PacketsFromCard, PacketsToCard
from halfdome.hdl.config import PRESETS, ConfigError
from tests.bench import simulate, sink, source
from tests.hdl.pcie.tlp_model import CPL, CPLD, MRD32, MRD64, MWR32, MWR64, Tlp

TINY = PRESETS["tiny"]
CARD_ID = 0x0318


def pairs(tlp: Tlp) -> list[dict[str, int]]:
    """A packet on a 64-bit interface of the block: the first of a doubleword's bytes is its
    highest, and the payload follows its header at once."""
    raw = tlp.header() + tlp.payload
    words = [int.from_bytes(raw[i : i + 4], "big") for i in range(0, len(raw), 4)]
    groups = [words[i : i + 2] for i in range(0, len(words), 2)]
    return [
        {
            "data": sum(word << 32 * k for k, word in enumerate(group)),
            "keep": 0xFF if len(group) == 2 else 0x0F,
            "last": int(number == len(groups) - 1),
        }
        for number, group in enumerate(groups)
    ]


def packets(seed: int, count: int) -> list[Tlp]:
    """Packets of every kind with payloads of every length modulo a beat."""
    draw = random.Random(seed)
    drawn = []
    for number in range(count):
        kind = (MRD32, MRD64, MWR32, MWR64, CPL, CPLD)[number % 6]
        length = draw.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 32))
        asks = kind not in (CPL, CPLD)
        about = (
            {"address": draw.randrange(1 << (40 if kind & 0x20 else 30)) << 2, "first_be": 15,
             "last_be": 15 if length > 1 else 0}
            if asks
            else {"completer": CARD_ID, "lower_address": number % 128, "byte_count": 4 * length}
        )  # fmt: skip
        drawn.append(
            Tlp(
                kind=kind, length=0 if kind == CPL else length, tag=draw.randrange(256),
                requester=draw.randrange(1 << 16),
                payload=draw.randbytes(4 * length) if kind & 0x40 else b"", **about,
            )
        )  # fmt: skip
    return drawn


@pytest.mark.parametrize("stall", [0, 0.4])
def test_packets_of_the_block_reach_the_card(stall):
    dut = PacketsToCard(TINY)
    sent = [(tlp, 2 * (number % 7 == 3)) for number, tlp in enumerate(packets(3, 120))]
    # BAR 2 has 64 bits and so the next one's place, too; a completion hits none.
    hits = [0 if tlp.is_completion else 0b1100 if bar else 0b0001 for tlp, bar in sent]
    offered = [
        pair | {"bar_hit": hit}
        for (tlp, _), hit in zip(sent, hits, strict=True)
        for pair in pairs(tlp)
    ]
    expected = [beat for tlp, bar in sent for beat in tlp.beats(TINY.bus_bytes, bar)]
    got, non_posted = [], 0

    async def count(ctx):
        nonlocal non_posted
        async for *_, pulse in ctx.tick().sample(dut.non_posted):
            non_posted += pulse

    simulate(
        dut,
        source(dut.i, offered, seed=1, stall=stall),
        sink(dut.o, len(expected), got, seed=2, stall=stall),
        background=[count],
    )
    beats = iter(got)
    for tlp, bar in sent:
        words = [next(beats) for _ in tlp.beats(TINY.bus_bytes)]
        assert [word.last for word in words] == [0] * (len(words) - 1) + [1]
        assert Tlp.from_words([word.data for word in words], TINY.bus_bytes) == tlp
        assert tlp.is_completion or words[0].bar == bar
    assert non_posted == sum(tlp.non_posted for tlp, _ in sent)


@pytest.mark.parametrize("stall", [0, 0.4])
def test_packets_of_the_card_reach_the_block_with_its_id(stall):
    dut, sent = PacketsFromCard(TINY), packets(4, 120)
    # The card leaves its own ID to the block: who answers, or who asks.
    offered = [
        {"data": beat["data"], "last": beat["last"]}
        for tlp in sent
        for beat in replace(
            tlp, completer=0, requester=tlp.requester if tlp.is_completion else 0
        ).beats(TINY.bus_bytes)
    ]
    expected = [
        pair
        for tlp in sent
        for pair in pairs(tlp if tlp.is_completion else replace(tlp, requester=CARD_ID))
    ]
    got = []

    async def name(ctx):
        ctx.set(dut.id, CARD_ID)

    simulate(
        dut,
        name,
        source(dut.i, offered, seed=1, stall=stall),
        sink(dut.o, len(expected), got, seed=2, stall=stall),
    )
    for pair, one in zip(expected, got, strict=True):
        kept = sum(0xFF << 8 * k for k in range(8) if pair["keep"] >> k & 1)
        assert (one.data & kept, one.keep, one.last) == tuple(pair.values())


def test_a_bus_of_other_beats_than_headers_is_refused():
    for make in (PacketsToCard, PacketsFromCard):
        with pytest.raises(ConfigError, match="bus_bytes=32: must be 16"):
            make(PRESETS["default"])
