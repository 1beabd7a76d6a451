"""What a platform does with the work of a study: when it answers requests, what it counts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np

from halfdome.host import platform
from halfdome.host.compiler import needs
from halfdome.host.compiler.compile import compile
from halfdome.host.explore import queueing, workloads
from halfdome.host.explore.parameters import Design
from halfdome.host.explore.queueing import Answered, Line
from halfdome.host.explore.study import Demo, Recommender
from halfdome.host.platform import Runtime
from halfdome.host.report import layers
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.program import Program
from halfdome.host.runtime.requests import Request
from halfdome.host.serving.deploy import deploy

SAMPLES = 128
"""Samples of a request to a recommender, by default."""
MEASURED = 8
"""Requests measured in the steady state, at the least."""
ALONE = 3
"""Requests measured each by itself, if they differ: without bags, one takes as long as another."""
LOAD = 0.7
"""Requests come at random at this share of what the steady state answers."""
DRAWS, FEWEST, MOST = 3, 12, 96
"""So many for each stage of each kind of round, of all together so many at least and at most: 12
for two stages, 36 for three, 96 for four."""


@dataclass(frozen=True)
class Ran:
    """What requests did that came one right after the other.

    Attributes
    ----------
    line : Line
    answered : requests by themselves, in bursts and at random; what a queue of them is made from
    latency : cycles that requests take alone
    interval : cycles from answer to answer with others waiting
    samples : float, of a request
    rows : int, samples of all these requests
    cycles : int, that they took together
    cards : counters of each card, what they counted meanwhile
    uplink_bytes : int, wire bytes of the host's link, the busier way
    host_bytes : int, payload over it, both ways
    macs : int, useful multiply-accumulates
    scratchpad_bytes : int, moved in and out of scratchpads
    dram_bytes : int, that programs take on the card where they take most
    mismatching : int, samples that differ from the reference; None if none were computed
    """

    line: Line
    answered: Sequence[Answered]
    latency: Sequence[float]
    interval: Sequence[float]
    samples: float
    rows: int
    cycles: int
    cards: Sequence[Mapping[str, int]]
    uplink_bytes: int
    host_bytes: int
    macs: int
    scratchpad_bytes: int
    dram_bytes: int
    mismatching: int | None


def open_platform(design: Design) -> Runtime:
    """The platform of a design, on one thread: points run side by side."""
    return platform.open(
        design.cards, design.card, design.engine, fabric=platform.fabric(**design.fabric),
        threads=1, values=design.computes,
    )  # fmt: skip


def run_graph(said: Demo | Recommender, design: Design, at_random: bool) -> Ran:
    """Gives the work to the platform of a design, with `at_random` also so; the golden model is the
    reference."""
    work = workloads.work(said, design.batch or SAMPLES, design.table_bits)
    program = compile(
        work.graph, design.card, design.cards, transfers=design.transfers,
        in_flight=design.in_flight, parallelism=design.parallelism,
        cores_sparse=design.cores_sparse, values=design.computes,
    )  # fmt: skip
    with open_platform(design) as runtime:
        served = deploy(runtime, program)
        ran, answers = run_served(runtime, served, work.requests, work.samples, design, at_random)
    if not design.computes:
        return ran
    wrong = sum(_differing(response, work.expected[place]) for place, response in answers)
    return replace(ran, mismatching=wrong)


def _differing(answer: Response, golden: Mapping[str, np.ndarray]) -> int:
    """Samples of which a bit is not as the golden model has it."""
    wrong = [
        (found != golden[name][: len(found)]).reshape(len(found), -1).any(axis=1)
        for name, found in answer.outputs.items()
    ]
    return int(np.logical_or.reduce(wrong).sum())


def run_served(
    runtime: Runtime, served: Deployment, requests: Sequence[Request], samples: Sequence[int],
    design: Design, at_random: bool,
) -> tuple[Ran, list[tuple[int, Response]]]:  # fmt: skip
    """Requests alone, in the steady state and at random, `samples` of each; and the answers of the
    steady state, each with the number of its request."""
    slots, bursts = served.program.slots, Bursts(runtime, served, requests)
    differ, measured = bool(served.program.bags), in_steady_state(served.program, len(requests))
    first = slots if slots > 1 else 0  # with one slot each is alone
    count = max(first + measured + slots - 1, len(requests) if design.computes else 0)
    order = [place % len(requests) for place in range(count)]
    alone = order[: ALONE if differ else 1] if slots > 1 else []
    latency = [bursts.run([place])[0] for place in alone]
    with Counting(runtime) as counted:
        known = bursts.run(order)
    answers = list(zip(order, bursts.responses, strict=True))
    interval = np.diff(known, prepend=0)[first : first + measured]
    if at_random and slots > 1:  # else all rounds are of one request, as above
        bursts.mix(float(interval.mean()))
    rows = sum(samples[place] for place in order)
    return counted.ran(
        bursts.line, bursts.answered, latency or interval.tolist(), interval.tolist(),
        rows / len(order), rows,
        rows * macs_of(served.program), [(served.program, [each for _, each in answers])], design,
    ), answers  # fmt: skip


def in_steady_state(program: Program, requests: int) -> int:
    """Requests measured in the steady state, so that each slot has as many: what one takes is told
    by those beside it. If none is beside it and all are alike, one tells of all."""
    if program.slots == 1 and not program.bags:
        return 1
    least = max(MEASURED, requests) if program.bags else MEASURED
    return -(-least // program.slots) * program.slots


def macs_of(program: Program) -> int:
    """Useful multiply-accumulates of a sample."""
    return sum(need.macs for need in needs.of(program).values())


def at_random(line: Line) -> int:
    """Requests that come at random, so that a round of each kind is met several times."""
    sizes = range(1, min(line.stages, line.slots) + 1)
    kinds = sum(size * comb(line.stages, size) for size in sizes)
    return min(max(DRAWS * kinds, FEWEST), MOST)


class Bursts:
    """Requests that come at once or at random, and when their stages ended.

    Attributes
    ----------
    line : Line
    responses : of the last requests that came together
    answered : all requests so far, in the order in which they were run
    """

    def __init__(self, runtime: Runtime, served: Deployment, requests: Sequence[Request]):
        self._runtime, self._served, self._requests = runtime, served, requests
        program = served.program
        self.line = Line(program.stages, program.slots, tuple(program.syncs))
        self.responses: list[Response] = []
        self.answered: list[Answered] = []

    def run(self, order: Sequence[int], gaps: Sequence[int] | None = None) -> list[int]:
        """Cycles from now to the host's knowing the answer to each of these requests, by number,
        that come at once, or so many cycles from now."""
        start, known = self._runtime.cycles, []
        arrivals = [start + gap for gap in gaps] if gaps else [start] * len(order)
        self.responses = self._served.run(
            [self._requests[place] for place in order],
            lambda rows: known.append(self._runtime.cycles), arrivals,
        )  # fmt: skip
        ends = [self._stage_ends(response) for response in self.responses]
        self.answered.append(Answered(arrivals, known, ends))
        return [each - start for each in known]

    def mix(self, interval: float) -> None:
        """Runs bursts that leave slots free, and requests at random; `interval` is that of steady
        state, which begins as a burst for all slots."""
        count, slots = at_random(self.line), self.line.slots
        every = [place % len(self._requests) for place in range(max(count, slots))]
        for size in range(2, slots):
            self.run(every[:size])
        arrivals = queueing.poisson(LOAD / interval, count, seed=0)
        self.run(every[:count], np.ceil(arrivals).astype(int).tolist())

    def _stage_ends(self, response: Response) -> list[float]:
        """When each stage of a request ended on the card that was last with it."""
        program, ends = self._served.program, []
        for stage in range(program.stages):
            mine = [
                spans[part.stage == stage, 1].max(initial=-1)
                for part, spans in zip(program.parts, response.spans, strict=True)
            ]
            ends.append(float(max(mine)))
        return np.maximum.accumulate(ends).tolist()


class Counting:
    """Reads what cards and links count, before and after."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime

    def _read(self) -> tuple[list[dict[str, int]], dict[str, int]]:
        cards = [card.counters() for card in self._runtime.cards]
        return cards, self._runtime.platform.traffic()["uplink"]

    def __enter__(self) -> "Counting":
        self._before, self._start = self._read(), self._runtime.cycles
        return self

    def __exit__(self, *_: object) -> None:
        self._cycles = self._runtime.cycles - self._start
        after, uplink = self._read()
        before, uplink_before = self._before
        self._cards = [
            {name: now[name] - then[name] for name in now}
            for then, now in zip(before, after, strict=True)
        ]
        self._uplink = {name: uplink[name] - uplink_before[name] for name in uplink}

    def ran(
        self, line: Line, answered: Sequence[Answered], latency: Sequence[float],
        interval: Sequence[float], samples: float, rows: int, macs: int,
        answers: Iterable[tuple[Program, Sequence[Response]]], design: Design,
    ) -> Ran:  # fmt: skip
        """What was done in between."""
        uplink, moved, taken = self._uplink, Counter(), Counter()
        for program, responses in answers:
            alike: dict[tuple[bytes, ...], Counter[str]] = {}
            for response in responses:
                key = response.symbols.tobytes(), *((s >= 0).tobytes() for s in response.spans)
                if key not in alike:
                    alike[key] = layers.moved_bytes(program, design.card, response)
                moved += alike[key]
            for segment in program.segments:
                if segment.memory == "dram":
                    times = program.slots if segment.per_slot else 1
                    taken[segment.position] += times * segment.nbytes
        return Ran(
            line, answered, latency, interval, samples, rows, self._cycles, self._cards,
            max(uplink["to_cards_wire_bytes"], uplink["to_host_wire_bytes"]),
            uplink["to_cards_payload_bytes"] + uplink["to_host_payload_bytes"],
            macs, moved["scratchpad"], max(taken.values(), default=0), None,
        )  # fmt: skip
