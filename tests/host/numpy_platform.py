"""Accelerators of the other kind, side by side as `GoldenPlatform` has cards."""

from halfdome.host.compiler.numpy import NumpyTarget
from halfdome.host.driver.numpy_accelerator import NumpyAccelerator
from halfdome.host.driver.numpy_bus import NumpyBus
from halfdome.host.driver.session import Session

MEMORY_BYTES = 1 << 20


class NumpyPlatform:
    """As much of a runtime as deployments need."""

    def __init__(self, cards):
        self.design = NumpyTarget(MEMORY_BYTES)
        self.bus = NumpyBus()
        self.session = Session(self.bus)
        self.accelerators = [
            NumpyAccelerator(index, self.bus, MEMORY_BYTES, cards) for index in range(cards)
        ]
        self.session.accelerators = list(self.accelerators)

    def silence(self, index, silent=True):
        """An accelerator answers no more, or again."""
        self.accelerators[index].answers = not silent

    def owned(self):
        """What is taken of host memory and theirs."""
        memories = [m for each in self.accelerators for m in each.memories.values()]
        return len(self.bus.buffers), [memory.free_bytes for memory in memories]
