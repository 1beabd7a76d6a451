"""What the vector engine does element by element."""

from collections.abc import Sequence

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host.compiler import residuals
from halfdome.host.compiler.commands import Buffer, Place, Region
from halfdome.host.compiler.lowering import Layout, Lowering, label, whole
from halfdome.host.driver.kernels import Rows
from halfdome.host.graph import elements, operator
from halfdome.host.graph.graph import Node

F32 = ElementFormat.FLOAT32


def vector(lowering: Lowering, node: Node, position: int) -> None:
    """One command; the second operand may be a row of constants, or a column."""
    operands, regions, column = _operands(lowering, node, position)
    y = lowering.rows_at(node.output, lowering.output(node.output, position))
    written = lowering.region(node.output, position)
    _do(lowering, position, node, label(node), y, written, operands, regions, column=column)


_Bytes = tuple[np.ndarray, int]
"""Bytes, and the one that stands for zero."""


def _operands(
    lowering: Lowering, node: Node, position: int, stored: _Bytes | None = None
) -> tuple[list[Rows], list[Region], bool]:
    """Operands of a command, and whether the second is a column; `stored` is held for a row of
    constants that are so many."""
    first, *others = node.inputs
    a = lowering.layouts[first, position]
    operands, regions = [lowering.rows_at(first, a)], [lowering.region(first, position)]
    column = False
    for name in others:
        value = lowering.graph.values[name]
        if name in lowering.graph.constants:
            rows, region = _row(lowering, node, position, name, stored)
        else:
            column = elements.is_column(value, lowering.graph.values[first])
            if not column:
                _same(lowering, node, name, first)
            rows, region = lowering.operand(name, position), lowering.region(name, position)
        operands.append(rows)
        regions.append(region)
    return operands, regions, column


def _row(
    lowering: Lowering, node: Node, position: int, name: str, stored: _Bytes | None
) -> tuple[Rows, Region]:
    """One row of constants for all rows of the other operand."""
    values = lowering.graph.constants[name]
    if values.ndim != 1:
        raise operator.refuse(node, f"{name} is a constant, and not one row for all")
    if stored:
        rows, region = _held(
            lowering, node, position, f"{name} in bytes", stored[0], ElementFormat.UINT8
        )
        return Rows(rows.address, rows.stride, rows.format, stored[1]), region
    return _held(lowering, node, position, name, values, lowering.format(name))


def _held(
    lowering: Lowering, node: Node, position: int, name: str, values: np.ndarray,
    kind: ElementFormat,
) -> tuple[Rows, Region]:  # fmt: skip
    """A row on a card, in the order in which the columns of the first operand lie."""
    columns = lowering.joins.columns[node.inputs[0]]
    laid = np.zeros(len(columns), values.dtype)
    laid[columns >= 0] = values[columns[columns >= 0]]
    held = lowering.hold(
        f"{node.output} {name}", position, laid.nbytes, lambda: laid.view(np.uint8)
    )  # fmt: skip
    return Rows(Place(held), 0, kind), whole(held)


def _same(lowering: Lowering, node: Node, name: str, first: str) -> None:
    if not np.array_equal(lowering.joins.columns[name], lowering.joins.columns[first]):
        raise operator.refuse(node, f"{name} lies in another order of columns than {first}")


def _do(
    lowering: Lowering, position: int, node: Node, about: str, y: Rows, written: Region,
    operands: Sequence[Rows], regions: Sequence[Region], *, column: bool = False,
) -> None:  # fmt: skip
    first = node.inputs[0]
    rows, columns = lowering.rows(first, position), len(lowering.joins.columns[first])
    work = lowering.target.vector(node, y, operands, rows, columns, column=column)
    lowering.add(position, work, about, reads=regions, writes=[written])


def lookup(lowering: Lowering, node: Node, position: int) -> None:
    """LOOKUP in a table that the card holds."""
    name, table = node.inputs
    entries = lowering.graph.constants[table]
    held = lowering.hold(f"table {table}", position, entries.size, lambda: entries.view(np.uint8))
    y = lowering.rows_at(node.output, lowering.output(node.output, position))
    rows, columns = lowering.rows(name, position), len(lowering.joins.columns[name])
    work = lowering.target.lookup(Place(held), y, lowering.operand(name, position), rows, columns)
    lowering.add(
        position, work, label(node),
        reads=[lowering.region(name, position), whole(held)],
        writes=[lowering.region(node.output, position)],
    )  # fmt: skip


def _as_bytes(values: np.ndarray) -> _Bytes | None:
    """Numbers as bytes, if they are integers that lie, zero among them, no further apart."""
    zero_point = -min(values.min(), 0)
    moved = values + zero_point
    if moved.max() > 255 or zero_point > 255 or (values != np.rint(values)).any():
        return None
    return moved.astype(np.uint8), int(zero_point)


def _pair(
    lowering: Lowering, node: Node, position: int, operands: Sequence[Rows],
    regions: Sequence[Region], *, column: bool = False,
) -> None:  # fmt: skip
    """One command of bytes."""
    first = node.inputs[0]
    y = lowering.rows_at(node.output, lowering.output(node.output, position))
    rows, columns = lowering.rows(first, position), len(lowering.joins.columns[first])
    work = lowering.target.pair(node, y, *operands, rows, columns, column=column)
    written = lowering.region(node.output, position)
    lowering.add(position, work, label(node), reads=regions, writes=[written])


