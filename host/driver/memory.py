"""Card memory from the host's side: who owns which bytes."""

from dataclasses import dataclass


def of_core(name: str, core: int) -> str:
    """What a memory is called that every core of a card has for itself."""
    return f"{name} {core}" if core else name


def kind(name: str) -> str:
    """What kind of memory it is, whichever core has it."""
    return name.partition(" ")[0]


class CardFull(MemoryError):
    """A memory of a card has no such room left, though the host's may have."""


@dataclass(frozen=True, eq=False)
class Block:
    """Bytes of card memory at card address `address`. Two blocks are the same if they are one."""

    address: int
    nbytes: int


class Allocator:
    """First-fit allocation of one memory of a card, in multiples of `alignment` bytes.

    All that it knows is replaced in one step, so that an exception anywhere leaves it whole.
    """

    def __init__(self, name: str, base: int, nbytes: int, alignment: int):
        self.name = name
        self.nbytes = nbytes
        self._base = base
        self._alignment = alignment
        self._owned: tuple[Block, ...] = ()  # by address

    @property
    def free_bytes(self) -> int:
        """Bytes that nobody owns, perhaps in several pieces."""
        return self.nbytes - sum(block.nbytes for block in self._owned)

    @property
    def owned(self) -> tuple[Block, ...]:
        """Every block that was allocated and not released, by address."""
        return self._owned

    def owns(self, block: Block) -> bool:
        """Whether it has given a block out that was not released."""
        return any(owned is block for owned in self._owned)

    def allocate(self, nbytes: int) -> Block:
        """Raises `CardFull` naming the memory, what was asked for and what is left."""
        size = max(1, -(-nbytes // self._alignment)) * self._alignment
        start = self._base
        end = self._base + self.nbytes
        for position, next_start in enumerate([*(block.address for block in self._owned), end]):
            if next_start - start >= size:
                block = Block(start, size)
                self._owned = (*self._owned[:position], block, *self._owned[position:])
                return block
            if position < len(self._owned):
                start = next_start + self._owned[position].nbytes
        raise CardFull(
            f"{self.name}: no {size} bytes in one piece, "
            f"{self.free_bytes} of {self.nbytes} are free"
        )

    def release(self, block: Block) -> None:
        """Gives a block back. Raises `ValueError` for one that it has not given out."""
        if not self.owns(block):
            raise ValueError(
                f"{self.name}: the block of {block.nbytes} bytes at {block.address:#x} is not "
                "allocated: it was released before, or is of another memory"
            )
        self._owned = tuple(owned for owned in self._owned if owned is not block)

    def restore(self, owned: tuple[Block, ...]) -> None:
        """Gives back whatever was allocated since these blocks, and only these, were `owned`."""
        kept = set(map(id, owned))
        self._owned = tuple(block for block in self._owned if id(block) in kept)
