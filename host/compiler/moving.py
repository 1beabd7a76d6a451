"""Elements in another order: rows as parts of longer ones, and what ones and zeros make."""

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host.compiler import products
from halfdome.host.compiler.commands import Place
from halfdome.host.compiler.lowering import Layout, Lowering, label, whole
from halfdome.host.driver.kernels import Rows
from halfdome.host.driver.layout import round_up
from halfdome.host.graph import moves, operator
from halfdome.host.graph.graph import Node

MOST_MOVED = 1 << 24
"""Entries of a matrix of ones and zeros that puts the elements of a sample into another order."""


def reshape(lowering: Lowering, node: Node, position: int) -> None:
    """Rows as parts of longer rows where they lie; what cuts them apart is moved."""
    name = node.inputs[0]
    x, y = (lowering.graph.values[each] for each in (name, node.output))
    source = lowering.layouts[name, position]
    if rows := moves.merged(x, y):
        made = Layout(source.buffer, source.offset, rows * source.stride)
        lowering.layouts[node.output, position] = made
        return
    # A sample as one row, then a matrix that puts each element where it belongs.
    word, pixels = lowering.target.word, y.pixels
    stride = round_up(y.columns * y.format.nbytes, word)
    flat = lowering.joins.side_by_side(name, x.pixels)
    entries = len(flat) * pixels * stride
    if x.format.nbytes > 1 or entries > MOST_MOVED:
        raise operator.refuse(
            node, f"{x} does not become {y.shape[1:]} by commands: bytes do, by a matrix of at "
            f"most {MOST_MOVED} entries, not {entries}"
        )  # fmt: skip
    target = np.full((pixels, stride), -1)
    target[:, : y.columns] = np.arange(pixels * y.columns).reshape(pixels, -1)

    def weight() -> np.ndarray:
        made = np.zeros((target.size, x.pixels * x.columns), np.int8)
        wanted = np.flatnonzero(target.reshape(-1) >= 0)
        made[wanted, target.reshape(-1)[wanted]] = 1
        return products.spread(made, flat, 0)

    samples = lowering.samples(position)
    made = lowering.fresh(node.output, position, samples * pixels, stride)
    lowering.layouts[node.output, position] = made
    wide = Layout(source.buffer, source.offset, x.pixels * source.stride)
    tall = Layout(made.buffer, made.offset, pixels * stride)
    params = np.zeros(target.size, np.int32), np.ones(target.size, np.float32)
    products.times(
        lowering, node, position, wide, (target.size, len(flat)), weight, ElementFormat.INT8, 0,
        params, tall, samples,
    )  # fmt: skip


def transpose(lowering: Lowering, node: Node, position: int) -> None:
    """The last two axes: the product of ones and zeros with each matrix, read as its columns."""
    name = node.inputs[0]
    x = lowering.graph.values[name]
    source, made = lowering.layouts[name, position], lowering.output(node.output, position)
    columns, rows, word = lowering.joins.columns[name], x.shape[-2], lowering.target.word
    pick = np.zeros((x.columns, round_up(len(columns), word)), np.uint8)
    at = np.flatnonzero(columns >= 0)
    pick[columns[at], at] = 1
    held = lowering.hold(f"{node.output} ones", position, pick.size, lambda: pick.reshape(-1))
    params, region = products.hold_params(
        lowering, node, position, np.zeros(rows, np.int32), np.ones(rows, np.float32)
    )
    count = lowering.samples(position) * x.pixels // rows
    operands = [
        (Rows(Place(held), pick.shape[1]), 0),
        (lowering.rows_at(name, source), rows * source.stride),
        (lowering.rows_at(node.output, made), x.columns * made.stride),
    ]
    sizes = count, x.columns, len(columns), rows
    work = lowering.target.batch_matmul(operands, params, sizes, transposed=True)
    lowering.add(
        position, work, label(node), reads=[whole(held), lowering.region(name, position), region],
        writes=[lowering.region(node.output, position)],
    )  # fmt: skip
