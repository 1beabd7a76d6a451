"""The ports of a card as the world sees them: names, widths and storage."""

import ctypes
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from amaranth import Const, Value
from amaranth.lib import wiring

NO_CLOCK = "the component has no clock: nothing in it is in the sync domain"
UNDRIVEN = (
    "clock domain {!r}: nothing drives it; only sync has a clock here, rename the domain or define "
    "it in the component"
)


class Pin(ctypes.Structure):
    """`Pin` of sim/pin.hpp."""

    _fields_ = (("data", ctypes.c_void_p), ("width", ctypes.c_uint32))


class Idle(NamedTuple):
    """Addresses of the functions with which a model rests, and its period; see `CardModel`."""

    remember: int
    repeated: int
    advance: int
    period_cycles: int


class CardModel(ctypes.Structure):
    """`CardModel` of sim/kernel/card_model.hpp."""

    _fields_ = (
        *((name, ctypes.c_void_p)
          for name in ("context", "settle", "edge", "remember", "repeated", "advance")),
        ("idle_period", ctypes.c_int64),
    )  # fmt: skip


@dataclass(frozen=True)
class Port:
    """One port of a component, named as in its Verilog (`rx__payload`)."""

    name: str
    width: int
    is_input: bool

    @property
    def storage_bytes(self) -> int:
        """Bytes of storage: 1, 2, 4, 8 or a multiple of 4, little-endian."""
        for size in (1, 2, 4, 8):
            if self.width <= 8 * size:
                return size
        return -(-self.width // 32) * 4


def undriven_domain(inputs: Iterable[str], expected: Collection[Port]) -> str | None:
    """The clock domain but `sync` that a component uses and leaves open, seen at its inputs.

    Amaranth gives a component a port `<domain>_clk` for each domain that it uses and lacks.
    """
    known = {port.name for port in expected}
    for name in inputs:
        if name.endswith("_clk") and name not in known:
            return name.removesuffix("_clk")
    return None


def component_ports(component: wiring.Component) -> dict[Port, Value]:
    """The ports of any component with their signals, in the order of its signature.

    Constants and ports of width 0 are left out, as in Verilog.
    """
    ports = {}
    for path, member, value in component.signature.flatten(component):
        cast = Value.cast(value)
        if len(cast) and not isinstance(cast, Const):
            name = "__".join(map(str, path))
            ports[Port(name, len(cast), member.flow == wiring.In)] = cast
    return ports
