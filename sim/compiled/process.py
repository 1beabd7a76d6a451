"""What keeps a compiled model and the signals of a simulation the same."""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Signal
from amaranth.hdl._ast import SignalSet
from amaranth.sim._base import BaseEngine, BaseProcess, BaseSignalState

from halfdome.sim.compiled.checks import Check, Group
from halfdome.sim.compiled.model import Model
from halfdome.sim.compiled.recording import Recording
from halfdome.sim.compiled.refusals import NotFollowed
from halfdome.sim.compiled.translation import Translation


class _Input:
    """An input of the model and the simulator's signal that drives it."""

    def __init__(self, name: str, pin: Any, slot: BaseSignalState, *, periodic: bool):
        self.name = name
        self.pin = pin
        self.periodic = periodic
        self.signal = slot.signal
        self._slot = slot
        self._mask = (1 << len(slot.signal)) - 1

    @property
    def value(self) -> int:
        """What the signal is, unsigned."""
        return self._slot.curr & self._mask


class _Output:
    """An output of the model and the simulator's signal that shows it."""

    def __init__(self, pin: Any, slot: BaseSignalState):
        self._pin = pin
        self._slot = slot
        self._shown = -1
        shape = slot.signal.shape()
        self._sign = 1 << (shape.width - 1) if shape.signed else 0

    def show(self) -> None:
        raw = self._pin.value
        if raw != self._shown:
            self._shown = raw
            self._slot.update(raw - 2 * (raw & self._sign))


class _Checks:
    """The checks of one group and the pins that say what they do."""

    def __init__(self, group: Group, pins: Callable[[Signal], Any]):
        self._fires = pins(group.fires)
        self._checks = [
            (check, pins(check.values) if len(check.values) else None) for check in group.checks
        ]
        self._shown: dict[Check, int] = {}

    def _firing(self) -> dict[Check, int]:
        fires = self._fires.value
        return {
            check: pin.value if pin is not None else 0
            for index, (check, pin) in enumerate(self._checks if fires else ())
            if fires >> index & 1
        }

    def act(self) -> None:
        """Lets every check act that fires. Raises `AssertionError`."""
        for check, values in self._firing().items():
            check.act(values)

    def act_if_new(self) -> None:
        """Likewise, but what is printed already as it is."""
        before, self._shown = self._shown, self._firing()
        for check, values in self._shown.items():
            if before.get(check) != values:
                check.act(values)


class ModelProcess(BaseProcess):
    """A process of the simulator that runs when an input has changed or a clock has an edge.

    Between its runs the model is settled. At an edge, the checks of the domain see that. Then the
    clock is taken back, if it is where the last edge has left it, and the edge performed: so the
    process sleeps through a periodic clock's other edge.
    """

    def __init__(
        self,
        engine: BaseEngine,
        translation: Translation,
        model: Model,
        recording: Recording,
        periodic: SignalSet,
    ):
        self.runnable = True
        self._engine = engine
        self._model = model
        self._recording = recording
        self._changed: list[_Input] = []
        self._edges: list[tuple[_Input, int]] = []
        names, state = translation.pins(), engine.state

        def pin(signal: Signal) -> Any:
            return model.pins[names[signal]]

        def slot(signal: Signal) -> BaseSignalState:
            return state.slots[state.get_signal(signal)]

        inputs = {}
        for signal in translation.inputs:
            if signal not in names:
                continue
            entry = _Input(names[signal], pin(signal), slot(signal), periodic=signal in periodic)
            inputs[names[signal]] = entry
            self._changed.append(entry)
            state.add_signal_waker(signal, self._waker(entry, translation.edges.get(signal, ())))
        self._outputs = [_Output(pin(s), slot(s)) for s in translation.outputs if s in names]
        self._settled_checks = []
        self._edge_checks: dict[tuple[_Input, int], list[_Checks]] = {}
        for group, clock, level in translation.groups:
            checks = _Checks(group, pin)
            if clock is None:
                self._settled_checks.append(checks)
            else:
                at = inputs[names[clock]], level
                self._edge_checks.setdefault(at, []).append(checks)

    def _waker(self, entry: _Input, levels: tuple[int, ...]) -> Callable[[int, int], bool]:
        """Told by the simulator of each change; `levels` are those after a clock's edges."""

        def waker(_: int, level: int) -> bool:
            if level in levels:
                self._edges.append((entry, level))
                self.runnable = True
            elif not entry.periodic:
                self._changed.append(entry)
                self.runnable = True
            return True

        return waker

    def run(self) -> None:
        """Raises `AssertionError` of a check, `NotFollowed` of a race."""
        if self._edges:
            self._refuse_race()
            self._perform_edges()
        if self._changed:
            self._drive()
        self._model.eval()
        self._recording.last = self._engine.now
        for output in self._outputs:
            output.show()

    def check_settled(self) -> None:
        """Lets combinational checks see the inputs that processes have set as well."""
        for checks in self._settled_checks:
            checks.act_if_new()

    def _refuse_race(self) -> None:
        """The simulator lets some of the design see the change before the edge, and some after."""
        clocks = [entry for entry, _ in self._edges]
        late = self._changed or [entry for entry in clocks if not entry.periodic]
        if self._changed or (late and len(clocks) > 1):
            clock = next(entry for entry in clocks if entry is not late[0])
            raise NotFollowed(
                f"{late[0].signal.name!r} changes in the very moment of an edge of "
                f"{clock.signal.name!r}"
            )

    def _perform_edges(self) -> None:
        edges, self._edges = self._edges, []
        for at in edges:
            for checks in self._edge_checks.get(at, ()):
                checks.act()
        if any(entry.pin.value == level for entry, level in edges):
            for entry, level in edges:
                entry.pin.value = 1 - level
            self._model.eval()
        for entry, level in edges:
            entry.pin.value = level
            if not entry.periodic:
                self._recording.add(self._engine.now, {entry.name: level})

    def _drive(self) -> None:
        values = {}
        for entry in self._changed:
            values[entry.name] = entry.pin.value = entry.value
        self._changed.clear()
        self._recording.add(self._engine.now, values)
