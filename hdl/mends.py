"""Amaranth's RTLIL writer, with what is wrong or wasteful in it mended while it writes.

What it does bit by bit is mended in `halfdome.hdl.netlist`.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from amaranth.back import rtlil
from amaranth.hdl import _nir

from halfdome.hdl import netlist

_to_binary = rtlil.to_binary
_emit_memory = rtlil.ModuleEmitter.emit_memory
_emit_part = rtlil.ModuleEmitter.emit_part
_case = rtlil.Switch.case
_wire = rtlil.Wire.__init__


def _binary(value: int, width: int) -> str:
    """Two's complement: an enumeration may have negative members."""
    return _to_binary(value & ((1 << width) - 1), width)


def _memory(emitter, index, cell) -> None:
    """Initial contents only where there are any: bit by bit, zeros are most of a large card's
    RTLIL, and an SRAM has none."""
    if any(cell.init):
        _emit_memory(emitter, index, cell)


def _part(emitter, index, cell) -> None:
    """Beyond the end of a signed value comes its sign, as in Amaranth's simulator; from a `$shift`
    come zeros."""
    _emit_part(emitter, index, cell)
    if cell.value_signed:
        next(reversed(emitter.builder.contents.values())).kind = "$sshr"


def _case_of_bits(switch, patterns):
    """A pattern of no bits matches a value of no bits, which Yosys thinks of the first only."""
    return switch.default() if patterns and not patterns[0] else _case(switch, patterns)


def _unsigned_wire(wire, width, *, signed=False, **how) -> None:
    """No wire is signed: Yosys writes a left shift of one as `wire << by`, of which Verilog extends
    the sign, though the shift be of its bits. What is signed in RTLIL are the cells."""
    _wire(wire, width, **how)


_MENDS: tuple[tuple[type | ModuleType, str, Callable], ...] = (
    (rtlil, "to_binary", _binary),
    (rtlil.ModuleEmitter, "emit_memory", _memory),
    (rtlil.ModuleEmitter, "emit_part", _part),
    (rtlil.ModuleEmitter, "sigspec", netlist.sigspec),
    (rtlil.Switch, "case", _case_of_bits),
    (rtlil.Wire, "__init__", _unsigned_wire),
    (_nir.Netlist, "check_comb_cycles", netlist.check_comb_cycles),
    (_nir.Netlist, "resolve_value", netlist.resolve_value),
    (_nir.Value, "__new__", staticmethod(netlist.new_value)),
)


@contextmanager
def mended() -> Iterator[None]:
    """The mends are in force, and no garbage is looked for among millions of objects that live."""
    collected = gc.isenabled()
    gc.disable()
    originals = [(owner, name, vars(owner)[name]) for owner, name, _ in _MENDS]
    for owner, name, better in _MENDS:
        setattr(owner, name, better)
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
        if collected:
            gc.enable()
