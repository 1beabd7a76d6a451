"""From a board's project to a bitstream, by tools of PyPI."""

import json
from pathlib import Path

from amaranth.build.run import BuildPlan

from halfdome.hdl.boards.boards import TOP, board, check_size
from halfdome.hdl.tools import check_tool, run_tool, run_yosys

_REPORT = "report.json"
_SIZES = "sizes.json"


def build(name: str, plan: BuildPlan, folder: Path) -> dict[str, int | float | str]:
    """Builds a bitstream in `folder`, where the project lies.

    Returns what `halfdome.hdl.synthesis.ecp5_report` returns, and the name of the bitstream. Raises
    `BoardError` before placement if the board is too small, and `ToolError` if a tool is missing,
    before anything is done, or fails.
    """
    family = board(name).family
    _, *commands = json.loads(plan.files[f"build_{TOP}.json"])["commands"]
    for tool, *_ in commands:
        check_tool(tool)
    run_yosys(f"script {TOP}.ys; tee -q -o {_SIZES} stat -json", folder)
    check_size(name, family.synthesised(folder / _SIZES))
    for tool, *options in commands:
        if tool.startswith("nextpnr"):
            options += ["--report", _REPORT, "--timing-allow-fail", "--seed", "1"]
        run_tool(tool, options, folder)
    routed = family.routed(folder / _REPORT)
    return {"name": name, **routed, "bitstream": f"{TOP}.{family.bitstream}"}
