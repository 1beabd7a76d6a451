"""Measures cocotbext-pcie: `python -m tests.cocotb.link_reference` renews `link_reference.json`.

Nanoseconds by width of the uplink; the cards' links are Gen3 x4, packets have at most 128 bytes of
payload, reads ask for at most 512 bytes, 32 at a time.
"""

import tempfile
from pathlib import Path

from tests.cocotb.cards import compiled
from tests.cocotb.simulation import run

REFERENCE = Path(__file__).with_name("link_reference.json")
UPLINK_LANES = (16, 8, 4)


def measure(folder: Path, output: Path, uplinks: tuple[int, ...] = UPLINK_LANES) -> None:
    """Runs the event model for each width of the uplink, inside `folder`; writes `output`.

    The cards that cocotb runs in have no part in it: their clock stands still.
    """
    output.unlink(missing_ok=True)
    for lanes in uplinks:
        run(
            compiled(), "tests.cocotb.link_bench", folder,
            UPLINK_LANES=str(lanes), LINK_BENCH=str(output),
        )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), REFERENCE)
