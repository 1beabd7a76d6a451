"""What a component takes in silicon: gates, and bits of memory, as Yosys counts them."""

import json
from pathlib import Path

from amaranth.lib import wiring

from halfdome.hdl.rtlil import to_rtlil
from halfdome.hdl.tools import run_yosys

TRANSISTORS_PER_GATE = 4
"""Of a NAND of two inputs in CMOS, the gate that areas are told in."""

_SCRIPT = (
    "read_rtlil top.il; rename -hide w:*; synth -flatten -top top -run begin:fine",
    # Memories stay as they are: a compiler of memories makes them.
    "opt -fast -full; techmap; opt -fast",
    # A flip-flop is a plain one; what holds or resets it is gates. No value comes with power.
    "setattr -unset init w:*; dfflegalize -cell $_DFF_P_ x; opt -fast -full -nodffe -nosdff",
    # As small as can be: the clock of a process is another question.
    "abc -script +strash;ifraig;scorr;dc2;strash;dch;map,-a -g cmos4; opt_clean",
    "tee -q -o gates.json stat -tech cmos -json; write_json mapped.json",
)


def gates_and_bits(component: wiring.Component, folder: Path) -> dict[str, int]:
    """Gates of a component, as large as a NAND of two inputs, and bits of its memories.

    Gates are the transistors that Yosys counts of cells of CMOS with up to four inputs and of plain
    flip-flops (`stat -tech cmos`), four a gate, smallest area first. A bit of memory counts once,
    however many ports it has. Raises `ToolError` if Yosys fails.
    """
    (folder / "top.il").write_text(to_rtlil(component, "top"))
    run_yosys("; ".join(_SCRIPT), folder)
    counted = json.loads((folder / "gates.json").read_text())["design"]
    # A sign says that it knows no transistors of some cells: memories are those.
    transistors = int(counted["estimated_num_transistors"].rstrip("+"))
    cells = json.loads((folder / "mapped.json").read_text())["modules"]["top"]["cells"].values()
    memories = [cell["parameters"] for cell in cells if cell["type"] == "$mem_v2"]
    bits = sum(int(each["WIDTH"], 2) * int(each["SIZE"], 2) for each in memories)
    return {"gates": round(transistors / TRANSISTORS_PER_GATE), "bits": bits}
