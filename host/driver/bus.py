"""What the driver knows of the machine it runs on: a PCIe bus, and nothing behind it."""

from typing import Protocol

import numpy as np


class DmaBuffer(Protocol):
    """Host memory that cards can reach."""

    address: int
    """Bus address of the first byte, 4 KiB aligned."""
    array: np.ndarray
    """The same bytes, uint8[nbytes]."""

    def release(self) -> None:
        """Gives the memory back; the array must not be used afterwards."""


class Bus(Protocol):
    """A PCIe bus as the host processor sees it. Simulated platforms and boards both offer it."""

    @property
    def errors(self) -> int:
        """Errors that the root port has noticed so far: bad requests of cards, links lost."""
        ...

    def read(self, address: int, nbytes: int) -> bytes:
        """Reads device memory. Raises `TimeoutError` if the device does not answer."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Writes device memory, posted: returns before the device has seen it."""
        ...

    def map(self, nbytes: int) -> DmaBuffer:
        """Host memory that cards can read and write."""
        ...

    def wait(self, timeout_cycles: int, message: int = 0) -> bool:
        """Sleeps until a message-signalled interrupt arrives; False if none came in time.

        `message` is the address of those that are waited for; others may wake the caller, too.
        """
        ...
