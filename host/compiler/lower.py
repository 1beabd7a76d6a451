"""From nodes of a graph to commands of cards: what each operator becomes."""

from collections.abc import Callable, Mapping

from halfdome.host.compiler import (
    convolutions,
    element_wise,
    joining,
    moving,
    pooling,
    products,
)
from halfdome.host.compiler.lowering import Lowering
from halfdome.host.graph import elements
from halfdome.host.graph.graph import Node

_LOWERINGS: Mapping[str, Callable[[Lowering, Node, int], None]] = {
    "linear": products.linear,
    "pairs": joining.pairs,
    "batch_matmul": products.batch_matmul,
    "conv2d": convolutions.conv2d,
    "concat": joining.concat,
    "reshape": moving.reshape,
    "transpose": moving.transpose,
    "add_quantised": element_wise.add_quantised,
    "multiply_quantised": element_wise.multiply_quantised,
    "quantise": element_wise.quantise,
    "lookup": element_wise.lookup,
    "max_pool": pooling.max_pool,
    "average_pool": pooling.average_pool,
    **dict.fromkeys(elements.VECTOR_OPCODES, element_wise.vector),
}


def lower(lowering: Lowering, node: Node) -> None:
    """Adds what every card that runs it does for a node that is no embedding bag."""
    for position in lowering.division.makers[node.output]:
        _LOWERINGS[node.op](lowering, node, position)
