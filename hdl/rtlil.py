"""Any component as RTLIL and Verilog."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from amaranth import ClockDomain, ClockSignal, Const, ResetSignal, Signal, Value
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Fragment, Instance, ValueCastable
from amaranth.hdl._ir import Design
from amaranth.lib import wiring

from halfdome.hdl.dedupe import dedupe
from halfdome.hdl.mends import mended
from halfdome.hdl.once import ENABLE, EnableInserter
from halfdome.hdl.tools import run_yosys


def ports_of(component: wiring.Component) -> Iterator[tuple[str, wiring.Flow, Value]]:
    """Name, direction and value of each port, named by the signature (`i__payload`)."""
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):  # an always-ready stream has no ready port
            yield "__".join(map(str, path)), member.flow, value


class _Kinds:
    """The platform that a design is elaborated for: it elaborates what is `Once` in it."""

    def __init__(self):
        self.texts: list[str] = []
        """The RTLIL of each kind of component."""
        self._known: list[tuple[object, str]] = []

    def place(self, component: wiring.Component) -> Instance:
        """An instance of the module that all components like this one share."""
        spare_warning(component)
        made_from = _made_from(component)
        name = next((name for known, name in self._known if known == made_from), None)
        if name is None:
            name = self._name(type(component))
            self._known.append((made_from, name))
            self._elaborate(component, name)
        controls = {
            "i_clk": ClockSignal(),
            "i_rst": ResetSignal(allow_reset_less=True),
            f"i_{ENABLE}": Const(1),
        }
        ports = {
            f"{'i' if flow == wiring.In else 'o'}_{port}": value
            for port, flow, value in ports_of(component)
        }
        return Instance(name, **controls, **ports)

    def _name(self, kind: type) -> str:
        """`halfdome_float_fma`, with a number for other kinds of a class so called."""
        words = re.findall(r"[A-Z]?[a-z0-9]+", kind.__name__)
        base = "_".join(("halfdome", *words)).lower()
        number = sum(known[0].__name__ == kind.__name__ for known, _ in self._known)
        return f"{base}_{number + 1}" if number else base

    def _elaborate(self, component: wiring.Component, name: str) -> None:
        domain, enable = ClockDomain("sync"), Signal(name=ENABLE)
        fragment = EnableInserter(enable)(Fragment.get(component, self))
        fragment.add_domains(domain)
        ports = {"clk": domain.clk, "rst": domain.rst, ENABLE: enable}
        ports |= {port: value for port, _, value in ports_of(component)}
        self.texts.append(_convert(fragment, ports, name, self))


def spare_warning(value: object) -> None:
    """Amaranth warns of components that are never elaborated: not where others stand for them."""
    if isinstance(value, wiring.Component):
        value._MustUse__used = True
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        for member in value:
            spare_warning(member)


_AMARANTHS = ("_Component__", "_MustUse__")
"""What the attributes of a component start with that Amaranth gives it."""


def _made_from(value: object, where: str = "") -> tuple:
    """What tells whether two components are made alike, and so elaborate to the same hardware.

    Raises `TypeError` for a component that holds other hardware than components beside its ports.
    """
    if isinstance(value, wiring.Component):
        ports = [
            (path, member.flow, member.shape, member.init)
            for path, member, _ in value.signature.flatten(value)
        ]
        held = {
            name: _made_from(member, f"{type(value).__name__}.{name}")
            for name, member in vars(value).items()
            if name not in value.signature.members and not name.startswith(_AMARANTHS)
        }
        return type(value), ports, held
    if isinstance(value, list | tuple):
        return type(value), [_made_from(member, where) for member in value]
    if isinstance(value, Value | ValueCastable | wiring.PureInterface | Elaboratable):
        raise TypeError(f"{where}: a component that is placed by name is reached by its ports only")
    return type(value), value


def _convert(
    design: Elaboratable | Fragment, ports: dict[str, Value], name: str, platform=None
) -> str:
    directed = {port: (value, None) for port, value in ports.items()}
    return rtlil.convert(design, name=name, platform=platform, ports=directed, emit_src=False)


def to_rtlil(component: wiring.Component, name: str, *, place: bool = True) -> str:
    """Any component as RTLIL, ports named by its signature (`i__payload`), equal modules once.

    It is elaborated for a platform that places by name what is `Once` in it; without `place` for
    none, which is what components expect that look for one of an FPGA.
    """
    kinds = _Kinds()
    ports = {port: value for port, _, value in ports_of(component)}
    with mended():
        text = _convert(component, ports, name, kinds if place else None)
        return dedupe("".join((text, *kinds.texts)), name)


def design_to_rtlil(design: Design) -> str:
    """An elaborated design as RTLIL, equal modules once; it has the name of its hierarchy."""
    (name,) = design.hierarchy
    with mended():
        text, _ = rtlil.convert_fragment(design, name=name, emit_src=False)
        return dedupe(text, name)


def rtlil_to_verilog(
    text: str, *, passes: str = "proc -nomux -norom", attributes: bool = False
) -> str:
    """RTLIL as self-contained Verilog. Raises `ToolError` with Yosys' own words.

    `passes` are the Yosys commands that turn processes into what is written; the default stays
    closest to the source. With `attributes` those of RTLIL are written, too: what tools of vendors
    have to know of paths between clocks.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "top.il"), Path(folder, "top.v")
        source.write_text(text)
        script = (
            # A wire of no bits, which Verilog does not have, would be written with two.
            f"read_rtlil top.il; delete s:0; {passes}; memory_collect; "
            f"write_verilog {'' if attributes else '-noattr'} top.v"
        )
        run_yosys(script, Path(folder))
        return target.read_text()
