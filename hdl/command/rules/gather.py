"""GATHER."""

from collections.abc import Iterator

from amaranth import Cat, Const, Value
from amaranth.lib import data
from amaranth.utils import exact_log2

from halfdome.hdl.command.rules.rule import (
    Access,
    Operand,
    Rule,
    RulesOf,
    by_value,
    has,
    is_one_of,
    misaligned,
    not_finite,
    operand,
    rows,
    view,
)
from halfdome.hdl.commands import POOLED_FORMATS, Flag, Opcode, RowFormat, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import offset


def rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    """Of GATHER."""
    rule, v = RulesOf(descriptor, (Opcode.GATHER,)), view(Opcode.GATHER, descriptor)
    yield rule(has(v, Flag.WARN) & has(v, Flag.IGNORE), Status.BAD_FORMAT, "flags")
    yield rule(~is_one_of(v.format, RowFormat), Status.BAD_FORMAT, "format")
    yield rule(~is_one_of(v.output_format, POOLED_FORMATS), Status.BAD_FORMAT, "output_format")
    scaled = is_one_of(v.output_format, [f for f in POOLED_FORMATS if f.nbytes == 1])
    yield rule(scaled & not_finite(v.multiplier), Status.BAD_FORMAT, "multiplier")
    for name in ("rows", "bags"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    yield rule((v.dim == 0) | (v.dim > config.max_dim), Status.BAD_DIMENSION, "dim")
    for name in ("indices", "lengths", "weights"):
        needed = has(v, Flag.WEIGHTED) if name == "weights" else 1
        bad = needed & misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)


def operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What GATHER reads and writes."""
    op, v = Opcode.GATHER, view(Opcode.GATHER, descriptor)
    weighted, indexed = has(v, Flag.WEIGHTED), v.index_count.any()

    integer = Cat(has(v, Flag.WIDE), 1)  # 4 bytes, or 8

    def run(name, count, scale, needed=1):
        return operand(op, v, name, 1, 0, count, needed, scale=scale)

    table = operand(op, v, "table", v.rows, v.row_stride, _row_bytes(v))
    return {
        op: [
            rows(op, v, "output", v.bags, v.dim, Access.WRITE, _pooled_scale(v)),
            table._replace(apart=1, stride_detail=offset(op, "row_stride")),
            run("indices", v.index_count, integer, indexed),
            run("lengths", v.bags, integer),
            run("weights", v.index_count, 2, indexed & weighted),
        ]
    }


def _row_bytes(v: data.View) -> Value:
    """Bytes of an embedding row with its scale and bias."""
    elements = {32: v.dim << 2, 16: v.dim << 1, 8: v.dim, 4: (v.dim + 1) >> 1}
    sizes = {
        int(row_format): (elements[row_format.element_bits] + row_format.tail_bytes)
        for row_format in RowFormat
    }
    return by_value(v.format, sizes)


def _pooled_scale(v: data.View) -> Value:
    """log2 of the bytes of an element of a pooled row."""
    scales = {int(f): Const(exact_log2(f.nbytes), 2) for f in POOLED_FORMATS}
    return by_value(v.output_format, scales)
