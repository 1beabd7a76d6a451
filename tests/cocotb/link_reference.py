"""Measures cocotbext-pcie: `python -m tests.cocotb.link_reference` renews `link_reference.json`.

Nanoseconds by width of the uplink; the cards' links are Gen3 x4, packets have at most 128 bytes of
payload, reads ask for at most 512 bytes, 32 at a time.
"""

import tempfile
from pathlib import Path

from tests.cocotb.simulation import build, run

REFERENCE = Path(__file__).with_name("link_reference.json")
UPLINK_LANES = (16, 8, 4)
TOP = "empty"


def measure(folder: Path, output: Path) -> None:
    """Runs the event model for every uplink, `folder` for what is compiled; writes `output`."""
    source = folder / f"{TOP}.v"
    source.write_text(f"`timescale 1ns / 1ps\nmodule {TOP} (input wire unused);\nendmodule\n")
    build(source, folder, TOP)
    output.unlink(missing_ok=True)
    for lanes in UPLINK_LANES:
        run(
            folder, TOP, "tests.cocotb.link_bench", COCOTB_LOG_LEVEL="ERROR",
            UPLINK_LANES=str(lanes), LINK_BENCH=str(output),
        )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), REFERENCE)
