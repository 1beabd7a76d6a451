"""Every operator that a node may name: shapes, formats and bits, by the golden functions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from halfdome.host.graph import elements, embedding, moves, pooling, products
from halfdome.host.graph.operator import Operator, refuse
from halfdome.host.graph.values import GraphError

if TYPE_CHECKING:
    from halfdome.host.graph.graph import Node

_OPERATORS: Mapping[str, Operator] = (
    embedding.OPERATORS
    | products.OPERATORS
    | elements.OPERATORS
    | pooling.OPERATORS
    | moves.OPERATORS
)


def find(op: str) -> Operator:
    """The operator called `op`. Raises `GraphError` naming those there are."""
    if op not in _OPERATORS:
        raise GraphError(f"op={op!r}: unknown; known are {', '.join(_OPERATORS)}")
    return _OPERATORS[op]


def checked(node: "Node") -> dict[str, object]:
    """The attributes of a node, as numbers and members of their enumerations.

    Raises `GraphError` for an attribute that its operator does not have, and for what is none.
    """
    known = find(node.op).attributes
    if unknown := set(node.attributes) - set(known):
        names = ", ".join(known) or "none"
        raise refuse(node, f"{min(unknown)}: is no attribute of it; known are {names}")
    try:
        return {name: known[name](name, value) for name, value in node.attributes.items()}
    except ValueError as error:
        raise refuse(node, str(error)) from None
