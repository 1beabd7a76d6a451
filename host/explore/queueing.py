"""Latency of requests that come at random, from when the stages of some requests were seen to end.

The host answers as `Deployment.run` does: it begins requests while there is room, and waits for the
oldest when no other is there to begin. Beginning one takes all that are under way a stage on: a
round. What is issued goes into queues that are worked off in order, so a stage ends some cycles
after the last of what it may wait for: its own issue, and the end of the stage of each kind that
was issued last before. How many cycles after each, is measured (`fit`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

import numpy as np

WARM = 0.1
"""Share of the requests, from the first, that find the platform emptier than later ones do."""
LATE = 0.01
"""Share of the requests that may take longer than a percentile of 99."""
FINE, STEPS = 0.002, 12
"""Halvings of the range of rates end at this share of the rate, finer than 10,000 requests know a
percentile, and after so many."""
FITS = 6
"""Times that each observed stage is given to what it waited for; few change after the third."""
ISSUE = -1
"""Its issue, among what a stage waits for; the others are stages by their numbers."""

Stages = tuple[int, ...]
"""The stages of a round: of requests that follow each other, oldest first, each its next. No two
are equal."""
Round = tuple[int, Stages]
"""A stage, and all stages of its round."""


@dataclass(frozen=True)
class Line:
    """How a program is answered: `stages` of a request, `slots` for requests under way, and the
    stages before which the host waits, `syncs`."""

    stages: int
    slots: int
    syncs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Waits:
    """When a stage ends.

    Attributes
    ----------
    after : cycles, by what it may wait for: it ends so long after that, or later
    spread : float64[n], cycles by which observed stages ended later than that
    """

    after: Mapping[int, float]
    spread: np.ndarray


@dataclass(frozen=True)
class Service:
    """What was measured of requests.

    Attributes
    ----------
    line : Line
    waits : by a stage and the stages of its round
    notice : float, cycles from the end of a request to the host's knowing
    """

    line: Line
    waits: Mapping[Round, Waits]
    notice: float


@dataclass(frozen=True)
class Answered:
    """Requests that were answered by the cards.

    Attributes
    ----------
    arrivals, known : cycles at which each came, and at which the host knew its answer
    ends : of each, the cycles at which its stages ended
    """

    arrivals: Sequence[float]
    known: Sequence[float]
    ends: Sequence[Sequence[float]]


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


class _Modelled:
    """Cards of which stages end as `Service` says, with spreads dealt in an order that is drawn."""

    def __init__(self, service: Service, seed: int):
        self._service = service
        self._random = np.random.default_rng(seed)
        self._told: dict[Round, _Told] = {}
        self._rounds: dict[Stages, list[_Told]] = {}
        self._last = [-np.inf] * (service.line.stages + 1)  # the end of each, and the last issue
        self._ends: dict[int, list[float]] = {}

    def begin(self, first: int, stages: Stages, now: float) -> None:
        told = self._rounds.get(stages)
        if told is None:
            told = self._rounds[stages] = [self._of((stage, stages)) for stage in stages]
        last = self._last
        last[ISSUE] = now
        ends = [
            max([last[each] + cycles for each, cycles in after if last[each] >= now]) + next(spread)
            for after, spread in told
        ]
        for request, (stage, end) in enumerate(zip(stages, ends, strict=True), first):
            last[stage] = end
            self._ends.setdefault(request, []).append(end)

    def _of(self, wanted: Round) -> "_Told":
        """Of a round that was never seen: as in the one that is most like it."""
        waits = self._service.waits
        seen = wanted
        if wanted not in waits:
            alike = [known for known in waits if known[0] == wanted[0]]
            seen = min(alike, key=lambda known: len({*known[1]} ^ {*wanted[1]}))
        if seen not in self._told:
            spread = self._random.permutation(waits[seen].spread).tolist()
            self._told[seen] = [*waits[seen].after.items()], cycle(spread)
        return self._told[seen]

    def end(self, request: int, stage: int) -> float:
        return self._ends[request][stage] + self._service.notice


_Told = tuple[list[tuple[int, float]], Iterator[float]]
"""Cycles after each thing that tells the end of a stage, and the spreads that are added in turn."""


class _Seen:
    """Cards as they were: what stages ended when, and what they may have waited for."""

    def __init__(self, line: Line, answered: Answered):
        self._answered, self._stages = answered, line.stages
        self._last: dict[int, float] = {}
        self.found: list[tuple[Round, dict[int, float], float]] = []

    def begin(self, first: int, stages: Stages, now: float) -> None:
        before = {ISSUE: now} | {each: end for each, end in self._last.items() if end > now}
        for request, stage in enumerate(stages, first):
            end = self._answered.ends[request][stage]
            self.found.append(((stage, stages), before, end))
            self._last[stage] = end

    def end(self, request: int, stage: int) -> float:
        ended = self._answered
        return ended.known[request] if stage == self._stages - 1 else ended.ends[request][stage]


def fit(line: Line, runs: Iterable[Answered]) -> Service:
    """What stages wait for, from requests that were answered."""
    found: dict[Round, list[tuple[dict[int, float], float]]] = {}
    notice = []
    for run in runs:
        seen = _Seen(line, run)
        for _ in answer(line, run.arrivals, seen):
            pass
        for each, before, end in seen.found:
            found.setdefault(each, []).append((before, end))
        notice.append(run.known[0] - run.ends[0][-1])
    waits = {each: _waits(observed) for each, observed in found.items()}
    return Service(line, waits, float(np.median(notice)))


def _waits(observed: list[tuple[dict[int, float], float]]) -> Waits:
    """Cycles after each thing that may be waited for, so that the last of them tells the end.

    They begin as the largest that are nowhere too late. Then each observation is given to what
    tells its end, and their mean is taken. After the last of all that was before, a stage takes no
    longer than after its issue with nothing before: so what was seen too seldom is bounded.
    """
    after: dict[int, float] = {}
    for before, end in observed:
        for each, when in before.items():
            after[each] = min(after.get(each, np.inf), end - when)
    for _ in range(FITS):
        after = {each: min(cycles, after[ISSUE]) for each, cycles in after.items()}
        told: dict[int, list[float]] = {}
        for before, end in observed:
            last = max(before, key=lambda each: before[each] + after[each])
            told.setdefault(last, []).append(end - before[last])
        after |= {each: float(np.mean(cycles)) for each, cycles in told.items()}
    spread = [
        end - max(when + after[each] for each, when in before.items()) for before, end in observed
    ]
    return Waits(after, np.array(spread))


def waited(service: Service, arrivals: np.ndarray, seed: int = 0) -> np.ndarray:
    """Cycles from the arrival of each request, in order, to the host's knowing its answer:
    float64[n]."""
    cards = _Modelled(service, seed)
    known = answer(service.line, arrivals.tolist(), cards)
    return np.fromiter(known, float, len(arrivals)) - arrivals


def poisson(rate: float, requests: int, seed: int) -> np.ndarray:
    """When requests arrive at `rate` a cycle: float64[requests]."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests))


