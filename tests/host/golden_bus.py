"""Cards of plain Python behind a bus: what the golden model makes of what the driver submits.

Every card fetches the ring of each core in order, keeps as many commands in front of each engine as
its queues hold, and runs the head of any queue whose counter has been reached. Which card does what
next is drawn at random: whatever is not ordered by an event happens in any order.
"""

import numpy as np

from halfdome.hdl import registers
from halfdome.hdl.commands import Engine, Opcode, Status
from halfdome.hdl.descriptors import (
    COMPLETION_BYTES,
    DESCRIPTOR_BYTES,
    HEADER,
    NO_COUNTER,
    unpack,
    waits,
)
from halfdome.sim.golden.card import GoldenCard

BAR = 1 << 40
"""Bus addresses of one card's BAR0 from those of the next; BAR2 is half way."""
HOST = 1 << 50


class Buffer:
    def __init__(self, bus, address, nbytes):
        self.address, self.array = address, np.zeros(nbytes, np.uint8)
        self._bus = bus

    def release(self):
        self._bus.mapped.pop(self.address, None)


class Card:
    """One card: registers, counters, queues, memory."""

    def __init__(self, bus, config, index):
        self.config, self.index, self._bus = config, index, bus
        self.golden = GoldenCard(config, bus)
        self.cycle = 0
        self.executed = []
        self.silent = False
        self._cores = range(config.cores)
        self.power_on()

    def power_on(self):
        high, low = int(self.config.hash[:8], 16), int(self.config.hash[8:], 16)
        self.registers = {
            registers.offset("ID"): registers.IDENTIFICATION,
            registers.offset("VERSION"): registers.INTERFACE_VERSION,
            registers.offset("CONFIG_HASH_LO"): low,
            registers.offset("CONFIG_HASH_HI"): high,
        }
        self.counters = [0] * self.config.counters
        self.queues = {(core, engine): [] for core in self._cores for engine in Engine}
        self.fetched = [0 for _ in self._cores]
        self.written = 0
        self.stuck = set()  # cores that could not fetch

    def read(self, offset):
        if self.silent:
            raise TimeoutError("a silent card")
        if offset == registers.offset("STATUS"):
            return registers.STATUS_FETCH_FAILED * bool(self.stuck)
        for core in self.stuck:
            if offset == registers.offset("CORE_STATUS", core):
                return registers.STATUS_FETCH_FAILED
        counter = (offset - registers.COUNTER_BASE) // 4
        if 0 <= counter < self.config.counters:
            return self.counters[counter]
        return self.registers.get(offset, 0)

    def write(self, offset, value):
        if self.silent:
            return
        counter = (offset - registers.COUNTER_BASE) // 4
        if 0 <= counter < self.config.counters:
            self.counters[counter] = value
        elif offset == registers.offset("CONTROL") and value & registers.CONTROL_RESET:
            self.power_on()
        elif offset in [registers.offset("CORE_CONTROL", core) for core in self._cores]:
            self._reset((offset - registers.CORE_BASE) // registers.CORE_STRIDE)
        else:
            self.registers[offset] = value

    def _reset(self, core):
        self.stuck.discard(core)
        self.fetched[core] = self.registers[registers.offset("SQ_TAIL", core)] = 0
        for engine in Engine:
            self.queues[core, engine].clear()

    def _register(self, name, core=0):
        return self.registers.get(registers.offset(name, core), 0)

    def actions(self):
        """What the card could do next, functions."""
        found = []
        if self.silent:
            return found
        for core in self._cores:
            if core in self.stuck or self.fetched[core] == self._register("SQ_TAIL", core):
                continue
            raw = self._slot(core, 0)
            if unpack(HEADER, raw)["extension"] == 1:
                raw += self._slot(core, 1)
            known = raw[0] in set(Opcode)
            queue = self.queues[core, Opcode(raw[0]).engine if known else Engine.LOAD]
            if len(queue) < self.config.queue_depth:
                found.append(lambda core=core, queue=queue, raw=raw: self._fetch(core, queue, raw))
        for (core, _), queue in self.queues.items():
            if queue and all(self._reached(*wait) for wait in waits(queue[0])):
                found.append(lambda core=core, queue=queue: self._run(core, queue.pop(0)))
        return found

    def _reached(self, counter, value):
        return (self.counters[counter] - value) % 2**32 < 2**31

    def _slot(self, core, number):
        base = self._register("SQ_BASE_LO", core) | self._register("SQ_BASE_HI", core) << 32
        place = (self.fetched[core] + number) % self._register("SQ_SIZE", core)
        return self._bus.read(base + place * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)

    def _fetch(self, core, queue, raw):
        queue.append(raw)
        slots = len(raw) // DESCRIPTOR_BYTES
        self.fetched[core] = (self.fetched[core] + slots) % self._register("SQ_SIZE", core)

    def _run(self, core, raw):
        self.executed.append(raw)
        status, detail = self.golden.execute(raw, core)
        header = unpack(HEADER, raw)
        if header["signal_counter"] != NO_COUNTER:
            self.counters[header["signal_counter"]] = header["signal_value"]
        self._complete(header["id"], status, detail)

    def _complete(self, identifier, status: Status, detail):
        size = self._register("CQ_SIZE")
        base = self._register("CQ_BASE_LO") | self._register("CQ_BASE_HI") << 32
        phase = 1 - self.written // size % 2
        cycles = self.cycle % 2**32, (self.cycle + 3) % 2**32
        self.cycle += 5
        entry = identifier.to_bytes(2, "little") + bytes([status, phase])
        entry += b"".join(value.to_bytes(4, "little") for value in (detail, *cycles))
        self._bus.write(base + self.written % size * COMPLETION_BYTES, entry)
        self.written += 1


class GoldenBus:
    """A `Bus` with cards of one configuration.

    `waits` counts how often the driver slept, `cycles` how long.
    """

    errors = 0

    def __init__(self, config, cards, seed=0):
        self.mapped = {}
        self._next = HOST
        self._rng = np.random.default_rng(seed)
        self.waits = self.cycles = 0
        self.cards = [Card(self, config, index) for index in range(cards)]

    @staticmethod
    def bars(index):
        return BAR * (1 + index), BAR * (1 + index) + BAR // 2

    def _at(self, address, nbytes):
        """A card and offset in BAR0, or bytes."""
        if address < HOST:
            index, inside = divmod(address, BAR)
            card = self.cards[index - 1]
            if inside < BAR // 2:
                return card, inside
            inside -= BAR // 2
            return card.golden.memory[inside : inside + nbytes], 0
        for start, buffer in self.mapped.items():
            if start <= address and address + nbytes <= start + len(buffer.array):
                return buffer.array[address - start :][:nbytes], 0
        raise AssertionError(f"a card reaches for {nbytes} bytes at {address:#x}: not mapped")

    def read(self, address, nbytes):
        place, offset = self._at(address, nbytes)
        if isinstance(place, Card):
            return place.read(offset).to_bytes(nbytes, "little")
        return place.tobytes()

    def write(self, address, data):
        place, offset = self._at(address, len(data))
        if isinstance(place, Card):
            place.write(offset, int.from_bytes(data, "little"))
        else:
            place[:] = np.frombuffer(bytes(data), np.uint8)

    def map(self, nbytes):
        buffer = Buffer(self, self._next, nbytes)
        self.mapped[self._next] = buffer
        self._next += -(-nbytes // 4096) * 4096
        return buffer

    def wait(self, timeout_cycles, message=0):
        """Lets the cards do some of what they can; False if there is nothing."""
        self.waits += 1
        for done in range(int(self._rng.integers(1, 40))):
            actions = [action for card in self.cards for action in card.actions()]
            if not actions:
                self.cycles += 0 if done else timeout_cycles
                return done > 0
            self.cycles += 1
            actions[int(self._rng.integers(len(actions)))]()
        return True
