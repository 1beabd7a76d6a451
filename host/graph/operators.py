"""What nodes compute: shapes, formats and bits of every operator, by the golden functions.

Attributes of a node are plain numbers and names. An output of 8 bits takes its `zero_point`, and
for people its `scale`, from the node; an operand's are its value's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from halfdome.hdl.commands import (
    POOLED_FORMATS,
    PRODUCT_FORMATS,
    ElementFormat,
    Function,
    Opcode,
    RowFormat,
    Status,
)
from halfdome.host import arguments
from halfdome.host.graph.values import DTYPES, REAL_ROWS, GraphError, Value
from halfdome.sim.golden import matmul, vector
from halfdome.sim.golden.gather import sparse_lengths_sum

if TYPE_CHECKING:
    from halfdome.host.graph.graph import Node

Constants = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Operator:
    """An operator.

    Attributes
    ----------
    infer : function of node, operands and constants that returns the value the node makes; raises
        `GraphError` for operands that do not fit
    evaluate : function of node, operands' values and operands that returns the array
    by_rows : whether each row of the output follows from the same row of the operands that are not
        constant
    """

    infer: Callable[["Node", Sequence[Value], Constants], Value]
    evaluate: Callable[["Node", Sequence[Value], Sequence[np.ndarray]], np.ndarray]
    by_rows: bool


def find(op: str) -> Operator:
    """The operator called `op`. Raises `GraphError` naming those there are."""
    if op not in _OPERATORS:
        raise GraphError(f"op={op!r}: unknown; known are {', '.join(_OPERATORS)}")
    return _OPERATORS[op]


def checked(node: "Node") -> dict[str, object]:
    """The attributes of a node, as numbers and members of their enumerations.

    Raises `GraphError` for an attribute that its operator does not have, and for what is none.
    """
    find(node.op)
    known = _ATTRIBUTES[node.op]
    if unknown := set(node.attributes) - set(known):
        names = ", ".join(known) or "none"
        raise refuse(node, f"{min(unknown)}: is no attribute of it; known are {names}")
    try:
        return {name: known[name](name, value) for name, value in node.attributes.items()}
    except ValueError as error:
        raise refuse(node, str(error)) from None


def refuse(node: "Node", why: str) -> GraphError:
    """The error of a node whose operands do not fit."""
    return GraphError(f"{node.op} {node.output}: {why}")


def _made(node: "Node", shape: tuple[int, ...], allowed: Sequence[ElementFormat]) -> Value:
    """The output of a node: `format` (by default the first allowed), `scale` and `zero_point`."""
    made = ElementFormat(node.attributes.get("format", allowed[0]))
    if made not in allowed:
        names = ", ".join(str(DTYPES[each]) for each in allowed)
        raise refuse(node, f"format={DTYPES[made]}: must be one of {names}")
    zero_point = int(node.attributes.get("zero_point", 0))
    if made.nbytes == 1:
        _fits(node, "zero_point", made)
    _finite(node, "multiplier", zero=False)
    return Value(node.output, shape, made, node.attributes.get("scale"), zero_point)


def _fits(node: "Node", name: str, element: ElementFormat) -> None:
    limits, zero_point = np.iinfo(DTYPES[element]), int(node.attributes.get(name, 0))
    if not limits.min <= zero_point <= limits.max:
        raise refuse(node, f"{name}={zero_point}: must fit {DTYPES[element]}")


def _finite(node: "Node", name: str, *, zero: bool) -> None:
    """Refuses what a command would be refused for."""
    value = _float(node, name, 1)
    if not np.isfinite(value) or not (zero or value):
        rule = "finite" if zero else "finite and not zero"
        raise refuse(node, f"{name}={node.attributes[name]}: must be {rule}")


def _count(node: "Node", operands: Sequence[Value], low: int, high: int | None = None) -> None:
    if not low <= len(operands) <= (high or low):
        raise refuse(node, f"has {len(operands)} inputs")


def _constant(node: "Node", value: Value, constants: Constants) -> None:
    if value.name not in constants:
        raise refuse(node, f"{value.name}: must be a constant")


def _float(node: "Node", name: str, default: float) -> np.float32:
    return np.float32(node.attributes.get(name, default))


def byte_of(value: Value) -> int:
    """A zero point as a descriptor carries it."""
    return value.zero_point & 0xFF


# Attributes

_Check = Callable[[str, object], object]


def _number(name: str, value: object) -> float:
    found = np.asarray(value)
    if found.shape or found.dtype.kind not in "fiu":
        raise ValueError(f"{name}={value!r}: must be a number")
    return float(found)


def _length(name: str, value: object) -> float:
    found = arguments.number(name, value)
    if found < 0:
        raise ValueError(f"{name}={value!r}: must not be negative")
    return found


def _optional(name: str, value: object) -> float | None:
    return None if value is None else _number(name, value)


def _zero_point(name: str, value: object) -> int:
    return arguments.integer(name, value, -128, 255)


def _member(kind: type[Enum]) -> _Check:
    return lambda name, value: arguments.choice(name, value, kind)


_LABEL: dict[str, _Check] = {"label": lambda name, value: str(value)}
"""What people call the commands of a node; its output, if it has none."""
_OUTPUT: dict[str, _Check] = _LABEL | {
    "format": _member(ElementFormat), "scale": _optional, "zero_point": _zero_point,
}  # fmt: skip
_VECTOR = _OUTPUT | {
    "multiplier": _number, "function": _member(Function), "scale": _number,
}  # fmt: skip


# Embedding bags


def pooling(node: "Node", table: Value) -> tuple[RowFormat, int]:
    """Row format and elements of a row of an embedding_bag."""
    row_format = RowFormat(node.attributes.get("row_format", RowFormat.INT8))
    row_bytes = table.row_bytes
    dim = (row_bytes - row_format.tail_bytes) * 8 // row_format.element_bits
    return row_format, int(node.attributes.get("dim", dim))


def _infer_bags(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    _count(node, operands, 3, 4)
    table, indices, lengths, *weights = operands
    _constant(node, table, constants)
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
    return _made(node, (lengths.shape[0], dim), POOLED_FORMATS)


def _pool(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    table, indices, lengths, *weights = operands
    row_format, dim = pooling(node, values[0])
    output = ElementFormat(node.attributes.get("format", ElementFormat.FLOAT32))
    pooled, status, detail = sparse_lengths_sum(
        table.reshape(len(table), -1).view(np.uint8), indices, lengths, dim, row_format,
        weights[0] if weights else None, mean=node.attributes.get("mode") == "mean",
        output_format=output, multiplier=_float(node, "multiplier", 1),
        zero_point=int(node.attributes.get("zero_point", 0)) & 0xFF,
    )  # fmt: skip
    if status is not Status.OK:
        raise refuse(node, f"{status.name}, detail {detail}")
    return pooled


# Products


def _infer_linear(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """x[rows, k], weight[n, k], and for 8 bits bias int32[n] and multiplier float32[n]."""
    if len(operands) not in (2, 4):
        raise refuse(node, f"has {len(operands)} inputs")
    x, weight, *params = operands
    for value in (weight, *params):
        _constant(node, value, constants)
    for value in (x, weight):
        if value.format.nbytes != 1 or len(value.shape) != 2:
            raise refuse(node, f"{value}: must be 8 bits with 2 dimensions")
    if x.shape[1] != weight.shape[1]:
        raise refuse(node, f"{weight} does not fit {x}")
    _fits(node, "weight_zero_point", weight.format)
    made = _made(node, (x.shape[0], weight.shape[0]), PRODUCT_FORMATS)
    if (made.format is ElementFormat.INT32) != (not params):
        raise refuse(node, "bias and multiplier go with 8-bit outputs, and with these alone")
    expected = (ElementFormat.INT32, ElementFormat.FLOAT32)
    for value, kind in zip(params, expected, strict=bool(params)):
        if value.format is not kind or value.shape != (weight.shape[0],):
            raise refuse(node, f"{value}: must be a {DTYPES[kind]} for each output channel")
    for value in params[1:]:
        scale = constants[value.name]
        if not (np.isfinite(scale) & (scale != 0)).all():
            raise refuse(node, f"{value.name}: must be finite and not zero")
    return made


def _linear(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    x, weight, *params = operands
    zero_point = int(node.attributes.get("weight_zero_point", 0))
    total = matmul.product(x, weight.T, values[0].zero_point, zero_point)
    if not params:
        return total
    made = ElementFormat(node.attributes.get("format", ElementFormat.UINT8))
    return matmul.requantise(
        total, *params, int(node.attributes.get("zero_point", 0)),
        bool(node.attributes.get("relu", False)), DTYPES[made].type,
    )  # fmt: skip


def _infer_pairs(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """Segments [rows, dim], all of one 8-bit format and zero point."""
    _count(node, operands, 2, 1 << 12)
    first = operands[0]
    for value in operands:
        alike = (value.shape, value.format, value.zero_point)
        if alike != (first.shape, first.format, first.zero_point) or first.format.nbytes != 1:
            raise refuse(node, f"{value}: must be 8 bits, of shape and zero point of {first}")
    count = len(operands)
    formats = (ElementFormat.UINT8, ElementFormat.INT8)
    return _made(node, (first.shape[0], count * (count - 1) // 2), formats)


def _pairs(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    stacked, zero_point = np.stack(operands, axis=1), values[0].zero_point
    total = matmul.product(stacked, stacked.transpose(0, 2, 1), zero_point, zero_point)
    count = len(operands)
    made = DTYPES[ElementFormat(node.attributes.get("format", ElementFormat.UINT8))]
    multiplier = np.full(count, _float(node, "multiplier", 1), np.float32)
    products = matmul.requantise(
        total, np.zeros(count, np.int32), multiplier,
        int(node.attributes.get("zero_point", 0)), False, made.type,
    )  # fmt: skip
    return matmul.triangle(products)


# Element by element

_VECTOR_FORMATS = (
    ElementFormat.FLOAT32, ElementFormat.FLOAT16, ElementFormat.UINT8, ElementFormat.INT8,
)  # fmt: skip
VECTOR_OPCODES = {
    "affine": Opcode.AFFINE, "add": Opcode.ADD, "multiply": Opcode.MULTIPLY, "clamp": Opcode.CLAMP,
}  # fmt: skip
"""Operators that the vector engine computes element by element."""
_VECTOR_CONSTANTS = {
    "affine": {"scale": 1.0, "shift": -0.0}, "add": {"scale": 1.0}, "multiply": {"shift": -0.0},
    "clamp": {"low": -np.inf, "high": np.inf},
}  # fmt: skip


def vector_constants(node: "Node") -> dict[str, np.float32]:
    """The constants of an element-wise node, by field of its command; -0 adds nothing at all."""
    constants = _VECTOR_CONSTANTS[node.op] | {"multiplier": 1.0}
    return {name: _float(node, name, usual) for name, usual in constants.items()}


def _infer_vector(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    _count(node, operands, 2 if node.op in ("add", "multiply") else 1)
    for value in operands:
        if value.shape != operands[0].shape or len(value.shape) != 2:
            raise refuse(node, f"{value}: must have 2 dimensions, those of {operands[0]}")
    _finite(node, "scale", zero=False)
    _finite(node, "shift", zero=True)
    if node.op == "clamp":
        low, high = (_float(node, *each) for each in _VECTOR_CONSTANTS["clamp"].items())
        if not low <= high:
            raise refuse(node, f"low={low}, high={high}: low must not be above high, none a NaN")
    return _made(node, operands[0].shape, _VECTOR_FORMATS)


def _vector(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    decoded = [
        vector.decode(np.ascontiguousarray(x).view(np.uint8), value.format, byte_of(value))
        for value, x in zip(values, operands, strict=True)
    ]
    made = ElementFormat(node.attributes.get("format", ElementFormat.FLOAT32))
    constants = {name: int(x.view(np.uint32)) for name, x in vector_constants(node).items()}
    fields = constants | {
        "flags": 0, "y_format": made, "function": int(node.attributes.get("function", 0)),
        "y_zero_point": int(node.attributes.get("zero_point", 0)) & 0xFF,
    }  # fmt: skip
    a, b = (*decoded, None)[:2]
    return vector.result(VECTOR_OPCODES[node.op], fields, a, b, lanes=1)


# Moving


def _infer_concat(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    _count(node, operands, 1, 1 << 12)
    first = operands[0]
    for value in operands:
        alike = (value.format, value.zero_point, value.shape[:1], len(value.shape))
        if alike != (first.format, first.zero_point, first.shape[:1], 2):
            raise refuse(
                node, f"{value}: must have 2 dimensions and rows, format, zero point of {first}"
            )
    columns = sum(value.shape[1] for value in operands)
    return Value(
        node.output, (first.shape[0], columns), first.format, first.scale, first.zero_point
    )


def _concat(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(operands, axis=1)


_ATTRIBUTES: dict[str, dict[str, _Check]] = {
    "embedding_bag": _OUTPUT | {
        "row_format": _member(RowFormat), "multiplier": _number, "mean_length": _length,
        "dim": lambda name, value: arguments.integer(name, value, 1),
        "mode": lambda name, value: value,
    },
    "linear": _OUTPUT | {"relu": arguments.flag, "weight_zero_point": _zero_point},
    "pairs": _OUTPUT | {"multiplier": _number},
    **{op: _VECTOR | dict.fromkeys(usual, _number) for op, usual in _VECTOR_CONSTANTS.items()},
    "concat": _LABEL,
}  # fmt: skip
_OPERATORS: dict[str, Operator] = {
    "embedding_bag": Operator(_infer_bags, _pool, by_rows=True),
    "linear": Operator(_infer_linear, _linear, by_rows=True),
    "pairs": Operator(_infer_pairs, _pairs, by_rows=True),
    **{op: Operator(_infer_vector, _vector, by_rows=True) for op in VECTOR_OPCODES},
    "concat": Operator(_infer_concat, _concat, by_rows=True),
}
