"""The exported Verilog, run by a second simulator interface against independent bus models."""

import pytest

from tests.cocotb.cards import compiled
from tests.cocotb.simulation import run

pytest.importorskip("cocotbext.axi", reason="cocotbext-axi comes with the dev extra")


@pytest.mark.slow
def test_exported_verilog_answers_packets_over_independent_axi_memory(tmp_path):
    run(compiled(), "tests.cocotb.card_bench", tmp_path)
