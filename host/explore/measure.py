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
from halfdome.host.explore import energy, queueing, workloads
from halfdome.host.explore.area import area_lut4
from halfdome.host.explore.parameters import Design, Value
from halfdome.host.explore.queueing import Line, Service
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
"""Requests measured, at the least, each by itself and in the steady state."""

Progress = Callable[[int], None]


@dataclass
class Ran:
    """What requests did that came one right after the other.

    Attributes
    ----------
    service : Service
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

    service: Service
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
        else _run_graph(study.workload, design)
    )
    return metrics(study, design, ran)


def open_platform(design: Design) -> Runtime:
    """The platform of a design, on one thread: points run side by side."""
    return platform.open(
        design.cards, design.card, design.engine, fabric=platform.fabric(**design.fabric),
        threads=1, values=design.computes,
    )  # fmt: skip


def _run_graph(said: Demo | Recommender, design: Design) -> Ran:
    work = workloads.work(said, design.batch)
    with open_platform(design) as runtime:
        served = deploy(runtime, work.graph, design.transfers, design.in_flight, design.parallelism)
        slots, bursts = served.program.slots, Bursts(runtime, served, work.requests)
        count = slots + max(MEASURED, len(work.requests))
        order = [place % len(work.requests) for place in range(count + slots)]
        latency = [bursts.run([place])[0] for place in order[:MEASURED]]
        for size in range(2, slots + 1):
            bursts.run(order[:size])
        with _Counting(runtime) as counted:
            known = bursts.run(order)
        answers, program = bursts.answers, served.program
    wrong = None
    if design.computes:
        golden = [work.graph.run(request) for request in work.requests]
        wrong = sum(_differing(answers[n], golden[place]) for n, place in enumerate(order))
    rows = sum(work.samples[place] for place in order)
    interval = np.diff(known)[slots - 1 : count - 1]
    return counted.ran(
        bursts.service, latency, interval, rows / len(order), rows, [(program, answers)], wrong
    )


class Bursts:
    """Requests that come at once, and what their stages take.

    Attributes
    ----------
    answers : responses of the last burst
    """

    def __init__(self, runtime: Runtime, served: Deployment, requests: Sequence[Request]):
        self._runtime, self._served, self._requests = runtime, served, requests
        program = served.program
        self._line = Line(program.stages, program.slots, tuple(program.syncs))
        self._taken: dict[queueing.Round, list[list[float]]] = {}
        self._notice: list[float] = []
        self.answers: list[Response] = []

    def run(self, order: Sequence[int]) -> list[int]:
        """Cycles from the coming of these requests, by number, to each answer's being known."""
        start, known = self._runtime.cycles, []
        asked = [self._requests[place] for place in order]
        self.answers = self._served.run(asked, lambda rows: known.append(self._runtime.cycles))
        ends = [self._stage_ends(answer) for answer in self.answers]
        for number, seen, took in queueing.taken(self._line, start, ends, known):
            of_requests = self._taken.setdefault(seen, [[] for _ in self._requests])
            of_requests[order[number]].append(took)
        self._notice.append(known[0] - ends[0][-1])
        return [each - start for each in known]

    def _stage_ends(self, answer: Response) -> list[float]:
        """When each stage of a request ended on the card that was last with it."""
        program, ends = self._served.program, []
        for stage in range(program.stages):
            mine = [
                spans[part.stage == stage, 1].max(initial=-1)
                for part, spans in zip(program.parts, answer.spans, strict=True)
            ]
            ends.append(float(max(mine)))
        return np.maximum.accumulate(ends).tolist()

    @property
    def service(self) -> Service:
        """Of all bursts so far; of a round that a request was never in, the mean of those in it."""
        taken = {}
        for seen, of_requests in self._taken.items():
            overall = float(np.mean(np.concatenate(of_requests)))
            taken[seen] = np.array([np.mean(each) if each else overall for each in of_requests])
        return Service(self._line, taken, float(np.median(self._notice)))


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
        for request in asked[:MEASURED]:
            session.tensors([request])
            latency.append(sum(run.cycles for run in session.steps))
    service = Service(Line(1, 1), {(0, frozenset({0})): np.array(latency, float)}, 0.0)
    return counted.ran(service, latency, [interval], 1.0, count, answers)


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
        self, service: Service, latency: Sequence[int], interval: Sequence[float], samples: float,
        rows: int, answers: list[tuple[Program, list[Response]]], mismatching: int | None = 0,
    ) -> Ran:  # fmt: skip
        """What was done in between."""
        uplink = self._uplink
        return Ran(
            service, np.array(latency, float), np.array(interval, float), samples, rows,
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
    spent = energy.of(energy.load(study.energy), actions(design, ran))
    microjoules = {name: each / ran.rows for name, each in spent.items()}
    row: dict[str, Any] = {
        "engine": design.engine,
        "samples_per_second": rate * ran.samples,
        "queries_per_second": rate,
        "latency_us": float(np.median(ran.latency)) / config.clock_mhz,
        "energy_uj_per_sample": sum(microjoules.values()),
        "power_w": sum(microjoules.values()) * 1e-6 * rate * ran.samples,
        "area_lut4_equivalents": design.cards * area_lut4(config),
        "host_link_bytes_per_sample": ran.host_bytes / ran.rows,
        "dram_bytes": dram_bytes(ran),
        "samples_of_a_request": ran.samples,
        "interval_cycles": ran.interval.tolist(),
        "latency_cycles": ran.latency.tolist(),
        "in_flight": ran.service.line.slots,
        "mismatching_samples": ran.mismatching,
        "energy_uj": microjoules,
        "engines": engines(ran),
        "shares": shares(design, ran),
        "macs_per_sample": actions(design, ran)["mac_int8"] / ran.rows,
        "dram_bytes_per_sample": _sum(ran.cards, "dram_read_bytes", "dram_write_bytes") / ran.rows,
        **{name: value for name, value in stamp(config, 0).items() if name != "config"},
    }
    if study.arrivals is not None:
        bound = study.arrivals.p99_us * config.clock_mhz
        found = queueing.highest_rate(
            ran.service, bound, rate / hertz, study.arrivals.requests, study.arrivals.seed
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
