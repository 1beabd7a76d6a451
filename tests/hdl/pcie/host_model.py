"""The far side of a link: host memory that answers reads, and a place to send requests from."""

import random
from collections import deque
from dataclasses import replace

from tests.bench import gaps, get, put
from tests.hdl.pcie.tlp_model import CA, CPL, PAGE, Tlp, check_request, completions, refusal

BASE = (1 << 32) - 16 * PAGE
SIZE = 32 * PAGE
"""Host memory lies on both sides of 4 GiB."""

POISON, ABORT, UNSUPPORTED, COUNT, SHORT, LONG = (
    "poison", "abort", "unsupported", "count", "short", "long",
)  # fmt: skip
FAULTS = (POISON, ABORT, UNSUPPORTED, COUNT, SHORT, LONG)
SILENT, CUT, TWICE = "silent", "cut", "twice"
"""No completion, all but the last, or the first of several once more."""


class Host:
    """Answers the card's packets and sends it `requests`.

    Parameters
    ----------
    split : float
        Chance that a read completion boundary parts two completions of a read.
    faults : dict
        Kind of fault for the n-th read the card sends, put into its last completion.
    alter : callable
        Given the completions of the first read, returns those to send instead.

    `memory` is what the card reads and writes; `answers` are the completions the card sent; while
    `deaf`, nothing is taken from the card;
    `withheld` are those that a silent host has not sent, by tag.
    """

    def __init__(self, config, *, seed=0, stall=0.0, split=0.5, faults=None, alter=None):
        self.config = config
        self.memory = bytearray(random.Random(seed).randbytes(SIZE))
        self.requests: deque[tuple[Tlp, int]] = deque()
        self.answers: list[Tlp] = []
        self.reads: list[Tlp] = []
        self.writes: list[Tlp] = []
        self.strays: deque[Tlp] = deque()
        self.withheld: dict[int, list[Tlp]] = {}
        self.hold_completions = False
        self.deaf = False
        self.faulty: list[Tlp] = []
        self._rng = random.Random(seed)
        self._stall = stall
        self._split = split
        self._faults = faults or {}
        self._alter = alter
        self._sending = False
        self._due: dict[int, deque[Tlp]] = {}

    @property
    def quiet(self) -> bool:
        """Nothing is left to send."""
        return not (self.requests or self._due or self.strays or self._sending)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.memory[address - BASE : address - BASE + size])

    def _answer(self, request: Tlp) -> None:
        check_request(request, self.config.max_read_request_bytes)
        assert request.tag < self.config.dma_tags
        assert request.tag not in self._due, f"tag {request.tag} is in use"
        assert request.tag not in self.withheld, f"tag {request.tag} may still be answered"
        end = request.address + 4 * request.length
        cuts = [
            cut
            for cut in range(-(-request.address // 64) * 64, end, 64)
            if self._rng.random() < self._split
        ]
        data = self.read(request.address, 4 * request.length)
        packets = completions(request, data, cuts)
        fault = self._faults.get(len(self.reads))
        self.reads.append(request)
        last = packets[-1]
        if fault:
            self.faulty.append(request)
        match fault:
            case "poison":
                last = replace(last, poisoned=True)
            case "abort":
                last = replace(last, kind=CPL, length=0, payload=b"", status=CA)
            case "unsupported":
                packets = packets[:1]
                last = refusal(request)
            case "count":
                last = replace(last, byte_count=last.byte_count + 4)
            case "short":
                last = replace(last, payload=b"")
            case "long":
                last = replace(last, payload=last.payload + bytes(self.config.bus_bytes))
            case "twice" if len(packets) > 1:
                packets[1:1] = packets[:1]
            case "cut" if len(packets) > 1:
                self.withheld[request.tag] = [packets.pop()]
            case "silent" | "cut":
                self.withheld[request.tag] = packets
                return
        if fault not in (CUT, TWICE):
            packets[-1] = last
        if self._alter and len(self.reads) == 1:
            packets = self._alter(packets)
        self._due[request.tag] = deque(packets)

    def receive(self, words: list[int]) -> None:
        """Takes one packet of the card."""
        tlp = Tlp.from_words(words, self.config.bus_bytes)
        if tlp.is_completion:
            self.answers.append(tlp)
        elif tlp.kind & 0x40:
            check_request(tlp, self.config.max_payload_bytes)
            self.writes.append(tlp)
            for address, value in tlp.written().items():
                self.memory[address - BASE] = value
        else:
            self._answer(tlp)

    def _next(self, reads_welcome: bool):
        """A packet to send: requests in order, completions of a tag in order, else at random.

        Requests that are answered wait while they are not welcome, and others pass them.
        """
        passing = (
            place for place, (tlp, _) in enumerate(self.requests)
            if reads_welcome or not tlp.non_posted
        )  # fmt: skip
        place = next(passing, None)
        sources = ["request"] * (place is not None) + ["stray"] * bool(self.strays)
        if not self.hold_completions:
            sources += list(self._due)
        if not sources:
            return None
        match self._rng.choice(sources):
            case "request":
                chosen = self.requests[place]
                del self.requests[place]
                return chosen
            case "stray":
                return self.strays.popleft(), 0
            case tag:
                packet = self._due[tag].popleft()
                if not self._due[tag]:
                    del self._due[tag]
                return packet, 0

    def link(self, rx, rx_np_ok, tx):
        """Two background benches that move packets to `rx` and from `tx`."""

        async def send(ctx):
            waits = gaps(self._rng, self._stall)
            while True:
                chosen = self._next(ctx.get(rx_np_ok))
                if chosen is None:
                    await ctx.tick()
                    continue
                packet, bar = chosen
                self._sending = True
                for beat in packet.beats(self.config.bus_bytes, bar):
                    for _ in range(next(waits)):
                        await ctx.tick()
                    await put(ctx, rx, beat)
                self._sending = False

        async def receive(ctx):
            waits = gaps(self._rng, self._stall)
            words = []
            while True:
                for _ in range(next(waits)):
                    await ctx.tick()
                while self.deaf:
                    await ctx.tick()
                beat = await get(ctx, tx)
                words.append(int(beat.data))
                if beat.last:
                    self.receive(words)
                    words = []

        return [send, receive]


class Registers:
    """BAR 0 behind a `RegisterBus`: `values` by offset, `writes` in order with their cycle."""

    def __init__(self):
        self.values: dict[int, int] = {}
        self.writes: list[tuple[int, int, int]] = []
        self.cycle = 0

    def serve(self, bus):
        async def bench(ctx):
            while True:
                _, _, address, read, write, value = await ctx.tick().sample(
                    bus.address, bus.read, bus.write, bus.write_data
                )
                self.cycle += 1
                assert not (read or write) or address % 4 == 0
                assert not (read and write)
                ctx.set(bus.read_data, self.values.get(address, 0) if read else 0xDEADBEEF)
                if write:
                    self.values[address] = value
                    self.writes.append((self.cycle, address, value))

        return bench
