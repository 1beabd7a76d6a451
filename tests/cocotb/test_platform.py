"""Six cards in Verilog behind an independent root complex and switch, driven by the host's own
driver and runtime."""

from pathlib import Path

import pytest

from hdl.card import Card
from hdl.verilog import TOP, card_verilog
from sim.engine.ports import component_ports
from tests.cocotb.simulation import build, run

pytest.importorskip("cocotbext.pcie", reason="cocotbext-pcie comes with the dev extra")

CARDS = 6
PLATFORM = "platform"
MEMORY = Path(__file__).with_name("memory.v")


def several(config, cards: int) -> str:
    """A module of cards with memories; the streams of card `i` have the prefix `c<i>_`."""
    ports = list(component_ports(Card(config)))
    declarations, body = ["input wire clk", "input wire rst"], []
    for index in range(cards):
        wires = {}
        for port in ports:
            name = wires[port.name] = f"c{index}_{port.name}"
            if port.name.startswith("axi__"):
                body.append(f"wire [{port.width - 1}:0] {name};")
            else:
                way = "input" if port.is_input else "output"
                declarations.append(f"{way} wire [{port.width - 1}:0] {name}")
        for module, prefix in ((TOP, ""), ("memory", "axi__")):
            connected = "".join(
                f", .{name.removeprefix(prefix)}({wire})"
                for name, wire in wires.items() if name.startswith(prefix)
            )  # fmt: skip
            body.append(f"{module} {module}_{index} (.clk(clk), .rst(rst){connected});")
    widths = {port.name: port.width for port in ports}
    memory = MEMORY.read_text().replace("ID_BITS", str(widths["axi__arid"]))
    memory = memory.replace("ADDRESS_BITS", str(widths["axi__araddr"]))
    memory = memory.replace("WORD_BYTES", str(config.bus_bytes))
    memory = memory.replace("WORDS", str(config.dram_bytes // config.bus_bytes))
    joined = "\n".join(body)
    return f"{memory}\nmodule {PLATFORM} ({', '.join(declarations)});\n{joined}\nendmodule\n"


@pytest.mark.slow
def test_host_software_runs_on_six_cards_behind_an_independent_switch(tmp_path):
    from tests.cocotb.platform_bench import CONFIG

    source = tmp_path / f"{PLATFORM}.v"
    card = card_verilog(CONFIG)
    source.write_text(f"`timescale 1ns / 1ps\n{card}\n{several(CONFIG, CARDS)}")
    build(source, tmp_path, PLATFORM)
    run(tmp_path, PLATFORM, "tests.cocotb.platform_bench", COCOTB_LOG_LEVEL="ERROR")
