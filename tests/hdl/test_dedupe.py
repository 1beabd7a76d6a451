"""Equal modules are written once, and the design stays the same."""

import re

import pytest
from amaranth import Cat, Const, Module, Signal
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.dedupe import dedupe
from halfdome.hdl.tools import ToolError, run_yosys


class Inner(wiring.Component):
    """Adds a constant."""

    def __init__(self, constant):
        self.constant = constant
        super().__init__({"x": In(8), "y": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.x + self.y + self.constant)
        return m


class Outer(wiring.Component):
    """`Inner` behind a register; one operand comes by wires that no signal names."""

    def __init__(self, constant):
        self.constant = constant
        super().__init__({"x": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Inner(self.constant)
        held = Signal(8)
        m.d.sync += held.eq(self.x)
        unnamed = Cat(Const(0, 2), (held * self.x)[2:6])
        m.d.comb += [inner.x.eq(held), inner.y.eq(unnamed), self.o.eq(inner.o)]
        return m


class Top(wiring.Component):
    """Three chains, each of its own operands; the last of another constant if asked."""

    def __init__(self, last):
        self.last = last
        super().__init__({"x": In(24), "o": Out(24)})

    def elaborate(self, platform):
        m = Module()
        for i, constant in enumerate((3, 3, self.last)):
            m.submodules[f"chain_{i}"] = chain = Outer(constant)
            m.d.comb += [
                chain.x.eq(self.x.word_select(i, 8) ^ self.x[-1]),
                self.o.word_select(2 - i, 8).eq(chain.o),
            ]
        return m


def converted(last):
    top = Top(last)
    return rtlil.convert(top, name="top", ports={"x": (top.x, None), "o": (top.o, None)})


def modules(text):
    return re.findall(r"^module (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize(("last", "kinds"), [(3, 2), (5, 4)])
def test_equal_modules_are_written_once(last, kinds):
    text = converted(last)
    assert len(modules(text)) == 7
    assert len(set(re.findall(r"port\$\d+\$\d+", text))) == 3, "numbered through the design"
    assert len(modules(dedupe(text, "top"))) == 1 + kinds


def differ(folder, left, right):
    """Whether Yosys finds inputs for which two designs, from reset, answer differently."""
    for name, text in (("left", left), ("right", right)):
        text = text.replace("\\top", f"\\{name}")  # submodules, too: their names start with it
        (folder / f"{name}.il").write_text(text)
    prove = "sat -verify -prove trigger 0 -seq 1 -tempinduct -set-init-undef -set-at 1 in_rst 1"
    script = (
        "read_rtlil left.il; read_rtlil right.il; proc; flatten; opt_clean; "
        f"miter -equiv -flatten left right both; hierarchy -top both; {prove}"
    )
    try:
        run_yosys(script, folder)
    except ToolError:
        return True
    return False


@pytest.mark.parametrize("last", [3, 5])
def test_the_design_stays_the_same(tmp_path, last):
    text = converted(last)
    assert not differ(tmp_path, text, dedupe(text, "top"))


def test_a_difference_would_be_found(tmp_path):
    assert differ(tmp_path, converted(3), dedupe(converted(5), "top"))
