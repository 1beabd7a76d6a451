"""Commands element by element: of floats, of quantised pairs, and LOOKUP."""

from collections.abc import Iterable, Iterator

from amaranth import Cat, Const, Value
from amaranth.lib import data
from amaranth.utils import exact_log2

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.command.rules.rule import (
    Access,
    Operand,
    Rule,
    RulesOf,
    exponent_outside,
    has,
    is_one_of,
    misaligned,
    not_finite,
    operand,
    rows,
    select,
    view,
)
from halfdome.hdl.commands import (
    BYTE_FORMATS,
    MULTIPLIER_EXPONENTS,
    OFFSET_LIMIT,
    RATIO_EXPONENTS,
    TABLE_BYTES,
    ElementFormat,
    Flag,
    Function,
    Opcode,
    Status,
)
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields

PAIRS = (Opcode.ADD_QUANTISED, Opcode.MULTIPLY_QUANTISED)
VECTOR = (Opcode.AFFINE, Opcode.ADD, Opcode.MULTIPLY, Opcode.CLAMP, Opcode.QUANTISE)


def rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    """Of commands element by element."""
    for opcode in VECTOR:
        yield from _vector_rules(opcode, descriptor, config)
    yield from _lookup_rules(descriptor, config)
    for opcode in PAIRS:
        yield from _pair_rules(opcode, descriptor, config)


def operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What commands element by element read and write."""

    def matrices(opcode, v, columns, scales):
        return [
            rows(opcode, v, name, v.rows, count,
                 Access.WRITE_IN_PLACE if name == "y" else Access.READ, scales.get(name, 0),
                 v.b_stride.any() if name == "b" else 1)
            for name, count in columns.items()
        ]  # fmt: skip

    found = {}
    for opcode in VECTOR:
        v = view(opcode, descriptor)
        columns = _vector_columns(opcode, v)
        scales = {name: _log2_size(v[f"{name}_format"]) for name in columns}
        found[opcode] = matrices(opcode, v, columns, scales)
    for opcode in PAIRS:
        v = view(opcode, descriptor)
        found[opcode] = matrices(opcode, v, _pair_columns(v), {})
    op, v = Opcode.LOOKUP, view(Opcode.LOOKUP, descriptor)
    table = operand(op, v, "table", 1, 0, TABLE_BYTES, access=Access.READ_APART)
    return found | {op: [*matrices(op, v, {"y": v.columns, "a": v.columns}, {}), table]}


def _has_second(opcode: Opcode) -> bool:
    """Whether a vector command has an input b."""
    return any(field.name == "b" for field in fields(opcode))


def _log2_size(element: Value) -> Value:
    """log2 of the bytes of an element of some format."""
    wide = is_one_of(element, (ElementFormat.FLOAT32, ElementFormat.INT32))
    return Cat(element == ElementFormat.FLOAT16, wide)


def _vector_columns(opcode: Opcode, v: data.View) -> dict[str, Value]:
    """Elements of a row of each operand of a vector command, in the order they are checked."""
    reduced = v.flags & (Flag.SUM | Flag.MAX) != 0
    columns = {"y": select(reduced, Const(1), v.columns), "a": v.columns}
    if _has_second(opcode):
        columns["b"] = select(v.flags & Flag.BROADCAST != 0, Const(1), v.columns)
    return columns


def _order(x: Value) -> Value:
    """An unsigned number that orders fp32 as their values, -0 below +0."""
    return Cat(x[:-1] ^ x[-1].replicate(31), ~x[-1])


def _vector_rules(opcode: Opcode, descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (opcode,)), view(opcode, descriptor)
    both = Flag.SUM | Flag.MAX

    yield rule((v.flags & both) == both, Status.BAD_FORMAT, "flags")
    for name in (f.name for f in fields(opcode)):
        match name:
            case "scale" if opcode is Opcode.QUANTISE:
                broken = not_finite(v.scale) | ~v.scale[23:31].any() | v.scale[31]
            case "multiplier" | "scale":
                broken = not_finite(v[name]) | ~v[name][:31].any()
            case "shift":
                broken = not_finite(v[name])
            case "low":
                broken = not_finite(v[name]) & v[name][:23].any()
            case "high":
                broken = not_finite(v[name]) & v[name][:23].any()
                broken |= _order(v.high) < _order(v.low)
            case "function":
                broken = ~is_one_of(v[name], Function)
            case "y_format" if opcode is Opcode.QUANTISE:
                broken = ~is_one_of(v[name], BYTE_FORMATS)
            case "y_format":
                broken = ~is_one_of(v[name], set(ElementFormat) - {ElementFormat.INT32})
            case "a_format" | "b_format":
                broken = ~is_one_of(v[name], ElementFormat)
            case _:
                continue
        yield rule(broken, Status.BAD_FORMAT, name)
    yield from _matrix_rules(rule, v, config, _vector_columns(opcode, v))


def _lookup_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.LOOKUP,)), view(Opcode.LOOKUP, descriptor)
    yield from _matrix_rules(rule, v, config, ("y", "a"))
    yield rule(misaligned(v.table, config.bus_bytes), Status.BAD_ALIGNMENT, "table")


def _pair_columns(v: data.View) -> dict[str, Value]:
    """Elements of a row of each operand of a command of pairs, in the order they are checked."""
    b = select(has(v, Flag.BROADCAST), Const(1), v.columns)
    return {"y": v.columns, "a": v.columns, "b": b}


def _pair_rules(opcode: Opcode, descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (opcode,)), view(opcode, descriptor)
    for name in (f.name for f in fields(opcode)):
        match name:
            case "y_format" | "a_format" | "b_format":
                broken = ~is_one_of(v[name], BYTE_FORMATS)
            case "a_ratio" | "b_ratio":
                broken = exponent_outside(v[name], RATIO_EXPONENTS)
            case "multiplier":
                broken = exponent_outside(v[name], MULTIPLIER_EXPONENTS)
            case "offset":
                limit = FLOAT32.bias + exact_log2(OFFSET_LIMIT)
                broken = FLOAT32.layout(v.offset).exponent >= limit
            case _:
                continue
        yield rule(broken, Status.BAD_FORMAT, name)
    yield from _matrix_rules(rule, v, config, _pair_columns(v))


def _matrix_rules(
    rule: RulesOf, v: data.View, config: CardConfig, matrices: Iterable[str]
) -> Iterator[Rule]:
    """Rules of matrices called so."""
    many = v.rows > 1
    for name in ("rows", "columns"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    for name in matrices:
        yield rule(misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)
    for name in (f"{each}_stride" for each in matrices):
        yield rule(many & misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)
