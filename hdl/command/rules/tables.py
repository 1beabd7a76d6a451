"""What a good descriptor must satisfy, as tables over its bits.

The rules stand in the order in which the checker reports them: header; then, per command, formats,
dimensions, alignment. Between these two come strides too small for the rows of an operand, ranges
and then overlaps come last: see `operands`. A stride of a single row is irrelevant.
"""

from collections.abc import Collection, Iterable, Iterator
from difflib import SequenceMatcher
from itertools import groupby

from amaranth import Cat, Value
from amaranth.lib import data

from halfdome.hdl.command.rules import elements, gather, moves, products, windows
from halfdome.hdl.command.rules.rule import Operand, Rule, is_one_of
from halfdome.hdl.commands import Engine, Opcode, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import EXTENSION, FLAGS, HEADER, NO_COUNTER, layout, offset

_FAMILIES = {
    moves: {Engine.LOAD, Engine.STORE},
    gather: {Engine.GATHER},
    products: {Engine.MATMUL},
    elements: {Engine.VECTOR},
    windows: {Engine.VECTOR},
}
"""Whose commands each of them knows."""


def rules(
    descriptor: Value, extension: Value, core: Value, config: CardConfig,
    engines: Collection[Engine],
) -> list[Rule]:  # fmt: skip
    """Every rule that is not an operand's, in order of precedence, of the commands of `engines`.

    `extension` is the slot behind the descriptor, looked at if there is one.
    """
    return [
        *_header_rules(descriptor, extension, core, config, engines),
        *_shared(
            rule
            for family, owners in _FAMILIES.items()
            if not owners.isdisjoint(engines)
            for rule in family.rules(descriptor, config)
        ),
    ]


def _shared(rules: Iterable[Rule]) -> list[Rule]:
    """One rule for those of different commands that give the same verdict, so far as each command
    keeps its own in order. Those of a command stand together."""
    shared: list[Rule] = []
    for _, own in groupby(rules, lambda rule: rule.opcodes):
        new, found = list(own), shared
        verdicts = [[(rule.status, rule.detail) for rule in each] for each in (found, new)]
        shared = []
        for kind, *ends in SequenceMatcher(None, *verdicts, autojunk=False).get_opcodes():
            old, added = found[slice(*ends[:2])], new[slice(*ends[2:])]
            if kind == "equal":
                pairs = zip(old, added, strict=True)
                shared += [one._replace(broken=one.broken | other.broken) for one, other in pairs]
            else:
                shared += old + added
    return shared


def operands(
    descriptor: Value, config: CardConfig, engines: Collection[Engine]
) -> dict[Opcode, list[Operand]]:
    """What each command of `engines` reads and writes in card memory, in the order of checking."""
    return {
        opcode: found
        for family, owners in _FAMILIES.items()
        if not owners.isdisjoint(engines)
        for opcode, found in family.operands(descriptor, config).items()
    }


def _header_rules(
    descriptor: Value, extension: Value, core: Value, config: CardConfig,
    engines: Collection[Engine],
) -> Iterator[Rule]:  # fmt: skip
    header = data.View(layout(HEADER), descriptor)
    second = data.View(layout(EXTENSION), extension)
    extended = header.extension == 1

    def at(name: str) -> int:
        return offset(Opcode.LOAD, name)  # the header is the same in every command

    opcodes = [opcode for opcode in Opcode if opcode.engine in engines]
    yield Rule(~is_one_of(header.opcode, opcodes), Status.BAD_OPCODE, header.opcode)
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
