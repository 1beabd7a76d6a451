"""A model that answers requests, as onnxruntime.InferenceSession does: on the cards of a platform,
and in ONNX Runtime what they do not do."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from halfdome.hdl.config import MOST_CARDS, PLATFORM_CARDS, PRESETS, CardConfig, ConfigError, preset
from halfdome.host import arguments, platform
from halfdome.host.frontend.compile import Requests, compile
from halfdome.host.frontend.errors import ModelError
from halfdome.host.frontend.plan import SUFFIX, Argument, CardPart, Plan
from halfdome.host.frontend.sessions import left_out, open_session, run_session
from halfdome.host.frontend.steps import HostStep
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.left_out import LeftOut
from halfdome.host.serving.deploy import deploy

if TYPE_CHECKING:
    import onnxruntime

_ONNX_TYPES = {"float32": "float", "float64": "double", "object": "string"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output, as ONNX Runtime tells of it: `type` like "tensor(float)"."""

    name: str
    type: str
    shape: list[int | None]


@dataclass
class StepRun:
    """What a step took in the last run.

    Attributes
    ----------
    seconds : float, of this machine
    cycles : int, of platform time; 0 of a host step
    responses : list of Response, one for each round of requests; of a host step none
    """

    seconds: float = 0.0
    cycles: int = 0
    responses: list[Response] = field(default_factory=list)


