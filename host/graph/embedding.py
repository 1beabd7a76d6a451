"""Embedding bags."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from halfdome.hdl.commands import POOLED_FORMATS, ElementFormat, RowFormat, Status
from halfdome.host.graph import operator
from halfdome.host.graph.operator import Constants, Operator, refuse
from halfdome.host.graph.values import REAL_ROWS, Value
from halfdome.sim.golden.gather import sparse_lengths_sum

if TYPE_CHECKING:
    from halfdome.host.graph.graph import Node


def pooling(node: "Node", table: Value) -> tuple[RowFormat, int]:
    """Row format and elements of a row of an embedding_bag."""
    row_format = RowFormat(node.attributes.get("row_format", RowFormat.INT8))
    row_bytes = table.row_bytes
    dim = (row_bytes - row_format.tail_bytes) * 8 // row_format.element_bits
    return row_format, int(node.attributes.get("dim", dim))


def _infer(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    operator.count(node, operands, 3, 4)
    table, indices, lengths, *weights = operands
    operator.constant(node, table, constants)
    row_format, dim = pooling(node, table)
    fits = len(table.shape) == 2 and dim > 0 and row_format.row_bytes(dim) == table.row_bytes
    held = REAL_ROWS.get(row_format, ElementFormat.UINT8)
    if not fits or not table.shape[0] or table.format is not held:
        raise refuse(node, f"{table}: holds no rows of {row_format.name}")
    for value in (indices, lengths):
        if value.format is not ElementFormat.INT32 or len(value.shape) != 1:
            raise refuse(node, f"{value}: must be int32 with 1 dimension")
    for value in weights:
        if value.format is not ElementFormat.FLOAT32 or value.shape != indices.shape:
            raise refuse(node, f"{value}: must be a float32 for each index")
    if node.attributes.get("mode", "sum") not in ("sum", "mean"):
        raise refuse(node, f"mode={node.attributes['mode']!r}: must be 'sum' or 'mean'")
    return operator.made(node, (lengths.shape[0], dim), POOLED_FORMATS)


def _pool(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    table, indices, lengths, *weights = operands
    row_format, dim = pooling(node, values[0])
    pooled, status, detail = sparse_lengths_sum(
        table.reshape(len(table), -1).view(np.uint8), indices, lengths, dim, row_format,
        weights[0] if weights else None, mean=node.attributes.get("mode") == "mean",
        output_format=operator.format_made(node, ElementFormat.FLOAT32),
        multiplier=operator.float_of(node, "multiplier", 1),
        zero_point=operator.zero_point_of(node) & 0xFF,
    )  # fmt: skip
    if status is not Status.OK:
        raise refuse(node, f"{status.name}, detail {detail}")
    return pooled


OPERATORS = {
    "embedding_bag": Operator(
        _infer,
        _pool,
        operator.OUTPUT
        | {
            "row_format": operator.member(RowFormat),
            "multiplier": operator.number,
            "mean_length": operator.length,
            "dim": operator.whole(1),
            "mode": lambda name, value: value,
        },
    )
}
