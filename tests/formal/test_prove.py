"""A proof fails where it should, and says where."""

import re

import pytest
from amaranth.hdl import Assert, Assume, Cover, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.formal.prove import ProofError, Spec


class Counter(wiring.Component):
    """Counts to 5, then from 0."""

    enable: In(1)
    count: Out(4)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.enable):
            m.d.sync += self.count.eq(self.count + 1)
            with m.If(self.count == 5):
                m.d.sync += self.count.eq(0)
        return m


@pytest.fixture
def spec():
    return Spec(Counter())


def line_of(statement: str) -> str:
    """Where `statement` is in this file, as a proof names it."""
    with open(__file__) as lines:
        number = next(n for n, line in enumerate(lines, 1) if line.strip() == statement)
    return re.escape(f"{__file__}:{number}")


def test_a_failure_names_the_line_and_leaves_the_trace(prove, spec, tmp_path):
    spec.m.d.comb += Assert(spec.dut.count < 5)
    where = line_of("spec.m.d.comb += Assert(spec.dut.count < 5)")
    with pytest.raises(ProofError, match=f"from reset:\n.*\n.*{where}"):
        prove(spec, depth=7)
    assert (tmp_path / "trace.vcd").stat().st_size > 0


def test_too_short_a_proof_misses_it(prove, spec):
    spec.m.d.comb += Assert(spec.dut.count < 5)
    prove(spec, depth=5)


def test_induction_starts_in_any_state(prove, spec, tmp_path):
    spec.m.d.comb += Assert(spec.dut.count != 9)
    with pytest.raises(ProofError, match="from any state, after 2 cycles"):
        prove(spec, depth=7, induction=2)
    assert (tmp_path / "induction.vcd").stat().st_size > 0


def test_an_invariant_makes_the_same_proof_unbounded(prove, spec):
    spec.m.d.comb += [Assert(spec.dut.count != 9), Assert(spec.dut.count <= 5)]
    prove(spec, depth=7, induction=1)


def test_what_cannot_happen_is_reported(prove, spec):
    spec.m.d.comb += Assume(~spec.dut.enable)
    spec.m.d.comb += Cover(spec.dut.count == 1)
    with pytest.raises(ProofError, match=line_of("spec.m.d.comb += Cover(spec.dut.count == 1)")):
        prove(spec, depth=7)


def test_contradicting_assumptions_prove_nothing(prove, spec):
    spec.m.d.comb += [Assume(spec.dut.enable), Assume(~spec.dut.enable)]
    with pytest.raises(ProofError, match="UNSAT"):
        prove(spec, depth=3)


def test_a_constant_is_any_value_but_one(prove, spec):
    pick = spec.constant("pick", 4)
    spec.m.d.comb += [
        Assert((spec.dut.count != pick) | (pick <= 5)),
        Cover((pick == 3) & (spec.dut.count == pick)),
        Cover((pick == 5) & (spec.dut.count == pick)),
    ]
    prove(spec, depth=7)


def test_inner_signals_are_found_by_name(spec):
    assert spec.inside("count") is spec.dut.count
    with pytest.raises(KeyError, match="counts: 0 of that name among count"):
        spec.inside("counts")