class _Temporary:
    """Room for float32 of the shape of a node's output."""

    def __init__(self, lowering: Lowering, node: Node, position: int):
        columns = len(lowering.joins.columns[node.inputs[0]])
        count = lowering.rows(node.output, position)
        stride = lowering.target.row_stride(columns * F32.nbytes)
        layout = Layout(Buffer(f"{node.output} float", position, count * stride), 0, stride)
        self.rows = Rows(layout.place(), stride, F32)
        self.region = layout.region(count, columns * F32.nbytes)


def add_quantised(lowering: Lowering, node: Node, position: int) -> None:
    """ADD_QUANTISED; where its constants are out of bounds, AFFINE of the inner operand, to which
    ADD adds the other: each rounds once, and takes the bytes as they are."""
    operands, regions, _ = _operands(lowering, node, position)
    residuals.take_place(lowering, node, position)
    if elements.within_bounds(node):
        _pair(lowering, node, position, operands, regions)
        return
    operands = [_raw(each) for each in operands]
    inner, outer = elements.add_order(node)
    name = node.inputs[inner]
    if name in lowering.graph.constants:
        first = _all_alike(lowering, node, position, operands[0], regions[0], name)
    else:
        first = _Temporary(lowering, node, position)
        constants = {
            "scale": float(elements.ratio(node, inner)), "shift": node.attributes.get("offset", 0.0)
        }  # fmt: skip
        affine = Node("affine", node.inputs, node.output, constants)
        _do(lowering, position, affine, label(node), first.rows, first.region,
            [operands[inner]], [regions[inner]])  # fmt: skip
    y = _raw(lowering.rows_at(node.output, lowering.output(node.output, position)))
    written = lowering.region(node.output, position)
    add = Node("add", node.inputs, node.output, {"scale": float(elements.ratio(node, outer))})
    _do(lowering, position, add, label(node), y, written, [first.rows, operands[outer]],
        [first.region, regions[outer]])  # fmt: skip


def _all_alike(
    lowering: Lowering, node: Node, position: int, x: Rows, region: Region, name: str
) -> _Temporary:
    """What becomes of a row of constants within, in every row: added to nothing but zeros."""
    zeros, rows = (_Temporary(lowering, node, position) for _ in range(2))
    about = label(node)
    clamp = Node("clamp", node.inputs, node.output, {"low": 0.0, "high": 0.0})
    _do(lowering, position, clamp, about, zeros.rows, zeros.region, [x], [region])
    values = elements.add_inner(node, lowering.graph.constants[name])
    row, held = _held(lowering, node, position, f"{name} within", values, F32)
    add = Node("add", node.inputs, node.output, {})
    _do(lowering, position, add, about, rows.rows, rows.region, [zeros.rows, row],
        [zeros.region, held])  # fmt: skip
    return rows


def multiply_quantised(lowering: Lowering, node: Node, position: int) -> None:
    """MULTIPLY_QUANTISED; where its multiplier is out of bounds, MULTIPLY to float32, to which
    AFFINE adds the zero point before it rounds to bytes."""
    name = node.inputs[1]
    stored = None
    if lowering.format(name) is F32:
        stored = _as_bytes(lowering.graph.constants[name])
    if elements.within_bounds(node) and (stored or lowering.format(name) is not F32):
        operands, regions, column = _operands(lowering, node, position, stored)
        _pair(lowering, node, position, operands, regions, column=column)
        return
    operands, regions, column = _operands(lowering, node, position)
    y = _raw(lowering.rows_at(node.output, lowering.output(node.output, position)))
    product = _Temporary(lowering, node, position)
    factor = {"multiplier": node.attributes.get("multiplier", 1.0)}
    multiply = Node("multiply", node.inputs, node.output, factor)
    shift = {"shift": float(operator.zero_point_of(node))}
    affine = Node("affine", node.inputs, node.output, shift)
    about, written = label(node), lowering.region(node.output, position)
    _do(
        lowering, position, multiply, about, product.rows, product.region, operands, regions,
        column=column,
    )  # fmt: skip
    _do(lowering, position, affine, about, y, written, [product.rows], [product.region])


def _raw(rows: Rows) -> Rows:
    """Bytes that stand for themselves."""
    return Rows(rows.address, rows.stride, rows.format)


def quantise(lowering: Lowering, node: Node, position: int) -> None:
    """QUANTISE."""
    (name,) = node.inputs
    y = lowering.rows_at(node.output, lowering.output(node.output, position))
    rows, columns = lowering.rows(name, position), len(lowering.joins.columns[name])
    scale = float(operator.float_of(node, "scale", 1))
    work = lowering.target.quantise(y, lowering.operand(name, position), rows, columns, scale)
    lowering.add(
        position, work, label(node), reads=[lowering.region(name, position)],
        writes=[lowering.region(node.output, position)],
    )  # fmt: skip
