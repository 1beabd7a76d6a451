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

    def deal(
        self, kept: Mapping[int, int], small_bytes: int, near_bytes: int, *, copies: bool = True
    ) -> None:
        """Gives every table to a card, those of `kept` to the card that it names; or with `copies`
        to several: see `place`.

        Raises `MemoryError` naming a table that fits nowhere.
        """
        everything = range(self._samples)
        fair = sum(load.cycles for load in self._loads) / len(self._shares)
        sizes = [load.nbytes(range(load.dim)) for load in self._loads]
        fair_bytes = max(sum(sizes) / len(self._shares), self._capacity / 2)
        hot = {table for table, load in enumerate(self._loads) if load.cycles > fair > 0}
        hot_bytes = sum(sizes[table] for table in hot)
        sets = len(self._shares) // max(1, ceil(hot_bytes / (near_bytes or self._capacity)))
        for table in sorted(range(len(self._loads)), key=lambda t: -self._loads[t].cycles):
            load = self._loads[table]
            whole = range(load.dim)
            wanted = 1
            if sizes[table] <= small_bytes:
                wanted = len(self._shares)
            elif table in hot:
                wanted = max(sets, ceil(load.cycles / fair))
            if copies and wanted > 1 and self._copy(table, wanted):
                continue
            for columns in _parts(whole, ceil(sizes[table] / fair_bytes), load.column_step):
                card = kept.get(table)
                if card is None or not self._fits(card, table, columns):
                    card = self._least(table, columns)
                self._give(Task(table, card, everything, columns))

    def _copy(self, table: int, wanted: int) -> bool:
        """Gives a table to so many cards, each for a part of the samples: if it has room, a card
        whose own they are. False if not so many have room."""
        whole = range(self._loads[table].dim)
        free = [c for c in range(len(self._shares)) if self._fits(c, table, whole)]
        if len(free) < wanted:
            return False
        for part in range(wanted):
            first, stop = (len(self._shares) * p // wanted for p in (part, part + 1))
            samples = range(self._shares[first].start, self._shares[stop - 1].stop)
            card = min(free, key=lambda c: (not first <= c < stop, self._cycles[c]))
            free.remove(card)
            if len(samples):
                self._give(Task(table, card, samples, whole))
        return True

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
            task = min(worth, key=lambda task: movable[task] * len(task.columns))  # least is sent
            moved = movable[task]
            start, cut, stop = task.samples.start, task.samples.stop - moved, task.samples.stop
            self._take(task)
            for card, samples in ((busiest, range(start, cut)), (idlest, range(cut, stop))):
                if len(samples):
                    self._give(Task(task.table, card, samples, task.columns))

    @property
    def cards(self) -> int:
        """How many cards there are."""
        return len(self._shares)

    @property
    def imbalance(self) -> float:
        """The busiest card's cycles over the mean."""
        mean = sum(self._cycles) / len(self._cycles)
        return max(self._cycles) / mean if mean else 1.0


EVEN = 0.02
"""What half the difference of two cards may be of the mean before samples move."""
LEAST_MOVED = 1 / 64
"""Least part of the samples that moves: a piece of its own is pooled and sent by itself."""


def place(
    loads: Sequence[Load], shares: Sequence[range], capacity_bytes: int,
    small_bytes: int, near_bytes: int, kept: Mapping[int, int] = {},
) -> Placement:  # fmt: skip
    """Deals tables out to cards whose dense nets run `shares` of the samples.

    Greedy by cost, after Glow's placement (lib/Partitioner, 2021). A table of up to `small_bytes`
    is on every card, which pools its own samples: nothing is sent. So are the tables that each are
    more than a card's share of the work, if `near_bytes` of a card's near memory hold them all; if
    it takes several cards to hold them, each is on one of those, and on as many cards at least as
    its work has shares. A table that is more than its share of scarce memory is cut by columns.
    What is left uneven moves by samples.
    """
    placement = Placement(loads, shares, capacity_bytes)
    try:
        placement.deal(kept, small_bytes, near_bytes)
    except MemoryError:  # copies may have taken the room of others
        placement = Placement(loads, shares, capacity_bytes)
        placement.deal(kept, small_bytes, near_bytes, copies=False)
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
