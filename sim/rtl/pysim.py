"""The pysim engine: Amaranth's own simulator, stepped one clock at a time."""

import ctypes
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from amaranth.lib import wiring
from amaranth.sim import Simulator

from halfdome.sim.build.cache import BuildError
from halfdome.sim.build.progress import told
from halfdome.sim.rtl.ports import NO_CLOCK, UNDRIVEN, Pin, component_ports, undriven_domain
from halfdome.sim.settling import SettlingEngine
from halfdome.sim.waves import Waves, cut

CLOCK_PERIOD = 1e-9
_FEMTOSECONDS = 1_000_000
"""A period in the unit of Amaranth's waveforms."""
_SETTLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class PysimModel:
    """One component under Amaranth's simulator, ready to join a world.

    An exception raised inside the simulation stops the world and is kept in `error`.
    """

    edge = None
    context = None
    idle = None

    def __init__(self, component: wiring.Component, waves: Waves | None = None):
        self.error: BaseException | None = None
        values = component_ports(component)
        self.ports = list(values)
        self._storage = {p.name: np.zeros(p.storage_bytes, np.uint8) for p in self.ports}
        self.pins = {p.name: Pin(self._storage[p.name].ctypes.data, p.width) for p in self.ports}
        self._inputs = [(v, self._storage[p.name]) for p, v in values.items() if p.is_input]
        self._outputs = [(v, self._storage[p.name]) for p, v in values.items() if not p.is_input]
        self._settled = self._started = False
        self._simulator = Simulator(component, engine=SettlingEngine)
        inputs = [name for name, _, _ in self._simulator._design.ports]
        if domain := undriven_domain(inputs, self.ports):
            raise BuildError(UNDRIVEN.format(domain))
        try:
            self._simulator.add_clock(CLOCK_PERIOD)
        except NameError as error:
            raise BuildError(NO_CLOCK) from error
        self._cycle = 0
        self._waves = waves
        self._recording = ExitStack()
        self._callback = _SETTLE(self._settle)  # must live as long as the world
        self.settle = ctypes.cast(self._callback, ctypes.c_void_p).value

    async def _bench(self, ctx):
        last: list[bytes | None] = [None] * len(self._inputs)
        while True:
            for index, (value, storage) in enumerate(self._inputs):
                raw = storage.tobytes()
                if raw != last[index]:
                    last[index] = raw
                    ctx.set(value, int.from_bytes(raw, "little"))
            for value, storage in self._outputs:
                raw = ctx.get(value) & ((1 << len(value)) - 1)
                storage[:] = np.frombuffer(raw.to_bytes(len(storage), "little"), np.uint8)
            self._settled = True
            await ctx.tick()

    def _settle(self, _context) -> int:
        """Performs the clock edge of the previous cycle and settles this one."""
        try:
            if not self._started:  # a bench that never ran would be reported as forgotten
                self._started = True
                self._simulator.add_testbench(self._bench)
                self._start_recording()
            if self._waves is not None and self._cycle == self._waves.stop:
                self._recording.close()
            self._settled = False
            while not self._settled:
                self._simulator.advance()
            self._cycle += 1
        except BaseException as error:
            self.error = error
            return 1
        return 0

    def _start_recording(self) -> None:
        """Amaranth records from time 0 only: what is before the window is cut off in the end."""
        if self._waves is None:
            return
        waves = self._waves
        folder = self._recording.enter_context(tempfile.TemporaryDirectory(dir=waves.path.parent))
        whole = Path(folder) / "whole.vcd"

        def finish() -> None:
            if self._cycle > waves.start:
                with whole.open() as source, waves.path.open("w") as target:
                    cut(source, target, waves.start * _FEMTOSECONDS)

        self._recording.callback(finish)
        self._recording.enter_context(self._simulator.write_vcd(str(whole)))

    def close(self) -> None:
        """Completes the waveforms."""
        self._recording.close()


def models(
    make: Callable[[], wiring.Component],
    count: int,
    *,
    fingerprint: str | None = None,
    name: str = "a component",
    waves: Waves | None = None,
) -> list[PysimModel]:
    """`count` components, each with a simulator of its own. `fingerprint` is not needed."""
    traced = waves.card if waves is not None else None
    models = []
    with told(f"elaborating {name} for pysim") as step:
        for index in range(count):
            step(f"{index + 1} of {count}")
            models.append(PysimModel(make(), waves if index == traced else None))
    return models
