"""Which core of a card pools what, and when.

A table that lies near a core is pooled by that core. One in far memory is pooled by all cores at
once, each for some of the samples: its rows lie in few rows of DRAM, so that many are found open.
Of several tables at a time, each would close the rows of the others.

Far memory says how long that takes, so a request is planned by its time: a window for each far
table, one behind the other. Cores pool what is near them at different times, as DRAM has to be
kept busy by the others, and of each far table as much as they have time for in its window.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from halfdome.host.compiler import costs
from halfdome.host.compiler.placement import EVEN, Task

Cost = Callable[[Task], float]
"""Cycles that a task is expected to take."""

LEAST_CYCLES = 8 * costs.START_CYCLES
"""What a part of a table takes at least that is worth a command of its own."""


@dataclass(frozen=True)
class Turn:
    """What a core pools at a time.

    Attributes
    ----------
    core, task
    start : float, when a core that keeps to the plan begins, in cycles of its request
    window : int, number of the far table that all pool then; -1 if it is of this core alone
    """

    core: int
    task: Task
    start: float
    window: int = -1


@dataclass(frozen=True)
class Dealt:
    """What cores pool, in the order of their starts.

    Attributes
    ----------
    turns : of all cores
    in_order : bool, whether each core keeps to that order
    in_step : bool, whether each waits for another where windows end
    """

    turns: Sequence[Turn]
    in_order: bool = False
    in_step: bool = False

    @property
    def paced(self) -> bool:
        """Whether far memory says when cores pool what is near them."""
        return self.in_step and any(turn.window < 0 for turn in self.turns)

    def behind(self, number: int) -> list[int]:
        """Numbers of the turns that have to be over when one begins: the one before of its core,
        and in step the part that another core has of the far table before, as all of them wait for
        each other after a few turns. A core that comes to a table later than others, from a near
        one, waits for none of them: two tables at a time cost less than one core less."""
        if not self.in_order:
            return []
        turn, cores = self.turns[number], 1 + max(each.core for each in self.turns)
        before = [(at, self.turns[at]) for at in reversed(range(number))]
        found = [at for at, each in before if each.core == turn.core][:1]
        if self.in_step and turn.window > 0 and turn.start == self._begin(turn.window):
            others = [
                ((turn.core - each.core) % cores, at)
                for at, each in before
                if each.core != turn.core and each.window == turn.window - 1
            ]
            found += [at for _, at in sorted(others)[:1]]
        return found

    def _begin(self, window: int) -> float:
        """When the first cores begin a window."""
        return min(turn.start for turn in self.turns if turn.window == window)


def deal(
    tasks: Sequence[Task], cost: Cost, far_cost: Cost, cores: int, far: Collection[Task],
    period: float = 0.0,
) -> Dealt:  # fmt: skip
    """All cores pool those of `far` that take long at once, in one order, others by tables.

    Two cores keep DRAM busy while others pool what is near them. One alone does not, so that of two
    cores none waits for the other, and each has the same part of every far table.

    Parameters
    ----------
    cost : of one gather unit
    far_cost : of far memory, for all cores together
    period : cycles from one request to the next that far memory takes, as far as they are known
    """
    shared = [task for task in tasks if task in far and cost(task) >= cores * LEAST_CYCLES]
    alone = by_tables([task for task in tasks if task not in shared], cost, cores)
    if not shared:
        return Dealt(_by_start(_in_turn(alone, cost, [0.0] * cores)))
    in_step = cores > 2 or not any(alone)
    share = sum(map(cost, tasks)) / cores
    by_lanes = share / sum(map(cost, shared))
    windows = [max(far_cost(task), by_lanes * cost(task)) for task in shared]
    # What else a request moves comes first: weights of what is made of the rows pooled before.
    windows[0] += max(period - sum(windows), 0.0)
    ends = list(accumulate(windows, initial=0.0))
    near = [sum(map(cost, mine)) for mine in alone]
    starts = [core * ends[-1] / cores for core in range(cores)]
    found = _in_turn(alone, cost, starts)
    for number, (task, window) in enumerate(zip(shared, pairwise(ends), strict=True)):
        free = [
            _free(window, start, start + cycles, ends[-1])
            for start, cycles in zip(starts, near, strict=True)
        ]
        times = [time for _, time in free] if in_step else [share - cycles for cycles in near]
        parts = _parts(task, times)
        found += [
            Turn(core, part, begin, number)
            for core, (part, (begin, _)) in enumerate(zip(parts, free, strict=True))
            if part.samples
        ]
    return Dealt(_by_start(found), in_order=True, in_step=in_step)


def _by_start(turns: Sequence[Turn]) -> list[Turn]:
    return sorted(turns, key=lambda turn: (turn.start, turn.core))


def _in_turn(tasks: Sequence[Sequence[Task]], cost: Cost, starts: Sequence[float]) -> list[Turn]:
    """What each core pools alone, from its start on."""
    found = []
    for core, (mine, start) in enumerate(zip(tasks, starts, strict=True)):
        for task in mine:
            found.append(Turn(core, task, start))
            start += cost(task)
    return found


def _free(
    window: tuple[float, float], start: float, stop: float, period: float
) -> tuple[float, float]:
    """When a core may begin in a window, and how long it is free there, if it is not from `start`
    to `stop`, in this period and in the one before."""
    first, last = window
    begin, time = first, last - first
    for shift in (-period, 0.0):
        taken, over = max(first, start + shift), min(last, stop + shift)
        if over > taken:
            time -= over - taken
            if taken - first < last - over:
                begin = over
    return begin, time


def _parts(task: Task, times: Sequence[float]) -> list[Task]:
    """A task cut in proportion to the time that each core has, but for those that have little."""
    times = [time if time >= LEAST_CYCLES else 0.0 for time in times]
    if not any(times):
        times = [1.0] * len(times)
    stops = [
        round(len(task.samples) * stop / sum(times)) for stop in accumulate(times, initial=0.0)
    ]
    return [replace(task, samples=task.samples[start:stop]) for start, stop in pairwise(stops)]


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
