"""Verilog of cards and components, and the C header that belongs to a card."""

import re

from amaranth.lib import wiring

from halfdome.hdl import commands, descriptors, registers
from halfdome.hdl.card import Card
from halfdome.hdl.config import CardConfig
from halfdome.hdl.rtlil import rtlil_to_verilog, to_rtlil

TOP = "halfdome_card"
CORE = "halfdome_core"

_YOSYS_HABITS = (
    "ALWNEVER", "CASEINCOMPLETE", "CASEOVERLAP", "CMPCONST", "UNSIGNED", "WIDTHEXPAND",
    "WIDTHTRUNC",
)  # fmt: skip
"""Verilator warnings about how Yosys writes Verilog: implicit widths, cases with defaults above,
first match wins, comparisons that the configuration's sizes decide."""


def card_rtlil(config: CardConfig) -> str:
    """The whole card as RTLIL, with one module `CORE` that is placed once for each core."""
    return to_rtlil(Card(config), TOP)


_CONSTANT = re.compile(r"^  always @\*\n(    [^=;\n]+ = \d+'[bdh][0-9a-f]+;)$", re.MULTILINE)
_TRIGGER = "constant_trigger"


def _triggered(text: str) -> str:
    """Constants that are assigned in processes of their own, as Yosys writes bits of a signal whose
    other bits are not constant: a process sensitive to nothing never runs in a simulator that takes
    events as the standard does, so each gets what Yosys gives to larger ones."""
    modules = []
    for module in text.split("\nendmodule"):
        first = _CONSTANT.search(module)
        if first:
            running = rf"  always @* begin\n    if ({_TRIGGER}) begin end\n\1\n  end"
            rest = _CONSTANT.sub(running, module[first.start() :])
            module = f"{module[: first.start()]}  reg {_TRIGGER} = 1'h0;\n{rest}"
        modules.append(module)
    return "\nendmodule".join(modules)


def _file(text: str) -> str:
    """RTLIL as a Verilog file that simulators and linters take as it is."""
    lines = [f"/* verilator lint_off {rule} */" for rule in _YOSYS_HABITS]
    return "\n".join([*lines, "`timescale 1ns / 1ps", _triggered(rtlil_to_verilog(text))])


def card_verilog(config: CardConfig) -> str:
    """The whole card as one Verilog file, stamped with its configuration and hash."""
    stamp = f"// Halfdome card, configuration {config.hash}\n// {config.as_json()}"
    return f"{stamp}\n{_file(card_rtlil(config))}"


def component_verilog(component: wiring.Component, name: str) -> str:
    """Any component as one Verilog file, of which the module `name` is the component.

    Ports are named by the signature (`bus__addr`, `lanes__0`); clock and reset of a domain that the
    component uses and does not make are ports, too (`clk`, `rst`, `slow_clk`, `slow_rst`). As from
    Amaranth's own back ends, `elaborate` gets no platform. Raises `ValueError` for what is no
    component and for a name that Verilog does not have, what Amaranth raises for a design that is
    none, and `ToolError` with Yosys' own words.
    """
    if not isinstance(component, wiring.Component):
        raise ValueError(f"component={component!r}: must be an amaranth.lib.wiring.Component")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"name={name!r}: must be letters, digits and _, no digit first")
    return _file(to_rtlil(component, name, place=False))


def _c_struct(name: str, table: tuple[descriptors.Field, ...], size_bytes: int) -> list[str]:
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
        # Every C and C++ knows this: no array has -1 elements.
        f"typedef char halfdome_{name}_size"
        f"[sizeof(struct halfdome_{name}) == {size_bytes} ? 1 : -1];",
        "",
    ]
    return lines


_BITS = {
    "CONTROL_RUN": registers.CONTROL_RUN,
    "CONTROL_RESET": registers.CONTROL_RESET,
    "STATUS_IDLE": registers.STATUS_IDLE,
    "STATUS_FETCH_FAILED": registers.STATUS_FETCH_FAILED,
    "STATUS_RESETTING": registers.STATUS_RESETTING,
}
"""Bits of registers, those of cores alike."""


