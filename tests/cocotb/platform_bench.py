"""Runs inside cocotb: six cards in Verilog behind cocotbext-pcie's root complex and switch.

Configuration space belongs to the hard IP, so that cocotbext-pcie's endpoint has it; what a BAR is
hit by goes to the card's `rx` stream, and what comes from `tx` to the link. The host's own driver
and runtime run on the cards, in a thread, over a bus of four functions.
"""

import struct

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.queue import Queue
from cocotb.task import bridge, resume
from cocotb.triggers import Event, FallingEdge, RisingEdge, with_timeout
from cocotbext.pcie.core import Device as PcieDevice
from cocotbext.pcie.core import Endpoint, RootComplex, Switch
from cocotbext.pcie.core.caps import MsixCapability
from cocotbext.pcie.core.tlp import Tlp
from cocotbext.pcie.core.utils import PcieId

from halfdome.hdl import registers
from halfdome.hdl.commands import Opcode
from halfdome.hdl.pcie.tlp import HEADER_BYTES
from halfdome.host.driver.device import Device
from halfdome.host.runtime.card import Card
from halfdome.sim.golden import operators
from tests.cocotb.cards import CARDS, CONFIG

CLOCK_PS = 2500
BUS = CONFIG.bus_bytes


class HardIp(Endpoint):
    """Configuration space and BARs of one card, and its two streams."""

    def __init__(self, dut, index: int):
        super().__init__()
        self._to_card, self._to_link = Queue(), Queue()
        self._dut, self._prefix = dut, f"c{index}_"
        self.msix = MsixCapability()
        self.msix.msix_table_offset = registers.offset("MSIX_ADDRESS_LO")
        self.msix.msix_pba_offset = registers.offset("MSIX_PENDING")
        self.register_capability(self.msix)
        self.configure_bar(0, registers.BAR0_BYTES)
        self.configure_bar(2, CONFIG.window_bytes, ext=True, prefetch=True)
        for part in ("payload", "valid", "ready"):
            for stream in ("rx", "tx"):
                setattr(self, f"{stream}_{part}", getattr(dut, f"{self._prefix}{stream}__{part}"))
        self.rx_valid.value = 0
        self.tx_ready.value = 1

    def start(self):
        cocotb.start_soon(self._transmit())
        cocotb.start_soon(self._receive())
        cocotb.start_soon(self._forward())

    async def handle_tlp(self, tlp):
        """A packet for the card: a request that hit a BAR, or the answer to one of its own."""
        if tlp.is_completion() or (self.match_bar(tlp.address) and tlp.fmt_type.name[:3] == "MEM"):
            self._to_card.put_nowait(tlp)
        else:
            await super().handle_tlp(tlp)

    async def _transmit(self):
        while True:
            tlp = await self._to_card.get()
            bar = 0 if tlp.is_completion() else self.match_bar(tlp.address)[0]
            words = struct.unpack(f">{len(tlp.pack_header()) // 4}L", tlp.pack_header())
            beats = [struct.pack(f"<{len(words)}L", *words)]
            beats += [tlp.data[i : i + BUS] for i in range(0, len(tlp.data), BUS)]
            for number, beat in enumerate(beats):
                last = number == len(beats) - 1
                flags = last | (bar << 1 if number == 0 else 0)
                self.rx_payload.value = int.from_bytes(beat, "little") | flags << 8 * BUS
                self.rx_valid.value = 1
                await RisingEdge(self._dut.clk)
                while not self.rx_ready.value:
                    await RisingEdge(self._dut.clk)
            self.rx_valid.value = 0
            tlp.release_fc()

    async def _receive(self):
        data = b""
        while True:
            await RisingEdge(self._dut.clk)
            while not self.tx_valid.value:  # no clock edge is looked at while nothing comes
                await RisingEdge(self.tx_valid)
                await RisingEdge(self._dut.clk)
            beat = int(self.tx_payload.value)
            data += (beat & (1 << 8 * BUS) - 1).to_bytes(BUS, "little")
            if beat >> 8 * BUS & 1:
                self._to_link.put_nowait(self._packet(data))
                data = b""

    async def _forward(self):
        while True:
            await self.send(await self._to_link.get())

    def _packet(self, data: bytes) -> Tlp:
        words = struct.unpack("<4L", data[:HEADER_BYTES])
        tlp = Tlp.unpack_header(struct.pack(">4L", *words))
        if tlp.has_data():
            tlp.data = bytearray(data[BUS : BUS + 4 * tlp.length])
        if tlp.is_completion():
            tlp.completer_id = self.pcie_id
        else:
            tlp.requester_id = self.pcie_id
        return tlp


class Buffer:
    """Host memory that cards can reach."""

    def __init__(self, address: int, memory):
        self.address = address
        self.array = np.frombuffer(memory, np.uint8)

    def release(self) -> None:
        """The root complex's memory is never short here."""


class Bus:
    """The host's bus over cocotbext-pcie, for a thread: each call lets simulated time pass."""

    errors = 0  # its root complex counts none

    def __init__(self, root: RootComplex, interrupt: Event):
        self._root = root
        self._interrupt = interrupt
        self.read = resume(self._read)
        self.write = resume(self._write)
        self.wait = resume(self._wait)

    async def _read(self, address: int, nbytes: int) -> bytes:
        return await self._root.mem_read(address, nbytes, timeout=50, timeout_unit="us")

    async def _write(self, address: int, data: bytes) -> None:
        await self._root.mem_write(address, bytes(data))

    async def _wait(self, timeout_cycles: int, message: int = 0) -> bool:
        try:
            await with_timeout(self._interrupt.wait(), timeout_cycles * CLOCK_PS, "ps")
        except TimeoutError:
            return False
        self._interrupt.clear()
        return True

    def map(self, nbytes: int) -> Buffer:
        return Buffer(*self._root.alloc_region(nbytes))


