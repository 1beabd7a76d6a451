"""A compiled component under test benches of Amaranth's simulator.

The simulator holds the component's ports and a clock; what is between them is compiled. Whenever an
input changes the model settles, at every clock edge it steps.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

from amaranth.hdl import Elaboratable, Module, Signal, Value, ValueLike
from amaranth.lib import wiring
from amaranth.sim import Simulator

from halfdome.sim.engine import native
from halfdome.sim.engine.ports import Port, component_ports
from halfdome.sim.waves import Waves

_SETTLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_EDGE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Shell(Elaboratable):
    """Something in the `sync` domain, so that there is a clock."""

    def elaborate(self, platform):
        m = Module()
        beat = Signal()
        m.d.sync += beat.eq(~beat)
        return m


class _Model:
    """A model with its calls and its pins at hand."""

    def __init__(self, folder: Path, waves: Waves | None = None):
        self._model = native.NativeModel(folder, waves)
        self._settle, self._edge = _SETTLE(self._model.settle), _EDGE(self._model.edge)
        self.pins = {
            port: (self._model.pins[port.name].data, port.storage_bytes)
            for port in self._model.ports
        }

    def drive(self, inputs: list[bytes]) -> None:
        places = (place for port, place in self.pins.items() if port.is_input)
        for (data, nbytes), raw in zip(places, inputs, strict=True):
            ctypes.memmove(data, raw, nbytes)

    def settle(self) -> None:
        self._settle(self._model.context)

    def edge(self) -> None:
        self._edge(self._model.context)

    def close(self) -> None:
        self._model.close()


class Compiled:
    """The component `component`, compiled; its test benches see its ports and nothing else.

    Raises `halfdome.sim.engine.compiler.BuildError` if it cannot be compiled, for one without a
    clock.
    """

    def __init__(self, component: wiring.Component):
        self._name = type(component).__name__
        self._component = component
        self._folder = native.build(lambda: component, name=self._name)
        self._model = _Model(self._folder)
        self._values = {port.name: value for port, value in component_ports(component).items()}
        self._known = {id(signal) for value in self._values.values() for signal in _signals(value)}
        self._inputs = [p for p in self._model.pins if p.is_input]
        self._outputs = [p for p in self._model.pins if not p.is_input]
        self._now: list[bytes] = []
        self._shown: dict[Port, bytes] = {}
        self._history: list[tuple[int, list[bytes]]] = []
        self._cycle = 0

    def simulator(self) -> Simulator:
        """A simulator with the ports; test benches go through `bench`."""
        simulator = Simulator(_Shell())
        simulator.add_process(self._settle)
        simulator.add_process(self._step)
        return simulator

    def bench(self, bench: Callable) -> Callable:
        """The test bench, refused with `ValueError` whatever is no port of the component."""

        async def checked(ctx):
            await bench(_Context(ctx, self._check))

        return checked

    def _check(self, values: tuple[ValueLike, ...]) -> None:
        for value in values:
            for signal in _signals(value):
                if id(signal) not in self._known:
                    raise ValueError(
                        f"{signal.name}: is no port of {self._name}; engine native knows ports "
                        "only, engine pysim every signal"
                    )

    async def _settle(self, ctx):
        values = [self._values[port.name] for port in self._inputs]
        if not values:
            self._model.settle()
            self._show(ctx)
            return
        async for sampled in ctx.changed(*values):
            self._now = [
                (value & ((1 << port.width) - 1)).to_bytes(port.storage_bytes, "little")
                for port, value in zip(self._inputs, sampled, strict=True)
            ]
            self._model.drive(self._now)
            self._model.settle()
            self._show(ctx)

    async def _step(self, ctx):
        async for _ in ctx.tick():
            if not self._history or self._history[-1][1] != self._now:
                self._history.append((self._cycle, self._now))
            self._cycle += 1
            self._model.settle()  # the clock falls, also where no input has changed
            self._model.edge()
            self._show(ctx)

    def _show(self, ctx) -> None:
        for port in self._outputs:
            data, nbytes = self._model.pins[port]
            stored = ctypes.string_at(data, nbytes)
            if self._shown.get(port) == stored:
                continue
            self._shown[port] = stored
            raw = int.from_bytes(stored, "little")
            value = self._values[port.name]
            if value.shape().signed and raw >> (port.width - 1):
                raw -= 1 << port.width
            ctx.set(value, raw)

    def write_waves(self, path: Path) -> None:
        """A VCD of everything so far: the component is simulated again, driven as it was."""
        folder = native.build(lambda: self._component, traced=True, name=self._name)
        model = _Model(folder, Waves(path, stop=self._cycle + 1))
        try:
            changes = dict(self._history)
            for cycle in range(self._cycle):
                if cycle in changes:
                    model.drive(changes[cycle])
                model.settle()
                model.edge()
            model.drive(self._now)
            model.settle()
        finally:
            model.close()

    def close(self) -> None:
        """Frees the model."""
        self._model.close()


def _signals(value: ValueLike) -> list[Signal]:
    return list(Value.cast(value)._rhs_signals())


class _Context:
    """The context of a test bench, with every expression checked."""

    def __init__(self, ctx, check: Callable[[tuple[ValueLike, ...]], None]):
        self._ctx = ctx
        self._check = check

    def get(self, value: ValueLike):
        self._check((value,))
        return self._ctx.get(value)

    def set(self, value: ValueLike, to: object) -> None:
        self._check((value,))
        self._ctx.set(value, to)

    def changed(self, *values: ValueLike):
        self._check(values)
        return self._ctx.changed(*values)

    def tick(self, *arguments, **options) -> "_Tick":
        return _Tick(self._ctx.tick(*arguments, **options), self._check)

    def __getattr__(self, name: str):
        return getattr(self._ctx, name)


class _Tick:
    """A clock trigger with every expression checked."""

    def __init__(self, trigger, check: Callable[[tuple[ValueLike, ...]], None]):
        self._trigger = trigger
        self._check = check

    def sample(self, *values: ValueLike) -> "_Tick":
        self._check(values)
        return _Tick(self._trigger.sample(*values), self._check)

    async def until(self, condition: ValueLike):
        self._check((condition,))
        return await self._trigger.until(condition)

    def __await__(self):
        return self._trigger.__await__()

    def __aiter__(self):
        return self._trigger.__aiter__()

    def __getattr__(self, name: str):
        return getattr(self._trigger, name)
