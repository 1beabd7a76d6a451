"""Card memory that one batch after another uses."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from halfdome.host.runtime.card import Card
from halfdome.host.runtime.memory import Block
from halfdome.host.runtime.timeline import Event


class Memory(Protocol):
    """What gives out card memory: a card, or a `Holding`."""

    def place(self, nbytes: int) -> Block:
        """A block of card memory. Raises `MemoryError` if there is none left."""
        ...

    def release(self, block: Block) -> None:
        """Gives a block back."""
        ...


class Holding:
    """Card memory of one owner, who gives it back all at once."""

    def __init__(self, card: Card):
        self._card = card
        self._blocks: list[Block] = []

    def place(self, nbytes: int) -> Block:
        """See `Card.place`."""
        self._blocks.append(self._card.place(nbytes))
        return self._blocks[-1]

    def adopt(self, block: Block) -> None:
        """Owns a block that the card has given to someone else."""
        self._blocks.append(block)

    def release(self, block: Block) -> None:
        """Gives one block back."""
        self._blocks.remove(block)
        self._card.release(block)

    def release_all(self) -> None:
        """Gives everything back; no command may be using it."""
        for block in self._blocks:
            self._card.release(block)
        self._blocks = []


@dataclass(frozen=True)
class Matrix:
    """Rows in card memory, `stride` bytes apart."""

    address: int
    stride: int

    def rows_from(self, row: int) -> "Matrix":
        """The rows from number `row` on."""
        return Matrix(self.address + row * self.stride, self.stride)


class Buffer:
    """Card memory that is reused: its next writer waits for the last reader.

    Attributes
    ----------
    block : Block
    free_after : events that the writer must wait for
    """

    def __init__(self, block: Block):
        self.block = block
        self.free_after: tuple[Event, ...] = ()
        self._taken = False

    def take(self) -> None:
        """Claims it for a writer. Raises `RuntimeError` if its last readers are not known yet."""
        if self._taken:
            raise RuntimeError(f"buffer at {self.block.address:#x}: taken before it was given back")
        self._taken = True

    def give_back(self, *readers: Event) -> None:
        """All that read it have been issued."""
        self.free_after = readers
        self._taken = False


class Ring:
    """`slots` buffers of card memory used in turn, so that one is written while others are read."""

    def __init__(self, memory: Memory, nbytes: int, slots: int):
        self.nbytes = nbytes
        self._memory = memory
        self._buffers = deque(Buffer(memory.place(nbytes)) for _ in range(slots))

    def take(self) -> Buffer:
        """The buffer that was used longest ago; to be given back."""
        self._buffers.rotate(-1)
        self._buffers[0].take()
        return self._buffers[0]

    def release(self) -> None:
        """Gives the memory back; no command may be using it."""
        for buffer in self._buffers:
            self._memory.release(buffer.block)
