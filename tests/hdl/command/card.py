"""A command processor among stand-ins: host memory, engines, and a host that polls its rings."""

import random
from collections import deque

from halfdome.hdl import registers
from halfdome.hdl.command.processor import CommandProcessor
from halfdome.hdl.commands import Engine, Status
from halfdome.hdl.descriptors import COMPLETION, COMPLETION_BYTES, HEADER, unpack
from tests.bench import monitor, simulate
from tests.hdl.command.descriptors import slots
from tests.hdl.dma.pcie import HOST_BASE, HostMemory

SQ, CQ, MESSAGE = 0x1000, 0x2000, 0x800
"""Offsets in host memory: core 0's ring, completions, messages."""
OTHER_SQ, SQ_BYTES = 0x3000, 0x1000
"""Offset of core 1's ring, and from each to the next."""


def ring_of(raw: bytes, config) -> int:
    """In whose ring a command is put."""
    return raw[4] % config.cores


class Card:
    """The unit under test with its surroundings; `run` simulates host programs on it."""

    def __init__(
        self, config, *, seed=0, stall=0.0, sq_size=8, cq_size=8, longest=20, lenient=False
    ):
        self.config = config
        self.dut = CommandProcessor(config)
        self.memory = HostMemory(config, 1 << 15, seed=seed, stall=stall, lenient=lenient)
        self.memory.data[:] = 0
        self.rng = random.Random(seed)
        self.sq_size, self.cq_size = sq_size, cq_size
        self.longest = longest
        self.sq_offset = SQ
        self.tails = [0] * config.cores
        self.consumed = 0
        self.completions: list[dict[str, int]] = []
        self.commands: dict[tuple[int, int], list[bytes]] = {}
        self.outcome = lambda raw: (Status.OK, 0)

    # The host.

    async def write(self, ctx, name, value, core=0):
        bus = self.dut.registers
        ctx.set(bus.address, registers.offset(name, core) if isinstance(name, str) else name)
        ctx.set(bus.write_data, value)
        ctx.set(bus.write, 1)
        await ctx.tick()
        ctx.set(bus.write, 0)

    async def read(self, ctx, name, core=0):
        bus = self.dut.registers
        ctx.set(bus.address, registers.offset(name, core) if isinstance(name, str) else name)
        ctx.set(bus.read, 1)
        await ctx.tick()
        ctx.set(bus.read, 0)
        return ctx.get(bus.read_data)

    async def start(self, ctx):
        await ctx.tick().repeat(self.config.counters)  # the reset pin zeroes them one by one
        places = [("CQ_BASE", 0, CQ), ("MSIX_ADDRESS", 0, MESSAGE)]
        for core in range(self.config.cores):
            places.append(("SQ_BASE", core, self.ring_offset(core)))
            await self.write(ctx, "SQ_SIZE", self.sq_size, core)
        for name, core, place in places:
            await self.write(ctx, f"{name}_LO", (HOST_BASE + place) & 0xFFFF_FFFF, core)
            await self.write(ctx, f"{name}_HI", (HOST_BASE + place) >> 32, core)
        await self.write(ctx, "CQ_SIZE", self.cq_size)
        await self.write(ctx, "MSIX_DATA", 0xCAFE)
        await self.write(ctx, "MSIX_CONTROL", 0)
        await self.restart(ctx)

    async def restart(self, ctx):
        await self.write(ctx, "CONTROL", 0)
        await self.write(ctx, "CONTROL", 1)
        self.memory.data[CQ : CQ + self.cq_size * COMPLETION_BYTES] = 0
        self.tails = [0] * self.config.cores
        self.consumed = 0

    def ring_offset(self, core):
        return OTHER_SQ + SQ_BYTES * (core - 1) if core else self.sq_offset

    async def room(self, ctx, core=0):
        head = await self.read(ctx, "SQ_HEAD", core)
        return (head - self.tails[core] - 1) % self.sq_size

    async def submit(self, ctx, descriptors: deque, core=0):
        """Puts as many commands in a core's ring as fit and rings its doorbell once."""
        before, room = self.tails[core], await self.room(ctx, core)
        while descriptors and len(descriptors[0]) // 64 <= room:
            for slot in slots([descriptors.popleft()]):
                start = self.ring_offset(core) + 64 * (self.tails[core] % self.sq_size)
                self.memory.data[start : start + 64] = list(slot)
                self.tails[core] += 1
                room -= 1
        if self.tails[core] != before:
            await self.write(ctx, "SQ_TAIL", self.tails[core] % self.sq_size, core)

    def poll(self):
        """Takes the next completion from the ring, if its phase says that it is new."""
        start = CQ + COMPLETION_BYTES * (self.consumed % self.cq_size)
        entry = unpack(COMPLETION, self.memory.data[start : start + COMPLETION_BYTES].tobytes())
        expected = 1 - (self.consumed // self.cq_size) % 2
        if entry["phase"] != expected:
            return None
        self.consumed += 1
        self.completions.append(entry)
        return entry

    async def consume(self, ctx, most=1 << 30):
        """Takes up to `most` completions and rings the doorbell; a cycle or more passes."""
        taken = 0
        while taken < most and self.poll():
            taken += 1
        if taken:
            await self.write(ctx, "CQ_HEAD", self.consumed % self.cq_size)
        else:
            await ctx.tick()
        return taken

    async def execute(self, ctx, descriptors, *, laziness=0.0):
        """Submits everything and consumes a completion for each."""
        waiting = [deque() for _ in range(self.config.cores)]
        for raw in descriptors:
            waiting[ring_of(raw, self.config)].append(raw)
        expected = len(self.completions) + len(descriptors)
        while len(self.completions) < expected:
            for core, mine in enumerate(waiting):
                if self.rng.random() >= laziness:
                    await self.submit(ctx, mine, core)
            await ctx.tick()
            if self.rng.random() >= laziness:
                await self.consume(ctx, self.rng.randint(1, self.cq_size))
        while not await self.read(ctx, "STATUS") & 1:
            pass

    async def execute_others(self, ctx, descriptors):
        """As `execute`, for commands of one core, whatever the other cores are about."""
        waiting, core = deque(descriptors), ring_of(descriptors[0], self.config)
        expected = {unpack(HEADER, raw)["id"] for raw in descriptors}
        while not expected <= {completion["id"] for completion in self.completions}:
            await self.submit(ctx, waiting, core)
            await self.consume(ctx)
        while not await self.read(ctx, "CORE_STATUS", core) & 1:
            pass

    # The engines.

    def engines(self):
        """Each takes commands at random, works for a while, reports; any activity at any time."""
        units = {
            (core, int(engine)): self.dut.engines[core][engine]
            for core in range(self.config.cores)
            for engine in Engine
        }
        self.commands = {place: [] for place in units}

        async def bench(ctx):
            left = dict.fromkeys(units)  # cycles of work left; None: no command
            signals = [
                signal
                for unit in units.values()
                for signal in (unit.command.valid, unit.command.ready, unit.result.ready)
            ]
            while True:
                for place, unit in units.items():
                    ctx.set(unit.command.ready, left[place] is None and self.rng.random() < 0.8)
                    ctx.set(unit.result.valid, left[place] == 0)
                    if left[place] == 0:
                        status, detail = self.outcome(self.commands[place][-1])
                        ctx.set(unit.result.p, {"status": status, "detail": detail})
                lucky = self.rng.choice(list(units.values()))
                ctx.set(lucky.activity, self.rng.randrange(4))
                offered = {p: ctx.get(u.command.p) for p, u in units.items() if left[p] is None}
                _, _, *sampled = await ctx.tick().sample(*signals)
                for number, place in enumerate(units):
                    valid, ready, accepted = sampled[3 * number : 3 * number + 3]
                    if valid and ready:
                        self.commands[place].append(int(offered[place]).to_bytes(64, "little"))
                        left[place] = self.rng.randint(0, self.longest)
                    elif left[place] == 0 and accepted:
                        left[place] = None
                    elif left[place]:
                        left[place] -= 1

        return bench

    def run(self, *programs, cycles=12_000):
        dut = self.dut
        background = [
            self.memory.fetch_port(dut.fetch),
            self.memory.posted_port(dut.posted),
            self.engines(),
            monitor(dut.fetch.request, "fetch"),
            monitor(dut.posted.request, "posted"),
            monitor(dut.posted.data, "posted data"),
        ]
        background += [monitor(dut.engines[0][engine].command, "command") for engine in Engine]
        simulate(dut, *programs, background=background, cycles=cycles)

    @property
    def messages(self) -> int:
        """Interrupts sent so far."""
        return sum(request == (HOST_BASE + MESSAGE, 4) for request in self.memory.requests)