class InferenceSession:
    """A model on a platform of its own. A context manager; `close` gives everything back.

    Parameters
    ----------
    model : path of an ONNX or compiled (.halfdome) file, bytes of an ONNX file, onnx.ModelProto,
        Plan, TorchModel, or torch.nn.Module
    cards, config, engine : as for `halfdome.open`; of a compiled model as it was compiled
    example_inputs, calibration, shapes : as for `halfdome.compile`
    options : passed to `halfdome.open`; with `values=False` outputs cannot be read, and neither do
        steps of the host run whose inputs are outputs of the cards

    Attributes
    ----------
    plan : Plan
    runtime : Runtime
    served : Deployment of each step of the cards, by the step's number
    steps : StepRun of each step of the plan, of the last run

    Raises what `halfdome.compile` and `halfdome.open` raise, and `ValueError` for an option that
    there is not.
    """

    def __init__(
        self, model: Any, *, cards: int | None = None, config: str | CardConfig = "default",
        engine: str = "native", example_inputs: Sequence[object] | None = None,
        calibration: Requests | None = None, shapes: Mapping[str, Sequence[int]] = {},
        say: Callable[[str], None] = lambda text: None, **options: object,
    ):  # fmt: skip
        design = preset(config) if isinstance(config, str) else config
        if not isinstance(design, CardConfig):
            raise ConfigError(f"config={config!r}: must be the name of a preset or a CardConfig")
        platform.check_options(options)
        if cards is not None:
            cards = arguments.integer("cards", cards, 1, MOST_CARDS)
        plan = _plan(model)
        if plan is None:
            count = PLATFORM_CARDS if cards is None else cards
            platform.check(design, count, engine)
            plan = compile(
                model, example_inputs, calibration=calibration, shapes=shapes, cards=count,
                config=design, say=say,
            )  # fmt: skip
        elif calibration is not None or shapes or example_inputs is not None:
            raise ModelError("model: is compiled already; calibration and shapes are part of that")
        if plan.config != design.hash:
            raise ModelError(
                f"model: is compiled for cards of {_known(plan.config)}, these are "
                f"{_known(design.hash)}: give their config, or compile it again"
            )
        if cards not in (None, plan.cards):
            raise ModelError(
                f"cards={cards}: the model is compiled for {plan.cards}: compile it again"
            )
        self.plan = plan
        say("opening the platform")
        self.runtime = platform.open(plan.cards, design, engine, **options)  # type: ignore[arg-type]
        self._hosts: dict[int, onnxruntime.InferenceSession] = {}
        self.served: dict[int, Deployment] = {}
        self.steps = [StepRun() for _ in plan.steps]
        self._closed = False
        try:
            say("bringing the model to the cards")
            self._open()
        except MemoryError as error:
            self.runtime.close()
            raise MemoryError(
                f"model: does not fit cards of {design.dram_bytes} bytes ({error}); give a config "
                "with more dram_bytes"
            ) from None
        except BaseException:
            self.runtime.close()
            raise

    def _open(self) -> None:
        for number, step in enumerate(self.plan.steps):
            if isinstance(step, HostStep):
                self._hosts[number] = open_session(step.model)
            else:
                self.served[number] = deploy(self.runtime, step.program)

    def get_inputs(self) -> list[NodeArg]:
        """What a request brings."""
        return [_node_arg(each) for each in self.plan.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """What a response holds."""
        return [_node_arg(each) for each in self.plan.outputs]

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, np.ndarray],
        run_options: None = None,
    ) -> list[np.ndarray]:  # fmt: skip
        """The outputs of one request, all of them if no names are given.

        `run_options` is there for calls that are written for ONNX Runtime; only None is taken.
        Raises `ModelError` for a request that is not as the model wants it, before anything is
        done, for an output that there is not, and for what ONNX Runtime refuses on the way; and
        `RuntimeError` if the session is closed.
        """
        if run_options is not None:
            raise ModelError("run_options: must be None; cards have no such options")
        return self.run_many(output_names, [input_feed])[0]

    def run_many(
        self, output_names: Sequence[str] | None, requests: Sequence[Mapping[str, np.ndarray]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[list[np.ndarray]]:  # fmt: skip
        """The outputs of each request; the cards work on as many as they are at a time.

        `progress` is told of steps that are done, of all steps of all requests. Raises as `run`
        does.
        """
        known = [each.name for each in self.plan.outputs]
        if isinstance(output_names, str) or not isinstance(output_names, Iterable | None):
            raise ModelError(f"output_names={output_names!r}: must be a list of names, or None")
        names = known if output_names is None else list(output_names)
        for name in names:
            if name not in known:
                raise ModelError(f"output {name}: unknown; outputs are {', '.join(known)}")
        tensors = self.tensors(requests, progress)
        return [[each[name] for name in names] for each in tensors]

    def tensors(
        self, requests: Sequence[Mapping[str, np.ndarray]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[dict[str, np.ndarray]]:  # fmt: skip
        """All tensors that steps hand on, by name, for each request."""
        if self._closed:
            raise RuntimeError("session: is closed; open another InferenceSession")
        made = [self.plan.checked(request) for request in requests]
        self.run_steps(range(len(self.plan.steps)), made, progress)
        return made

    def run_steps(
        self, numbers: Iterable[int], made: Sequence[dict[str, Any]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:  # fmt: skip
        """Runs some steps of the plan: to the tensors of each request come those they hand on."""
        for number in numbers:
            step, run = self.plan.steps[number], StepRun()
            self.steps[number] = run
            start, cycle = time.perf_counter(), self.runtime.cycles
            if isinstance(step, HostStep):
                self._run_host(number, step, made, progress)
            else:
                self._run_cards(number, step, made, progress)
            run.seconds = time.perf_counter() - start
            run.cycles = self.runtime.cycles - cycle

    def _run_host(self, number: int, step: HostStep, made, progress) -> None:
        for tensors in made:
            inputs = {name: tensors[name] for name in step.inputs}
            if any(isinstance(value, LeftOut) for value in inputs.values()):
                made_up = left_out(self._hosts[number])
                tensors.update({name: made_up[name] for name in step.outputs})
            else:
                found = run_session(self._hosts[number], step.outputs, inputs)
                tensors.update(zip(step.outputs, found, strict=True))
            progress(1)

    def _run_cards(self, number: int, step: CardPart, made, progress) -> None:
        values = self.runtime.session.values
        responses = self.served[number].run(
            step.packed(made, values), lambda rows: progress(rows // step.samples)
        )
        step.hand_on(made, responses, values)
        self.steps[number].responses = responses

    def close(self) -> None:
        """Ends the simulation and frees its memory."""
        self._closed = True
        self.runtime.close()

    def __enter__(self) -> "InferenceSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plan(model: object) -> Plan | None:
    """A model that is compiled already."""
    if isinstance(model, Plan):
        return model
    if isinstance(model, str | Path) and Path(model).suffix == SUFFIX:
        return Plan.load(model)
    return None


def _known(config: str) -> str:
    """A configuration by its hash, and by its name if it is a preset."""
    names = [name for name, each in PRESETS.items() if each.hash == config]
    return " ".join([*names, config])


def _node_arg(each: Argument) -> NodeArg:
    kind = _ONNX_TYPES.get(each.dtype.name, each.dtype.name)
    return NodeArg(each.name, f"tensor({kind})", list(each.shape))
