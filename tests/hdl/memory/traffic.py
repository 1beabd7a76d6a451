"""Clients that check what memory returns, and an AXI4 memory that answers out of order."""

import random

import numpy as np
from amaranth import Value

from tests.bench import gaps, put


class Client:
    """Writes and reads back its own lines through one read and one write port.

    No two clients share a line, so every word has one right value whenever its client is idle.
    """

    def __init__(self, config, reads, writes, lines, *, seed=0, stall=0.0, phases=3, operations=8):
        self.config = config
        self.reads = reads
        self.writes = writes
        self.lines = list(lines)
        self.received: list[tuple[int, int]] = []
        self.expected: list[tuple[int, int]] = []
        self._rng = random.Random(seed)
        self._stall = stall
        self._phases = phases
        self._operations = operations
        self._image = {
            line + i * config.bus_bytes: bytes(config.bus_bytes)
            for line in self.lines
            for i in range(config.burst_words)
        }

    def _next_write(self):
        rng, word = self._rng, self.config.bus_bytes
        address = rng.choice(list(self._image))
        value = rng.getrandbits(8 * word)
        strobe = rng.choice([(1 << word) - 1, rng.getrandbits(word), 0, 1, 1 << (word - 1)])
        new = bytearray(self._image[address])
        for i, byte in enumerate(value.to_bytes(word, "little")):
            if strobe >> i & 1:
                new[i] = byte
        self._image[address] = bytes(new)
        return {"address": address, "data": value, "strobe": strobe}

    def _next_read(self):
        rng, word = self._rng, self.config.bus_bytes
        first = rng.randrange(self.config.burst_words)
        count = rng.randint(1, self.config.burst_words - first)
        address = rng.choice(self.lines) + first * word
        for i in range(count):
            value = int.from_bytes(self._image[address + i * word], "little")
            self.expected.append((value, int(i == count - 1)))
        return {"address": address, "count_minus_1": count - 1}

    async def traffic(self, ctx):
        """A test bench: bursts of writes, then of reads, as fast as stalls allow."""
        waits = gaps(self._rng, self._stall)
        for _ in range(self._phases):
            for _ in range(self._rng.randint(0, self._operations)):
                for _ in range(next(waits)):
                    await ctx.tick()
                await put(ctx, self.writes.request, self._next_write())
            while not ctx.get(self.writes.idle):
                await ctx.tick()
            for _ in range(self._rng.randint(0, self._operations)):
                for _ in range(next(waits)):
                    await ctx.tick()
                await put(ctx, self.reads.request, self._next_read())
            while len(self.received) < len(self.expected):
                await ctx.tick()
        for _ in range(20):
            await ctx.tick()

    async def collect(self, ctx):
        """A background bench that keeps every word returned."""
        response = self.reads.response
        while True:
            _, _, valid, value, last = await ctx.tick().sample(
                response.valid, response.p.data, response.p.last
            )
            if valid:
                self.received.append((value, last))


class AxiMemory:
    """An AXI4 subordinate of random latency that reorders between IDs and checks the protocol."""

    def __init__(self, config, size, ids, *, seed=0, stall=0.0, latency=(1, 8)):
        self.config = config
        self.data = np.zeros(size, np.uint8)
        self.read_words = 0
        self.write_bytes = 0
        self._ids = ids
        self._rng = random.Random(seed)
        self._stall = stall
        self._latency = latency

    def _due(self, cycle):
        return cycle + self._rng.randint(*self._latency)

    def _pick(self, queues, cycle):
        """An ID with something due, whichever."""
        ids = [k for k, queue in queues.items() if queue and queue[0][0] <= cycle]
        return self._rng.choice(ids) if ids and self._rng.random() >= self._stall else None

    def _check_address(self, channel):
        word = self.config.bus_bytes
        number, address, length, size, burst = channel
        assert number in self._ids, f"ID {number} is no port's"
        assert address % word == 0
        assert 0 <= address <= len(self.data) - word
        assert 1 << size == word
        assert burst == 1
        assert length == 0 or address // 64 == (address + length * word) // 64, "crosses a line"

    def bench(self, axi):
        """The background bench that serves `axi` (an `Axi4` of the unit under test)."""
        word = self.config.bus_bytes

        def address_channel(name):
            return [getattr(axi, name + field) for field in ("id", "addr", "len", "size", "burst")]

        channels = {
            "ar": address_channel("ar"),
            "aw": address_channel("aw"),
            "w": [axi.wdata, axi.wstrb, axi.wlast],
        }
        watched = [axi.arvalid, axi.awvalid, axi.wvalid, axi.rready, axi.bready]
        watched += [Value.cast(signal) for channel in channels.values() for signal in channel]

        async def bench(ctx):
            reads: dict[int, list] = {}
            answers: dict[int, list] = {}
            addresses: list[tuple[int, int]] = []
            words: list[tuple[int, int]] = []
            held = {}
            cycle = 0
            while True:
                number = self._pick(reads, cycle)
                ctx.set(axi.rvalid, number is not None)
                if number is not None:
                    _, address, last = reads[number].pop(0)
                    raw = self.data[address : address + word].tobytes()
                    ctx.set(axi.rid, number)
                    ctx.set(axi.rdata, int.from_bytes(raw, "little"))
                    ctx.set(axi.rlast, last)
                    self.read_words += 1
                number = self._pick(answers, cycle)
                ctx.set(axi.bvalid, number is not None)
                if number is not None:
                    # Nothing may rely on a write before its response, so it happens only now.
                    _, address, value, strobe = answers[number].pop(0)
                    ctx.set(axi.bid, number)
                    for i, byte in enumerate(value.to_bytes(word, "little")):
                        if strobe >> i & 1:
                            self.data[address + i] = byte
                            self.write_bytes += 1
                ready = {name: self._rng.random() >= self._stall for name in channels}
                for name, value in ready.items():
                    ctx.set(getattr(axi, name + "ready"), value)
                sampled = await ctx.tick().sample(*watched)
                cycle += 1
                arvalid, awvalid, wvalid, rready, bready = sampled[2:7]
                assert rready, "read data was refused"
                assert bready, "a write response was refused"
                payload = {"ar": sampled[7:12], "aw": sampled[12:17], "w": sampled[17:20]}
                for name, valid in (("ar", arvalid), ("aw", awvalid), ("w", wvalid)):
                    if name in held:
                        assert valid, f"{name}valid fell before {name}ready"
                        assert payload[name] == held.pop(name), f"{name} changed before ready"
                    if valid and not ready[name]:
                        held[name] = payload[name]
                if arvalid and ready["ar"]:
                    self._check_address(payload["ar"])
                    number, address, length = payload["ar"][:3]
                    due = self._due(cycle)
                    for i in range(length + 1):
                        beat = (due, address + i * word, i == length)
                        reads.setdefault(number, []).append(beat)
                if awvalid and ready["aw"]:
                    self._check_address(payload["aw"])
                    assert payload["aw"][2] == 0
                    addresses.append(payload["aw"][:2])
                if wvalid and ready["w"]:
                    value, strobe, last = payload["w"]
                    assert last, "wlast is missing"
                    words.append((value, strobe))
                while addresses and words:
                    number, address = addresses.pop(0)
                    entry = (self._due(cycle), address, *words.pop(0))
                    answers.setdefault(number, []).append(entry)

        return bench