def _places(table: tuple[descriptors.Field, ...]) -> list[tuple[descriptors.Field, int]]:
    """The fields of a table, each with the byte at which it begins."""
    places, byte = [], 0
    for field in table:
        places.append((field, byte))
        byte += field.bits // 8
    return places


def _tables() -> dict[str, tuple[descriptors.Field, ...]]:
    """The fields of each command that has some of its own, of extensions and completions."""
    own = {op.name: descriptors.fields(op) for op in commands.Opcode if not op.is_fence}
    return own | {
        "FENCE": descriptors.HEADER, "EXTENSION": descriptors.EXTENSION,
        "COMPLETION": descriptors.COMPLETION,
    }  # fmt: skip


def interface_markdown(config: CardConfig) -> str:
    """Registers, descriptors and completions as tables for people."""
    lines = [
        f"# Registers and descriptors, configuration {config.hash}", "",
        "Registers are 32 bits wide, at byte offsets of BAR0.", "",
        "| offset | register | access | meaning |", "|---|---|---|---|",
    ]  # fmt: skip
    docs = _register_docs(config)
    for name, offset in registers.register_names(config).items():
        access, doc = (docs[name].access, docs[name].doc) if name in docs else ("ro", "")
        access = "rw" if name.startswith("COUNTER_") else access
        lines.append(f"| `{offset:#06x}` | {name} | {access} | {doc} |")
    for name, table in _tables().items():
        opcode = commands.Opcode.__members__.get(name)
        title = f"{name}, opcode {opcode.value:#04x}" if opcode else name
        lines += ["", f"## {title}", "", "| byte | bits | field | meaning |", "|---|---|---|---|"]
        lines += [f"| {byte} | {f.bits} | {f.name} | {f.doc} |" for f, byte in _places(table)]
    return "\n".join([*lines, ""])


def _register_docs(config: CardConfig) -> dict[str, registers.Register]:
    docs = {register.name: register for register in registers.REGISTERS}
    for core in range(config.cores):
        docs |= {registers.name_of(each, core): each for each in registers.CORE_REGISTERS}
    return docs


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
        f"#define HALFDOME_NO_COUNTER {descriptors.NO_COUNTER:#x}u",
        "",
        "/* BAR0 byte offsets */",
    ]
    docs = _register_docs(config)
    for name, offset in registers.register_names(config).items():
        doc = f" /* {docs[name].access}: {docs[name].doc} */" if name in docs else ""
        lines.append(f"#define HALFDOME_{name} {offset:#06x}u{doc}")
    lines += ["", "/* Bits of registers */"]
    for name, mask in _BITS.items():
        lines.append(f"#define HALFDOME_{name}_MASK {mask:#x}u")
        lines.append(f"#define HALFDOME_{name}_SHIFT {mask.bit_length() - 1}")
    lines += ["", "/* Fields: first byte and bits, where packed structures are not to be had */"]
    for name, table in _tables().items():
        for field, byte in _places(table):
            lines.append(f"#define HALFDOME_{name}_{field.name.upper()}_BYTE {byte}u")
            lines.append(f"#define HALFDOME_{name}_{field.name.upper()}_BITS {field.bits}u")
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
                opcode.name.lower(), descriptors.fields(opcode), descriptors.DESCRIPTOR_BYTES
            )
    lines += _c_struct("fence", descriptors.HEADER, descriptors.DESCRIPTOR_BYTES)
    lines += _c_struct("extension", descriptors.EXTENSION, descriptors.DESCRIPTOR_BYTES)
    lines += _c_struct("completion", descriptors.COMPLETION, descriptors.COMPLETION_BYTES)
    lines += ["#endif", ""]
    return "\n".join(lines)
