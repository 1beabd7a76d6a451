"""What `halfdome.host.explore.queueing` has compiled, in plain Python: the oracle."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from typing import Protocol

import numpy as np

from halfdome.host.explore import queueing
from halfdome.host.explore.queueing import ISSUE, Answered, Line, Round, Service, Stages


class Cards(Protocol):
    """What the host finds behind the bus."""

    def begin(self, first: int, stages: Stages, now: float) -> None:
        """A round is issued, of the requests from `first` on."""

    def end(self, request: int, stage: int) -> float:
        """When the host, waiting, knows that a stage of a request has ended."""
        ...


def answer(line: Line, arrivals: Sequence[float], cards: Cards) -> Iterator[float]:
    """When the host knows the answer to each of the requests that come at `arrivals`."""
    under_way: Stages = ()  # the next stage of each
    now, last = -np.inf, line.stages - 1
    for oldest in range(len(arrivals)):
        while True:
            begun = oldest + len(under_way)
            if not under_way:
                now = max(now, arrivals[begun])
            come = begun < len(arrivals) and arrivals[begun] <= now
            if come and len(under_way) < line.slots:
                under_way += (0,)
            elif under_way[0] > last and (come or under_way[-1] > last):
                break
            stages = tuple([stage for stage in under_way if stage <= last])
            issued = len(under_way) - len(stages)
            for request, stage in enumerate(stages if line.syncs else (), oldest + issued):
                if stage in line.syncs:
                    now = max(now, cards.end(request, stage - 1))
            cards.begin(oldest + issued, stages, now)
            under_way = under_way[:issued] + tuple([stage + 1 for stage in stages])
        now = max(now, cards.end(oldest, last))
        under_way = under_way[1:]
        yield now


class Modelled:
    """Cards of which stages end as `Service` says, with spreads dealt in an order that is drawn."""

    def __init__(self, service: Service, seed: int):
        self._service = service
        self._random = np.random.default_rng(seed)
        self._told: dict[Round, Told] = {}
        self._rounds: dict[tuple[Stages, Stages], list[Told]] = {}
        self._behind: tuple[Stages, float] = (), -np.inf  # the last round, and its last end
        self._last = [-np.inf] * (service.line.stages + 1)  # the end of each, and the last issue
        self._ends: dict[int, list[float]] = {}

    def begin(self, first: int, stages: Stages, now: float) -> None:
        behind, over = self._behind
        round = stages, behind if over > now else ()
        told = self._rounds.get(round)
        if told is None:
            told = self._rounds[round] = [self._of((stage, *round)) for stage in stages]
        last = self._last
        last[ISSUE] = now
        ends = [
            max([last[each] + cycles for each, cycles in after if last[each] >= now]) + next(spread)
            for after, spread in told
        ]
        self._behind = stages, max(ends)
        for request, (stage, end) in enumerate(zip(stages, ends, strict=True), first):
            last[stage] = end
            self._ends.setdefault(request, []).append(end)

    def _of(self, wanted: Round) -> "Told":
        """Of a round that was never seen: as in the one that is most like it."""
        waits = self._service.waits
        seen = wanted
        if wanted not in waits:
            alike = [known for known in waits if known[0] == wanted[0]]
            seen = min(alike, key=lambda known: [
                len({*own} ^ {*other}) for own, other in zip(known[1:], wanted[1:], strict=True)
            ])  # fmt: skip
        if seen not in self._told:
            spread = self._random.permutation(waits[seen].spread).tolist()
            self._told[seen] = [*waits[seen].after.items()], cycle(spread)
        return self._told[seen]

    def end(self, request: int, stage: int) -> float:
        return self._ends[request][stage] + self._service.notice


Told = tuple[list[tuple[int, float]], Iterator[float]]
"""Cycles after each thing that tells the end of a stage, and the spreads that are added in turn."""


class Seen:
    """Cards as they were: what stages ended when, and what they may have waited for."""

    def __init__(self, line: Line, answered: Answered):
        self._answered, self._stages = answered, line.stages
        self._last: dict[int, float] = {}
        self._behind: Stages = ()
        self.found: list[tuple[Round, dict[int, float], float]] = []

    def begin(self, first: int, stages: Stages, now: float) -> None:
        before = {ISSUE: now} | {each: end for each, end in self._last.items() if end > now}
        if not any(self._last[stage] > now for stage in self._behind):
            self._behind = ()
        for request, stage in enumerate(stages, first):
            end = self._answered.ends[request][stage]
            self.found.append(((stage, stages, self._behind), before, end))
            self._last[stage] = end
        self._behind = stages

    def end(self, request: int, stage: int) -> float:
        ended = self._answered
        return ended.known[request] if stage == self._stages - 1 else ended.ends[request][stage]


def fit(line: Line, runs: Iterable[Answered]) -> Service:
    """What stages wait for, from requests that were answered."""
    found: dict[Round, queueing.Observed] = {}
    notice = []
    for run in runs:
        seen = Seen(line, run)
        for _ in answer(line, run.arrivals, seen):
            pass
        for each, before, end in seen.found:
            found.setdefault(each, []).append((before, end))
        notice.append(run.known[0] - run.ends[0][-1])
    return Service(line, queueing._of_rounds(found), float(np.median(notice)))


def waited(service: Service, arrivals: np.ndarray, seed: int = 0) -> np.ndarray:
    """As `queueing.waited`."""
    known = answer(service.line, arrivals.tolist(), Modelled(service, seed))
    return np.fromiter(known, float, len(arrivals)) - arrivals
