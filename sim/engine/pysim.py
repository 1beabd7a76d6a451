"""The pysim engine: Amaranth's own simulator, stepped one clock at a time."""

import ctypes
from collections.abc import Callable

import numpy as np
from amaranth.lib import wiring
from amaranth.sim import Simulator

from sim.engine.compiler import NO_CLOCK, BuildError
from sim.engine.ports import Pin, component_ports

CLOCK_PERIOD = 1e-6
_SETTLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class PysimModel:
    """One component under Amaranth's simulator, ready to join a world.

    An exception raised inside the simulation stops the world and is kept in `error`.
    """

    edge = None
    context = None

    def __init__(self, component: wiring.Component):
        self.error: BaseException | None = None
        values = component_ports(component)
        self.ports = list(values)
        self._storage = {p.name: np.zeros(p.storage_bytes, np.uint8) for p in self.ports}
        self.pins = {p.name: Pin(self._storage[p.name].ctypes.data, p.width) for p in self.ports}
        self._inputs = [(v, self._storage[p.name]) for p, v in values.items() if p.is_input]
        self._outputs = [(v, self._storage[p.name]) for p, v in values.items() if not p.is_input]
        self._settled = self._started = False
        self._simulator = Simulator(component)
        try:
            self._simulator.add_clock(CLOCK_PERIOD)
        except NameError as error:
            raise BuildError(NO_CLOCK) from error
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
            self._settled = False
            while not self._settled:
                self._simulator.advance()
        except BaseException as error:
            self.error = error
            return 1
        return 0

    def close(self) -> None:
        """Nothing to free."""


def models(
    make: Callable[[], wiring.Component],
    count: int,
    *,
    fingerprint: str | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> list[PysimModel]:
    """`count` components, each with a simulator of its own. `fingerprint` is not needed."""
    progress("elaborating")
    return [PysimModel(make()) for _ in range(count)]
