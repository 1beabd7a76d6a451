"""Runs inside cocotb: the exported Verilog between a small root complex and `AxiRam`.

`AxiRam` is an independent model of AXI4; packets are built from the figures of the PCIe
specification (`tests.hdl.pcie.tlp_model`), not from the card's own layouts.
"""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.queue import Queue
from cocotb.triggers import FallingEdge, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiRam

from halfdome.hdl import registers
from halfdome.hdl.commands import ElementFormat, Opcode, RowFormat, Status
from halfdome.hdl.descriptors import COMPLETION, fields, pack, unpack
from halfdome.sim.golden.card import GoldenCard
from halfdome.sim.golden.matmul import pack_params, pack_weights
from tests.cocotb.cards import CONFIG, OPEN_CARD
from tests.hdl.pcie.tlp_model import CPLD, SC, Tlp, memory_request

CARD = f"c{OPEN_CARD}_"
HOST_BASE = 1 << 32
SUBMISSION, COMPLETIONS, MESSAGE = HOST_BASE, HOST_BASE + 0x1000, HOST_BASE + 0x2000
LANDING = HOST_BASE + 0x3000


class Root:
    """The far end of the link: host memory, answers to the card's reads, reads of the card."""

    def __init__(self, dut):
        self._clk = dut.clk
        for stream in ("rx", "tx"):
            for part in ("payload", "valid", "ready"):
                setattr(self, f"{stream}_{part}", getattr(dut, f"{CARD}{stream}__{part}"))
        self.memory = bytearray(0x8000)
        self.messages = Queue()
        self._send = Queue()
        self._answers = {}
        cocotb.start_soon(self._transmit())
        cocotb.start_soon(self._receive())

    async def _transmit(self):
        width = CONFIG.bus_bytes * 8
        self.rx_valid.value = 0
        while True:
            tlp, bar = await self._send.get()
            for beat in tlp.beats(CONFIG.bus_bytes, bar):
                self.rx_payload.value = (
                    beat["data"] | beat["last"] << width | beat["bar"] << width + 1
                )
                self.rx_valid.value = 1
                await RisingEdge(self._clk)
                while not self.rx_ready.value:
                    await RisingEdge(self._clk)
            self.rx_valid.value = 0

    async def _receive(self):
        width = CONFIG.bus_bytes * 8
        self.tx_ready.value = 1
        words = []
        while True:
            await RisingEdge(self._clk)
            if not self.tx_valid.value:
                continue
            payload = int(self.tx_payload.value)
            words.append(payload & (1 << width) - 1)
            if payload >> width & 1:
                self._handle(Tlp.from_words(words, CONFIG.bus_bytes))
                words = []

    def _handle(self, tlp):
        if tlp.is_completion:
            self._answers.pop(tlp.tag).put_nowait(tlp)
        elif tlp.kind & 0x40:
            for address, value in tlp.written().items():
                self.memory[address - HOST_BASE] = value
            if tlp.address == MESSAGE:
                self.messages.put_nowait(int.from_bytes(tlp.payload[:4], "little"))
        else:
            start, size = tlp.address - HOST_BASE, 4 * tlp.length
            answer = Tlp(
                kind=CPLD,
                length=tlp.length,
                tag=tlp.tag,
                status=SC,
                byte_count=size,
                lower_address=tlp.address & 0x7F,
                payload=bytes(self.memory[start : start + size]),
            )
            self._send.put_nowait((answer, 0))

    def write(self, bar, offset, data):
        self._send.put_nowait((memory_request(offset, len(data), data=data), bar))

    def write_register(self, name, value):
        self.write(0, registers.offset(name), value.to_bytes(4, "little"))

    async def read(self, bar, offset, size):
        answer = self._answers[9] = Queue()
        tlp = memory_request(offset, size, tag=9)
        self._send.put_nowait((tlp, bar))
        completion = await with_timeout(answer.get(), 50, "us")
        assert completion.status == SC
        assert (completion.byte_count, completion.lower_address) == (size, offset & 0x7F)
        return completion.payload[offset % 4 : offset % 4 + size]

    async def read_register(self, name):
        return int.from_bytes(await self.read(0, registers.offset(name), 4), "little")


async def access_any_bytes(root, ram):
    """What a processor reads and writes in the window, beside what the memory then holds."""
    rng, base = np.random.default_rng(8), 0x8000
    expected = bytearray(rng.bytes(64))
    root.write(2, base, bytes(expected))
    accesses = [(start, size) for size in (1, 2, 4, 8) for start in range(0, 64, size)]
    accesses += [(start, 20) for start in range(1, 32, 5)]
    for start, size in accesses:
        expected[start : start + size] = data = rng.bytes(size)
        root.write(2, base + start, data)
        assert await root.read(2, base + start, size) == data, (start, size)
        assert bytes(ram.read(base, 64)) == expected, (start, size)


async def start(dut):
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 2500, unit="ps").start())
    ram = AxiRam(AxiBus.from_prefix(dut, f"{CARD}axi_"), dut.clk, dut.rst, size=CONFIG.dram_bytes)
    for _ in range(4):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    return Root(dut), ram


