"""Latency of requests that come at random, from what stages of a few requests were seen to take.

The host answers as `Deployment.run` does: it begins requests while there is room, and waits for the
oldest when no other is there to begin. Beginning one takes all that are under way a stage on: a
round. A stage starts when it is issued, when the stage before it has ended, and the same stage of
the request before; it then takes what it took in rounds of the same stages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

WARM = 0.1
"""Share of the requests, from the first, that find the platform emptier than later ones do."""
STEPS = 12
"""Halvings of the range of rates: finer than 10,000 requests know a percentile."""

Members = Sequence[tuple[int, int]]
"""Requests of a round, each with its stage."""
Round = tuple[int, frozenset[int]]
"""A stage, and all stages of its round."""


@dataclass(frozen=True)
class Line:
    """How a program is answered: `stages` of a request, `slots` for requests under way, and the
    stages before which the host waits, `syncs`."""

    stages: int
    slots: int
    syncs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Service:
    """What was measured of requests.

    Attributes
    ----------
    line : Line
    taken : float64[n] by a stage and the stages of its round, cycles from its start to its end, for
        each of the measured requests
    notice : float, cycles from the end of a request to the host's knowing
    """

    line: Line
    taken: Mapping[Round, np.ndarray]
    notice: float


class Cards(Protocol):
    """What the host finds behind the bus."""

    def begin(self, members: Members, now: float) -> None:
        """A round is issued."""

    def end(self, request: int, stage: int, now: float) -> float:
        """When the host, waiting since `now`, knows that a stage of a request has ended."""
        ...


def answer(line: Line, arrivals: Sequence[float], cards: Cards) -> np.ndarray:
    """When the host knows the answers to requests that come at `arrivals`: float64[n]."""
    stage: dict[int, int] = {}
    landed: list[float] = []
    now, last = -np.inf, line.stages - 1

    def issue() -> None:
        nonlocal now
        members = [(request, at) for request, at in stage.items() if at <= last]
        for request, at in members:
            if at in line.syncs:
                now = max(now, cards.end(request, at - 1, now))
        cards.begin(members, now)
        for request, at in members:
            stage[request] = at + 1

    for oldest in range(len(arrivals)):
        while True:
            begun = oldest + len(stage)
            if not stage:
                now = max(now, arrivals[begun])
            come = begun < len(arrivals) and arrivals[begun] <= now
            if not come or len(stage) == line.slots:
                break
            stage[begun] = 0
            issue()
        while stage[oldest] <= last or (not come and any(at <= last for at in stage.values())):
            issue()
        now = max(now, cards.end(oldest, last, now))
        landed.append(now)
        del stage[oldest]
    return np.array(landed)


class _Ends(dict[tuple[int, int], float]):
    """When each stage of each request ended."""

    def start(self, request: int, stage: int, now: float) -> float:
        """When a stage starts that is issued now."""
        before = self.get((request, stage - 1), now)
        return max(now, before, self.get((request - 1, stage), now))


class _Modelled:
    """Cards that take what measured requests took: for each that of the one in `drawn`."""

    def __init__(self, service: Service, drawn: Sequence[int]):
        self._notice, self._drawn = service.notice, drawn
        self._taken = {seen: taken.tolist() for seen, taken in service.taken.items()}
        self._ends = _Ends()

    def begin(self, members: Members, now: float) -> None:
        stages = frozenset(stage for _, stage in members)
        for request, stage in members:
            taken = self._of(stage, stages)
            own = taken[self._drawn[request]]
            self._ends[request, stage] = self._ends.start(request, stage, now) + own

    def _of(self, stage: int, stages: frozenset[int]) -> list[float]:
        """In a round that was never seen, what it took longest with some of the others."""
        if (stage, stages) not in self._taken:
            parts = [t for (own, seen), t in self._taken.items() if own == stage and seen <= stages]
            self._taken[stage, stages] = max(parts, key=np.mean)
        return self._taken[stage, stages]

    def end(self, request: int, stage: int, now: float) -> float:
        return self._ends[request, stage] + self._notice


def waits(service: Service, arrivals: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Cycles from the arrival of each request to the host's knowing its answer: float64[n].

    `arrivals` rise; `drawn` is int[n], which of the measured requests each of them is.
    """
    cards = _Modelled(service, drawn.tolist())
    return answer(service.line, arrivals.tolist(), cards) - arrivals


def poisson(rate: float, requests: int, seed: int, measured: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrivals at `rate` a cycle, each of one of so many measured requests: see `waits`."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.exponential(1 / rate, requests)), rng.integers(0, measured, requests)


def p99(service: Service, rate: float, requests: int, seed: int) -> float:
    """Cycles within which 99 % of requests are answered that come at `rate` a cycle."""
    measured = len(next(iter(service.taken.values())))
    waited = waits(service, *poisson(rate, requests, seed, measured))
    return float(np.percentile(waited[int(WARM * requests) :], 99))


def highest_rate(
    service: Service, bound: float, capacity: float, requests: int, seed: int
) -> float:
    """Requests a cycle, up to `capacity`, of which 99 % are answered within `bound` cycles; 0 if
    that is too short for any."""
    low, high = 0.0, capacity
    for _ in range(STEPS):
        middle = (low + high) / 2
        if p99(service, middle, requests, seed) <= bound:
            low = middle
        else:
            high = middle
    return low


class _Seen:
    """Cards as they were: see `taken`."""

    def __init__(self, ends: Sequence[Sequence[float]], known: Sequence[float], last: int):
        self._known, self._last = known, last
        self._all = {
            (n, stage): end for n, each in enumerate(ends) for stage, end in enumerate(each)
        }
        self._ends = _Ends()
        self.taken: list[tuple[int, Round, float]] = []

    def begin(self, members: Members, now: float) -> None:
        stages = frozenset(stage for _, stage in members)
        for member in members:
            took = self._all[member] - self._ends.start(*member, now)
            self.taken.append((member[0], (member[1], stages), took))
            self._ends[member] = self._all[member]

    def end(self, request: int, stage: int, now: float) -> float:
        return self._known[request] if stage == self._last else self._all[request, stage]


def taken(
    line: Line, start: float, ends: Sequence[Sequence[float]], known: Sequence[float]
) -> list[tuple[int, Round, float]]:
    """What stages took of requests that all came at `start`: request, round and cycles.

    `ends` tells when each stage of each request ended, `known` when the host knew its answer.
    """
    seen = _Seen(ends, known, line.stages - 1)
    answer(line, [start] * len(known), seen)
    return seen.taken
