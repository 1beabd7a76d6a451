"""Host memory and buses of accelerators of plain numpy."""

from typing import TYPE_CHECKING

import numpy as np

from halfdome.host.driver.errors import CardError

if TYPE_CHECKING:
    from halfdome.host.driver.numpy_accelerator import NumpyAccelerator

PAGE = 4096
SPACING = 1 << 40
"""Bus addresses of one accelerator from those of the next; its own addresses are below all."""
_HOST = 1 << 60
"""Bus address of host memory."""


class NumpyBuffer:
    """Host memory with an address."""

    def __init__(self, bus: "NumpyBus", address: int, nbytes: int):
        self.address = address
        self.array = np.zeros(nbytes, np.uint8)
        self._bus = bus

    def release(self) -> None:
        """Gives it back; twice does nothing."""
        self._bus.buffers.pop(self.address, None)


class NumpyBus:
    """Host memory, and the accelerators that reach it and each other.

    Attributes
    ----------
    buffers : those that are mapped, by address
    accelerators : list of NumpyAccelerator
    """

    errors = 0

    def __init__(self) -> None:
        self.buffers: dict[int, NumpyBuffer] = {}
        self.accelerators: list[NumpyAccelerator] = []
        self._next = _HOST

    def map(self, nbytes: int) -> NumpyBuffer:
        """Zeroed host memory."""
        buffer = NumpyBuffer(self, self._next, nbytes)
        self.buffers[self._next] = buffer
        self._next += -(-nbytes // PAGE) * PAGE
        return buffer

    def read(self, address: int, nbytes: int) -> bytes:
        """What is at a bus address."""
        return self.at(address, nbytes).tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Sets what is at a bus address."""
        self.at(address, len(data))[:] = np.frombuffer(data, np.uint8)

    def wait(self, timeout_cycles: int, message: int = 0) -> bool:
        """Lets the accelerators work; False if none could."""
        return self.run()

    def at(self, address: int, nbytes: int) -> np.ndarray:
        """The bytes at a bus address. Raises `CardError` for an address that nobody has."""
        if address < _HOST:
            index, inside = divmod(address, SPACING)
            return self.accelerators[index - 1].memory[inside : inside + nbytes]
        for start, buffer in self.buffers.items():
            if start <= address and address + nbytes <= start + len(buffer.array):
                return buffer.array[address - start : address - start + nbytes]
        raise CardError(f"nobody has {nbytes} bytes at bus address {address:#x}")

    def run(self) -> bool:
        """Lets every accelerator do what it can, until none can; False if there was nothing."""
        worked = False
        while any([accelerator.step() for accelerator in self.accelerators]):
            worked = True
        return worked
