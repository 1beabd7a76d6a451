"""Netlists are written and searched for loops as Amaranth does it, in fewer steps."""

import operator

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.hdl._ir import build_netlist
from amaranth.hdl._nir import CombinationalCycle
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.arith.fma import FloatFma
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.mends import mended
from halfdome.hdl.rtlil import ports_of

SIGNALS = 4
WIDTH = 2
FUNCTIONS = {
    "add": operator.add,
    "and": operator.and_,
    "not": lambda a, b: ~a,
    "less": operator.lt,
    "mux": lambda a, b: Mux(a[0], a, b),
    "part": lambda a, b: a.bit_select(b, WIDTH),
    "twist": lambda a, b: Cat(b[1], a[0]),
}
"""A value made of two, of each kind of cell that a loop can go through."""

statements = st.lists(
    st.tuples(
        st.sampled_from(sorted(FUNCTIONS)),
        st.integers(0, SIGNALS),
        st.integers(0, SIGNALS),
        st.booleans(),
    ),
    min_size=SIGNALS,
    max_size=SIGNALS,
)
"""For each signal a function, the two signals it is of, and whether all its bits are assigned.
The last signal depends on nothing."""


def wired(drawn: list[tuple[str, int, int, bool]]) -> tuple[Module, list[Value]]:
    """A module of signals that depend on each other, and these."""
    m = Module()
    *driven, free = signals = [Signal(WIDTH, name=f"s{index}") for index in range(SIGNALS + 1)]
    for signal, (name, left, right, whole) in zip(driven, drawn, strict=True):
        value = FUNCTIONS[name](signals[left], signals[right])
        with m.If(free[0]):
            m.d.comb += (signal if whole else signal[0]).eq(value)
    return m, signals


def look_for_loops(drawn: list[tuple[str, int, int, bool]]) -> None:
    module, ports = wired(drawn)
    named = [(str(index), port, None) for index, port in enumerate(ports)]
    build_netlist(module.elaborate(None), ports=named)


def loops(drawn: list[tuple[str, int, int, bool]]) -> bool:
    try:
        look_for_loops(drawn)
    except CombinationalCycle:
        return True
    return False


@given(statements)
def test_loops_are_found_where_amaranth_finds_them(drawn):
    expected = loops(drawn)
    with mended():
        assert loops(drawn) == expected


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_loop_is_told_in_amaranths_words(name):
    other = ("add", 1, 1, True)
    with mended(), pytest.raises(CombinationalCycle, match="Combinational cycle detected"):
        look_for_loops([(name, 0, 0, True), other, other, other])


def test_rtlil_is_the_same_text():
    def text() -> str:
        component = FloatFma(FLOAT32)
        ports = {port: (value, None) for port, _, value in ports_of(component)}
        written = rtlil.convert(component, ports=ports, emit_src=False)
        return written.replace(" signed ", " ")  # another mend

    expected = text()
    with mended():
        assert text() == expected
