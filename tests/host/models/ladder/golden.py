"""Compiled models on a card of plain Python."""

from halfdome.hdl.config import PRESETS
from halfdome.host.frontend.plan import CardPart
from halfdome.host.frontend.sessions import open_session
from halfdome.host.runtime.deployment import Deployment
from tests.host.golden_platform import GoldenPlatform


def answered(plan, request):
    """All tensors that the steps of a plan for one `default` card make of a request."""
    platform = GoldenPlatform(PRESETS["default"], 1)
    known = dict(request)
    for step in plan.steps:
        if isinstance(step, CardPart):
            deployment = Deployment(
                platform.session, platform.accelerators, step.program, lambda: 0
            )
            step.hand_on([known], deployment.run(step.packed([known], values=True)), values=True)
            deployment.release()
        else:
            inputs = {name: known[name] for name in step.inputs}
            made = open_session(step.model).run(list(step.outputs), inputs)
            known |= dict(zip(step.outputs, made, strict=True))
    return known
