"""From a board's project to a bitstream, by tools of PyPI."""

import json
import re
import shlex
from pathlib import Path

from amaranth.build.run import BuildPlan

from halfdome.hdl.boards.boards import TOP, check_size
from halfdome.hdl.synthesis import reported
from halfdome.hdl.tools import run_ecppack, run_nextpnr, run_yosys

_REPORT = "report.json"
_SIZES = "sizes.json"
_TOOLS = {"NEXTPNR_ECP5": run_nextpnr, "ECPPACK": run_ecppack}


def build(name: str, plan: BuildPlan, folder: Path) -> dict[str, int | float | str]:
    """Builds a bitstream in `folder`, where the project lies.

    Returns what `halfdome.hdl.synthesis.ecp5_report` returns, and the name of the bitstream. Raises
    `BoardError` before placement if the board is too small, and `ToolError` if a tool is missing or
    fails.
    """
    run_yosys(f"script {TOP}.ys; tee -q -o {_SIZES} stat -json", folder)
    check_size(name, synthesised(folder / _SIZES))
    for tool, run in _TOOLS.items():
        options = _options(plan.files[f"build_{TOP}.sh"], tool)
        if run is run_nextpnr:
            options += ["--report", _REPORT, "--timing-allow-fail", "--seed", "1"]
        run(options, folder)
    return reported(folder / _REPORT, name) | {"bitstream": f"{TOP}.bit"}


def synthesised(sizes: Path) -> dict[str, int]:
    """What Yosys says that a design takes, by the names of `CAPACITIES`."""
    text = sizes.read_text()
    cells = json.loads(text[text.index("{") :])["design"]["num_cells_by_type"]
    lut = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}
    return {
        "lut": sum(cells.get(cell, 0) * luts for cell, luts in lut.items()),
        "ff": cells.get("TRELLIS_FF", 0),
        "dsp": cells.get("MULT18X18D", 0),
        "bram": cells.get("DP16KD", 0),
    }


def _options(script: str, tool: str) -> list[str]:
    """What a build script of Amaranth gives a tool."""
    [line] = re.findall(rf'^"\${tool}" (.*)$', script, re.MULTILINE)
    return shlex.split(line)
