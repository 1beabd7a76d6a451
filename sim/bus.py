"""The PCIe bus as the host sees it."""

from halfdome.sim.fabric.host_memory import DmaBuffer, HostMemory
from halfdome.sim.kernel.world import INTERRUPT, READ_DONE, World

READ_TIMEOUT_CYCLES = 100_000
"""Cycles after which a read without completion has failed; PCIe allows 50 us to 50 ms."""
SLICE_CYCLES = 100_000
"""Longest run between two looks at keyboard interrupts."""


class Bus:
    """The host's PCIe bus. Time passes in `read` and `wait` only."""

    def __init__(self, world: World, memory: HostMemory):
        self._world = world
        self._memory = memory

    @property
    def errors(self) -> int:
        """What the root port has noticed: requests to nowhere or with bad data, links lost."""
        return self._world.host_errors

    def read(self, address: int, nbytes: int) -> bytes:
        """Reads device memory; returns when the completions have arrived.

        All-ones if no device answers at the address, as on real machines. Raises `TimeoutError`
        naming the address and the state of every card if a device does not answer in time.
        """
        if nbytes <= 0:
            raise ValueError(f"nbytes={nbytes}: must be positive")
        self._world.start_read(address, nbytes)
        deadline = self._world.cycle + READ_TIMEOUT_CYCLES
        if self._world.run(deadline, READ_DONE) != READ_DONE:
            self._world.abandon_reads()
            raise TimeoutError(
                f"read of {nbytes} bytes at {address:#x}: no completion within "
                f"{READ_TIMEOUT_CYCLES} cycles\n{self._world.states()}"
            )
        return self._world.read_data(nbytes)

    def write(self, address: int, data: bytes) -> None:
        """Writes device memory, posted: returns at once."""
        self._world.write(address, bytes(data))

    def map(self, nbytes: int) -> DmaBuffer:
        """Zeroed host memory that cards can reach. Raises `MemoryError` if there is not enough."""
        return self._memory.map(nbytes)

    def wait(self, timeout_cycles: int, message: int = 0) -> bool:
        """Sleeps until an interrupt arrives that no earlier `wait` has reported; False if none.

        Of messages to the address `message` only, if that is not 0.
        """
        deadline = self._world.cycle + timeout_cycles
        while self._world.cycle < deadline:
            target = min(deadline, self._world.cycle + SLICE_CYCLES)
            if self._world.run(target, INTERRUPT, message) == INTERRUPT:
                return True
        return False
