"""Components that are placed many times, elaborated once.

A card is mostly lanes and columns. Amaranth elaborates each of them; RTLIL can place a module by
its name as often as it likes.
"""

from amaranth import EnableInserter as _EnableInserter
from amaranth import ResetInserter as _ResetInserter
from amaranth.hdl import Elaboratable, Instance
from amaranth.lib import wiring

ENABLE = "clk_en"
"""The port by which what is around a component that is placed by name holds its registers."""


class Once(Elaboratable):
    """`component`, elaborated once for all that are made alike in a design that becomes RTLIL.

    Anywhere else it is the component itself. A combinational loop through one is not found by
    Amaranth but by Yosys' `check` of what is exported.
    """

    def __init__(self, component: wiring.Component):
        self._component = component

    def elaborate(self, platform):
        if hasattr(platform, "place"):  # see `halfdome.hdl.rtlil`
            return platform.place(self._component)
        return self._component


class EnableInserter(_EnableInserter):
    """Amaranth's, which also holds the registers of components that are placed by name."""

    def on_fragment(self, fragment):
        new_fragment = super().on_fragment(fragment)
        if isinstance(new_fragment, Instance) and ENABLE in new_fragment.ports:
            enable, direction = new_fragment.ports[ENABLE]
            new_fragment.ports[ENABLE] = enable & self.controls["sync"], direction
        return new_fragment


class ResetInserter(_ResetInserter):
    """Amaranth's, which refuses components that are placed by name: they would not be reset."""

    def on_fragment(self, fragment):
        if isinstance(fragment, Instance) and ENABLE in fragment.ports:
            raise NotImplementedError(f"{fragment.type}: is placed by name, and not reset by this")
        return super().on_fragment(fragment)
