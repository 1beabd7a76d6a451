"""Gates and bits of components of which both are known."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from halfdome.hdl.silicon import gates_and_bits


class Nands(wiring.Component):
    """As many gates of two inputs."""

    a: In(8)
    b: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(~(self.a & self.b))
        return m


class Register(wiring.Component):
    """Flip-flops that hold, and of which one starts as 1."""

    i: In(8)
    enable: In(1)
    o: Out(8, init=1)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.enable):
            m.d.sync += self.o.eq(self.i)
        return m


class Kept(wiring.Component):
    """A memory of 20 words of 12 bits."""

    address: In(5)
    write: In(1)
    i: In(12)
    o: Out(12)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=12, depth=20, init=[])
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += [
            read.addr.eq(self.address), self.o.eq(read.data), read.en.eq(1),
            write.addr.eq(self.address), write.data.eq(self.i), write.en.eq(self.write),
        ]  # fmt: skip
        return m


def test_a_nand_is_a_gate(tmp_path):
    assert gates_and_bits(Nands(), tmp_path) == {"gates": 8, "bits": 0}


def test_a_flip_flop_is_four_gates_and_what_holds_or_resets_it_are_more(tmp_path):
    """16 transistors each; a multiplexer of NANDs has 14, and a reset takes some."""
    found = gates_and_bits(Register(), tmp_path)
    assert found["bits"] == 0
    assert 8 * 6 <= found["gates"] <= 8 * 9


def test_bits_of_a_memory_are_not_gates(tmp_path):
    assert gates_and_bits(Kept(), tmp_path) == {"gates": pytest.approx(0, abs=2), "bits": 240}
