"""Models from elsewhere, as the work of a study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from halfdome.host import platform
from halfdome.host.explore.parameters import Design
from halfdome.host.explore.queueing import Answered, Line
from halfdome.host.explore.simulate import (
    ALONE,
    MEASURED,
    Counting,
    Ran,
    macs_of,
    run_served,
)
from halfdome.host.explore.study import Model
from halfdome.host.frontend.calibration import read_requests
from halfdome.host.frontend.compile import compile
from halfdome.host.frontend.plan import CardPart, Plan
from halfdome.host.frontend.prepare import Prepared, prepare
from halfdome.host.frontend.sessions import open_session, run_session
from halfdome.host.serving.session import InferenceSession

PLANS = 4
"""Of a model, the last ones, kept for the next points of a process."""


def run_model(said: Model, design: Design, at_random: bool) -> Ran:
    """Gives the work to the platform of a design, with `at_random` also so; ONNX Runtime's bits are
    the reference.

    A sample is a request as the file has it. If one step of the plan is for the cards, requests
    that they take together come to it one right after the other, and at random; of several steps,
    to the first of them when all have left the one before.
    """
    prepared = None
    if said.is_compiled:
        plan = Plan.load(said.path)
    else:
        prepared, compiled = _opened(said)
        plan = compiled(
            cards=design.cards, config=design.card, transfers=design.transfers,
            in_flight=design.in_flight, parallelism=design.parallelism, requests=design.batch,
            cores_sparse=design.cores_sparse, values=design.computes,
        )  # fmt: skip
    parts = {n: step for n, step in enumerate(plan.steps) if isinstance(step, CardPart)}
    if not parts:
        raise ValueError(f"{said.path}: the host does all of it: cards compute none of its nodes")
    with InferenceSession(
        plan, cards=design.cards, config=design.card, engine=design.engine,
        fabric=platform.fabric(**design.fabric), threads=1, values=design.computes,
    ) as session:  # fmt: skip
        asked = [
            request for each in read_requests(said.requests, "requests")
            for request in plan.split(str(said.requests), each)
        ]  # fmt: skip
        together = max(part.requests for part in parts.values())
        asked = [asked[n % len(asked)] for n in range(-(-len(asked) // together) * together)]
        if len(parts) == 1:
            ran, made = _run_part(session, next(iter(parts)), asked, design, at_random)
        else:
            ran, made = _run_parts(session, asked, together, design)
    if prepared is None or not design.computes:
        return ran
    return replace(ran, mismatching=_differing_requests(prepared, plan, asked, made))


def prepared_of(said: Model) -> Prepared:
    """The model, read and quantised, once in a process."""
    return _opened(said)[0]


def _opened(said: Model) -> tuple[Prepared, Callable[..., Plan]]:
    """The model, and what compiles it, once for points that the compiler sees alike: those that
    differ in what lies between host and cards."""
    return _prepared(said.path, said.calibration, tuple(sorted(said.shapes.items())))


@lru_cache(maxsize=2)
def _prepared(
    path: Path, calibration: Path | None, shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> tuple[Prepared, Callable[..., Plan]]:
    known = None if calibration is None else read_requests(calibration, "calibration")
    prepared = prepare(path, calibration=known, shapes=dict(shapes))
    return prepared, lru_cache(maxsize=PLANS)(partial(compile, prepared))


def _run_part(
    session: InferenceSession, number: int, asked: Sequence[Mapping[str, np.ndarray]],
    design: Design, at_random: bool,
) -> tuple[Ran, list[dict[str, np.ndarray]]]:  # fmt: skip
    """A plan with one step for the cards."""
    part, values = session.plan.steps[number], design.computes
    made = [dict(request) for request in asked]
    session.run_steps(range(number), made)
    requests = part.packed(made, values)
    samples = [part.requests] * len(requests)
    ran, answers = run_served(
        session.runtime, session.served[number], requests, samples, design, at_random
    )
    if values:
        responses = dict(answers)
        part.hand_on(made, [responses[place] for place in range(len(requests))], values)
        session.run_steps(range(number + 1, len(session.plan.steps)), made)
    return replace(ran, macs=ran.macs * part.samples), made


def _run_parts(
    session: InferenceSession, asked: Sequence[Mapping[str, np.ndarray]], together: int,
    design: Design,
) -> tuple[Ran, list[dict[str, np.ndarray]]]:  # fmt: skip
    """A plan with several: all requests, `together` at a time, take each step in turn."""
    count = -(-max(MEASURED, len(asked)) // together)
    every = [asked[n % len(asked)] for n in range(count * together)]
    latency = []
    for place in range(min(ALONE, count)):
        session.tensors(every[place * together :][:together])
        latency.append(float(sum(run.cycles for run in session.steps)))
    with Counting(session.runtime) as counted:
        made = session.tensors(every)
    steps = [
        (step, run) for step, run in zip(session.plan.steps, session.steps, strict=True)
        if isinstance(step, CardPart)
    ]  # fmt: skip
    interval = sum(run.cycles for _, run in steps) / count
    answers = [(step.program, run.responses) for step, run in steps]
    macs = len(every) * sum(macs_of(step.program) * step.samples for step, _ in steps)
    return counted.ran(
        Line(1, 1), [Answered([0], [cycles], [[cycles]]) for cycles in latency], latency,
        [interval], float(together), len(every), macs, answers, design,
    ), made[: len(asked)]  # fmt: skip


def _differing_requests(
    prepared: Prepared, plan: Plan, asked: Sequence[Mapping[str, np.ndarray]],
    made: Sequence[Mapping[str, np.ndarray]],
) -> int:  # fmt: skip
    """Requests with an output of which a bit is not as ONNX Runtime has it."""
    judge, names = open_session(prepared.model), [each.name for each in plan.outputs]
    wrong = 0
    for request, tensors in zip(asked, made, strict=True):
        right = run_session(judge, names, prepared.inputs_of(request))
        wrong += any(
            tensors[name].tobytes() != each.tobytes()
            for name, each in zip(names, right, strict=True)
        )
    return wrong
