"""Host memory behind the card's inner PCIe ports, with random stalls."""

import random

import numpy as np

from halfdome.hdl.commands import ReadFailure

HOST_BASE = 1 << 45
"""Bus address of byte 0 of the host memory."""


class HostMemory:
    """Bytes on the far side of PCIe, and benches that serve a card's ports from them.

    `requests` lists every (address, bytes) asked for. Reads of an address in `failing` fail, DMA
    reads as `POISONED`. With `lenient`, fetches from elsewhere fail and writes to elsewhere vanish.
    """

    def __init__(self, config, size: int, *, seed=0, stall=0.0, lenient=False):
        self.config = config
        self.data = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
        self.requests: list[tuple[int, int]] = []
        self.failing: set[int] = set()
        self._rng = random.Random(seed)
        self._stall = stall
        self._lenient = lenient

    def _vanishes(self, address: int, size: int) -> bool:
        start = address - HOST_BASE
        return self._lenient and not 0 <= start <= start + size <= len(self.data)

    def slice(self, address: int, size: int) -> slice:
        start = address - HOST_BASE
        assert 0 <= start <= start + size <= len(self.data), f"{size} bytes at {address:#x}"
        return slice(start, start + size)

    def dma_read_port(self, port, memory):
        """Serves a `DmaReadPort`: data appears in `memory` some cycles after the request."""

        async def bench(ctx):
            pending: list[tuple[int, dict]] = []
            cycle, was_idle = 0, True
            while True:
                while pending and pending[0][0] <= cycle:
                    _, r = pending.pop(0)
                    if r["address"] in self.failing:
                        ctx.set(port.failure, ReadFailure.POISONED)
                    else:
                        start = r["destination"] - memory.base
                        chunk = self.data[self.slice(r["address"], r["bytes"])]
                        memory.data[start : start + r["bytes"]] = chunk
                ctx.set(port.idle, not pending)
                was_idle = not pending
                ready = int(self._rng.random() >= self._stall)
                ctx.set(port.request.ready, ready)
                _, _, valid, payload = await ctx.tick().sample(port.request.valid, port.request.p)
                cycle += 1
                if valid and ready:
                    if was_idle:
                        ctx.set(port.failure, ReadFailure.NONE)
                    r = {n: int(payload[n]) for n in ("address", "destination", "bytes")}
                    assert r["address"] % self.config.bus_bytes == 0
                    assert r["destination"] % self.config.bus_bytes == 0
                    assert r["bytes"] >= 1
                    self.requests.append((r["address"], r["bytes"]))
                    due = cycle + self._rng.randint(1, 12)
                    pending.append((max(due, pending[-1][0] if pending else 0), r))

        return bench

    def posted_port(self, port):
        """Serves a `PostedWritePort`: one request, then its words; idle a while afterwards."""
        word = self.config.bus_bytes

        async def bench(ctx):
            left, address, quiet = 0, 0, 0
            while True:
                ready = int(self._rng.random() >= self._stall)
                ctx.set(port.request.ready, ready if left == 0 else 0)
                ctx.set(port.data.ready, ready if left > 0 else 0)
                ctx.set(port.idle, left == 0 and quiet == 0)
                _, _, request, r, data, value = await ctx.tick().sample(
                    port.request.valid, port.request.p, port.data.valid, port.data.p
                )
                quiet = max(0, quiet - 1)
                if not ready:
                    continue
                if left > 0 and data:
                    count = min(word, left)
                    raw = np.frombuffer(int(value).to_bytes(word, "little"), np.uint8)
                    if not self._vanishes(address, count):
                        self.data[self.slice(address, count)] = raw[:count]
                    left, address, quiet = left - count, address + count, self._rng.randint(0, 9)
                elif left == 0 and request:
                    address, left = int(r.address), int(r.bytes)
                    assert address % 4 == 0
                    assert left >= 1
                    self.requests.append((address, left))

        return bench

    def fetch_port(self, port):
        """Serves a `FetchPort`. A failing read delivers some words first."""
        word = self.config.bus_bytes

        async def bench(ctx):
            while True:
                ctx.set(port.request.ready, 1)
                _, _, valid, r = await ctx.tick().sample(port.request.valid, port.request.p)
                if not valid:
                    continue
                ctx.set(port.request.ready, 0)
                address, size = int(r.address), int(r.bytes)
                self.requests.append((address, size))
                assert address % word == 0
                assert size % word == 0
                assert 1 <= size <= self.config.max_read_request_bytes
                assert address // 4096 == (address + size - 1) // 4096
                failed = address in self.failing or self._vanishes(address, size)
                chunk = bytes(size) if failed else self.data[self.slice(address, size)].tobytes()
                words = [chunk[i : i + word] for i in range(0, size, word)]
                if failed:
                    words = [*words[: self._rng.randrange(len(words))], bytes(word)]
                for _ in range(self._rng.randint(1, 12)):
                    await ctx.tick()
                for number, raw in enumerate(words):
                    while self._rng.random() < self._stall:
                        await ctx.tick()
                    last = number == len(words) - 1
                    value = int.from_bytes(raw, "little")
                    ctx.set(port.response.p, {"data": value, "last": last, "failed": last & failed})
                    ctx.set(port.response.valid, 1)
                    taken = False
                    while not taken:
                        _, _, taken = await ctx.tick().sample(port.response.ready)
                    ctx.set(port.response.valid, 0)

        return bench
