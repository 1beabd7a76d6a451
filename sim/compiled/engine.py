"""An engine of Amaranth's simulator in which a compiled model stands for the design.

Clocks, test benches, processes and time are the simulator's. Where it would interpret the design's
statements, the model gets the inputs that have changed and the clocks that have an edge.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from amaranth.hdl import CombinationalCycle, Const, Fragment, Signal, Value, ValueLike
from amaranth.hdl._ast import SignalDict, SignalSet
from amaranth.hdl._ir import Design
from amaranth.lib import wiring
from amaranth.sim import Simulator
from amaranth.sim._async import ChangedTrigger, EdgeTrigger, SampleTrigger

from halfdome.hdl.rtlil import ports_of
from halfdome.sim.compiled.model import Model, build
from halfdome.sim.compiled.process import ModelProcess
from halfdome.sim.compiled.recording import Recording
from halfdome.sim.compiled.translation import Translation, design, ports, translate
from halfdome.sim.settling import CombinationalLoop, SettlingEngine


@contextmanager
def compiled(
    simulator: Simulator,
    component: wiring.Component,
    periods: dict[str, float],
    processes: Collection,
) -> Iterator[Recording]:
    """Compiles the design of a simulator whose engine is a `CompiledEngine`.

    `periods` are those of the clocks that were added, in seconds, by domain. The model is freed in
    the end. Raises `NotFollowed`, `CombinationalLoop`, and `BuildError` of a compilation.
    """
    top = simulator._design.fragment
    periodic = SignalDict((top.domains[name].clk, period) for name, period in periods.items())
    translation = translate(
        top,
        ports=[value for _, _, value in ports_of(component)],
        periodic=SignalSet(periodic),
        processes=bool(processes),
    )
    pins = translation.pins()
    name = type(component).__name__
    try:
        folder = build(design(top, pins), ports(pins), traced=False, name=name)
    except CombinationalCycle as error:
        raise CombinationalLoop(str(error)) from error
    model = Model(folder, ports(pins))
    named = {pins[clock]: period for clock, period in periodic.items()}
    recording = Recording(name, translation, named)
    simulator._engine.load(name, translation, model, recording, SignalSet(periodic))
    try:
        yield recording
    finally:
        model.close()


class CompiledEngine(SettlingEngine):
    """An engine for `amaranth.sim.Simulator`; `load` gives it the model.

    Test benches see the pins of the model, and signals that are not the design's. Others would look
    like signals that never change: they are refused with `ValueError`.
    """

    def __init__(self, design: Design):
        super().__init__(SimpleNamespace(fragment=Fragment()))  # there is nothing to interpret
        self._design = design
        self._name = ""
        self._inner: set[int] = set()
        self._outputs: set[int] = set()
        self._late: set[int] = set()
        self._unsteady: set[int] = set()
        self._clocks: set[int] = set()
        self._has_processes = False

    def load(
        self,
        name: str,
        translation: Translation,
        model: Model,
        recording: Recording,
        periodic: SignalSet,
    ) -> None:
        """Lets the model stand for the design called `name`; `periodic` are the clocks added."""
        self._name = name
        visible = SignalSet((*translation.inputs, *translation.outputs))
        self._inner = {id(s) for s in self._design.signal_lca if s not in visible}
        self._outputs = {id(s) for s in translation.outputs}
        self._late = {id(s) for s in translation.late}
        self._unsteady = {id(s) for s in translation.unsteady}
        self._clocks = {id(s) for s in (*periodic, *translation.edges)}
        self._has_processes = translation.processes
        self._model = ModelProcess(self, translation, model, recording, periodic)
        self._processes.add(self._model)

    def get_value(self, expr: ValueLike) -> int:
        self._check_visible(expr)
        return super().get_value(expr)

    def set_value(self, expr: ValueLike, value: int) -> None:
        self._check_visible(expr)
        for signal in Value.cast(expr)._lhs_signals():
            if id(signal) in self._outputs:
                raise ValueError(
                    f"{signal.name}: is driven inside; engine native cannot set it, engine pysim "
                    "can if a register drives it"
                )
        super().set_value(expr, value)

    def step_design(self) -> None:
        super().step_design()
        self._model.check_settled()

    def add_trigger_combination(self, combination, *, oneshot: bool):
        causes, seen = [], []
        for trigger in combination._triggers:
            match trigger:
                case EdgeTrigger(signal=value) | ChangedTrigger(signal=value):
                    causes.append(value)
                    seen.append(value)
                case SampleTrigger(value=value):
                    seen.append(value)
        for value in seen:
            self._check_visible(value)
        self._check_order(causes, seen)
        return super().add_trigger_combination(combination, oneshot=oneshot)

    def _check_order(self, causes: list[Signal], seen: list[Value]) -> None:
        """Refuses to look at what the simulator changes step by step before it has settled."""
        for cause in causes:
            if id(cause) in self._unsteady:
                raise ValueError(
                    f"{cause.name}: may change several times before it settles; engine native "
                    "shows the last only, engine pysim each; wait for a register or a clock"
                )
            if not self._is_within_moment(cause):
                continue
            for signal in (signal for value in seen for signal in value._rhs_signals()):
                if id(signal) in self._late and signal is not cause:
                    raise ValueError(
                        f"{signal.name}: changes after {cause.name} at whose change it is sampled; "
                        "engine native would show it settled, engine pysim shows it before; get it "
                        "after the wait"
                    )

    def _is_within_moment(self, cause: Signal) -> bool:
        """Whether a signal may change while the design settles after the edge of a clock."""
        return id(cause) in self._outputs or (self._has_processes and id(cause) not in self._clocks)

    def _check_visible(self, expr: ValueLike) -> None:
        value = Value.cast(expr)
        if isinstance(value, Const):
            return
        try:
            signals = (value,) if isinstance(value, Signal) else value._rhs_signals()
        except NotImplementedError:
            raise ValueError(
                f"{value!r}: engine native knows the ports of {self._name} only, of its memories "
                "nothing; engine pysim knows every row"
            ) from None
        for signal in signals:
            if id(signal) in self._inner:
                raise ValueError(
                    f"{signal.name}: is no port of {self._name}; engine native knows ports only, "
                    "engine pysim every signal"
                )