def p99(service: Service, rate: float, requests: int, seed: int) -> float:
    """Cycles within which 99 % of requests are answered that come at `rate` a cycle."""
    took = waited(service, poisson(rate, requests, seed), seed)[int(WARM * requests) :]
    return float(np.percentile(took, 100 * (1 - LATE), method="inverted_cdf"))


def keeps(service: Service, bound: float, rate: float, requests: int, seed: int) -> bool:
    """Whether 99 % of them are answered within `bound` cycles: as `p99`, but knows a "no" early."""
    arrivals = poisson(rate, requests, seed).tolist()
    first, late = int(WARM * requests), 0
    for number, known in enumerate(answer(service.line, arrivals, _Modelled(service, seed))):
        late += number >= first and known - arrivals[number] > bound
        if late > LATE * (requests - first):
            return False
    return True


def highest_rate(
    service: Service, bound: float, capacity: float, requests: int, seed: int
) -> float:
    """Requests a cycle, up to `capacity`, of which 99 % are answered within `bound` cycles; 0 if
    that is too short for any."""
    low, high = 0.0, capacity
    for _ in range(STEPS):
        middle = (low + high) / 2
        if keeps(service, bound, middle, requests, seed):
            low = middle
        else:
            high = middle
        if high - low <= FINE * high:
            break
    return low
