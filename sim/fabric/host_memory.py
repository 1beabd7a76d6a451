"""Host memory that cards reach by DMA: bytes, bus addresses, and who owns which part."""

import mmap
import operator
import sys

import numpy as np

PAGE_BYTES = 4096
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""Lets cards have more DRAM than the machine; Python names the flag since 3.13."""


def lazy_bytes(nbytes: int) -> np.ndarray:
    """uint8[nbytes] of zeros that take no memory until they are touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return np.frombuffer(mmap.mmap(-1, nbytes, flags=flags), np.uint8)


class DmaBuffer:
    """Mapped host memory: `address` on the bus (4 KiB aligned), `array` the same bytes, uint8."""

    def __init__(self, memory: "HostMemory", offset: int, nbytes: int):
        self._memory = memory
        self.offset = offset
        self.address = memory.base + offset
        self.array = memory.array[offset : offset + nbytes]

    @property
    def end(self) -> int:
        """The offset of the page behind it."""
        return self.offset + _pages(len(self.array))

    def release(self) -> None:
        """Gives the memory back. Releasing twice does nothing."""
        self._memory.forget(self)


class HostMemory:
    """Allocates DMA buffers, first fit, in whole pages.

    What is mapped is replaced in one step, so that an exception anywhere leaves it whole.
    """

    def __init__(self, base: int, nbytes: int):
        self.base = base
        self.array = lazy_bytes(nbytes)
        self._mapped: tuple[DmaBuffer, ...] = ()  # by offset

    @property
    def free_bytes(self) -> int:
        """Bytes not mapped."""
        taken = sum(buffer.end - buffer.offset for buffer in self._mapped)
        return len(self.array) // PAGE_BYTES * PAGE_BYTES - taken

    def map(self, nbytes: int) -> DmaBuffer:
        """A zeroed buffer. Raises `ValueError` for a bad size, `MemoryError` if none is left."""
        try:
            nbytes = operator.index(nbytes)
        except TypeError:
            raise ValueError(f"nbytes={nbytes!r}: must be a whole number") from None
        if nbytes <= 0:
            raise ValueError(f"nbytes={nbytes}: must be positive")
        needed, start = _pages(nbytes), 0
        ends = [*(buffer.offset for buffer in self._mapped), len(self.array)]
        for place, end in enumerate(ends):
            if end - start >= needed:
                buffer = DmaBuffer(self, start, nbytes)
                buffer.array[:] = 0
                self._mapped = (*self._mapped[:place], buffer, *self._mapped[place:])
                return buffer
            if place < len(self._mapped):
                start = self._mapped[place].end
        raise MemoryError(
            f"nbytes={nbytes}: no such room in host memory ({self.free_bytes} bytes free); release "
            "buffers or enlarge FabricConfig.host_memory_bytes"
        )

    def forget(self, buffer: DmaBuffer) -> None:
        """Gives a buffer's memory back, unless that was done before."""
        self._mapped = tuple(each for each in self._mapped if each is not buffer)


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE_BYTES) * PAGE_BYTES
