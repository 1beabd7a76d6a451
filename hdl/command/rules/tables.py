"""What a good descriptor must satisfy, as tables over its bits.

The rules stand in the order in which the checker reports them: header; then, per command, formats,
dimensions, strides too small for their rows, alignment. A stride of a single row is irrelevant.
Ranges and then overlaps come last: see `operands`.
"""

from collections.abc import Iterator

from amaranth import Cat, Value
from amaranth.lib import data

from halfdome.hdl.command.rules import elements, gather, moves, products, windows
from halfdome.hdl.command.rules.rule import Operand, Rule, is_one_of
from halfdome.hdl.commands import (
    EXTENSION,
    FLAGS,
    HEADER,
    NO_COUNTER,
    Opcode,
    Status,
    layout,
    offset,
)
from halfdome.hdl.config import CardConfig

_FAMILIES = (moves, gather, products, elements, windows)


def rules(
    descriptor: Value, extension: Value, core: Value, config: CardConfig
) -> list[Rule]:  # fmt: skip
    """Every rule but the ranges, in order of precedence.

    `extension` is the slot behind the descriptor, looked at if there is one.
    """
    return [
        *_header_rules(descriptor, extension, core, config),
        *(rule for family in _FAMILIES for rule in family.rules(descriptor, config)),
    ]


def operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What each command reads and writes in card memory, in the order it is checked."""
    return {
        opcode: found
        for family in _FAMILIES
        for opcode, found in family.operands(descriptor, config).items()
    }


def _header_rules(
    descriptor: Value, extension: Value, core: Value, config: CardConfig
) -> Iterator[Rule]:  # fmt: skip
    header = data.View(layout(HEADER), descriptor)
    second = data.View(layout(EXTENSION), extension)
    extended = header.extension == 1

    def at(name: str) -> int:
        return offset(Opcode.LOAD, name)  # the header is the same in every command

    yield Rule(~is_one_of(header.opcode, Opcode), Status.BAD_OPCODE, header.opcode)
    yield Rule(header.core != core, Status.BAD_CORE, at("core"))
    known = Cat(
        is_one_of(header.opcode, [opcode for opcode, flags in FLAGS.items() if flags >> bit & 1])
        for bit in range(8)
    )
    yield Rule((header.flags & ~known).any(), Status.BAD_FORMAT, at("flags"))

    def missing(index: Value) -> Value:
        return (index >= config.counters) & (index != NO_COUNTER)

    for name in ("wait_counter", "signal_counter"):
        yield Rule(missing(header[name]), Status.BAD_COUNTER, at(name))
    yield Rule(header.extension > 1, Status.BAD_FORMAT, at("extension"))
    name = "second_wait_counter"
    yield Rule(extended & missing(second[name]), Status.BAD_COUNTER, at(name))
    yield Rule(extended & second.reserved.any(), Status.BAD_FORMAT, at("reserved"))
