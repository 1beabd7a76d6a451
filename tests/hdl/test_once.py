"""What is placed many times is elaborated once, and is the same hardware."""

import re

import pytest
from amaranth import Module, Signal
from amaranth.back import rtlil
from amaranth.hdl import Fragment
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import PRESETS
from halfdome.hdl.core import Core
from halfdome.hdl.once import EnableInserter, Once, ResetInserter
from halfdome.hdl.rtlil import _made_from, ports_of, to_rtlil
from halfdome.hdl.tools import ToolError, run_yosys

elaborated = []


class Step(wiring.Component):
    """Adds a constant."""

    def __init__(self, constant):
        self.constant = constant
        super().__init__({"x": In(8), "y": Out(8)})

    def elaborate(self, platform):
        elaborated.append(self.constant)
        m = Module()
        m.d.sync += self.y.eq(self.x + self.constant)
        return m


class Lane(wiring.Component):
    """A step, then one that is held, and a register without reset."""

    def __init__(self, constant):
        self.first = Step(constant)
        super().__init__({"i": In(8), "hold": In(1), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        second = Step(1)
        m.submodules.first = Once(self.first)
        m.submodules.second = EnableInserter(~self.hold)(Once(second))
        last = Signal(8, reset_less=True)
        m.d.sync += last.eq(second.y)
        m.d.comb += [self.first.x.eq(self.i), second.x.eq(self.first.y), self.o.eq(last)]
        return m


class Lanes(wiring.Component):
    """Lanes of these constants, side by side; all may be held."""

    def __init__(self, *constants):
        self.constants = constants
        ports = {f"i{k}": In(8) for k in range(len(constants))}
        ports |= {f"o{k}": Out(8) for k in range(len(constants))}
        super().__init__(ports | {"hold": In(1)})

    def elaborate(self, platform):
        m = Module()
        for number, constant in enumerate(self.constants):
            lane = Lane(constant)
            m.submodules[f"lane_{number}"] = Once(lane)
            m.d.comb += [
                lane.i.eq(getattr(self, f"i{number}")),
                lane.hold.eq(self.hold),
                getattr(self, f"o{number}").eq(lane.o),
            ]
        return m


class Alike(wiring.Component):
    """Two kinds that are called alike, as private ones of two files may be."""

    def __init__(self):
        super().__init__({"x": In(8), "y": Out(8)})

    def elaborate(self, platform):
        m = Module()
        first, second = Step(1), type("Step", (Lane,), {})(2)
        m.submodules.first, m.submodules.second = Once(first), Once(second)
        m.d.comb += [first.x.eq(self.x), second.i.eq(first.y), self.y.eq(second.o)]
        return m


class Held(wiring.Component):
    """All of `inner`, which may be held."""

    def __init__(self, inner):
        self._inner = inner
        super().__init__({"go": In(1), "inner": Out(inner.signature)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = EnableInserter(self.go)(self._inner)
        wiring.connect(m, self._inner, wiring.flipped(self.inner))
        return m


class Reset(wiring.Component):
    """All of `inner`, which may be reset."""

    def __init__(self, inner):
        self._inner = inner
        super().__init__({"reset": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = ResetInserter(self.reset)(self._inner)
        return m


class Leaky(wiring.Component):
    """Holds a signal beside its ports."""

    o: Out(8)

    def __init__(self):
        self.count = Signal(8)
        super().__init__()


class Around(wiring.Component):
    """Places one of those."""

    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.leaky = Once(Leaky())
        return m


def in_full(component) -> str:
    """The component as RTLIL with everything elaborated as often as it is placed."""
    ports = {name: (value, None) for name, _, value in ports_of(component)}
    return rtlil.convert(component, name="top", ports=ports, emit_src=False)


def modules(text) -> list[str]:
    return re.findall(r"^module \\(\S+)$", text, re.MULTILINE)


def differ(folder, full: str, once: str) -> str | None:
    """What Yosys says if it cannot prove two designs equal, register by register."""
    script = []
    for name, text in (("full", full), ("once", once)):
        (folder / f"{name}.il").write_text(text)
        script += [
            f"read_rtlil {name}.il", "hierarchy -top top", "proc", "flatten", "opt_clean",
            f"design -stash {name}",
        ]  # fmt: skip
    script += [f"design -copy-from {name} -as {name} top" for name in ("full", "once")]
    script += [
        "equiv_make full once both",
        "hierarchy -top both",
        "equiv_simple",
        "equiv_status -assert",
    ]
    try:
        run_yosys("; ".join(script), folder)
    except ToolError as error:
        return str(error)
    return None


def test_components_made_alike_are_elaborated_once():
    elaborated.clear()
    text = to_rtlil(Lanes(3, 3, 5, 3), "top")
    assert elaborated == [3, 1, 5]
    assert sorted(modules(text)) == [
        "halfdome_lane", "halfdome_lane_2", "halfdome_step", "halfdome_step_2", "halfdome_step_3",
        "top",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lanes(3, 3, 5), lambda: Held(Lanes(3, 3)), lambda: Held(Held(Lanes(1, 2, 1))),
        Alike,
    ],
    ids=["lanes", "held", "held twice", "kinds of one name"],
)  # fmt: skip
def test_the_design_stays_the_same(make, tmp_path):
    assert differ(tmp_path, in_full(make()), to_rtlil(make(), "top")) is None


@pytest.mark.parametrize("other", [Lanes(3, 4), Held(Lanes(3, 3))], ids=["constant", "enable"])
def test_a_difference_would_be_found(other, tmp_path):
    once = to_rtlil(other, "top")
    full = in_full(Lanes(3, 3) if isinstance(other, Lanes) else Held(Lanes(3, 4)))
    assert "unproven" in differ(tmp_path, full, once)


def test_resetting_what_is_placed_by_name_is_refused():
    with pytest.raises(NotImplementedError, match="halfdome_lane: is placed by name"):
        to_rtlil(Reset(Lanes(1)), "top")


def test_component_that_is_reached_beside_its_ports_is_refused():
    with pytest.raises(TypeError, match=r"Leaky\.count: "):
        to_rtlil(Around(), "top")


class Compared:
    """A platform that elaborates everything, and compares what is taken to be made alike."""

    def __init__(self):
        self.kinds = []
        self.placed = 0

    def place(self, component):
        self.placed += 1
        made_from, text = _made_from(component), in_full(component)
        for other, other_text in self.kinds:
            if other == made_from:
                assert text == other_text, type(component)
                break
        else:
            self.kinds.append((made_from, text))
        return component


@pytest.mark.slow
def test_components_of_a_card_that_are_made_alike_are_the_same_hardware():
    compared = Compared()
    Fragment.get(Core(PRESETS["tiny"].replace(array_rows=2, array_columns=2, lanes=2)), compared)
    assert compared.placed > len(compared.kinds)
