"""GATHER."""

from collections.abc import Iterator

from amaranth import Value
from amaranth.lib import data

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


def rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    """Of GATHER."""
    rule, v = RulesOf(descriptor, (Opcode.GATHER,)), view(Opcode.GATHER, descriptor)
    many_bags = v.bags > 1
    yield rule(has(v, Flag.WARN) & has(v, Flag.IGNORE), Status.BAD_FORMAT, "flags")
    yield rule(~is_one_of(v.format, RowFormat), Status.BAD_FORMAT, "format")
    yield rule(~is_one_of(v.output_format, POOLED_FORMATS), Status.BAD_FORMAT, "output_format")
    scaled = is_one_of(v.output_format, [f for f in POOLED_FORMATS if f.nbytes == 1])
    yield rule(scaled & not_finite(v.multiplier), Status.BAD_FORMAT, "multiplier")
    for name in ("rows", "bags"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    yield rule((v.dim == 0) | (v.dim > config.max_dim), Status.BAD_DIMENSION, "dim")
    too_small = (v.rows > 1) & (v.row_stride < _row_bytes(v))
    yield rule(too_small, Status.BAD_DIMENSION, "row_stride")
    too_small = many_bags & (v.output_stride < _pooled_bytes(v))
    yield rule(too_small, Status.BAD_DIMENSION, "output_stride")
    for name in ("indices", "lengths", "weights"):
        needed = has(v, Flag.WEIGHTED) if name == "weights" else 1
        bad = needed & misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)


def operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What GATHER reads and writes."""
    op, v = Opcode.GATHER, view(Opcode.GATHER, descriptor)
    weighted, indexed = has(v, Flag.WEIGHTED), v.index_count.any()

    def integers(count: Value) -> Value:
        """Bytes of that many int32, or int64."""
        return (count << 2) << has(v, Flag.WIDE)

    def run(name, tail, needed=1):
        return operand(op, v, name, 0, 0, tail, needed)

    return {
        op: [
            rows(op, v, "output", v.bags, v.output_stride, _pooled_bytes(v), Access.WRITE),
            rows(op, v, "table", v.rows, v.row_stride, _row_bytes(v)),
            run("indices", integers(v.index_count), indexed),
            run("lengths", integers(v.bags)),
            run("weights", v.index_count << 2, indexed & weighted),
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


def _pooled_bytes(v: data.View) -> Value:
    """Bytes of a pooled row."""
    elements = {4: v.dim << 2, 2: v.dim << 1, 1: v.dim}
    return by_value(v.output_format, {int(f): elements[f.nbytes] for f in POOLED_FORMATS})
