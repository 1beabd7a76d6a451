"""Latency of requests that come at random, from when the stages of some requests were seen to end.

The host answers as `Deployment.run` does: it begins requests while there is room, and waits for the
oldest when no other is there to begin. Beginning one takes all that are under way a stage on: a
round. What is issued goes into queues that are worked off in order, so a stage ends some cycles
after the last of what it may wait for: its own issue, and the end of the stage of each kind that
was issued last before. How many cycles after each, is measured (`fit`), by the stages of its round
and of the round before, which say what stands in the queues.
"""

import ctypes
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from halfdome.sim.build.compiler import OPTIMISED, library

SOURCE = Path(__file__).with_name("queueing.cpp")

WARM = 0.1
"""Share of the requests, from the first, that find the platform emptier than later ones do."""
LATE = 0.01
"""Share of the requests that may take longer than a percentile of 99."""
FINE, STEPS = 0.002, 12
"""Halvings of the range of rates end at this share of the rate, finer than 10,000 requests know a
percentile, and after so many."""
FITS = 6
"""Times that each observed stage is given to what it waited for; few change after the third."""
FEW = 8
"""Fewer observations of a stage than that, after some round before, are not held apart from those
after others."""
ISSUE = -1
"""Its issue, among what a stage waits for; the others are stages by their numbers."""

Stages = tuple[int, ...]
"""The stages of a round: of requests that follow each other, oldest first, each its next. No two
are equal."""
Round = tuple[int, Stages, Stages]
"""A stage, all stages of its round, and those of the round before: none, if all of them had ended
when this one was issued."""
Observed = list[tuple[dict[int, float], float]]
"""What a stage may have waited for, and when it ended, of each time that it was seen."""


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
    waits : by a stage, the stages of its round, and those of the round before
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


class _Line(ctypes.Structure):
    _fields_ = (
        ("stages", ctypes.c_int64), ("slots", ctypes.c_int64),
        ("waits", ctypes.POINTER(ctypes.c_uint8)),
    )  # fmt: skip


_STAGES = ctypes.POINTER(ctypes.c_int32)
_FIND = ctypes.CFUNCTYPE(None, _STAGES, ctypes.c_size_t, _STAGES, ctypes.c_size_t, _STAGES)


@cache
def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library(SOURCE, "queueing", flags=OPTIMISED)))
    line, pointer, count = ctypes.POINTER(_Line), ctypes.c_void_p, ctypes.c_int64
    lib.queueing_seen.argtypes = (line, pointer, count, *[pointer] * 4)
    lib.queueing_seen.restype = None
    lib.queueing_modelled.argtypes = (
        line, pointer, count, count, *[pointer] * 3, ctypes.c_double, _FIND, pointer,
    )  # fmt: skip
    lib.queueing_modelled.restype = None
    return lib


def _passed(line: Line) -> _Line:
    """A line as the library takes it."""
    waits = (stage in line.syncs for stage in range(line.stages))
    return _Line(line.stages, line.slots, (ctypes.c_uint8 * line.stages)(*waits))


def _rounds(line: Line, run: Answered) -> Iterator[tuple[Stages, float, list[float]]]:
    """The rounds in which requests were answered: stages, when issued, and when each ended."""
    arrivals, known, ends = (np.array(each, float) for each in (run.arrivals, run.known, run.ends))
    numbers, issued = np.empty(ends.shape, np.int64), np.empty(ends.shape)
    _library().queueing_seen(
        _passed(line), arrivals.ctypes.data, len(ends), ends.ctypes.data, known.ctypes.data,
        numbers.ctypes.data, issued.ctypes.data,
    )  # fmt: skip
    places = np.argsort(numbers, axis=None, kind="stable")
    for members in np.split(places, np.flatnonzero(np.diff(numbers.flat[places])) + 1):
        stages = tuple((members % line.stages).tolist())
        yield stages, float(issued.flat[members[0]]), ends.flat[members].tolist()


