"""One point of a study: its platform opened, its work answered, and what that took."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from halfdome.hdl.commands import Engine
from halfdome.hdl.registers import ACTIVITIES
from halfdome.host import platform
from halfdome.host.compiler import costs, needs
from halfdome.host.explore import area, energy, queueing, workloads
from halfdome.host.explore.parameters import Design, Value
from halfdome.host.explore.queueing import Answered, Line
from halfdome.host.explore.study import Demo, Model, Recommender, Study
from halfdome.host.frontend.calibration import read_requests
from halfdome.host.frontend.plan import CardPart
from halfdome.host.platform import Runtime
from halfdome.host.report import layers
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.program import Program
from halfdome.host.runtime.requests import Request
from halfdome.host.serving.deploy import deploy
from halfdome.host.serving.session import InferenceSession

MEASURED = 8
"""Requests measured, at the least, in the steady state."""
ALONE = 3
"""Requests measured each by itself."""
MIXED, LOAD = 12, 0.7
"""Requests that come at random, at this share of what the steady state answers: rounds of every
kind are among them."""

Progress = Callable[[int], None]


@dataclass
class Ran:
    """What requests did that came one right after the other.

    Attributes
    ----------
    line : Line
    answered : requests by themselves, in bursts and at random; what a queue of them is made from
    latency : float64[n], cycles that requests take alone
    interval : float64[n], cycles from answer to answer with others waiting
    samples : float, of a request
    rows : int, samples of all these requests
    cycles : int, that they took together
    cards : counters of each card, what they counted meanwhile
    uplink_bytes : int, wire bytes of the host's link, the busier way
    host_bytes : int, payload over it, both ways
    answers : the programs of the cards and what they said
    mismatching : int, samples that differ from the golden model; None if values were left out
    """

    line: Line
    answered: list[Answered]
    latency: np.ndarray
    interval: np.ndarray
    samples: float
    rows: int
    cycles: int
    cards: list[dict[str, int]]
    uplink_bytes: int
    host_bytes: int
    answers: list[tuple[Program, list[Response]]] = field(repr=False)
    mismatching: int | None = 0


def measure(study: Study, values: Mapping[str, Value]) -> dict[str, Any]:
    """What a point of a study achieves: metrics by name, and beside them what explains them.

    Raises `ValueError` or `MemoryError` that says why there is no such platform, or why it cannot
    do the work.
    """
    design = study.design(values)
    ran = (
        _run_model(study.workload, design)
        if isinstance(study.workload, Model)
        else _run_graph(study.workload, design, at_random=study.arrivals is not None)
    )
    return metrics(study, design, ran)


def open_platform(design: Design) -> Runtime:
    """The platform of a design, on one thread: points run side by side."""
    return platform.open(
        design.cards, design.card, design.engine, fabric=platform.fabric(**design.fabric),
        threads=1, values=design.computes,
    )  # fmt: skip


def _run_graph(said: Demo | Recommender, design: Design, at_random: bool) -> Ran:
    work = workloads.work(said, design.batch, design.table_bits)
    with open_platform(design) as runtime:
        served = deploy(
            runtime, work.graph, design.transfers, design.in_flight, design.parallelism,
            cores_sparse=design.cores_sparse,
        )  # fmt: skip
        slots, bursts = served.program.slots, Bursts(runtime, served, work.requests)
        count = slots + max(MEASURED, len(work.requests))
        order = [place % len(work.requests) for place in range(count + slots)]
        latency = [bursts.run([place])[0] for place in order[:ALONE]]
        with _Counting(runtime) as counted:
            known = bursts.run(order)
        responses, program = bursts.responses, served.program
        interval = np.diff(known)[slots - 1 : count - 1]
        if at_random:
            bursts.mix(float(interval.mean()))
    wrong = None
    if design.computes:
        wrong = sum(_differing(responses[n], work.expected[place]) for n, place in enumerate(order))
    rows = sum(work.samples[place] for place in order)
    return counted.ran(
        bursts.line, bursts.answered, latency, interval, rows / len(order), rows,
        [(program, responses)], wrong,
    )  # fmt: skip


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
        """Runs bursts of every size, and requests at random; `interval` is that of steady state."""
        every = [place % len(self._requests) for place in range(max(MIXED, self.line.slots))]
        for size in range(2, self.line.slots + 1):
            self.run(every[:size])
        arrivals = queueing.poisson(LOAD / interval, MIXED, seed=0)
        self.run(every[:MIXED], np.ceil(arrivals).astype(int).tolist())

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


def _differing(answer: Response, golden: Mapping[str, np.ndarray]) -> int:
    """Samples of which a bit is not as the golden model has it."""
    wrong = [
        (found != golden[name][: len(found)]).reshape(len(found), -1).any(axis=1)
        for name, found in answer.outputs.items()
    ]
    return int(np.logical_or.reduce(wrong).sum())


def _run_model(said: Model, design: Design) -> Ran:
    options: dict[str, Any] = {}
    if said.calibration is not None:
        options["calibration"] = read_requests(said.calibration, "calibration")
    with InferenceSession(
        str(said.path), cards=design.cards, config=design.card, engine=design.engine,
        shapes=said.shapes, fabric=platform.fabric(**design.fabric), threads=1,
        values=design.computes, **options,
    ) as session:  # fmt: skip
        given = [
            request for each in read_requests(said.requests, "requests")
            for request in session.plan.split(str(said.requests), each)
        ]  # fmt: skip
        count = max(MEASURED, len(given), design.cards)
        asked = [given[place % len(given)] for place in range(count)]
        with _Counting(session.runtime) as counted:
            session.tensors(asked)
        steps = list(zip(session.plan.steps, session.steps, strict=True))
        answers = [(s.program, run.responses) for s, run in steps if isinstance(s, CardPart)]
        interval = sum(run.cycles for _, run in steps) / count
        latency = []
        for request in asked[:ALONE]:
            session.tensors([request])
            latency.append(sum(run.cycles for run in session.steps))
    alone = [Answered([0], [cycles], [[cycles]]) for cycles in latency]
    return counted.ran(Line(1, 1), alone, latency, [interval], 1.0, count, answers)


class _Counting:
    """Reads what cards and links count, before and after."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime

    def _read(self) -> tuple[list[dict[str, int]], dict[str, int]]:
        cards = [card.counters() for card in self._runtime.cards]
        return cards, self._runtime.platform.traffic()["uplink"]

    def __enter__(self) -> "_Counting":
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
        self, line: Line, answered: list[Answered], latency: Sequence[int],
        interval: Sequence[float], samples: float, rows: int,
        answers: list[tuple[Program, list[Response]]], mismatching: int | None = 0,
    ) -> Ran:  # fmt: skip
        """What was done in between."""
        uplink = self._uplink
        return Ran(
            line, answered, np.array(latency, float), np.array(interval, float), samples, rows,
            self._cycles, self._cards,
            max(uplink["to_cards_wire_bytes"], uplink["to_host_wire_bytes"]),
            uplink["to_cards_payload_bytes"] + uplink["to_host_payload_bytes"],
            answers, mismatching,
        )  # fmt: skip


