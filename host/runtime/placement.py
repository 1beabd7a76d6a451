"""Which card holds which embedding table, and where in its DRAM a table's rows lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.config import CardConfig


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


def place(
    tables: Sequence[TableLoad], cards: int, capacity_bytes: int, kept: Mapping[int, int] = {}
) -> list[int]:
    """The card of each table: costliest first, each to the card with the least cost that has room.

    `kept` tells the card of tables that stay where they are. The greedy rule of Glow's table
    placement for small tables (lib/Partitioner, 2021); tables of equal cost keep their order.
    Raises `MemoryError` naming a table that fits nowhere.
    """
    cost = [0.0] * cards
    used = [0] * cards
    placement = [kept.get(table, 0) for table in range(len(tables))]
    for index, card in kept.items():
        cost[card] += tables[index].cost
        used[card] += tables[index].nbytes
    for index in sorted(range(len(tables)), key=lambda i: -tables[i].cost):
        if index in kept:
            continue
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


def popular_first(
    counts: np.ndarray, row_stride: int, config: CardConfig, start: int = 0
) -> np.ndarray:
    """An order of a table's rows in which those looked up often share few DRAM rows, in all banks.

    Rows met more than once come first, the most popular dealt round the channels and banks that the
    first places of the table lie in; the others follow in the order they had. Popular rows then
    fill whole DRAM rows, which stay open, and no bank has two that fight for it.

    Parameters
    ----------
    counts : int[rows], how often each row was looked up in the past
    row_stride : bytes from one row to the next
    start : card address of the table

    Returns
    -------
    int64[rows], the place of each row: `placed[place] = table`, and look up `place[indices]`.
    """
    by_count = np.argsort(-counts, kind="stable")
    popular = by_count[: int((counts > 1).sum())]
    address = start + np.arange(len(popular), dtype=np.int64) * row_stride
    bank = np.zeros_like(address)
    for field in ("channel", "bank"):
        low, width = config.dram_fields[field]
        bank = bank << width | address >> low & ((1 << width) - 1)
    # The first place of every bank, then the second of every bank, and so on.
    order = np.argsort(bank, kind="stable")
    first_of_bank = np.searchsorted(bank[order], bank[order])
    turn = np.empty_like(bank)
    turn[order] = np.arange(len(bank)) - first_of_bank
    dealt = np.lexsort((bank, turn))

    place = np.empty(len(counts), np.int64)
    place[popular] = dealt
    rest = np.setdiff1d(np.arange(len(counts)), popular, assume_unique=True)
    place[rest] = np.arange(len(popular), len(counts))
    return place
