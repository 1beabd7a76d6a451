"""What is done to each element by itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from halfdome.hdl.commands import (
    MULTIPLIER_EXPONENTS,
    OFFSET_LIMIT,
    RATIO_EXPONENTS,
    TABLE_BYTES,
    ElementFormat,
    Function,
    Opcode,
)
from halfdome.host.graph import operator
from halfdome.host.graph.operator import Constants, Operator, refuse
from halfdome.host.graph.values import Value
from halfdome.sim.golden import pairs, vector

if TYPE_CHECKING:
    from halfdome.host.graph.graph import Node

_BYTES = (ElementFormat.UINT8, ElementFormat.INT8)
_FORMATS = (ElementFormat.FLOAT32, ElementFormat.FLOAT16, *_BYTES)
VECTOR_OPCODES = {
    "affine": Opcode.AFFINE, "add": Opcode.ADD, "multiply": Opcode.MULTIPLY, "clamp": Opcode.CLAMP,
}  # fmt: skip
"""Operators that are one command of the vector engine."""
_CONSTANTS = {
    "affine": {"scale": 1.0, "shift": -0.0}, "add": {"scale": 1.0}, "multiply": {"shift": -0.0},
    "clamp": {"low": -np.inf, "high": np.inf},
}  # fmt: skip
_PAIRS = ("add", "multiply", "multiply_quantised")


def vector_constants(node: "Node") -> dict[str, np.float32]:
    """The constants of an element-wise node, by field of its command; -0 adds nothing at all."""
    constants = _CONSTANTS[node.op] | {"multiplier": 1.0}
    return {name: operator.float_of(node, name, usual) for name, usual in constants.items()}


def _is_row(value: Value, first: Value, constants: Constants) -> bool:
    """Whether a constant has one element for each column."""
    return value.name in constants and value.shape == first.shape[-1:]


def is_column(value: Value, first: Value) -> bool:
    """Whether a tensor has one element for all columns of a row."""
    return value.shape == (*first.shape[:-1], 1)


def _infer_vector(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """a[..., columns]; b of the same shape, one row [columns] of constants, or [..., 1]."""
    operator.count(node, operands, 2 if node.op in _PAIRS else 1)
    first, *others = operands
    if len(first.shape) < 2:
        raise refuse(node, f"{first}: must have 2 dimensions or more")
    for value in others:
        row = _is_row(value, first, constants)
        if not (value.shape == first.shape or is_column(value, first) or row):
            raise refuse(node, f"{value}: does not fit {first}")
    operator.finite(node, "scale", zero=False)
    operator.finite(node, "shift", zero=True)
    if node.op == "clamp":
        low, high = (operator.float_of(node, *each) for each in _CONSTANTS["clamp"].items())
        if not low <= high:
            raise refuse(node, f"low={low}, high={high}: low must not be above high, none a NaN")
    return operator.made(node, first.shape, _FORMATS)


def _decoded(value: Value, x: np.ndarray, zero_point: int) -> np.ndarray:
    return vector.decode(np.ascontiguousarray(x).view(np.uint8), value.format, zero_point)


def _vector(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    decoded = [
        _decoded(value, x, operator.byte_of(value))
        for value, x in zip(values, operands, strict=True)
    ]
    made = operator.format_made(node, ElementFormat.FLOAT32)
    constants = {name: int(x.view(np.uint32)) for name, x in vector_constants(node).items()}
    fields = constants | {
        "flags": 0, "y_format": made, "function": int(node.attributes.get("function", 0)),
        "y_zero_point": operator.zero_point_of(node) & 0xFF,
    }  # fmt: skip
    a, b = (*decoded, None)[:2]
    return vector.result(VECTOR_OPCODES[node.op], fields, a, b, lanes=1)


# add_quantised


def _infer_add(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """a[..., columns] and b of the same shape, or one row [columns] of constants."""
    operator.count(node, operands, 2)
    a, b = operands
    operator.bytes_of(node, a, 2)
    operator.bytes_of(node, b, 1)
    if a.shape != b.shape and not _is_row(b, a, constants):
        raise refuse(node, f"{b}: does not fit {a}")
    for name in ("a_ratio", "b_ratio"):
        operator.finite(node, name, zero=False)
    operator.finite(node, "offset", zero=True)
    return operator.made(node, a.shape, _BYTES)


def add_order(node: "Node") -> tuple[int, int]:
    """Which operand of an add_quantised the offset is added to first, and which comes then."""
    return (0, 1) if node.attributes.get("inner", "b") == "a" else (1, 0)


def ratio(node: "Node", place: int) -> np.float32:
    """The ratio of an operand of an add_quantised."""
    return operator.float_of(node, f"{'ab'[place]}_ratio", 1)


def offset(node: "Node") -> np.float32:
    """What an add_quantised adds to what comes of its inner operand."""
    return operator.float_of(node, "offset", 0)


def add_inner(node: "Node", x: np.ndarray) -> np.ndarray:
    """float32: what an add_quantised makes of the bytes of its inner operand."""
    return pairs.add_inner(x, ratio(node, add_order(node)[0]), offset(node))


def _add(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    """`saturate(round(fma(a, a_ratio, fma(b, b_ratio, offset))))` of the bytes as they are, or with
    a and b in each other's place if `inner` is a: the QLinearAdd of ONNX Runtime on x86, which has
    its zero points in `offset`."""
    inner, outer = add_order(node)
    return pairs.add(
        operands[outer], ratio(node, outer), operands[inner], ratio(node, inner), offset(node),
        operator.format_made(node, ElementFormat.UINT8),
    )  # fmt: skip


PAIR_OPCODES = {
    "add_quantised": Opcode.ADD_QUANTISED, "multiply_quantised": Opcode.MULTIPLY_QUANTISED,
}  # fmt: skip
"""Operators that are one command of bytes, if its constants are within bounds."""


def pair_constants(node: "Node") -> dict[str, np.float32]:
    """The float constants of such an operator, by field of its command."""
    if node.op == "multiply_quantised":
        return {"multiplier": operator.float_of(node, "multiplier", 1)}
    return {"a_ratio": ratio(node, 0), "b_ratio": ratio(node, 1), "offset": offset(node)}


def within_bounds(node: "Node") -> bool:
    """Whether the command takes these constants."""
    bounds = {"multiplier": MULTIPLIER_EXPONENTS, "offset": None}
    for name, number in pair_constants(node).items():
        exponents = bounds.get(name, RATIO_EXPONENTS)
        if exponents is None:
            inside = abs(number) < OFFSET_LIMIT
        else:
            inside = 2.0**exponents.start <= abs(number) < 2.0**exponents.stop
        if not inside:
            return False
    return True


# multiply_quantised


def _infer_multiply(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """a[..., columns] of 8 bits; b of the same shape or [..., 1], or a row of float constants."""
    made = _infer_vector(node, operands, constants)
    for value in operands:
        if value.name not in constants:
            operator.bytes_of(node, value, 2)
    return operator.made(node, made.shape, _BYTES)


def _multiply(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    """`saturate(round_half_even(a * b * multiplier + zero_point))`, each step in float32: the
    QLinearMul of ONNX Runtime on x86, whose zero point is inside the rounding.

    `multiply` to float32 and `affine` with the zero point as its shift give the same bits.
    """
    a, b = (
        _decoded(value, x, operator.byte_of(value))
        for value, x in zip(values, operands, strict=True)
    )
    return pairs.multiply(
        a, b, operator.float_of(node, "multiplier", 1), operator.zero_point_of(node),
        operator.format_made(node, ElementFormat.UINT8),
    )  # fmt: skip


# quantise


def _infer_quantise(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    operator.count(node, operands, 1)
    (x,) = operands
    if x.format is not ElementFormat.FLOAT32 or len(x.shape) < 2:
        raise refuse(node, f"{x}: must be float32 with 2 dimensions or more")
    scale = operator.float_of(node, "scale", 1)
    if not np.finfo(np.float32).tiny <= scale < np.inf:
        raise refuse(node, f"scale={scale}: must be a normal float32 above zero")
    return operator.made(node, x.shape, _BYTES)


def _quantise(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    """`saturate(round_half_even(x / scale) + zero_point)`: ONNX Runtime's QuantizeLinear, which
    makes the least of NaN."""
    scale, made = operator.float_of(node, "scale", 1), operator.format_made(node, _BYTES[0])
    return vector.divide(operands[0], scale, made, operator.zero_point_of(node) & 0xFF)


# lookup


def _infer_lookup(node: "Node", operands: Sequence[Value], constants: Constants) -> Value:
    """x of 8 bits and a constant table of 256, whose format the output has."""
    operator.count(node, operands, 2)
    x, table = operands
    operator.bytes_of(node, x, 2)
    operator.constant(node, table, constants)
    if table.shape != (TABLE_BYTES,) or table.format not in _BYTES:
        raise refuse(node, f"{table}: must be uint8 or int8 [{TABLE_BYTES}]")
    return operator.made(node, x.shape, (table.format,))


def _lookup(node: "Node", values: Sequence[Value], operands: Sequence[np.ndarray]) -> np.ndarray:
    """`table[x]`, `table[x mod 256]` of int8: any function of 8 bits."""
    x, table = operands
    return vector.lookup(np.ascontiguousarray(x), table)


def _inner(name: str, value: object) -> str:
    if value not in ("a", "b"):
        raise ValueError(f"{name}={value!r}: must be 'a' or 'b'")
    return str(value)


_ATTRIBUTES = operator.OUTPUT | {
    "multiplier": operator.number, "function": operator.member(Function),
    "scale": operator.number,
}  # fmt: skip
OPERATORS = {
    op: Operator(
        _infer_vector, _vector, _ATTRIBUTES | dict.fromkeys(usual, operator.number), constant_from=1
    )
    for op, usual in _CONSTANTS.items()
} | {
    "add_quantised": Operator(
        _infer_add,
        _add,
        operator.OUTPUT
        | dict.fromkeys(("a_ratio", "b_ratio", "offset"), operator.number)
        | {"inner": _inner},
        constant_from=1,
    ),
    "multiply_quantised": Operator(
        _infer_multiply,
        _multiply,
        operator.OUTPUT | {"multiplier": operator.number},
        constant_from=1,
    ),
    "quantise": Operator(_infer_quantise, _quantise, operator.OUTPUT),
    "lookup": Operator(_infer_lookup, _lookup, operator.OUTPUT, constant_from=1),
}
