"""The card as an engineer places it: a module with plain names around the exported one.

Names, slices and interfaces of ports stand here alone: the module, its list of ports and its test
bench are made of them.
"""

import json
from dataclasses import asdict, dataclass

from amaranth import Value
from amaranth.lib import wiring

from halfdome.hdl import registers
from halfdome.hdl.card import Card
from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.tlp import HEADER_BYTES, TlpType, rx_beat, tx_beat
from halfdome.hdl.rtlil import ports_of, spare_warning

NAME = "halfdome_top"
BENCH = "halfdome_tb"
_STREAMS = {"rx": rx_beat, "tx": tx_beat}
_STREAM_SIGNALS = {"data": "TDATA", "last": "TLAST", "bar": "TUSER", "valid": "TVALID",
                   "ready": "TREADY"}  # fmt: skip
_AXI = "m_axi"
_TIMEOUT_CYCLES = 10_000


@dataclass(frozen=True)
class Port:
    """One port: `width` bits of the port `inner` of the card, from bit `low` on.

    `bus` and `signal` say what it is of an AXI4 or AXI4-Stream interface, if it is of one.
    """

    name: str
    direction: str
    width: int
    inner: str
    low: int = 0
    bus: str = ""
    signal: str = ""


def ports(config: CardConfig) -> list[Port]:
    """All but clock and reset: `rx_*` and `tx_*` carry packets, `m_axi_*` the card's DRAM."""
    card = Card(config)
    spare_warning(card)
    return [
        port
        for inner, flow, value in ports_of(card)
        for port in _parts(config, inner, "input" if flow == wiring.In else "output", value)
    ]


def _parts(config: CardConfig, inner: str, direction: str, value: Value) -> list[Port]:
    bus, _, member = inner.partition("__")
    if bus == "axi":
        name = f"{_AXI}_{member}"
        return [Port(name, direction, len(value), inner, 0, _AXI, member.upper())]
    if not member:
        return [Port(inner, direction, len(value), inner)]
    if member != "payload":
        signal = _STREAM_SIGNALS[member]
        return [Port(f"{bus}_{member}", direction, len(value), inner, 0, bus, signal)]
    return [
        Port(f"{bus}_{name}", direction, field.width, inner, field.offset, bus,
             _STREAM_SIGNALS[name])
        for name, field in _STREAMS[bus](config)
    ]  # fmt: skip


def ports_json(config: CardConfig) -> str:
    """The ports for other programs, with clock and reset."""
    listed = [
        {"name": name, "direction": "input", "width": 1, "inner": name} for name in ("clk", "rst")
    ]
    listed += [asdict(port) for port in ports(config)]
    return (
        json.dumps({"module": NAME, "config_hash": config.hash, "ports": listed}, indent=1) + "\n"
    )


def top_verilog(config: CardConfig, card: str) -> str:
    """The module `NAME` around the module `card`, with attributes for Vivado's block designs."""
    known = ports(config)
    declared = [
        '(* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 clk CLK" *)\n'
        f'    (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF {_AXI}:rx:tx, ASSOCIATED_RESET rst" *)\n'
        "    input wire clk",
        '(* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 rst RST" *)\n'
        '    (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_HIGH" *)\n'
        "    input wire rst",
        *map(_declared, known),
    ]
    connected: dict[str, list[str]] = {"clk": ["clk"], "rst": ["rst"]}
    for port in sorted(known, key=lambda each: -each.low):  # the highest bits come first
        connected.setdefault(port.inner, []).append(port.name)
    inner = ",\n        ".join(
        f".{name}({names[0] if len(names) == 1 else '{' + ', '.join(names) + '}'})"
        for name, names in sorted(connected.items())
    )
    return "\n".join([
        f"// Halfdome card, configuration {config.hash}", "`timescale 1ns / 1ps",
        f"module {NAME} (\n    " + ",\n    ".join(declared) + "\n);",
        f"    {card} card (\n        {inner}\n    );", "endmodule", "",
    ])  # fmt: skip


def _declared(port: Port) -> str:
    kind = "aximm" if port.bus == _AXI else "axis"
    width = f"[{port.width - 1}:0] " if port.width > 1 else ""
    told = (
        f'(* X_INTERFACE_INFO = "xilinx.com:interface:{kind}:1.0 {port.bus} {port.signal}" *)\n    '
        if port.bus
        else ""
    )
    return f"{told}{port.direction} wire {width}{port.name}"


def bench_verilog(config: CardConfig) -> str:
    """A test bench that reads register ID through the packets and prints PASS or what was wrong."""
    known = ports(config)
    inputs = [port for port in known if port.direction == "input"]
    wires = [
        f"    {'reg' if port in inputs else 'wire'} [{port.width - 1}:0] {port.name}"
        f"{' = 0' if port in inputs else ''};"
        for port in known
    ]
    # A read of one doubleword at address 0, tag 0; the answer's payload follows its header.
    read = 1 | TlpType.MEMORY_READ_32 << 24 | 0xF << 32
    connected = ", ".join(f".{port.name}({port.name})" for port in known)
    answer = f"tx_data[31:0] === 32'h{registers.IDENTIFICATION:08x}"
    return f"""// Halfdome card, configuration {config.hash}
`timescale 1ns / 1ps
module {BENCH};
    reg clk = 0, rst = 1;
{chr(10).join(wires)}
    integer beats = 0;
    always #5 clk = ~clk;
    {NAME} dut (.clk(clk), .rst(rst), {connected});

    initial begin
        tx_ready = 1;
        repeat (4) @(posedge clk);
        #1 rst = 0;
        rx_data = {config.bus_bytes * 8}'h{read:0{2 * HEADER_BYTES}x};
        rx_last = 1;
        rx_valid = 1;
        while (!rx_ready) @(posedge clk) #1;
        @(posedge clk) #1 rx_valid = 0;
        repeat ({_TIMEOUT_CYCLES}) @(posedge clk);
        $display("FAIL: no answer");
        $finish;
    end

    always @(posedge clk) if (tx_valid && !rst) begin
        beats = beats + 1;
        if (tx_last) begin
            if (beats == 2 && {answer}) $display("PASS");
            else $display("FAIL: %0d beats, the last is %h", beats, tx_data);
            $finish;
        end
    end
endmodule
"""
