"""Which card holds which embedding table, and where in its DRAM a table's rows lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np

from halfdome.hdl.commands import RowFormat
from halfdome.hdl.config import CardConfig


@dataclass(frozen=True)
class Load:
    """One table of a model.

    Attributes
    ----------
    rows : int
    row_format : RowFormat
    dim : int, elements of a row
    cycles : float, what a card needs to pool it for all samples of a request
    word : int, elements of a pooled row in what a transfer must begin at
    """

    rows: int
    row_format: RowFormat
    dim: int
    cycles: float
    word: int = 1

    @property
    def column_step(self) -> int:
        """A table may be cut at multiples of so many elements: whole bytes, here and there."""
        return max(self.word, 8 // self.row_format.element_bits)

    def nbytes(self, columns: range) -> int:
        """Bytes of some columns of the table, each row with its scale and bias."""
        return self.rows * self.row_format.row_bytes(len(columns))


@dataclass(frozen=True)
class Task:
    """A card pools some columns of a table for some samples of every request."""

    table: int
    card: int
    samples: range
    columns: range


class Placement:
    """Tables dealt out to cards, costliest first, so that none has much more to do than others.

    A table takes part in a request with the cost that `Load` says; a card has room for
    `capacity_bytes`. Sums are in index order, so rows of one table never lie on several cards.
    """

    def __init__(self, loads: Sequence[Load], shares: Sequence[range], capacity_bytes: int):
        self._loads = loads
        self._shares = shares
        self._capacity = capacity_bytes
        self._samples = shares[-1].stop
        self._cycles = [0.0] * len(shares)
        self._used: list[dict[tuple[int, range], int]] = [{} for _ in shares]
        self.tasks: list[Task] = []

    def _cost(self, task: Task) -> float:
        load = self._loads[task.table]
        part = len(task.samples) / self._samples * len(task.columns) / load.dim
        return load.cycles * part

    def _fits(self, card: int, table: int, columns: range) -> bool:
        held = self._used[card]
        more = 0 if (table, columns) in held else self._loads[table].nbytes(columns)
        return sum(held.values()) + more <= self._capacity

    def _give(self, task: Task) -> None:
        self.tasks.append(task)
        self._cycles[task.card] += self._cost(task)
        nbytes = self._loads[task.table].nbytes(task.columns)
        self._used[task.card][task.table, task.columns] = nbytes

    def _take(self, task: Task) -> None:
        self.tasks.remove(task)
        self._cycles[task.card] -= self._cost(task)
        left = [each for each in self.tasks if each.card == task.card]
        if not any((each.table, each.columns) == (task.table, task.columns) for each in left):
            del self._used[task.card][task.table, task.columns]

    def deal(self, kept: Mapping[int, int], small_bytes: int, *, copies: bool = True) -> None:
        """Gives every table to a card, those of `kept` to the card that it names; or with `copies`
        to all cards what is small, or more than a card's share of the work: each pools its own
        samples.

        Raises `MemoryError` naming a table that fits nowhere.
        """
        everything = range(self._samples)
        cards = range(len(self._shares))
        fair = sum(load.cycles for load in self._loads) / len(cards)
        sizes = [load.nbytes(range(load.dim)) for load in self._loads]
        fair_bytes = max(sum(sizes) / len(cards), self._capacity / 2)
        for table in sorted(range(len(self._loads)), key=lambda t: -self._loads[t].cycles):
            load = self._loads[table]
            whole = range(load.dim)
            wanted_by_all = load.cycles > fair > 0 or sizes[table] <= small_bytes
            fits_all = all(self._fits(card, table, whole) for card in cards)
            if copies and wanted_by_all and fits_all:
                for card, share in enumerate(self._shares):
                    if len(share):
                        self._give(Task(table, card, share, whole))
                continue
            for columns in _parts(whole, ceil(sizes[table] / fair_bytes), load.column_step):
                card = kept.get(table)
                if card is None or not self._fits(card, table, columns):
                    card = self._least(table, columns)
                self._give(Task(table, card, everything, columns))

    def _least(self, table: int, columns: range) -> int:
        """The card with the least to do that has room."""
        fitting = [c for c in range(len(self._shares)) if self._fits(c, table, columns)]
        if not fitting:
            raise MemoryError(
                f"table {table}: {self._loads[table].nbytes(columns)} bytes fit on none of "
                f"{len(self._shares)} cards of {self._capacity} bytes"
            )
        return min(fitting, key=lambda card: self._cycles[card])

    def even_out(self) -> None:
        """Lets cards that have more to do than others give some samples of a table away."""
        for _ in range(4 * len(self._shares)):
            order = sorted(range(len(self._shares)), key=lambda card: self._cycles[card])
            idlest, busiest = order[0], order[-1]
            gap = (self._cycles[busiest] - self._cycles[idlest]) / 2
            if gap <= EVEN * sum(self._cycles) / len(self._cycles):
                return
            movable = {
                task: round(len(task.samples) * min(1.0, gap / self._cost(task)))
                for task in self.tasks
                if task.card == busiest and self._fits(idlest, task.table, task.columns)
            }
            worth = [t for t, moved in movable.items() if moved >= LEAST_MOVED * self._samples]
            if not worth:
                return
            task = max(worth, key=lambda task: movable[task])
            moved = movable[task]
            start, cut, stop = task.samples.start, task.samples.stop - moved, task.samples.stop
            self._take(task)
            for card, samples in ((busiest, range(start, cut)), (idlest, range(cut, stop))):
                if len(samples):
                    self._give(Task(task.table, card, samples, task.columns))

    @property
    def imbalance(self) -> float:
        """The busiest card's cycles over the mean."""
        mean = sum(self._cycles) / len(self._cycles)
        return max(self._cycles) / mean if mean else 1.0


EVEN = 0.05
"""What half the difference of two cards may be of the mean before samples move."""
LEAST_MOVED = 1 / 16
"""Least part of the samples that moves: a piece of its own is pooled and sent by itself."""


def place(
    loads: Sequence[Load], shares: Sequence[range], capacity_bytes: int,
    small_bytes: int, kept: Mapping[int, int] = {},
) -> Placement:  # fmt: skip
    """Deals tables out to cards whose dense nets run `shares` of the samples.

    Greedy by cost, after Glow's placement (lib/Partitioner, 2021). A table of up to `small_bytes`,
    and one that by itself is more than a card's share of the work, is on every card, which pools
    its own samples: nothing is sent. One that is more than its share of scarce memory is cut by
    columns, and what is left uneven moves by samples.
    """
    placement = Placement(loads, shares, capacity_bytes)
    try:
        placement.deal(kept, small_bytes)
    except MemoryError:  # copies may have taken the room of others
        placement = Placement(loads, shares, capacity_bytes)
        placement.deal(kept, small_bytes, copies=False)
    placement.even_out()
    return placement


def _parts(whole: range, count: int, step: int) -> list[range]:
    """A range in so many parts, at multiples of `step`."""
    steps = -(-len(whole) // step)
    count = min(count, steps)
    ends = [min(len(whole), step * (steps * i // count)) for i in range(count + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


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
