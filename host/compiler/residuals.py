"""Sums written over an operand: what is passed on from sum to sum is one buffer, which may be near
from end to end.

Not on cards of several cores: of such a buffer all tensors would be far if two cores touch one.
"""

from halfdome.host.compiler.lowering import Layout, Lowering
from halfdome.host.graph.graph import Node


def take_place(lowering: Lowering, node: Node, position: int) -> None:
    """Has a sum written over the operand that nobody reads later, if there is one; of two over the
    one of whose buffer most bytes were moved, or that was made last."""
    if lowering.target.cores > 1:
        return
    y = node.output
    free = [
        x for (name, where), x in lowering.layouts.items()
        if where == position and name in node.inputs and _is_free(lowering, node, x, position)
    ]  # fmt: skip
    if free and y not in lowering.joins.written_in:
        lowering.layouts[y, position] = max(reversed(free), key=lambda x: x.buffer.traffic)


def _is_free(lowering: Lowering, node: Node, x: Layout, position: int) -> bool:
    """Whether a node's output may lie where rows of an operand do: no tensor of their buffer goes
    out, or is read by a node that is yet to come."""
    graph, layouts = lowering.graph, lowering.layouts
    held = [
        name for (name, where), layout in layouts.items()
        if where == position and layout.buffer is x.buffer
    ]  # fmt: skip
    return (
        not x.buffer.exclusive
        and x.stride == lowering.joins.stride(node.output)
        and not any(name in graph.outputs for name in held)
        and all(
            each.output == node.output or (each.output, position) in layouts
            for name in held
            for each in graph.consumers(name)
        )
    )
