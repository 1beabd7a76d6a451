"""Families of FPGAs: what their devices hold, and how Yosys and nextpnr count what is taken."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Counts = Mapping[str, float]


@dataclass(frozen=True)
class Family:
    """A family of FPGAs. Its resources are `lut`, `ff`, `dsp` and `bram`.

    Attributes
    ----------
    device : str, where a platform of Amaranth says the name of its device
    devices : dict, by what is in that name: what they hold of each resource
    synthesised_cells : dict, for each resource: how much of it each of Yosys' cells takes
    routed_cells : dict, the same of nextpnr's
    synthesis : str, options of Yosys' command for a design that should be small: LUT4 alone, since
        a LUT5 is two of them and a multiplexer
    bitstream : str, suffix of the file that is loaded
    """

    device: str
    devices: Mapping[str, Mapping[str, int]]
    synthesised_cells: Mapping[str, Counts]
    routed_cells: Mapping[str, Counts]
    synthesis: str
    bitstream: str

    def capacity(self, device: str) -> Mapping[str, int]:
        """What a device called so holds."""
        [held] = [held for part, held in self.devices.items() if part in device]
        return held

    def synthesised(self, sizes: Path) -> dict[str, int]:
        """What Yosys' `stat -json` says that a design takes."""
        text = sizes.read_text()
        cells = json.loads(text[text.index("{") :])["design"]["num_cells_by_type"]
        return _sums(self.synthesised_cells, cells)

    def routed(self, report: Path) -> dict[str, int | float]:
        """What nextpnr's report says that a design takes, and `fmax_mhz` of its slowest clock."""
        told = json.loads(report.read_text())
        cells = {cell: count["used"] for cell, count in told["utilization"].items()}
        fmax = min(clock["achieved"] for clock in told["fmax"].values())
        return {**_sums(self.routed_cells, cells), "fmax_mhz": round(fmax, 1)}


def _sums(resources: Mapping[str, Counts], cells: Counts) -> dict[str, int]:
    return {
        resource: round(sum(cells.get(cell, 0) * takes for cell, takes in counts.items()))
        for resource, counts in resources.items()
    }


ECP5 = Family(
    device="device",
    devices={
        "25F": {"lut": 24288, "ff": 24288, "dsp": 28, "bram": 56},
        "45F": {"lut": 43848, "ff": 43848, "dsp": 72, "bram": 108},
        "85F": {"lut": 83640, "ff": 83640, "dsp": 156, "bram": 208},
    },
    synthesised_cells={
        "lut": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4},
        "ff": {"TRELLIS_FF": 1},
        "dsp": {"MULT18X18D": 1},
        "bram": {"DP16KD": 1},
    },
    routed_cells={
        "lut": {"TRELLIS_COMB": 1},
        "ff": {"TRELLIS_FF": 1},
        "dsp": {"MULT18X18D": 1},
        "bram": {"DP16KD": 1},
    },
    synthesis="-nowidelut",
    bitstream="bit",
)
"""Lattice ECP5: LUT4, carry logic and distributed RAM included; flip-flops, MULT18X18D, blocks of
18 kbit. Source: Lattice FPGA-DS-02012, table 1.1, and what nextpnr counts."""

_FLIP_FLOPS = {f"DFF{kind}": 1 for kind in ("", "E", "S", "SE", "R", "RE", "P", "PE", "C", "CE")}
_MULTIPLIERS = {"MULT9X9": 0.5, "MULT18X18": 1, "MULT36X36": 4}
_BLOCKS = {cell: 1 for cell in ("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B", "pROM", "pROMX9")}

GW2A = Family(
    device="part",
    devices={"LV18": {"lut": 20736, "ff": 15552, "dsp": 48, "bram": 46}},
    synthesised_cells={
        "lut": {"LUT1": 1, "LUT2": 1, "LUT3": 1, "LUT4": 1, "ALU": 1, "RAM16SDP4": 4},
        "ff": _FLIP_FLOPS,
        "dsp": _MULTIPLIERS,
        "bram": _BLOCKS,
    },
    routed_cells={
        "lut": {"LUT4": 1},  # those that carry logic and distributed RAM stand on included
        "ff": {"DFF": 1},
        "dsp": _MULTIPLIERS,
        "bram": {"BSRAM": 1},
    },
    synthesis="-family gw2a -nowidelut",
    bitstream="fs",
)
"""Gowin GW2A and GW2AR: LUT4, carry logic and distributed RAM included; flip-flops, multipliers of
18 by 18, blocks of 18 kbit. Source: Gowin DS102, table 1-1, and what nextpnr counts."""
