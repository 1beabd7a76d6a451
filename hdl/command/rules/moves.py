"""LOAD, COPY, TRANSPOSE, STORE and SIGNAL."""

from collections.abc import Iterator

from amaranth import Const, Value
from amaranth.lib import data

from halfdome.hdl.command.rules.rule import (
    Access,
    Operand,
    Rule,
    RulesOf,
    is_one_of,
    misaligned,
    operand,
    rows,
    view,
)
from halfdome.hdl.commands import TRANSPOSED_BYTES, Opcode, Status
from halfdome.hdl.config import CardConfig

MOVES = (Opcode.LOAD, Opcode.COPY, Opcode.STORE)


def rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    """Of moves."""
    yield from _move_rules(descriptor, config)
    yield from _transpose_rules(descriptor, config)
    yield from _signal_rules(descriptor)


def operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What moves read and write on the card."""
    op, move, turn = Opcode, view(Opcode.LOAD, descriptor), view(Opcode.TRANSPOSE, descriptor)
    turned = _transposed_rows(turn)

    def moved(opcode, name):
        access = Access.WRITE_IN_PLACE if name == "destination" else Access.READ
        return rows(opcode, move, name, move.rows, move.row_bytes, access, apart=0)

    def matrix(name):
        count, size = turned[name]
        one = (count - 1)[:16] * turn[f"{name}_stride"] + size
        access = Access.WRITE if name == "destination" else Access.READ
        step = turn[f"{name}_batch_stride"]
        return operand(op.TRANSPOSE, turn, name, turn.batches, step, one, access=access)

    return {
        op.LOAD: [moved(op.LOAD, "destination")],
        op.COPY: [moved(op.COPY, "destination"), moved(op.COPY, "source")],
        op.TRANSPOSE: [matrix("destination"), matrix("source")],
        op.STORE: [moved(op.STORE, "source")],
    }


def _move_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, MOVES), view(Opcode.LOAD, descriptor)
    many = v.rows > 1
    for name in ("rows", "row_bytes"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    strides = ("source_stride", "destination_stride")
    for name in strides:
        yield rule(many & (v[name] < v.row_bytes), Status.BAD_DIMENSION, name)
    for name in ("source", "destination"):
        yield rule(misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)
    for name in strides:
        yield rule(many & misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)


def _transposed_rows(v: data.View) -> dict[str, tuple[Value, Value]]:
    """Rows of a matrix on either side of a TRANSPOSE, and the bytes of each."""

    def nbytes(count: Value) -> Value:
        return count << v.element_bytes[1:3]

    return {
        "source": (v.rows, nbytes(v.columns)),
        "destination": (v.columns, nbytes(v.rows)),
    }


def _transpose_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.TRANSPOSE,)), view(Opcode.TRANSPOSE, descriptor)
    known = is_one_of(v.element_bytes, TRANSPOSED_BYTES)
    yield rule(~known, Status.BAD_FORMAT, "element_bytes")
    for name in ("rows", "columns", "batches"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    sides = _transposed_rows(v)
    for name, (count, size) in sides.items():
        short = (count > 1) & (v[f"{name}_stride"] < size)
        yield rule(short, Status.BAD_DIMENSION, f"{name}_stride")
    needed = {name: Const(1) for name in sides}
    needed |= {f"{name}_stride": count > 1 for name, (count, _) in sides.items()}
    needed |= {f"{name}_batch_stride": v.batches > 1 for name in sides}
    for name, condition in needed.items():
        bad = condition & misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)


def _signal_rules(descriptor: Value) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.SIGNAL,)), view(Opcode.SIGNAL, descriptor)
    yield rule(misaligned(v.address, 4), Status.BAD_ALIGNMENT, "address")
