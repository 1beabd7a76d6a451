"""What an operator of graphs is, and what those of every kind share.

Attributes of a node are plain numbers and names. An output of 8 bits takes its `zero_point`, and
for people its `scale`, from the node; an operand's are its value's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host import arguments
from halfdome.host.graph.values import DTYPES, GraphError, Value

if TYPE_CHECKING:
    from halfdome.host.graph.graph import Node

Constants = Mapping[str, np.ndarray]
Check = Callable[[str, object], object]
"""Makes an attribute of what a node says; `ValueError` for what is none."""


@dataclass(frozen=True)
class Operator:
    """An operator.

    Attributes
    ----------
    infer : function of node, operands and constants that returns the value the node makes; raises
        `GraphError` for operands that do not fit
    evaluate : function of node, operands' values and operands that returns the array
    attributes : for each attribute that a node may have, its check
    by_rows : whether each row of the output follows from the same row of the operands that are not
        constant
    constant_from : the first operand that may be a constant
    """

    infer: Callable[["Node", Sequence[Value], Constants], Value]
    evaluate: Callable[["Node", Sequence[Value], Sequence[np.ndarray]], np.ndarray]
    attributes: Mapping[str, Check]
    by_rows: bool = True
    constant_from: int = 1 << 12


def refuse(node: "Node", why: str) -> GraphError:
    """The error of a node whose operands do not fit."""
    return GraphError(f"{node.op} {node.output}: {why}", node.output)


def made(node: "Node", shape: tuple[int, ...], allowed: Sequence[ElementFormat]) -> Value:
    """The output of a node: `format` (by default the first allowed), `scale` and `zero_point`."""
    kind = ElementFormat(node.attributes.get("format", allowed[0]))
    if kind not in allowed:
        names = ", ".join(str(DTYPES[each]) for each in allowed)
        raise refuse(node, f"format={DTYPES[kind]}: must be one of {names}")
    if kind.nbytes == 1:
        fits(node, "zero_point", kind)
    finite(node, "multiplier", zero=False)
    scale = node.attributes.get("scale")
    return Value(node.output, shape, kind, scale, zero_point_of(node))


def format_made(node: "Node", usual: ElementFormat) -> ElementFormat:
    """The format of a node's output."""
    return ElementFormat(node.attributes.get("format", usual))


def zero_point_of(node: "Node") -> int:
    """The zero point of a node's output."""
    return int(node.attributes.get("zero_point", 0))


def fits(node: "Node", name: str, element: ElementFormat) -> None:
    """Refuses a zero point that no element of the format is."""
    limits, zero_point = np.iinfo(DTYPES[element]), int(node.attributes.get(name, 0))
    if not limits.min <= zero_point <= limits.max:
        raise refuse(node, f"{name}={zero_point}: must fit {DTYPES[element]}")


def finite(node: "Node", name: str, *, zero: bool) -> None:
    """Refuses what a command would be refused for."""
    value = float_of(node, name, 1)
    if not np.isfinite(value) or not (zero or value):
        rule = "finite" if zero else "finite and not zero"
        raise refuse(node, f"{name}={node.attributes[name]}: must be {rule}")


def count(node: "Node", operands: Sequence[Value], low: int, high: int | None = None) -> None:
    """Refuses another number of operands."""
    if not low <= len(operands) <= (high or low):
        raise refuse(node, f"has {len(operands)} inputs")


def constant(node: "Node", value: Value, constants: Constants) -> None:
    """Refuses an operand that a request brings or leads to."""
    if value.name not in constants:
        raise refuse(node, f"{value.name}: must be a constant")


def bytes_of(node: "Node", value: Value, dims: int) -> None:
    """Refuses what is not 8 bits with so many dimensions, or more."""
    if value.format.nbytes != 1 or len(value.shape) < dims:
        raise refuse(node, f"{value}: must be 8 bits with {dims} dimensions or more")


def float_of(node: "Node", name: str, default: float) -> np.float32:
    """An attribute as commands carry it."""
    return np.float32(node.attributes.get(name, default))


def byte_of(value: Value) -> int:
    """A zero point as a descriptor carries it."""
    return value.zero_point & 0xFF


# Checks of attributes


def number(name: str, value: object) -> float:
    """One number."""
    found = np.asarray(value)
    if found.shape or found.dtype.kind not in "fiu":
        raise ValueError(f"{name}={value!r}: must be a number")
    return float(found)


def length(name: str, value: object) -> float:
    """A number that is not negative."""
    found = arguments.number(name, value)
    if found < 0:
        raise ValueError(f"{name}={value!r}: must not be negative")
    return found


def optional(name: str, value: object) -> float | None:
    """A number or None."""
    return None if value is None else number(name, value)


def zero_point(name: str, value: object) -> int:
    """Any 8-bit number."""
    return arguments.integer(name, value, -128, 255)


def member(kind: type[Enum]) -> Check:
    """One of an enumeration."""
    return lambda name, value: arguments.choice(name, value, kind)


def whole(low: int) -> Check:
    """A whole number from `low` on."""
    return lambda name, value: arguments.integer(name, value, low)


def wholes(size: int, low: int, high: int) -> Check:
    """So many whole numbers."""
    return lambda name, value: arguments.integers(name, value, size, low, high)


LABEL: dict[str, Check] = {"label": lambda name, value: str(value)}
"""What people call the commands of a node; its output, if it has none."""
OUTPUT: dict[str, Check] = LABEL | {
    "format": member(ElementFormat), "scale": optional, "zero_point": zero_point,
}  # fmt: skip
