"""A card of plain Python behind the driver's bus: completes what it is told, as it is told."""

import numpy as np

from halfdome.hdl import registers
from halfdome.hdl.commands import Status
from halfdome.hdl.descriptors import COMPLETION_BYTES, DESCRIPTOR_BYTES


class FakeBuffer:
    def __init__(self, bus, address, array):
        self.address, self.array, self._bus = address, array, bus

    def release(self):
        self._bus.mapped.remove(self)


class FakeBus:
    """A `Bus` with one card at BAR0 = 0.

    `status` maps a descriptor to (status, detail), and `slots` to how many slots its command takes.
    """

    errors = 0

    def __init__(self, config):
        self.config = config
        self.values = {
            registers.offset("ID"): registers.IDENTIFICATION,
            registers.offset("VERSION"): registers.INTERFACE_VERSION,
            registers.offset("CONFIG_HASH_LO"): int(config.hash[8:], 16),
            registers.offset("CONFIG_HASH_HI"): int(config.hash[:8], 16),
        }
        self.mapped = []
        self.doorbells = []
        self.executed = []
        self.status = lambda descriptor: (Status.OK, 0)
        self.slots = lambda descriptor: 1
        self.silent = False
        self._written = 0
        self._head = 0

    def restart(self):
        """As CONTROL does: both rings from their start."""
        self._written = self._head = 0
        self.values[registers.offset("SQ_TAIL")] = 0

    def read(self, address, nbytes):
        return self.values.get(address, 0).to_bytes(nbytes, "little")

    def write(self, address, data):
        self.values[address] = int.from_bytes(data, "little")
        if address == registers.offset("SQ_TAIL"):
            self.doorbells.append(self.values[address])

    def map(self, nbytes):
        self.mapped.append(
            FakeBuffer(self, 0x1000_0000 * (len(self.mapped) + 1), np.zeros(nbytes, np.uint8))
        )
        return self.mapped[-1]

    def _ring(self, name):
        address = self.values[registers.offset(f"{name}_BASE_LO")]
        return next(b.array for b in self.mapped if b.address == address)

    def wait(self, timeout_cycles, message=0):
        """Completes every submitted descriptor, the last submitted first."""
        tail = self.values[registers.offset("SQ_TAIL")]
        size = self.values[registers.offset("SQ_SIZE")]
        if self.silent or self._head == tail:
            return False
        fetched = []
        left = (tail - self._head) % size
        while left:
            start = self._head * DESCRIPTOR_BYTES
            fetched.append(self._ring("SQ")[start : start + DESCRIPTOR_BYTES].tobytes())
            slots = self.slots(fetched[-1])
            assert slots <= left, "the doorbell cuts a command"
            left -= slots
            self._head = (self._head + slots) % size
        for descriptor in reversed(fetched):
            self.executed.append(descriptor)
            self.complete(descriptor)
        return True

    def complete(self, descriptor):
        """Tells the host that a command is done."""
        status, detail = self.status(descriptor)
        slots = self.values[registers.offset("CQ_SIZE")]
        phase = 1 - self._written // slots % 2
        entry = descriptor[2:4] + bytes([status, phase]) + detail.to_bytes(4, "little")
        start = self._written % slots * COMPLETION_BYTES
        self._ring("CQ")[start : start + COMPLETION_BYTES] = memoryview(entry + bytes(8))
        self._written += 1
