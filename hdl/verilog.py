"""Verilog and the C header that belongs to it, from one configuration."""

from halfdome.hdl import commands, registers
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
    for core in range(config.cores):
        docs |= {registers.name_of(each, core): each for each in registers.CORE_REGISTERS}
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
    lines += _c_struct("extension", commands.EXTENSION, commands.DESCRIPTOR_BYTES)
    lines += _c_struct("completion", commands.COMPLETION, commands.COMPLETION_BYTES)
    lines += ["#endif", ""]
    return "\n".join(lines)
