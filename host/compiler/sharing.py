"""Which core of a card pools what, and in which order.

A table that lies near a core is pooled by that core. One in far memory is pooled by all cores at
once, each for some of the samples: its rows lie in few rows of DRAM, so that many are found open.
Of several tables at a time, each would close the rows of the others.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from halfdome.host.compiler import costs
from halfdome.host.compiler.placement import EVEN, Task

Cost = Callable[[Task], float]
"""Cycles that a gather unit is expected to take."""

LEAST_CYCLES = 8 * costs.START_CYCLES
"""What a part of a table takes at least that is worth a command of its own."""


@dataclass(frozen=True)
class Dealt:
    """What each core pools that pools anything, in turn.

    Attributes
    ----------
    tasks : of each core
    in_order : bool, whether each core keeps to that order
    in_step : of each core the turns that all take together, as many for each; or of none
    """

    tasks: Sequence[Sequence[Task]]
    in_order: bool = False
    in_step: Sequence[Sequence[int]] = ()

    def behind(self, core: int, turn: int) -> list[tuple[int, int]]:
        """Cores and turns that have to be over when a turn of a core begins. In step that is one of
        another core, as all of them wait for each other after a few turns."""
        found = [(core, turn - 1)] if self.in_order and turn else []
        if self.in_step and turn in self.in_step[core][1:]:
            other = (core - 1) % len(self.tasks)
            found.append((other, self.in_step[other][self.in_step[core].index(turn) - 1]))
        return found


def deal(tasks: Sequence[Task], cost: Cost, cores: int, far: Collection[Task]) -> Dealt:
    """All cores pool those of `far` that take long at once, in one order, others by tables.

    The latter come at another time in each core, so that DRAM has no rest meanwhile: two others
    keep it busy, one alone may not, and need not wait for a core that is at a near table.
    """
    shared = [task for task in tasks if task in far and cost(task) >= cores * LEAST_CYCLES]
    alone = by_tables([task for task in tasks if task not in shared], cost, cores)
    if not shared:
        return Dealt([mine for mine in alone if mine])
    together = {task.table for task in shared}
    share = sum(map(cost, tasks)) / cores
    left = [max(share - sum(map(cost, mine)), 0.0) for mine in alone]
    ends = [end / sum(left) for end in accumulate(left, initial=0.0)]
    found = []
    for core, mine in enumerate(alone):
        turns = [((core / cores + turn) / len(mine), task) for turn, task in enumerate(mine)]
        for turn, task in enumerate(shared):
            start, stop = (round(len(task.samples) * end) for end in ends[core : core + 2])
            if stop > start:
                part = replace(task, samples=task.samples[start:stop])
                turns.append(((turn + 0.5) / len(shared), part))
        found.append([task for _, task in sorted(turns, key=lambda each: each[0])])
    in_step = [[turn for turn, task in enumerate(mine) if task.table in together] for mine in found]
    steps = all(len(turns) == len(shared) for turns in in_step) and (cores > 2 or not any(alone))
    return Dealt([mine for mine in found if mine], in_order=True, in_step=in_step if steps else ())


def by_tables(tasks: Sequence[Task], cost: Cost, cores: int) -> list[list[Task]]:
    """What each core pools, one after the other as much as its share: a table that is more than
    what is left of that goes on, with its last samples, on the next core."""
    share = sum(map(cost, tasks)) / cores
    found: list[list[Task]] = [[]]
    left, waiting = share, list(reversed(tasks))
    while waiting:
        task = waiting.pop()
        took, is_last = cost(task), len(found) == cores
        count = len(task.samples)
        if not is_last and took > left + EVEN * share:
            count = round(count * max(left, 0.0) / took)
        first, rest = task.samples[:count], task.samples[count:]
        if first:
            found[-1].append(replace(task, samples=first))
        left -= took
        if rest:
            waiting.append(replace(task, samples=rest))
        if rest or (left <= EVEN * share and not is_last):
            found.append([])
            left = share
    return found + [[] for _ in range(cores - len(found))]
