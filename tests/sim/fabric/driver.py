"""Python side of driver.cpp: the fabric with probes that answer at once."""

import ctypes
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
from amaranth.lib import data

from halfdome.hdl.pcie.tlp import CompletionHeader, RequestHeader
from halfdome.sim.build.compiler import library
from halfdome.sim.fabric.config import HOST_BASE, FabricConfig, assign_bars, settings
from halfdome.sim.fabric.faults import FaultCounts, FaultRecord, records

COUNTERS = (
    "unsupported_reads", "unsupported_requests", "unexpected_completions",
    "uplink_up_payload", "uplink_down_payload", "uplink_up_tlps", "uplink_down_tlps", "messages",
)  # fmt: skip
PACKET = np.dtype(
    [
        ("time", np.int64), ("card", np.uint64), ("bytes", np.uint64),
        ("header", np.uint32, (4,)), ("payload", np.uint8, (4096,)),
    ]
)  # fmt: skip


@cache
def _lib():
    lib = ctypes.CDLL(str(library(Path(__file__).with_name("driver.cpp"), "test-fabric")))
    p, n = ctypes.c_void_p, ctypes.c_uint64
    for name, result, arguments in (
        ("create", p, (p, n, p, p, p)), ("destroy", None, (p,)),
        ("run", ctypes.c_int, (p, ctypes.c_int64)), ("now", ctypes.c_int64, (p,)),
        ("read", None, (p, n, n)), ("read_data", p, (p,)), ("abandon", None, (p,)),
        ("write", None, (p, n, ctypes.c_char_p, n)),
        ("send", None, (p, n, p, ctypes.c_char_p, n)),
        ("full", None, (p, n, ctypes.c_int)), ("dma", None, (p, n, n, n, n, n)),
        ("inject", None, (p, p, n)), ("faults", None, (p, n, ctypes.c_int, p)),
        ("log_count", n, (p,)), ("log", p, (p,)), ("counters", None, (p, p)),
    ):  # fmt: skip
        function = getattr(lib, f"probe_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


def header(layout, **fields):
    """Four doublewords of a header of `halfdome.hdl.pcie.tlp`."""
    value = layout.const(fields).as_value().value
    return np.array([value >> 32 * i & 0xFFFF_FFFF for i in range(4)], np.uint32)


def parse(layout, words):
    """A received header as a dictionary."""
    value = sum(int(word) << 32 * i for i, word in enumerate(words))
    return {
        name: value >> field.offset & ((1 << field.width) - 1)
        for name, field in data.Layout.cast(layout)
        if name[0] != "_"
    }


class Probe:
    """Root complex, switch and links with probes in the cards' places."""

    def __init__(self, card, *, cards=6, **fabric):
        self.config = card
        defaults = {"port_latency_ns": 5, "switch_latency_ns": 0, "host_read_latency_ns": 0,
                    "host_bandwidth_mb_s": 1_000_000, "host_memory_bytes": 1 << 20}  # fmt: skip
        fabric = FabricConfig(**defaults | fabric)
        self.host = np.zeros(fabric.host_memory_bytes, np.uint8)
        self.bars = assign_bars(card, cards)
        self.memories = [np.zeros(card.window_bytes, np.uint8) for _ in range(cards)]
        windows = np.array(
            [(b.bar0, b.bar0_bytes, b.bar2, b.bar2_bytes) for b in self.bars], np.uint64
        )
        pointers = (ctypes.c_void_p * cards)(*(m.ctypes.data for m in self.memories))
        self._handle = _lib().probe_create(
            ctypes.byref(settings(fabric, card)), cards, self.host.ctypes.data,
            windows.ctypes.data, pointers,
        )  # fmt: skip

    def __del__(self):
        _lib().probe_destroy(self._handle)

    @property
    def now_ns(self):
        return _lib().probe_now(self._handle) / 1e6

    def run(self, ns):
        return _lib().probe_run(self._handle, _lib().probe_now(self._handle) + int(ns * 1e6))

    def read(self, address, nbytes, ns=1_000_000):
        """(data, nanoseconds) of a host read; data is None if it did not end."""
        start = self.now_ns
        _lib().probe_read(self._handle, address, nbytes)
        if not self.run(ns):
            _lib().probe_abandon(self._handle)
            return None, self.now_ns - start
        return ctypes.string_at(_lib().probe_read_data(self._handle), nbytes), self.now_ns - start

    def write(self, address, data):
        _lib().probe_write(self._handle, address, data, len(data))

    def send(self, card, words, payload=b""):
        _lib().probe_send(self._handle, card, words.ctypes.data, payload, len(payload))

    def _send_request(self, card, kind, address, nbytes, payload=b"", **fields):
        if address >> 32:
            kind, fields = kind | 0x20, fields | {"address_low": address & 0xFFFF_FFFF}
        last = {"last_be": 0xF} if nbytes > 4 else {}
        fields = {"first_be": 0xF, "address_high": address >> 32 or address} | last | fields
        length = nbytes // 4 & 0x3FF
        self.send(card, header(RequestHeader, type=kind, length=length, **fields), payload)

    def send_read(self, card, address, nbytes, **fields):
        """A memory read of whole doublewords."""
        self._send_request(card, 0x00, address, nbytes, **fields)

    def send_write(self, card, address, payload, **fields):
        """A memory write of whole doublewords."""
        self._send_request(card, 0x40, address, len(payload), payload, **fields)

    def dma_read(self, cards, address, nbytes, tags):
        """Nanoseconds in which each of `cards` reads a piece of memory of its own."""
        start, request = self.now_ns, self.config.max_read_request_bytes
        for i in range(cards):
            _lib().probe_dma(self._handle, i, address + i * nbytes, nbytes, request, tags)
        before = len(self.log())
        self.run(nbytes * 10)
        received = self.log()[before:]
        assert received["bytes"].sum() == cards * nbytes
        return received["time"].max() / 1e6 - start

    def inject(self, *faults):
        """Plans faults, as a platform does."""
        planned = records(faults, len(self.bars))
        array = (FaultRecord * len(planned))(*planned)
        _lib().probe_inject(self._handle, array, len(planned))

    def faults(self, card, to_card=True):
        """What faults did to one direction of a link; card None is the uplink."""
        raw = np.zeros(len(fields(FaultCounts)), np.uint64)
        link = len(self.bars) if card is None else card
        _lib().probe_faults(self._handle, link, to_card, raw.ctypes.data)
        return FaultCounts(*map(int, raw))

    def full(self, card, full=True):
        """Whether a probe keeps the room of the requests it receives."""
        _lib().probe_full(self._handle, card, full)

    def log(self):
        count = _lib().probe_log_count(self._handle)
        raw = ctypes.string_at(_lib().probe_log(self._handle), count * PACKET.itemsize)
        return np.frombuffer(raw, PACKET)

    def completions(self, card):
        """(header dictionary, payload bytes, arrival in ns) of each completion a card received."""
        return [
            (parse(CompletionHeader, p["header"]), p["payload"][: p["bytes"]].tobytes(),
             p["time"] / 1e6)
            for p in self.log() if p["card"] == card and p["header"][0] >> 24 & 0x1F == 0x0A
        ]  # fmt: skip

    def counters(self):
        raw = np.zeros(len(COUNTERS), np.uint64)
        _lib().probe_counters(self._handle, raw.ctypes.data)
        return dict(zip(COUNTERS, map(int, raw), strict=True))


HOST = HOST_BASE
