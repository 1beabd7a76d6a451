"""Cards that read and write each other at once, over links with little room."""

import numpy as np
import pytest

import halfdome
from halfdome.hdl.commands import Opcode
from halfdome.hdl.descriptors import pack
from halfdome.sim.fabric.config import FabricConfig

BYTES = 8192


@pytest.fixture(scope="module")
def runtime():
    """Two tiny cards; no buffer on the way holds more than one packet of a kind."""
    fabric = FabricConfig(
        posted_header_credits=1, posted_data_credits=8, nonposted_header_credits=1,
        completion_header_credits=1, completion_data_credits=8,
    )  # fmt: skip
    with halfdome.open(cards=2, config="tiny", fabric=fabric) as platform:
        yield platform


def test_peers_that_read_and_write_each_other_do_not_wait_for_ever(runtime):
    """Answers wait behind writes, and writes behind reads that wait to be answered."""
    rng = np.random.default_rng(4)
    cards = runtime.cards
    kept, loaded, stored = (
        [card.dram.allocate(BYTES) for card in cards] for _ in range(3)
    )  # fmt: skip
    values = [rng.integers(0, 256, BYTES).astype(np.uint8) for _ in cards]
    for card, place, value in zip(cards, kept, values, strict=True):
        card.accelerator.upload(place, value)
    submitted = []
    for me, (card, peer) in enumerate(zip(cards, reversed(cards), strict=True)):
        window, shape = peer.device.bar2, {"rows": 1, "row_bytes": BYTES}
        strides = {"source_stride": BYTES, "destination_stride": BYTES}
        load = pack(
            Opcode.LOAD, source=window + kept[1 - me].address, destination=loaded[me].address,
            **shape, **strides,
        )  # fmt: skip
        store = pack(
            Opcode.STORE, source=kept[me].address, destination=window + stored[1 - me].address,
            **shape, **strides,
        )  # fmt: skip
        submitted.append(card.device.submit([load, store]))
    for card, ids in zip(cards, submitted, strict=True):
        card.device.check(ids)
    for me, card in enumerate(cards):
        for place in (loaded[me], stored[me]):
            found = runtime.platform.bus.read(card.device.bar2 + place.address, BYTES)
            assert found == values[1 - me].tobytes()
