"""Tensors put side by side, and what is made of them there."""

from halfdome.host.compiler.lowering import Lowering, label
from halfdome.host.compiler.products import check_packed, hold_alike
from halfdome.host.graph.graph import Node


def concat(lowering: Lowering, node: Node, position: int) -> None:
    """Tensors side by side."""
    join(lowering, node, position)
    lowering.layouts[node.output, position] = lowering.joined(node.output, position)


def join(lowering: Lowering, node: Node, position: int) -> None:
    """Copies what was not written where it belongs by whoever made it."""
    joined, about = lowering.joined(node.output, position), lowering.joins.joins[node.output]
    for place, name in enumerate(node.inputs):
        if lowering.joins.written_in.get(name) != (node.output, place):
            lowering.copy(
                position, name, lowering.layouts[name, position],
                joined.inside(about.start(place)), lowering.rows(name, position), name,
            )  # fmt: skip


def pairs(lowering: Lowering, node: Node, position: int) -> None:
    """The products of each two segments."""
    for name in node.inputs:
        check_packed(lowering, node, name)
    join(lowering, node, position)
    target, rows, count = lowering.target, lowering.samples(position), len(node.inputs)
    x, y = lowering.joined(node.output, position), lowering.output(node.output, position)
    stride, first = lowering.joins.joins[node.output].stride, node.inputs[0]
    dim, step = lowering.graph.values[first].shape[1], stride // count
    params, region = hold_alike(lowering, node, position, count)
    work = target.pairs(
        lowering.rows_at(first, x), count, step, dim, params, lowering.rows_at(node.output, y), rows
    )
    lowering.add(
        position, work, label(node), reads=[x.region(rows, stride), region],
        writes=[lowering.region(node.output, position)],
    )  # fmt: skip
