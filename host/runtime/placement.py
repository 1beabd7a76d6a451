"""Which card holds which embedding table."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TableLoad:
    """What placing a table costs: memory, and bytes gathered for one sample."""

    rows: int
    row_bytes: int
    mean_bag_length: float

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self.rows * self.row_bytes

    @property
    def cost(self) -> float:
        """Bytes gathered per sample: mean bag length x row bytes."""
        return self.mean_bag_length * self.row_bytes


def place(tables: Sequence[TableLoad], cards: int, capacity_bytes: int) -> list[int]:
    """The card of each table: costliest first, each to the card with the least cost that has room.

    The greedy rule of Glow's table placement for small tables (lib/Partitioner, 2021); tables of
    equal cost keep their order. Raises `MemoryError` naming a table that fits nowhere.
    """
    cost = [0.0] * cards
    used = [0] * cards
    placement = [0] * len(tables)
    for index in sorted(range(len(tables)), key=lambda i: -tables[i].cost):
        table = tables[index]
        fitting = [card for card in range(cards) if used[card] + table.nbytes <= capacity_bytes]
        if not fitting:
            raise MemoryError(
                f"table {index} of {table.nbytes} bytes fits on none of {cards} cards of "
                f"{capacity_bytes} bytes"
            )
        card = min(fitting, key=lambda card: cost[card])
        placement[index] = card
        cost[card] += table.cost
        used[card] += table.nbytes
    return placement
