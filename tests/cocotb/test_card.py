"""The exported Verilog, run by a second simulator interface against independent bus models."""

import pytest

from hdl.config import PRESETS
from hdl.verilog import TOP, card_verilog
from tests.cocotb.simulation import build, run

pytest.importorskip("cocotbext.axi", reason="cocotbext-axi comes with the dev extra")


@pytest.mark.slow
def test_exported_verilog_answers_packets_over_independent_axi_memory(tmp_path):
    source = tmp_path / f"{TOP}.v"
    source.write_text(card_verilog(PRESETS["tiny"]))
    build(source, tmp_path, TOP)
    run(tmp_path, TOP, "tests.cocotb.card_bench")
