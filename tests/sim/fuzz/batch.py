"""Many components compiled as one: a compiler's start-up would take most of the time.

Each goes the way that `simulate` takes, up to the design that is to be compiled. The designs become
the parts of one, whose pins have the number of their part in their name.
"""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from amaranth.hdl import Fragment
from amaranth.hdl._ir import Design

from halfdome.sim.build.verilator import TOP
from halfdome.sim.compiled import model
from halfdome.sim.rtl.ports import Port

ENGINE = "halfdome.sim.compiled.engine"


class _Captured(BaseException):
    """What would have been compiled."""

    def __init__(self, design: Design, ports: list[Port]):
        self.design = design
        self.ports = ports


class Batch:
    """Simulations whose components are compiled together, by any key."""

    def __init__(self) -> None:
        self._parts: dict[object, _Captured] = {}

    def collect(self, key: object, run: Callable[[], object]) -> object:
        """What the simulation returns if it is not compiled at all, else None."""

        def build(design: Design, ports: list[Port], *, traced: bool, name: str) -> Path:
            raise _Captured(design, ports)

        with patch(f"{ENGINE}.build", build):
            try:
                return run()
            except _Captured as part:
                self._parts[key] = part

    def compile(self) -> None:
        """Compiles what has been collected."""
        top, pins, self._ports = Fragment(), [], []
        for number, part in enumerate(self._parts.values()):
            top.add_subfragment(part.design.fragment, f"part{number}")
            pins += [(f"{name}_{number}", *pin) for name, *pin in part.design.ports]
            self._ports += [Port(f"{p.name}_{number}", p.width, p.is_input) for p in part.ports]
        design = Design(top, pins, hierarchy=(TOP,))
        name = f"{len(self._parts)} components"
        self._folder = model.build(design, self._ports, traced=False, name=name)

    def run(self, key: object, run: Callable[[], object]) -> object:
        """What the simulation of one component returns."""
        number = list(self._parts).index(key)

        def part(folder: Path, ports: list[Port]) -> model.Model:
            whole = model.Model(folder, self._ports)
            whole.pins = {port.name: whole.pins[f"{port.name}_{number}"] for port in ports}
            return whole

        def build(design: Design, ports: list[Port], *, traced: bool, name: str) -> Path:
            return self._folder

        with patch(f"{ENGINE}.build", build), patch(f"{ENGINE}.Model", part):
            return run()

    def __len__(self) -> int:
        return len(self._parts)
