"""Verilog and the C header that belongs to it, from one configuration."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from amaranth import ClockSignal, Const, Instance, Module, ResetSignal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hdl import commands, registers
from hdl.card import Card
from hdl.config import CardConfig
from hdl.core import Core
from hdl.share import share
from hdl.wheel import run_wheel

TOP = "halfdome_card"
CORE = "halfdome_core"

_YOSYS_HABITS = (
    "ALWNEVER", "CASEINCOMPLETE", "CASEOVERLAP", "CMPCONST", "UNSIGNED", "WIDTHEXPAND",
    "WIDTHTRUNC",
)  # fmt: skip
"""Verilator warnings about how Yosys writes Verilog: implicit widths, cases with defaults above,
first match wins, comparisons that the configuration's sizes decide."""


def _ports(component: wiring.Component) -> Iterator[tuple[str, wiring.Flow, Value]]:
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):  # an always-ready stream has no ready port
            yield "__".join(map(str, path)), member.flow, value


@contextmanager
def _no_collection() -> Iterator[None]:
    """Elaboration makes objects that live: searching millions of them for garbage takes longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def to_rtlil(component: wiring.Component, name: str) -> str:
    """Any component as RTLIL, ports named by its signature (`i__payload`), equal modules once."""
    ports = {port: (value, None) for port, _, value in _ports(component)}
    with (
        _no_collection(),
        mock.patch.object(rtlil.ModuleEmitter, "emit_memory", _emit_memory),
    ):
        return share(rtlil.convert(component, name=name, ports=ports, emit_src=False), name)


_emit_every_bit = rtlil.ModuleEmitter.emit_memory


def _emit_memory(emitter, index, cell) -> None:
    """Initial contents only where there are any: bit by bit, zeros are most of a large card's
    RTLIL, and an SRAM has none."""
    if any(cell.init):
        _emit_every_bit(emitter, index, cell)


def rtlil_to_verilog(text: str, *, passes: str = "proc -nomux -norom") -> str:
    """RTLIL as self-contained Verilog. Raises `ToolError` with Yosys' own words.

    `passes` are the Yosys commands that turn processes into what is written; the default stays
    closest to the source.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "top.il"), Path(folder, "top.v")
        source.write_text(text)
        script = (
            # A wire of no bits, which Verilog does not have, would be written with two.
            f"read_rtlil top.il; delete s:0; {passes}; memory_collect; write_verilog -noattr top.v"
        )
        run_wheel("yosys", ["-q", "-p", script], Path(folder))
        return target.read_text()


class _PlacedCore(wiring.Component):
    """A core by name: cores are equal, so that one module serves them all."""

    def elaborate(self, platform):
        m = Module()
        ports = {
            f"{'i' if flow == In else 'o'}_{name}": value for name, flow, value in _ports(self)
        }
        m.submodules.core = Instance(CORE, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
        return m


def card_rtlil(config: CardConfig) -> str:
    """The whole card as RTLIL, with one module `CORE` that is placed once for each core."""
    core = Core(config)
    card = Card(config, lambda _: _PlacedCore(core.signature))
    return to_rtlil(card, TOP) + to_rtlil(core, CORE)


def card_verilog(config: CardConfig) -> str:
    """The whole card as one Verilog file, stamped with its configuration and hash."""
    lines = [f"// Halfdome card, configuration {config.hash}", f"// {config.as_json()}"]
    lines += [f"/* verilator lint_off {rule} */" for rule in _YOSYS_HABITS]
    lines += ["`timescale 1ns / 1ps", rtlil_to_verilog(card_rtlil(config))]
    return "\n".join(lines)


def _c_struct(name: str, table: tuple[commands.Field, ...], size_bytes: int) -> list[str]:
    lines = [f"struct halfdome_{name} {{"]
    for field in table:
        storage = next(bits for bits in (8, 16, 32, 64) if field.bits <= bits)
        width = f" : {field.bits}" if storage != field.bits else ""
        lines.append(f"    uint{storage}_t {field.name}{width}; /* {field.doc} */")
    padding = size_bytes - sum(field.bits for field in table) // 8
    if padding:
        lines.append(f"    uint8_t padding[{padding}]; /* zero */")
    lines += [
        "} __attribute__((packed));",
        f'_Static_assert(sizeof(struct halfdome_{name}) == {size_bytes}, "{name}");',
        "",
    ]
    return lines


def c_header(config: CardConfig) -> str:
    """Registers, opcodes, status codes, descriptors and completions for C (GCC, Clang)."""
    lines = [
        f"/* Halfdome card, configuration {config.hash} */",
        "#ifndef HALFDOME_CARD_H",
        "#define HALFDOME_CARD_H",
        "#include <stdint.h>",
        "",
        f"#define HALFDOME_CONFIG_HASH 0x{config.hash}ull",
        f"#define HALFDOME_BAR0_BYTES {registers.BAR0_BYTES}u",
        f"#define HALFDOME_BAR2_BYTES {config.window_bytes}ull",
        f"#define HALFDOME_BUS_BYTES {config.bus_bytes}u",
        f"#define HALFDOME_NO_COUNTER {commands.NO_COUNTER:#x}u",
        "",
        "/* BAR0 byte offsets */",
    ]
    docs = {register.name: register for register in registers.REGISTERS}
    for name, offset in registers.register_names(config).items():
        doc = f" /* {docs[name].access}: {docs[name].doc} */" if name in docs else ""
        lines.append(f"#define HALFDOME_{name} {offset:#06x}u{doc}")
    for title, values in (
        ("opcode", commands.Opcode),
        ("status", commands.Status),
        ("read_failure", commands.ReadFailure),
        ("row_format", commands.RowFormat),
        ("index_mode", commands.IndexMode),
        ("flag", commands.Flag),
        ("element_format", commands.ElementFormat),
        ("function", commands.Function),
    ):
        lines += ["", f"enum halfdome_{title} {{"]
        for name, member in values.__members__.items():  # with the bits two commands share
            lines.append(f"    HALFDOME_{title.upper()}_{name} = {member.value},")
        lines.append("};")
    lines.append("")
    for opcode in commands.Opcode:
        if not opcode.is_fence:
            lines += _c_struct(
                opcode.name.lower(), commands.fields(opcode), commands.DESCRIPTOR_BYTES
            )
    lines += _c_struct("fence", commands.HEADER, commands.DESCRIPTOR_BYTES)
    lines += _c_struct("completion", commands.COMPLETION, commands.COMPLETION_BYTES)
    lines += ["#endif", ""]
    return "\n".join(lines)