async def enumerate_platform(dut):
    """Root complex, switch and cards; BARs and interrupt messages assigned by cocotbext-pcie."""
    root = RootComplex()
    root.max_payload_size = 0
    root.max_read_request_size = 0
    switch = Switch()
    root_port = root.make_port()
    for port in (root_port.downstream_port, switch.upstream_bridge.upstream_port):
        port.max_link_speed, port.max_link_width = 3, 16
    root_port.connect(switch)
    cards = [HardIp(dut, index) for index in range(CARDS)]
    for card in cards:
        device = PcieDevice(card)
        switch_port = switch.make_port()
        for port in (switch_port.downstream_port, device.upstream_port):
            port.max_link_speed, port.max_link_width = 3, 4
        device.connect(switch_port)
    await root.enumerate()
    cocotb.start_soon(Clock(dut.clk, CLOCK_PS, unit="ps").start())
    dut.rst.value = 1
    for _ in range(4):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    interrupt = Event()

    async def ring():
        interrupt.set()

    places = []
    for index, card in enumerate(cards):
        card.start()
        found = root.find_device(PcieId(3 + index, 0, 0))
        await found.enable_device()
        await found.set_master()
        assert await found.alloc_irq_vectors(1, 1) == 1
        found.request_irq(0, ring)
        vector = found.msi_vectors[0]
        places.append((found.bar_addr[0], found.bar_addr[2], (vector.addr, vector.data)))
    return root, interrupt, places


def work(bus: Bus, places) -> list[Card]:
    """What a user of six cards does, in plain synchronous Python."""
    rng = np.random.default_rng(5)
    cards = [
        Card(Device(bus, CONFIG, index=index, bar0=bar0, bar2=bar2, message=message))
        for index, (bar0, bar2, message) in enumerate(places)
    ]
    for card in cards:
        rows, dim = 16, 12
        raw = rng.integers(0, 256, (rows, dim + 8)).astype(np.uint8)
        raw[:, dim:] = rng.normal(size=(rows, 2)).astype(np.float32).view(np.uint8)
        indices, lengths = rng.integers(0, rows, 9).astype(np.int32), np.array([4, 0, 5], np.int32)
        pooled = card.embedding_bag(card.table(raw), indices, np.cumsum(lengths) - lengths)
        expected = operators.embedding_bag(raw, indices, lengths)
        assert pooled.tobytes() == expected.tobytes(), f"card {card.index}: GATHER"

        x = rng.integers(0, 256, (3, 10)).astype(np.uint8)
        weight = rng.integers(-128, 128, (6, 10)).astype(np.int8)
        scale = (rng.random(6) / 300).astype(np.float32)
        y = card.linear(x, weight, scale, y_zero_point=100)
        expected = operators.linear(x, weight, scale, np.zeros(6, np.int32), y_zero_point=100)
        assert np.array_equal(y, expected), f"card {card.index}: MATMUL"
    return cards


def copy(source: Card, target: Card, values: np.ndarray) -> int:
    """Sends `values` from card to card and returns where they are in the target's DRAM."""
    here, there = (card.dram.allocate(len(values)) for card in (source, target))
    source.upload(here, values)
    source.timeline.issue(
        Opcode.STORE, source=here.address, destination=target.device.bar2 + there.address,
        rows=1, row_bytes=len(values), source_stride=len(values), destination_stride=len(values),
    )  # fmt: skip
    arrived = source.timeline.notify(target.device)
    target.timeline.issue(
        Opcode.COPY, after=(arrived,), source=there.address, destination=there.address, rows=1,
        row_bytes=16, source_stride=16, destination_stride=16,
    )  # fmt: skip
    source.timeline.wait(source.timeline.flush())
    target.timeline.wait(target.timeline.flush())
    return there.address


async def access_any_bytes(root, base: int) -> None:
    """Reads and writes card memory as a processor does; the root complex makes the packets."""
    rng = np.random.default_rng(7)
    expected = bytearray(rng.bytes(128))
    await root.mem_write(base, bytes(expected))
    for size in (1, 2, 4, 8, 23):
        for start in range(0, 64, size if size <= 8 else 9):
            expected[start : start + size] = data = rng.bytes(size)
            await root.mem_write(base + start, data)
            assert await root.mem_read(base + start, size) == data, (start, size)
    assert await root.mem_read(base, 128) == expected


@cocotb.test()
async def host_software_runs_on_six_enumerated_cards(dut):
    root, interrupt, places = await enumerate_platform(dut)
    assert len({bar for place in places for bar in place[:2]}) == 2 * CARDS
    for place in (0, CONFIG.scratchpad_base):
        await access_any_bytes(root, places[2][1] + place)
    bus = Bus(root, interrupt)
    cards = await bridge(work)(bus, places)
    values = np.random.default_rng(6).integers(0, 256, 512).astype(np.uint8)
    place = await bridge(copy)(cards[1], cards[4], values)
    assert await root.mem_read(places[4][1] + place, len(values)) == values.tobytes()
