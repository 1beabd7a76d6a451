"""What a component costs on an FPGA: Lattice ECP5, by Yosys and nextpnr from PyPI wheels."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.quantise import FloatToByte
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import PICO, CardConfig
from halfdome.hdl.fpga import ECP5
from halfdome.hdl.gather.engine import GatherEngine
from halfdome.hdl.gather.lane import Lane
from halfdome.hdl.gather.lanes import AccumulateLanes
from halfdome.hdl.matmul.array import SystolicArray
from halfdome.hdl.matmul.engine import MatmulEngine
from halfdome.hdl.matmul.requantiser import Requantiser
from halfdome.hdl.pico import Pico
from halfdome.hdl.rtlil import ports_of, to_rtlil
from halfdome.hdl.tools import check_tool, run_tool, run_yosys
from halfdome.hdl.vector.engine import VectorEngine

_NEXTPNR = "nextpnr-ecp5"
_CLOCK_MHZ = 100
"""The clock that placement and routing aim at."""


UNITS: dict[str, Callable[[CardConfig], wiring.Component]] = {
    "array": lambda config: SystolicArray(
        rows=config.array_rows,
        columns=config.array_columns,
        rows_per_stage=config.rows_per_stage,
    ),
    "lane": lambda config: Lane(),
    "lanes": AccumulateLanes,
    "quantiser": lambda config: FloatToByte(),
    "requantiser": lambda config: Requantiser(columns=1),
    "matmul": MatmulEngine,
    "gather": GatherEngine,
    "vector": VectorEngine,
    "pico": lambda config: Pico(PICO),
    "gather_pico": lambda config: Pico(PICO, Engine.GATHER),
}
"""What decides a card's size, by name: the whole systolic array, one gather lane, all of them with
their accumulators, one fp32 to uint8 conversion, one column of the matmul requantiser, the whole
engines for products, gathers and vectors, those for products and for gathers behind a bus
(`config.PICO`, whatever the card)."""


class FewPins(wiring.Component):
    """`component` between registers: inputs from a shift register, outputs folded into one bit.

    So a component of any width fits a package, and only paths from register to register count.
    The fold adds about one LUT for three output bits.
    """

    def __init__(self, component: wiring.Component):
        self._component = component
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.component = component = self._component
        inputs, outputs = [], []
        for _, flow, value in ports_of(component):
            (inputs if flow == In else outputs).append(value)
        shifted = Signal(sum(map(len, inputs)), reset_less=True)
        captured = Signal(sum(map(len, outputs)), reset_less=True)
        m.d.sync += [
            shifted.eq(Cat(self.i, shifted)),
            captured.eq(Cat(outputs)),
            self.o.eq(captured.xor()),
        ]
        m.d.comb += Cat(inputs).eq(shifted)
        return m


def ecp5_report(component: wiring.Component, name: str) -> dict[str, int | float | str]:
    """Synthesises, places and routes `component` for an LFE5UM5G-85.

    Parameters
    ----------
    component : wiring.Component
        What to measure, with `sync` as its only clock domain. It is wrapped in registers.
    name : str
        Name of the result.

    Returns
    -------
    dict
        `name`, `lut` (LUT4, carry logic and distributed RAM included), `ff`, `dsp` (MULT18X18D),
        `bram` (18 kbit blocks), `fmax_mhz` (after routing, slowest corner of speed grade 8).

    Raises
    ------
    ToolError
        A tool is not installed, or fails; the message ends with what it said.
    """
    check_tool(_NEXTPNR)
    with tempfile.TemporaryDirectory() as folder:
        synthesise(FewPins(component), Path(folder))
        return {"name": name, **route(Path(folder), seed=1)}


def synthesise(
    component: wiring.Component, folder: Path, delay_ns: float | None = None
) -> dict[str, int]:
    """What Yosys counts of a component, all of its ports kept: resources of `ECP5`.

    `delay_ns` is what logic may take between registers; by default Yosys makes the longest path as
    short as it can, and others as small as that allows. `route` then finds it in `folder`. Raises
    `ToolError` if Yosys fails.
    """
    (folder / "top.il").write_text(to_rtlil(component, "top"))
    # Mapping makes wires of its own, whose names may be taken.
    script = "read_rtlil top.il; rename -hide w:*; synth_ecp5 -top top -json top.json"
    if delay_ns is not None:
        script = f"scratchpad -set abc9.D {round(1000 * delay_ns)}; {script}"
    run_yosys(f"{script}; tee -q -o sizes.json stat -json", folder)
    return ECP5.synthesised(folder / "sizes.json")


def route(folder: Path, seed: int) -> dict[str, int | float]:
    """Places with `seed` and routes what `synthesise` has left in `folder`: see `ecp5_report`."""
    run_tool(
        _NEXTPNR,
        ["--um5g-85k", "--package", "CABGA381", "--json", "top.json", "--seed", str(seed),
         "--freq", str(_CLOCK_MHZ), "--timing-allow-fail", "--lpf-allow-unconstrained",
         "--report", "report.json", "--quiet",
         "--router", "router2"],  # the default one does not end with the gather engine
        folder,
    )  # fmt: skip
    return ECP5.routed(folder / "report.json")