def random_operands(rng):
    """Card memory with a table, bags, activations and weights, and the descriptors over them."""
    rows, dim, lengths = 37, 21, np.array([3, 0, 5, 1], np.int32)
    table = rng.integers(0, 256, (rows, dim + 8)).astype(np.uint8)
    table[:, dim:] = rng.normal(size=(rows, 2)).astype(np.float32).view(np.uint8)
    indices = rng.integers(0, rows, lengths.sum()).astype(np.int32)
    m, k, n = 5, 11, 6
    x = rng.integers(0, 256, (m, 16)).astype(np.uint8)
    w = rng.integers(-128, 128, (k, n)).astype(np.int8)
    params = pack_params(
        rng.integers(-5000, 5000, n).astype(np.int32), rng.random(n).astype(np.float32) / 500
    )
    contents = {
        0x0000: table, 0x1000: indices, 0x1100: lengths,
        0x2000: x, 0x2100: pack_weights(w, CONFIG), 0x2200: params,
    }  # fmt: skip
    memory = {a: np.ascontiguousarray(v).view(np.uint8).reshape(-1) for a, v in contents.items()}
    gather = pack(
        Opcode.GATHER, id=1, table=0, rows=rows, row_stride=dim + 8, dim=dim, format=RowFormat.INT8,
        indices=0x1000, index_count=len(indices), lengths=0x1100, bags=len(lengths),
        output=0x3000, output_stride=96, output_format=ElementFormat.FLOAT32, signal_counter=2,
        signal_value=1,
    )  # fmt: skip
    matmul = pack(
        Opcode.MATMUL, id=2, x=0x2000, x_stride=16, w=0x2100, params=0x2200, m=m, k=k, n=n,
        y=CONFIG.scratchpad_base, y_stride=16, y_zero_point=128,
    )  # fmt: skip
    store = pack(
        Opcode.STORE, id=3, source=0x3000, destination=LANDING, rows=1, row_bytes=4 * 96,
        source_stride=96, destination_stride=96, wait_counter=2, wait_value=1,
    )  # fmt: skip
    return memory, [gather, matmul, store]


@cocotb.test()
async def gather_and_matmul_are_driven_by_packets(dut):
    root, ram = await start(dut)
    assert await root.read_register("ID") == registers.IDENTIFICATION
    high, low = (
        await root.read_register("CONFIG_HASH_HI"),
        await root.read_register("CONFIG_HASH_LO"),
    )
    assert f"{high:08x}{low:08x}" == CONFIG.hash
    await access_any_bytes(root, ram)

    memory, descriptors = random_operands(np.random.default_rng(7))
    golden = GoldenCard(CONFIG, host=None)
    for address, values in memory.items():
        padded = np.zeros(-(-len(values) // 16) * 16, np.uint8)
        padded[: len(values)] = values
        golden.memory[address : address + len(padded)] = padded
        for start_byte in range(0, len(padded), 64):
            piece = padded[start_byte : start_byte + 64].tobytes()
            root.write(2, address + start_byte, piece)
    for descriptor in descriptors[:2]:
        assert golden.execute(descriptor) == (Status.OK, 0)

    for index, descriptor in enumerate(descriptors):
        root.memory[64 * index : 64 * index + 64] = descriptor
    root.write_register("SQ_BASE_LO", SUBMISSION & 0xFFFF_FFFF)
    root.write_register("SQ_BASE_HI", SUBMISSION >> 32)
    root.write_register("SQ_SIZE", 8)
    root.write_register("CQ_BASE_LO", COMPLETIONS & 0xFFFF_FFFF)
    root.write_register("CQ_BASE_HI", COMPLETIONS >> 32)
    root.write_register("CQ_SIZE", 8)
    root.write_register("MSIX_ADDRESS_LO", MESSAGE & 0xFFFF_FFFF)
    root.write_register("MSIX_ADDRESS_HI", MESSAGE >> 32)
    root.write_register("MSIX_DATA", 0x55AA)
    root.write_register("MSIX_CONTROL", 0)
    root.write_register("CONTROL", 1)
    root.write_register("SQ_TAIL", len(descriptors))

    entries = {}
    while len(entries) < len(descriptors):
        assert await with_timeout(root.messages.get(), 100, "us") == 0x55AA
        raw = bytes(root.memory[0x1000 : 0x1000 + 16 * len(descriptors)])
        for index in range(len(descriptors)):
            entry = unpack(COMPLETION, raw[16 * index : 16 * index + 16])
            if entry["phase"] == 1:
                assert entry["status"] == Status.OK, Status(entry["status"]).name
                entries[entry["id"]] = entry
    assert sorted(entries) == [1, 2, 3]

    gather = unpack(fields(Opcode.GATHER), descriptors[0])
    for bag in range(gather["bags"]):
        place = 0x3000 + bag * gather["output_stride"]
        expected = golden.memory[place : place + 4 * gather["dim"]].tobytes()
        assert bytes(ram.read(place, len(expected))) == expected, f"bag {bag} in card memory"
        landed = LANDING - HOST_BASE + bag * gather["output_stride"]
        assert bytes(root.memory[landed : landed + len(expected)]) == expected, f"bag {bag} stored"
    for row in range(5):
        place = CONFIG.scratchpad_base + 16 * row
        expected = golden.memory[place : place + 6].tobytes()
        assert (await root.read(2, place, 16))[:6] == expected, f"row {row} in the scratchpad"
