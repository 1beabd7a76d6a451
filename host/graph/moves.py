"""What moves elements and computes nothing."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from halfdome.hdl.commands import MATMUL_LIMIT
from halfdome.host import arguments
from halfdome.host.graph import operator
from halfdome.host.graph.operator import Constants, Operator, refuse
from halfdome.host.graph.values import Value

if TYPE_CHECKING:
    from halfdome.host.graph.graph import Node


def _infer_concat(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """Along the last axis."""
    operator.count(node, operands, 1, 1 << 12)
    first = operands[0]
    for value in operands:
        alike = (value.format, value.zero_point, value.shape[:-1])
        if alike != (first.format, first.zero_point, first.shape[:-1]) or len(value.shape) < 2:
            raise refuse(
                node,
                f"{value}: must have the dimensions, but for the last, format and zero point of "
                f"{first}",
            )
    columns = sum(value.shape[-1] for value in operands)
    shape = (*first.shape[:-1], columns)
    return Value(node.output, shape, first.format, first.scale, first.zero_point)


def _concat(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(operands, axis=-1)


def _infer_reshape(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """`shape` is what each sample becomes; the order of its elements stays."""
    operator.count(node, operands, 1)
    (x,) = operands
    shape = node.attributes.get("shape", ())
    if not shape or prod(shape) != prod(x.shape[1:]):  # type: ignore[arg-type]
        raise refuse(node, f"shape={shape}: a sample of {x} has {prod(x.shape[1:])} elements")
    return Value(node.output, (x.shape[0], *shape), x.format, x.scale, x.zero_point)  # type: ignore[misc]


def _reshape(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    return operands[0].reshape(len(operands[0]), *node.attributes["shape"])  # type: ignore[misc]


def merged(x: Value, y: Value) -> int:
    """How many rows of x each row of y is, one after the other; 0 if rows are cut apart."""
    whole = x.columns and y.columns % x.columns == 0
    return y.columns // x.columns if whole else 0


def _infer_transpose(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """Of the last two axes."""
    operator.count(node, operands, 1)
    (x,) = operands
    if len(x.shape) < 3 or max(x.shape[-2:]) > MATMUL_LIMIT:
        raise refuse(
            node, f"{x}: must have samples, then at least two axes, the last two of at most "
            f"{MATMUL_LIMIT}"
        )  # fmt: skip
    shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])
    return Value(node.output, shape, x.format, x.scale, x.zero_point)


def _transpose(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(operands[0].swapaxes(-1, -2))


def _shape(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        raise ValueError(f"{name}={value!r}: must be whole numbers")
    return arguments.integers(name, value, len(value), 1, 1 << 31)


OPERATORS = {
    "concat": Operator(_infer_concat, _concat, operator.LABEL),
    "reshape": Operator(_infer_reshape, _reshape, operator.LABEL | {"shape": _shape}),
    "transpose": Operator(_infer_transpose, _transpose, operator.LABEL),
}