def metrics(study: Study, design: Design, ran: Ran) -> dict[str, Any]:
    """The row of a point: what `METRICS` names, and `engines`, `shares`, `energy_uj` beside it."""
    config = design.card
    hertz = config.clock_mhz * 1e6
    rate = hertz / float(ran.interval.mean())
    acted = actions(design, ran)
    spent = energy.of(energy.load(study.energy), acted)
    microjoules = {name: each / ran.rows for name, each in spent.items()}
    row: dict[str, Any] = {
        "engine": design.engine,
        "samples_per_second": rate * ran.samples,
        "queries_per_second": rate,
        "latency_us": float(np.median(ran.latency)) / config.clock_mhz,
        "energy_uj_per_sample": sum(microjoules.values()),
        "power_w": sum(microjoules.values()) * 1e-6 * rate * ran.samples,
        "area_lut4_equivalents": design.cards * area.lut4_equivalents(config),
        **{f"card_{resource}": taken for resource, taken in area.of_card(config).items()},
        "host_link_bytes_per_sample": ran.host_bytes / ran.rows,
        "dram_bytes": dram_bytes(ran),
        "samples_of_a_request": ran.samples,
        "interval_cycles": ran.interval.tolist(),
        "latency_cycles": ran.latency.tolist(),
        "in_flight": ran.line.slots,
        "mismatching_samples": ran.mismatching,
        "energy_uj": microjoules,
        "engines": engines(ran),
        "shares": shares(design, ran),
        "macs_per_sample": acted["mac_int8"] / ran.rows,
        "dram_bytes_per_sample": _sum(ran.cards, "dram_read_bytes", "dram_write_bytes") / ran.rows,
        **{name: value for name, value in stamp(config, 0).items() if name != "config"},
    }
    if study.arrivals is not None:
        bound = study.arrivals.p99_us * config.clock_mhz
        service = queueing.fit(ran.line, ran.answered)
        found = queueing.highest_rate(
            service, bound, rate / hertz, study.arrivals.requests, study.arrivals.seed
        )
        row["queries_per_second_at_p99"] = found * hertz
        row["samples_per_second_at_p99"] = found * hertz * ran.samples
    return row