def fit(line: Line, runs: Iterable[Answered]) -> Service:
    """What stages wait for, from requests that were answered."""
    found: dict[Round, Observed] = {}
    notice = []
    for run in runs:
        last: dict[int, float] = {}
        behind: Stages = ()
        ended: list[float] = []
        for stages, now, together in _rounds(line, run):
            before = {ISSUE: now} | {each: end for each, end in last.items() if end > now}
            if max(ended, default=now) <= now:
                behind = ()
            for stage, end in zip(stages, together, strict=True):
                found.setdefault((stage, stages, behind), []).append((before, end))
                last[stage] = end
            behind, ended = stages, together
        notice.append(run.known[0] - run.ends[0][-1])
    return Service(line, _of_rounds(found), float(np.median(notice)))


def _of_rounds(found: Mapping[Round, Observed]) -> dict[Round, Waits]:
    """Of each round, from what was seen of it; if that is little, from all that was seen of such
    rounds, whatever the round before."""
    together: dict[tuple[int, Stages], Observed] = {}
    for (stage, stages, _), observed in found.items():
        together.setdefault((stage, stages), []).extend(observed)
    few = {each[:2] for each, observed in found.items() if len(observed) < FEW}
    pooled = {each: _waits(together[each]) for each in few}
    return {
        each: pooled[each[:2]] if len(observed) < FEW else _waits(observed)
        for each, observed in found.items()
    }


def _waits(observed: Observed) -> Waits:
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


class _Dealer:
    """Tells what a round is like that is met for the first time, and deals its spreads in an order
    that is drawn."""

    def __init__(self, service: Service, seed: int):
        self._service, self._kinds = service, [*service.waits]
        self._random = np.random.default_rng(seed)
        self._dealt: set[int] = set()
        waits = service.waits.values()
        self.after = np.full((len(waits), service.line.stages + 1), np.nan)
        for row, each in zip(self.after, waits, strict=True):
            row[[stage - ISSUE for stage in each.after]] = [*each.after.values()]
        self.spreads = np.concatenate([each.spread for each in waits])
        self.starts = np.cumsum([0, *(len(each.spread) for each in waits)])

    def find(
        self, stages: Sequence[int], count: int, before: Sequence[int], before_count: int,
        found: MutableSequence[int],
    ) -> None:  # fmt: skip
        together, behind = tuple(stages[:count]), tuple(before[:before_count])
        for place, stage in enumerate(together):
            kind = found[place] = self._kind((stage, together, behind))
            if kind not in self._dealt:
                self._dealt.add(kind)
                start, end = self.starts[kind : kind + 2]
                self.spreads[start:end] = self._random.permutation(self.spreads[start:end])

    def _kind(self, wanted: Round) -> int:
        """Of a round that was never seen: as in the one that is most like it."""
        stage, together, behind = wanted
        alike = [kind for kind, known in enumerate(self._kinds) if known[0] == stage]

        def unlike(kind: int) -> tuple[int, int]:
            _, own, before = self._kinds[kind]
            return len({*own} ^ {*together}), len({*before} ^ {*behind})

        return min(alike, key=unlike)


def waited(service: Service, arrivals: np.ndarray, seed: int = 0) -> np.ndarray:
    """Cycles from the arrival of each request, in order, to the host's knowing its answer:
    float64[n]."""
    arrivals = np.ascontiguousarray(arrivals, float)
    known, dealer = np.empty(len(arrivals)), _Dealer(service, seed)
    _library().queueing_modelled(
        _passed(service.line), arrivals.ctypes.data, len(arrivals), len(dealer.after),
        dealer.after.ctypes.data, dealer.spreads.ctypes.data, dealer.starts.ctypes.data,
        service.notice, _FIND(dealer.find), known.ctypes.data,
    )  # fmt: skip
    return known - arrivals


def poisson(rate: float, requests: int, seed: int) -> np.ndarray:
    """When requests arrive at `rate` a cycle: float64[requests]."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests))


def p99(service: Service, rate: float, requests: int, seed: int) -> float:
    """Cycles within which 99 % of requests are answered that come at `rate` a cycle."""
    took = waited(service, poisson(rate, requests, seed), seed)[int(WARM * requests) :]
    return float(np.percentile(took, 100 * (1 - LATE), method="inverted_cdf"))


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
        if high - low <= FINE * high:
            break
    return low
