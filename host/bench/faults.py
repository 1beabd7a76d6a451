"""Every fault at every phase of a batch: what the cards and the host make of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import COMPLETION_BYTES, DESCRIPTOR_BYTES
from halfdome.host.bench.dlrm import SEED, differing, golden
from halfdome.host.driver.rings import RING_ENTRIES
from halfdome.host.graph.graph import Graph
from halfdome.host.models.dlrm import Architecture, Dlrm
from halfdome.host.models.features import Bags, Batch
from halfdome.host.models.quantise import quantise, request
from halfdome.host.platform import Runtime, open
from halfdome.host.report.faults import account
from halfdome.host.report.stamp import stamp
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.placement import FAILURES
from halfdome.host.runtime.requests import Request
from halfdome.host.serving.deploy import deploy

_HITS = {
    "corrupt": ("down", ""),
    "poison": ("down", "Cpl"),
    "poisoned-write": ("up", "MWr"),
    "unsupported": ("down", "Cpl"),
    "abort": ("down", "Cpl"),
    "lost-completion": ("down", "Cpl"),
    "late-completion": ("down", "Cpl"),
    "silent": ("up", ""),
}
"""Which packets a fault hits: those that pass before it is due are counted."""
FAULTS = (*_HITS, "link-down")
PHASES = (
    "doorbell", "fetch", "input read", "gather", "peer copy", "result write", "entry", "interrupt",
)  # fmt: skip
"""What card 0 is doing when a fault strikes the next packet that it can hit; `entry` is that of
the completion ring."""
CARDS = 2
PATIENCE_CYCLES = 12_000
DOWN_US, LATE_US = 5, 12
"""How long a link is down; how late a completion comes, later than a card waits for it."""
_BATCHES, _SAMPLES, _TABLES, _ROWS, _LONGEST = 2, 5, 4, 20, 5


@dataclass(frozen=True)
class Service:
    """A made-up model on the cards of a platform, requests, and what it should answer."""

    runtime: Runtime
    served: Deployment
    requests: list[Request]
    expected: list[np.ndarray]


def serve(runtime: Runtime, seed: int = SEED) -> Service:
    """Places the made-up model, which is as small as the cards allow."""
    rng = np.random.default_rng(seed)
    model = made_up(rng, max(16, runtime.config.bus_bytes))
    return Service(runtime, deploy(runtime, model.graph), model.requests, model.expected)


@dataclass(frozen=True)
class MadeUp:
    """A recommender with random weights, requests, and what it should answer."""

    graph: Graph
    requests: list[Request]
    expected: list[np.ndarray]


def made_up(rng: np.random.Generator, dim: int) -> MadeUp:
    """A recommender with embedding rows of `dim` elements."""
    features = 3
    architecture = Architecture(
        (_ROWS,) * _TABLES, dim, (features, dim), ((1 + _TABLES) * dim, 8, 1)
    )
    parameters = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in architecture.shapes().items()
    }

    def batch() -> Batch:
        dense = rng.normal(size=(_SAMPLES, features)).astype(np.float32)
        sparse = []
        for _ in range(_TABLES):
            lengths = rng.integers(0, _LONGEST + 1, _SAMPLES).astype(np.int32)
            indices = rng.integers(0, _ROWS, lengths.sum()).astype(np.int32)
            sparse.append(Bags(indices, lengths))
        return Batch(dense, tuple(sparse), np.zeros(_SAMPLES, np.float32))

    model = Dlrm(architecture, parameters)
    graph = quantise(model, batch(), _SAMPLES, [_LONGEST] * _TABLES)
    batches = [batch() for _ in range(_BATCHES)]
    expected = [golden(graph, batch) for batch in batches]
    return MadeUp(graph, [request(batch) for batch in batches], expected)


@dataclass(frozen=True)
class Phase:
    """When card 0 begins a phase: time, and packets that have passed by then.

    `at_us` counts from when the batches are handed over; `passed` is by direction, "down" towards
    the card, and kind of packet, "" for all.
    """

    at_us: float
    passed: dict[tuple[str, str], int]


def find_phases(service: Service) -> dict[str, Phase]:
    """Answers the batches without faults and finds where card 0 begins each phase.

    What is before the result write is of the first batch, what follows of the last.
    """
    runtime = service.runtime
    device = runtime.cards[0].device
    start_fs = runtime.platform.time_ns * 1e6
    runtime.platform.record_packets()
    device.history = []
    service.served.run(service.requests)
    history, device.history = device.history, None
    links = {(link.card, link.down): list(link.packets()) for link in runtime.platform.packets()}
    runtime.platform.record_packets(False)
    logs = {"down": links[0, True], "up": links[0, False]}
    writes = [packet for packet in logs["up"] if packet.kind == "MWr"]
    to_host = [packet for packet in writes if packet.destination == "host"]
    rings = device.rings
    entries, slots = (
        range(start, start + RING_ENTRIES * nbytes)
        for start, nbytes in (
            (rings.completion_address, COMPLETION_BYTES),
            (rings.submission_address(), DESCRIPTOR_BYTES),
        )
    )
    completions = [packet for packet in to_host if packet.address in entries]
    messages = [p for p in to_host if p.address == runtime.platform.message(0)[0]]
    read = next(p for p in logs["up"] if p.kind == "MRd" and p.address not in slots)
    sent = next(w for w in writes if w.destination != "host" and w.bytes > 4).start_fs
    gathers = [each.completion for each in history if each.descriptor[0] == Opcode.GATHER]
    begun = min(each.start_cycle for each in gathers if each) / runtime.config.clock_mhz * 1e9
    starts = {
        "doorbell": next(packet for packet in logs["down"] if packet.kind == "MWr").start_fs,
        "fetch": next(p for p in logs["up"] if p.kind == "MRd").start_fs,
        "input read": next(
            p.start_fs
            for p in logs["down"]
            if p.kind == "CplD" and p.tag == read.tag and p.start_fs > read.start_fs
        ),
        "gather": begun,
        "peer copy": sent,
        "result write": next(
            p for p in reversed(to_host) if p not in completions and p not in messages
        ).start_fs,
        "entry": completions[-1].start_fs,
        "interrupt": messages[-1].start_fs,
    }
    return {
        phase: Phase(
            (starts[phase] - start_fs) / 1e9,
            {
                (way, kind): sum(
                    packet.kind.startswith(kind) and packet.start_fs < starts[phase]
                    for packet in log
                )
                for way, log in logs.items()
                for kind in ("", "MWr", "Cpl")
            },
        )
        for phase in PHASES
    }


def strike(service: Service, fault: str, phase: Phase) -> dict:
    """Answers the batches with a fault of card 0, then one of them again; what came of it.

    `outcome` is "right" if every batch has the golden bits, "wrong" if one has others, or the error
    with which the request failed; `who` says which of the columns of `account` the fault is in.
    """
    runtime, served = service.runtime, service.served
    while len(served.cards) < len(runtime.cards):
        runtime.platform.run(PATIENCE_CYCLES)
        served.revive()
    before = len(served.incidents)
    start = runtime.cycles
    if fault == "link-down":
        option = f"at={phase.at_us},for={DOWN_US}"
    else:
        option = f"skip={phase.passed[_HITS[fault]]}"
    if fault == "late-completion":
        option += f",for={LATE_US}"
    runtime.inject([f"{fault}:card=0,{option}"])
    requests, expected = service.requests, service.expected
    try:
        answers = served.run(requests)
        cycles = runtime.cycles - start
        answers += served.run(requests[:1])
        outcome = "wrong" if differing(answers, [*expected, expected[0]]) else "right"
    except FAILURES as error:
        outcome, cycles = f"{type(error).__name__}: {error}", runtime.cycles - start
    incidents = served.incidents[before:]
    counts = account(runtime, incidents)["faults"][-1]
    who = [name for name in ("corrected", "detected", "reported", "unnoticed") if counts[name]]
    return {
        "fault": fault,
        "injected": counts["injected"],
        "who": " ".join(who) or "none",
        "outcome": outcome,
        "again": sum(len(incident.batches) for incident in incidents),
        "actions": "; ".join(incident.action for incident in incidents),
        "errors": "; ".join(incident.error for incident in incidents),
        "cycles": cycles,
    }


def measure(
    config: CardConfig, engine: str = "native", progress: Callable[[int], None] = lambda cells: None
) -> dict:
    """Every fault at every phase, on `CARDS` cards; `progress` is told of each.

    A card that falls silent stays so: those cells have a platform of their own.
    """
    rows = []
    options = {"cards": CARDS, "config": config, "engine": engine}
    with open(**options, patience_cycles=PATIENCE_CYCLES) as runtime:
        service = serve(runtime)
        phases = find_phases(service)
        for phase, fault in cells():
            if fault == "silent":
                with open(**options, patience_cycles=PATIENCE_CYCLES) as another:
                    row = strike(serve(another), fault, phases[phase])
            else:
                row = strike(service, fault, phases[phase])
            rows.append({"phase": phase, **row})
            progress(1)
    return {**stamp(config, SEED), "engine": engine, "cards": CARDS, "rows": rows}


def cells() -> Sequence[tuple[str, str]]:
    """Phase and fault of every cell of the matrix."""
    return [(phase, fault) for phase in PHASES for fault in FAULTS]
