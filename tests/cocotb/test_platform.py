"""Six cards in Verilog behind an independent root complex and switch, driven by the host's own
driver and runtime."""

import pytest

from tests.cocotb.cards import compiled
from tests.cocotb.simulation import run

pytest.importorskip("cocotbext.pcie", reason="cocotbext-pcie comes with the dev extra")


@pytest.mark.slow
def test_host_software_runs_on_six_cards_behind_an_independent_switch(tmp_path):
    run(compiled(), "tests.cocotb.platform_bench", tmp_path)
