"""Compiles Verilog for cocotb and runs a test module in it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

runner = pytest.importorskip("cocotb_tools.runner", reason="cocotb comes with the dev extra")

ROOT = Path(__file__).parent.parent.parent

VERILATOR_FLAGS = (
    "-cc", "--exe", "--vpi", "--public-depth", "1", "--output-split", "0", "-fno-merge-cond",
)  # fmt: skip
"""Only the top's ports are visible to cocotb (its own runner makes every signal so, for three times
as much C++), and each module is one file, since a file costs a second for its headers alone."""

MAKE_VARIABLES = ("CXX=c++", "LINK=c++", "OPT_FAST=-O0", "OPT_GLOBAL=-O0", "VM_PARALLEL_BUILDS=0")


def build(source: Path, folder: Path, top: str, *, block: str | None = None) -> None:
    """Compiles `source` to the program `folder/top`, as cocotb's runner would.

    The module `block` is compiled once, however often it is placed.
    """
    from cocotb_tools import config

    root = Path(sysconfig.get_path("purelib")) / "verilator"
    sources = [config.share_dir / "lib" / "verilator" / "verilator.cpp", source]
    hierarchy = []
    if block:
        control = folder / "blocks.vlt"
        control.write_text(f'`verilator_config\nhier_block -module "{block}"\n')
        sources.append(control)
        hierarchy = ["--hierarchical"]
    commands = [
        [
            root / "bin" / "verilator", *VERILATOR_FLAGS, *hierarchy, "-Mdir", folder,
            "--prefix", "Vtop", "--top-module", top, "-o", top,
            "-LDFLAGS", f"-Wl,-rpath,{config.libs_dir} -L{config.libs_dir} -lcocotbvpi_verilator",
            *sources,
        ],
        [
            "make", "-s", "-j2", "-C", folder, "-f", "Vtop_hier.mk" if block else "Vtop.mk",
            *MAKE_VARIABLES,
        ],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True,
            env=os.environ | {"VERILATOR_ROOT": str(root)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def run(program: Path, module: str, folder: Path, **environment: str) -> None:
    """Runs the one test of `module` in what `build` made, inside `folder`; fails if it fails."""
    results = runner.get_runner("verilator").test(
        hdl_toplevel=program.name,
        hdl_toplevel_lang="verilog",
        test_module=module,
        build_dir=program.parent,
        test_dir=folder,
        results_xml=str(folder / "results.xml"),
        extra_env={
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "COCOTB_LOG_LEVEL": "ERROR",
            **environment,
        },
    )
    assert runner.get_results(results) == (1, 0)
