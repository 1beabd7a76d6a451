"""Test benches for streams and memory ports: drivers, monitors, a memory, a watchdog.

Every simulation checks the stream rules on the streams it is given and ends with an error rather
than hang.
"""

import random

import numpy as np
from amaranth import Value
from amaranth.lib import data

from halfdome.sim.testbench import CLOCK_PERIOD, simulate

__all__ = [
    "CLOCK_PERIOD",
    "Memory",
    "as_dict",
    "gaps",
    "get",
    "monitor",
    "put",
    "simulate",
    "sink",
    "source",
]


def gaps(rng: random.Random, stall: float):
    """Endless random stall lengths: 0 mostly, geometric with probability `stall`."""
    while True:
        length = 0
        while rng.random() < stall:
            length += 1
        yield length


async def put(ctx, stream, payload):
    """Offers one payload and returns after the clock edge at which it was taken."""
    ctx.set(stream.p, payload)
    ctx.set(stream.valid, 1)
    ready = False
    while not ready:
        _, _, ready = await ctx.tick().sample(stream.ready)
    ctx.set(stream.valid, 0)


async def get(ctx, stream):
    """Takes one payload; returns after the clock edge at which it was taken."""
    ctx.set(stream.ready, 1)
    valid = False
    while not valid:
        _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.p)
    ctx.set(stream.ready, 0)
    return payload


def source(stream, items, *, seed=0, stall=0.0):
    """A test bench that sends `items` with random gaps."""

    async def bench(ctx):
        waits = gaps(random.Random(seed), stall)
        for item in items:
            for _ in range(next(waits)):
                await ctx.tick()
            await put(ctx, stream, item)

    return bench


def sink(stream, count, received: list, *, seed=0, stall=0.0):
    """A test bench that appends `count` payloads to `received`, refusing at random."""

    async def bench(ctx):
        waits = gaps(random.Random(seed), stall)
        for _ in range(count):
            for _ in range(next(waits)):
                await ctx.tick()
            received.append(await get(ctx, stream))

    return bench


def monitor(stream, name="stream"):
    """A background bench that asserts: a refused payload stays offered, unchanged."""

    async def bench(ctx):
        held = None
        while True:
            _, reset, valid, ready, payload = await ctx.tick().sample(
                stream.valid, stream.ready, Value.cast(stream.p)
            )
            if reset:
                held = None
                continue
            if held is not None:
                assert valid, f"{name}: valid fell before ready"
                assert payload == held, f"{name}: payload changed before ready"
            held = payload if valid and not ready else None

    return bench


class Memory:
    """A memory behind read and write ports, with random latency and stalls.

    `data` is a uint8 array, addressed from `base`. `reads` lists every (address, words) accepted,
    `writes` every (address, strobe). A read or write outside the array fails the test.
    """

    def __init__(self, config, size: int, *, base=0, seed=0, stall=0.0, latency=(1, 8)):
        self.config = config
        self.base = base
        self.data = np.zeros(size, np.uint8)
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self._rng = random.Random(seed)
        self._stall = stall
        self._latency = latency

    def read_port(self, port):
        """A background bench that serves `port` (a `ReadPort` of the unit under test)."""
        word = self.config.bus_bytes

        async def bench(ctx):
            pending: list[tuple[int, int, int]] = []  # due cycle, value, last
            cycle = 0
            ready = 0
            while True:
                if pending and pending[0][0] <= cycle and self._rng.random() >= self._stall:
                    _, value, last = pending.pop(0)
                    ctx.set(port.response.p, {"data": value, "last": last})
                    ctx.set(port.response.valid, 1)
                else:
                    ctx.set(port.response.valid, 0)
                ready = int(self._rng.random() >= self._stall)
                ctx.set(port.request.ready, ready)
                _, _, valid, address, count = await ctx.tick().sample(
                    port.request.valid, port.request.p.address, port.request.p.count_minus_1
                )
                cycle += 1
                if valid and ready:
                    count += 1
                    self.reads.append((address, count))
                    assert address % word == 0, f"read of {address:#x} is not word aligned"
                    assert address // 64 == (address + count * word - 1) // 64 or count == 1, (
                        f"burst of {count} words at {address:#x} crosses a line"
                    )
                    due = cycle + self._rng.randint(*self._latency)
                    if pending:
                        due = max(due, pending[-1][0])
                    for i in range(count):
                        start = address - self.base + i * word
                        assert 0 <= start <= len(self.data) - word, f"read outside: {address:#x}"
                        value = int.from_bytes(self.data[start : start + word].tobytes(), "little")
                        pending.append((due + i, value, int(i == count - 1)))

        return bench

    def write_port(self, port):
        """A background bench that serves `port` (a `WritePort` of the unit under test)."""
        word = self.config.bus_bytes

        async def bench(ctx):
            pending: list[tuple[int, int, int, int]] = []
            cycle = 0
            while True:
                while pending and pending[0][0] <= cycle:
                    _, start, value, strobe = pending.pop(0)
                    raw = value.to_bytes(word, "little")
                    for i in range(word):
                        if strobe >> i & 1:
                            self.data[start + i] = raw[i]
                ctx.set(port.idle, not pending)
                ready = int(self._rng.random() >= self._stall)
                ctx.set(port.request.ready, ready)
                _, _, valid, address, value, strobe = await ctx.tick().sample(
                    port.request.valid,
                    port.request.p.address,
                    port.request.p.data,
                    port.request.p.strobe,
                )
                cycle += 1
                if valid and ready:
                    assert address % word == 0, f"write to {address:#x} is not word aligned"
                    start = address - self.base
                    assert 0 <= start <= len(self.data) - word, f"write outside: {address:#x}"
                    self.writes.append((address, strobe))
                    due = cycle + self._rng.randint(*self._latency)
                    if pending:
                        due = max(due, pending[-1][0])
                    pending.append((due, start, value, strobe))

        return bench


def as_dict(layout: data.StructLayout, value) -> dict:
    """A sampled struct payload as plain integers, structs in it likewise."""
    inner = {name: field.shape for name, field in layout}
    return {
        name: as_dict(shape, value[name])
        if isinstance(shape, data.StructLayout)
        else int(value[name])
        for name, shape in inner.items()
    }
