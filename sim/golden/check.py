"""What the card's descriptor checker says about a descriptor: plain Python, no hardware in sight.

The first rule that a descriptor breaks decides. The order is: header fields; formats, flags and
scales; dimensions; strides that would let rows overlap (too small for a row: a dimension error);
alignment; ranges; overlaps. Each group is in the order of the fields, but for ranges, and for
strides except those of moves and of commands with batches, an operand that is written comes first.
Where there is only one row, its stride is irrelevant and never checked. An operand of no bytes (the
indices of an empty GATHER) must be aligned but may point anywhere. The params of a product with
INT32 output are not looked at.
"""

from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import (
    DESCRIPTOR_BYTES,
    EXTENSION,
    FLAGS,
    HEADER,
    fields,
    offset,
    unpack,
)
from halfdome.sim.golden.rules import elements, gather, moves, products, rule, windows
from halfdome.sim.golden.rules.rule import Broken


def check(descriptor: bytes, config: CardConfig, core: int = 0) -> tuple[Status, int]:
    """The status and detail with which the checker passes the `descriptor` on.

    It has 64 bytes, or 128 with its extension, and is in the ring of `core`.
    """
    header = unpack(HEADER, descriptor)
    if header["opcode"] not in set(Opcode):
        return Status.BAD_OPCODE, header["opcode"]
    opcode = Opcode(header["opcode"])
    values = unpack(fields(opcode), descriptor)
    if values["extension"] == 1:
        values |= unpack(EXTENSION, descriptor[DESCRIPTOR_BYTES:])
    for status, name in _violations(opcode, values, config, core):
        return status, offset(opcode, name)
    return Status.OK, 0


def _violations(opcode: Opcode, v: dict[str, int], config: CardConfig, core: int) -> Broken:
    """Every broken rule as (status, field), in the order of the module's docstring."""
    if v["core"] != core:
        yield Status.BAD_CORE, "core"
    if v["flags"] & ~int(FLAGS.get(opcode, 0)):
        yield Status.BAD_FORMAT, "flags"
    yield from rule.counters(v, config, "wait_counter", "signal_counter")
    if v["extension"] > 1:
        yield Status.BAD_FORMAT, "extension"
    if v["extension"] == 1:
        yield from rule.counters(v, config, "second_wait_counter")
        if v["reserved"]:
            yield Status.BAD_FORMAT, "reserved"
    if opcode in _RULES:
        yield from _RULES[opcode](opcode, v, config)


_RULES = {
    opcode: rules
    for family in (moves, gather, products, elements, windows)
    for opcode, rules in family.RULES.items()
}
