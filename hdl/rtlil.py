"""Any component as RTLIL and Verilog."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amaranth import Const, Value
from amaranth.back import rtlil
from amaranth.lib import wiring

from halfdome.hdl.share import share
from halfdome.hdl.wheel import run_yosys


def ports_of(component: wiring.Component) -> Iterator[tuple[str, wiring.Flow, Value]]:
    """Name, direction and value of each port, named by the signature (`i__payload`)."""
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):  # an always-ready stream has no ready port
            yield "__".join(map(str, path)), member.flow, value


_emit_every_bit = rtlil.ModuleEmitter.emit_memory


def _emit_memory(emitter, index, cell) -> None:
    """Initial contents only where there are any: bit by bit, zeros are most of a large card's
    RTLIL, and an SRAM has none."""
    if any(cell.init):
        _emit_every_bit(emitter, index, cell)


@contextmanager
def _without_waste() -> Iterator[None]:
    """No zeros written, and no garbage looked for among millions of objects that all live."""
    collected = gc.isenabled()
    gc.disable()
    rtlil.ModuleEmitter.emit_memory = _emit_memory
    try:
        yield
    finally:
        rtlil.ModuleEmitter.emit_memory = _emit_every_bit
        if collected:
            gc.enable()


def to_rtlil(component: wiring.Component, name: str) -> str:
    """Any component as RTLIL, ports named by its signature (`i__payload`), equal modules once."""
    ports = {port: (value, None) for port, _, value in ports_of(component)}
    with _without_waste():
        return share(rtlil.convert(component, name=name, ports=ports, emit_src=False), name)


def rtlil_to_verilog(text: str, *, passes: str = "proc -nomux -norom") -> str:
    """RTLIL as self-contained Verilog. Raises `ToolError` with Yosys' own words.

    `passes` are the Yosys commands that turn processes into what is written; the default stays
    closest to the source.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "top.il"), Path(folder, "top.v")
        source.write_text(text)
        script = (
            # A wire of no bits, which Verilog does not have, would be written with two.
            f"read_rtlil top.il; delete s:0; {passes}; memory_collect; write_verilog -noattr top.v"
        )
        run_yosys(script, Path(folder))
        return target.read_text()
