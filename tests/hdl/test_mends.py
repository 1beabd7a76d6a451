"""What Amaranth's RTLIL writer gets wrong is right here, and the writer is as before afterwards."""

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.mends import mended
from halfdome.hdl.rtlil import rtlil_to_verilog, to_rtlil


class Level(enum.Enum, shape=signed(3)):
    """A member below zero."""

    LOW = -2
    ZERO = 0


class Odd(wiring.Component):
    """A signed enumeration, its bits beyond the end and shifted, and a choice by no bits."""

    level: In(Level)
    by: In(2)
    bits: Out(4)
    value: In(8)
    chosen: Out(8)
    shifted: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.bits.eq(self.level.as_value().bit_select(self.by, 4))
        m.d.comb += self.shifted.eq(self.level.as_value().as_unsigned() << self.by)
        with m.If(self.by == 0):
            m.d.comb += self.chosen.eq(3)
        with m.Switch(Signal(0)):
            with m.Case(0):
                m.d.comb += self.chosen.eq(self.value)
        return m


def test_negative_members_of_an_enumeration_are_written():
    assert 'attribute \\enum_value_110 "LOW"' in to_rtlil(Odd(), "odd")


def test_verilog_extends_the_sign_and_takes_the_case_of_no_bits():
    text = rtlil_to_verilog(to_rtlil(Odd(), "odd"), passes="proc; opt_expr; opt_clean")
    assert "bits = $signed(level) >>> by" in text
    assert "chosen = value" in text


def test_bits_of_a_signed_value_are_shifted_without_its_sign():
    text = rtlil_to_verilog(to_rtlil(Odd(), "odd"))
    assert "level << by" in text
    assert "signed" not in text.replace("$signed", "")


def test_writer_is_as_before_afterwards():
    assert mended_binary() == "11"
    with pytest.raises(ValueError, match="-1 does not fit in 2 bits"):
        rtlil.to_binary(-1, 2)


def mended_binary() -> str:
    with mended():
        return rtlil.to_binary(-1, 2)