def actions(design: Design, ran: Ran) -> dict[str, float]:
    """How often each action of the energy table happened, all cards together."""
    programs = [program for program, _ in ran.answers]
    macs = sum(need.macs for program in programs for need in needs.of(program).values())
    moved = Counter()
    for program, responses in ran.answers:
        for response in responses:
            moved.update(layers.of(program, design.card, response).moved_bytes)
    adding = _sum(ran.cards, "gather_lanes_cycles")
    return {
        "mac_int8": macs * ran.rows,
        "pool_element": adding * design.card.lanes,
        "scratchpad_byte": moved["scratchpad"],
        "dram_bit": 8 * _sum(ran.cards, "dram_read_bytes", "dram_write_bytes"),
        "pcie_bit": 8 * (_sum(ran.cards, "pcie_read_bytes", "pcie_write_bytes") + ran.host_bytes),
        "card_second": len(ran.cards) * ran.cycles / (design.card.clock_mhz * 1e6),
    }  # fmt: skip


def _sum(cards: Sequence[Mapping[str, int]], *names: str) -> int:
    return sum(card[name] for card in cards for name in names)


def dram_bytes(ran: Ran) -> int:
    """DRAM that programs take on the card where they take most."""
    taken = Counter()
    for program, _ in ran.answers:
        for segment in program.segments:
            if segment.memory == "dram":
                times = program.slots if segment.per_slot else 1
                taken[segment.position] += times * segment.nbytes
    return max(taken.values(), default=0)


def engines(ran: Ran) -> dict[str, dict[str, float]]:
    """Share of all cycles of all cards that each engine spent on each activity."""
    found = {}
    for engine in Engine:
        name = engine.name.lower()
        counts = Counter()
        for card in ran.cards:
            for key, value in card.items():
                for activity in ACTIVITIES:
                    if key.endswith(f"_{name}_{activity}_cycles"):
                        counts[activity] += value
        total = max(1, counts.total())
        found[name] = {activity: counts[activity] / total for activity in ACTIVITIES}
    return found


def shares(design: Design, ran: Ran) -> dict[str, float]:
    """How much of what it could do each resource did, of each kind the busiest."""
    config, cycles = design.card, ran.cycles
    of_cores: dict[str, list[float]] = {}
    for card in ran.cards:
        for core in range(config.cores):
            for engine in Engine:
                name = engine.name.lower()
                idle = card[f"core{core}_{name}_idle_cycles"]
                of_cores.setdefault(name, []).append(1 - idle / card["cycles"])
    dram = costs.dram_bytes_per_cycle(config) * cycles
    link = costs.link_bytes_per_cycle(config) * cycles
    fabric = platform.fabric(**design.fabric)
    uplink = config.replace(
        pcie_generation=fabric.uplink_generation, pcie_lanes=fabric.uplink_lanes
    )
    return {
        **{name: max(each) for name, each in of_cores.items()},
        "dram": max(c["dram_read_bytes"] + c["dram_write_bytes"] for c in ran.cards) / dram,
        "link": max(max(c["pcie_read_bytes"], c["pcie_write_bytes"]) for c in ran.cards) / link,
        "uplink": ran.uplink_bytes / (costs.link_bytes_per_cycle(uplink) * cycles),
    }
