"""A rule about a descriptor, an operand of a command, and what both are built of."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import NamedTuple

from amaranth import Cat, Value, ValueLike
from amaranth.lib import data, enum
from amaranth.utils import exact_log2

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.commands import Flag, Opcode, Status
from halfdome.hdl.descriptors import fields, layout, offset


class Rule(NamedTuple):
    """If `broken`, the descriptor ends with `status` and `detail`, unless an earlier rule did.

    `opcodes` are those of which it may be broken, if not of all.
    """

    broken: Value
    status: Status
    detail: ValueLike
    opcodes: tuple[Opcode, ...] = ()


class Access(enum.Enum, shape=2):
    """What a command does with an operand, as far as overlaps are looked at."""

    READ = 0
    #: The operand comes first; no other may overlap it.
    WRITE = 1
    #: Likewise, but the rows of another may be overwritten with rows as long or shorter.
    WRITE_IN_PLACE = 2
    #: A command that works in place may not do so here.
    READ_APART = 3


class Operand(NamedTuple):
    """`count` rows of `elements << scale` bytes, `stride` apart, from card address `base`; not
    looked at unless `needed`. If rows must lie `apart`, a stride that is too short for them ends
    with `stride_detail`."""

    base: ValueLike
    count: ValueLike
    stride: ValueLike
    elements: ValueLike
    scale: ValueLike
    needed: ValueLike
    detail: int
    access: Access = Access.READ
    apart: ValueLike = 0
    stride_detail: int = 0


def view(opcode: Opcode, descriptor: Value) -> data.View:
    """The descriptor's bits as the fields of a command."""
    return data.View(layout(fields(opcode)), descriptor)


def operand(
    opcode: Opcode, v: data.View, name: str, count: ValueLike, stride: ValueLike,
    elements: ValueLike, needed: ValueLike = 1, access: Access = Access.READ, scale: ValueLike = 0,
) -> Operand:  # fmt: skip
    """The operand whose address is field `name` of the view `v`."""
    return Operand(v[name], count, stride, elements, scale, needed, offset(opcode, name), access)


def rows(
    opcode: Opcode, v: data.View, name: str, count: Value, elements: ValueLike,
    access: Access = Access.READ, scale: ValueLike = 0, apart: ValueLike = 1,
) -> Operand:  # fmt: skip
    """`count` rows, whose stride is a field of `v`, too."""
    stride = f"{name}_stride"
    one = operand(opcode, v, name, count, v[stride], elements, access=access, scale=scale)
    return one._replace(apart=apart, stride_detail=offset(opcode, stride))


class RulesOf:
    """Builds the rules of one command: each holds only when the opcode matches."""

    def __init__(self, descriptor: Value, opcodes: tuple[Opcode, ...]):
        self._opcodes = opcodes
        self._applies = is_one_of(descriptor[:8], opcodes)

    def __call__(self, broken: Value, status: Status, name: str) -> Rule:
        place = offset(self._opcodes[0], name)
        return Rule(self._applies & broken, status, place, self._opcodes)


def is_one_of(value: Value, choices) -> Value:
    """Whether `value` is among some integers."""
    return Cat(value == int(choice) for choice in choices).any()


def has(v: data.View, flag: Flag) -> Value:
    """Whether a command has a flag."""
    return (v.flags & int(flag)).any()


def select(condition: Value, yes: Value, no: Value) -> Value:
    """`yes` if `condition`, else `no`."""
    width = max(len(yes), len(no))
    mask = condition.replicate(width)
    return ((yes & mask) | (no & ~mask))[:width]


def misaligned(address: Value, unit: int) -> Value:
    """Whether it is no multiple of `unit`, a power of two."""
    return address[: exact_log2(unit)].any()


def by_value(value: Value, choices: Mapping[int, Value]) -> Value:
    """The choice for `value`; 0 for a value that has none."""
    width = max(len(choice) for choice in choices.values())
    return reduce(or_, (
        (value == key).replicate(width) & choice for key, choice in choices.items()
    ))  # fmt: skip


def not_finite(x: Value) -> Value:
    """Whether an fp32 is infinite or NaN."""
    return x[23:31].all()


def exponent_outside(x: Value, exponents: range) -> Value:
    """Whether an fp32 is as large as no power of two of these exponents or up to the next."""
    steps = (FLOAT32.layout(x).exponent - (FLOAT32.bias + exponents.start))[: FLOAT32.exponent_bits]
    return steps >= len(exponents)
