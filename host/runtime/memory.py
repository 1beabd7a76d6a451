"""Card memory from the host's side: who owns which bytes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Bytes of card memory at card address `address`."""

    address: int
    nbytes: int


class Allocator:
    """First-fit allocation of one memory of a card, in multiples of `alignment` bytes."""

    def __init__(self, name: str, base: int, nbytes: int, alignment: int):
        self.name = name
        self.nbytes = nbytes
        self._alignment = alignment
        self._free = [Block(base, nbytes)]

    @property
    def free_bytes(self) -> int:
        """Bytes that nobody owns, perhaps in several pieces."""
        return sum(block.nbytes for block in self._free)

    def allocate(self, nbytes: int) -> Block:
        """Raises `MemoryError` naming the memory, what was asked for and what is left."""
        size = max(1, -(-nbytes // self._alignment)) * self._alignment
        for position, block in enumerate(self._free):
            if block.nbytes >= size:
                rest = Block(block.address + size, block.nbytes - size)
                self._free[position : position + 1] = [rest] if rest.nbytes else []
                return Block(block.address, size)
        raise MemoryError(
            f"{self.name}: no {size} bytes in one piece, "
            f"{self.free_bytes} of {self.nbytes} are free"
        )

    def release(self, block: Block) -> None:
        """Gives a block back and joins it with its free neighbours."""
        merged: list[Block] = []
        for piece in sorted([*self._free, block], key=lambda piece: piece.address):
            if merged and merged[-1].address + merged[-1].nbytes == piece.address:
                merged[-1] = Block(merged[-1].address, merged[-1].nbytes + piece.nbytes)
            else:
                merged.append(piece)
        self._free = merged
