"""Host memory that cards reach by DMA: bytes, bus addresses, and who owns which part."""

import mmap
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
        self._offset = offset
        self.address = memory.base + offset
        self.array = memory.array[offset : offset + nbytes]

    def release(self) -> None:
        """Gives the memory back. Releasing twice does nothing."""
        if self._memory is not None:
            self._memory._release(self._offset, len(self.array))
            self._memory = None


class HostMemory:
    """Allocates DMA buffers, first fit, in whole pages."""

    def __init__(self, base: int, nbytes: int):
        self.base = base
        self.array = lazy_bytes(nbytes)
        self._free = [(0, nbytes // PAGE_BYTES * PAGE_BYTES)]  # (offset, bytes), by offset

    @property
    def free_bytes(self) -> int:
        """Bytes not mapped."""
        return sum(size for _, size in self._free)

    def map(self, nbytes: int) -> DmaBuffer:
        """A zeroed buffer. Raises `ValueError` for a bad size, `MemoryError` if none is left."""
        if nbytes <= 0:
            raise ValueError(f"nbytes={nbytes}: must be positive")
        needed = _pages(nbytes)
        for index, (offset, size) in enumerate(self._free):
            if size >= needed:
                rest = [(offset + needed, size - needed)] if size > needed else []
                self._free[index : index + 1] = rest
                buffer = DmaBuffer(self, offset, nbytes)
                buffer.array[:] = 0
                return buffer
        raise MemoryError(
            f"nbytes={nbytes}: no such room in host memory ({self.free_bytes} bytes free); release "
            "buffers or enlarge FabricConfig.host_memory_bytes"
        )

    def _release(self, offset: int, nbytes: int) -> None:
        self._free.append((offset, _pages(nbytes)))
        merged: list[tuple[int, int]] = []
        for start, size in sorted(self._free):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((start, size))
        self._free = merged


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE_BYTES) * PAGE_BYTES
