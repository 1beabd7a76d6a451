"""Whether proofs notice: faults put into a component, one at a time, that its proof must refuse.

`FORMAL_MUTANTS=24 pytest -s tests/formal/test_readers.py` runs each proof so and prints the score.
Survivors are named by the Python line that they change; some change nothing that can be seen.
"""

from pathlib import Path

from halfdome.hdl.tools import ToolError, run_yosys
from tests.formal.prove import PREPARE, READ, Spec, decide

_SEED = 1


def survivors(spec: Spec, folder: Path, count: int, depth: int, induction: int | None):
    """Tries up to `count` mutants of what `prove` left in `folder`, with the same bounds.

    Returns how many were tried, and the commands that make those which were not noticed.
    """
    listed = f"mutate -list {count} -seed {_SEED} -o mutants.txt top.dut*"
    run_yosys(f"{spec.script(READ)}; write_rtlil read.il; {listed}", folder)
    lines = (folder / "mutants.txt").read_text().splitlines()
    mutants = [line for line in lines if line.startswith("mutate") and "-port CLK" not in line]
    ways = [["-t", str(depth)], ["-c", "-t", str(depth)]]
    if induction is not None:
        ways.append(["-i", "-t", str(induction)])
    tried, unnoticed = 0, []
    for mutant in mutants:
        try:
            run_yosys(f"read_rtlil read.il; {mutant}; {PREPARE}", folder)
        except ToolError:  # no hardware any more, such as a memory whose first contents change
            continue
        tried += 1
        if all(decide(folder, "--noinfo", *way) is None for way in ways):
            unnoticed.append(mutant)
    return tried, unnoticed
