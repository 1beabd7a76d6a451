"""Runs inside cocotb: what reads take in cocotbext-pcie's root complex, switch and six endpoints.

Nothing is simulated but its event model: the clock of the top stands still. `LINK_BENCH` names the
file that the figures are added to, `UPLINK_LANES` the width of the uplink.
"""

import json
import os
from pathlib import Path

import cocotb
from cocotb.triggers import Timer
from cocotb.utils import get_sim_time
from cocotbext.pcie.core import Device, MemoryEndpoint, RootComplex, Switch
from cocotbext.pcie.core.port import SimPort
from cocotbext.pcie.core.utils import PcieId

CARDS = 6
GENERATION, CARD_LANES = 3, 4
READS = (4, 64, 256)
DMA_BYTES = 1 << 16
COPY_BYTES = 1 << 15
BAR_BYTES = 1 << 16


class Card(MemoryEndpoint):
    """An endpoint with one memory BAR that answers at once."""

    def __init__(self):
        super().__init__()
        self.add_mem_region(BAR_BYTES)


def link(port: SimPort, lanes: int) -> None:
    port.max_link_speed = GENERATION
    port.max_link_width = lanes


async def platform(uplink_lanes: int) -> tuple[RootComplex, list[Card]]:
    """Root complex, switch and cards, enumerated; every packet of at most 128 bytes payload."""
    root = RootComplex()
    root.max_payload_size = 0
    switch = Switch()
    cards = [Card() for _ in range(CARDS)]
    root_port = root.make_port()
    link(root_port.downstream_port, uplink_lanes)
    link(switch.upstream_bridge.upstream_port, uplink_lanes)
    root_port.connect(switch)
    for card in cards:
        device = Device(card)
        link(device.upstream_port, CARD_LANES)
        switch_port = switch.make_port()
        link(switch_port.downstream_port, CARD_LANES)
        device.connect(switch_port)
    await root.enumerate()
    for index in range(CARDS):
        found = root.find_device(PcieId(3 + index, 0, 0))
        await found.enable_device()
        await found.set_master()
        assert found.bar_size[0] == BAR_BYTES
    return root, cards


async def nanoseconds(*work) -> float:
    """How long `work` takes, all at once, when acknowledgements of earlier packets are through."""
    await Timer(2, "us")
    start = get_sim_time("ps")
    for task in [cocotb.start_soon(item) for item in work]:
        await task
    return (get_sim_time("ps") - start) / 1e3


@cocotb.test()
async def reads(dut):
    lanes = int(os.environ["UPLINK_LANES"])
    root, cards = await platform(lanes)
    bars = [root.find_device(PcieId(3 + index, 0, 0)).bar_addr[0] for index in range(CARDS)]
    address, _ = root.alloc_region(CARDS * DMA_BYTES)

    figures: dict = {
        f"read_{n}_bytes_ns": await nanoseconds(root.mem_read(bars[0], n)) for n in READS
    }
    figures["dma_read_ns"] = await nanoseconds(cards[0].mem_read(address, DMA_BYTES))
    figures["six_dma_reads_ns"] = await nanoseconds(
        *(card.mem_read(address + i * DMA_BYTES, DMA_BYTES) for i, card in enumerate(cards))
    )
    figures["peer_copy_ns"] = await nanoseconds(peer_copy(cards[0], bars[1]))
    path = Path(os.environ["LINK_BENCH"])
    every = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(every | {str(lanes): figures}, indent=2) + "\n")


async def peer_copy(card: Card, address: int) -> None:
    """Writes to a peer; the read behind the last write ends when that has arrived."""
    await card.mem_write(address, bytes(COPY_BYTES))
    await card.mem_read(address, 4)
