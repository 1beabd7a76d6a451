"""What a session answered, where, and how long it took, for people and machines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from halfdome.host.frontend.calibration import written
from halfdome.host.frontend.plan import CardPart, Plan
from halfdome.host.report import layers as report
from halfdome.host.report import utilisation
from halfdome.host.report.layers import Layers
from halfdome.host.report.stamp import stamp
from halfdome.host.report.utilisation import Utilisation
from halfdome.host.runtime.left_out import LeftOut
from halfdome.host.serving.session import InferenceSession

_SHOWN = 4
"""Values of an output that a result quotes."""

Tensors = Mapping[str, np.ndarray]


def layers_of(session: InferenceSession) -> dict[int, Layers]:
    """What each layer took and moved in the last run, by step of the cards.

    Of the first requests that were worked on together.
    """
    return {
        number: report.of(step.program, session.runtime.config, run.responses[0])
        for number, (step, run) in enumerate(zip(session.plan.steps, session.steps, strict=True))
        if isinstance(step, CardPart)
    }


def utilisation_of(session: InferenceSession) -> Utilisation:
    """What all requests of the last run used of arrays and links."""
    steps = [
        (step.program, run.responses)
        for step, run in zip(session.plan.steps, session.steps, strict=True)
        if isinstance(step, CardPart)
    ]
    return utilisation.of(steps, session.runtime.config)


def of_run(
    session: InferenceSession, tensors: Sequence[Tensors], layers: Mapping[int, Layers]
) -> dict:
    """The result of the last run of a session, JSON-able.

    `tensors` is what `session.tensors` returned, `layers` what `layers_of` did. The latency of a
    request is that of the cards: for each step, from the first command that a card starts to the
    end of the last, of the requests that are worked on together.
    """
    plan, clock = session.plan, session.runtime.config.clock_mhz
    latency = [_latency(session, place) for place in range(len(tensors))]
    cycles = sum(step.cycles for step in session.steps)
    partition = plan.report
    for entry, step in zip(partition["steps"], session.steps, strict=True):
        entry |= {"cycles": step.cycles, "seconds": step.seconds, "rounds": len(step.responses)}
    return {
        **stamp(session.runtime.config, 0), "engine": session.runtime.engine,
        "values": session.runtime.session.values,
        "requests": len(tensors), "total_cycles": cycles, "total_us": cycles / clock,
        "latency_cycles": latency, "latency_us": [each / clock for each in latency],
        "outputs": [_outputs(plan, each) for each in tensors], "partition": partition,
        "layers": {number: each.as_dict() for number, each in layers.items()},
    }  # fmt: skip


def _latency(session: InferenceSession, place: int) -> int:
    return sum(
        run.responses[place // step.requests].latency_cycles
        for step, run in zip(session.plan.steps, session.steps, strict=True)
        if isinstance(step, CardPart)
    )


def _outputs(plan: Plan, tensors: Tensors) -> list[dict]:
    found = []
    for each in plan.outputs:
        array = tensors[each.name]
        first_values = largest = None
        if not isinstance(array, LeftOut):
            first_values = array.reshape(-1)[:_SHOWN].tolist()
            largest = _largest(array)
        found.append({
            "name": each.name, "dtype": array.dtype.name, "shape": list(array.shape),
            "first_values": first_values, "largest_of_first_row": largest,
        })  # fmt: skip
    return found


def _largest(array: np.ndarray) -> int | None:
    """Where the largest element of the first row is, of what has rows."""
    if array.ndim not in (1, 2) or array.shape[-1] < 2 or array.dtype.kind not in "fiu":
        return None
    return int(array.reshape(-1, array.shape[-1])[0].argmax())


def write_outputs(path: Path, plan: Plan, tensors: Sequence[Tensors]) -> None:
    """Writes outputs by their names as one .npz, those of several requests stacked."""
    arrays = {
        each.name: np.stack([one[each.name] for one in tensors]) if len(tensors) > 1
        else tensors[0][each.name]
        for each in plan.outputs
    }  # fmt: skip
    with path.open("wb") as file:
        np.savez(file, **{name: written(array) for name, array in arrays.items()})
