"""Elements in another order: rows as parts of longer ones, and what ones and zeros make."""

import numpy as np

from halfdome.hdl.commands import MATMUL_LIMIT, ElementFormat
from halfdome.host.compiler import products
from halfdome.host.compiler.lowering import Layout, Lowering, label
from halfdome.host.driver.layout import round_up
from halfdome.host.graph import moves, operator
from halfdome.host.graph.graph import Node

MOST_MOVED = 1 << 24
"""Entries of a matrix of ones and zeros that puts the elements of a sample into another order."""

_SHARE = 8
"""Such a matrix takes at most one part in so many of a card's memory."""

_MOST_PARTS = 256
"""Parts of a row, each of which is copied for itself."""


def reshape(lowering: Lowering, node: Node, position: int) -> None:
    """Rows as parts of longer rows where they lie, and cut apart where parts begin with words; what
    cuts them elsewhere is moved."""
    name = node.inputs[0]
    x, y = (lowering.graph.values[each] for each in (name, node.output))
    source = lowering.layouts[name, position]
    if rows := moves.merged(x, y):
        made = Layout(source.buffer, source.offset, rows * source.stride)
        lowering.layouts[node.output, position] = made
        return
    if _cut(lowering, node, position):
        return
    if y.columns == y.format.nbytes == 1 and x.columns <= MATMUL_LIMIT:  # each row turned
        pixels = lowering.samples(position) * y.pixels
        made = lowering.fresh(node.output, position, pixels, lowering.target.word)
        lowering.layouts[node.output, position] = made
        _transposed(lowering, node, position, made, 1)
        return
    # A sample as one row, then a matrix that puts each element where it belongs.
    word, pixels = lowering.target.word, y.pixels
    stride = round_up(y.columns * y.format.nbytes, word)
    flat = lowering.joins.side_by_side(name, x.pixels)
    entries = len(flat) * pixels * stride
    most = min(MOST_MOVED, lowering.target.far_bytes // _SHARE)
    if x.format.nbytes > 1 or entries > most:
        raise operator.refuse(
            node, f"{x} does not become {y.shape[1:]} by commands: bytes do, by a matrix of at "
            f"most {most} entries, not {entries}"
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


def _cut(lowering: Lowering, node: Node, position: int) -> bool:
    """Takes parts of rows for rows where they lie, if they lie evenly; else a COPY for each part.
    Not if parts begin within words, or are too many."""
    name, parts = node.inputs[0], lowering.joins.parts(node)
    source, rows = lowering.layouts[name, position], lowering.rows(name, position)
    if pitch := lowering.joins.pitch(node):
        lowering.layouts[node.output, position] = Layout(source.buffer, source.offset, pitch)
        return True
    if not 0 < len(parts) <= _MOST_PARTS:
        return False
    value = lowering.graph.values[node.output]
    row_bytes = value.columns * value.format.nbytes
    stride = round_up(row_bytes, lowering.target.word)
    made = lowering.fresh(node.output, position, rows * len(parts), stride)
    lowering.layouts[node.output, position] = made
    for part, begins in enumerate(parts):
        taken = source.inside(begins)
        target = Layout(made.buffer, made.offset + part * stride, len(parts) * stride)
        work = lowering.target.move(
            taken.place(), taken.stride, target.place(), target.stride, rows, row_bytes
        )
        lowering.add(
            position, work, label(node), reads=[taken.region(rows, row_bytes)],
            writes=[target.region(rows, row_bytes)],
        )  # fmt: skip
    return True


def transpose(lowering: Lowering, node: Node, position: int) -> None:
    """The last two axes of each matrix."""
    rows = lowering.graph.values[node.inputs[0]].shape[-2]
    _transposed(lowering, node, position, lowering.output(node.output, position), rows)


def _transposed(lowering: Lowering, node: Node, position: int, made: Layout, rows: int) -> None:
    """Matrices of so many rows: a TRANSPOSE of every run of columns that lie one behind the other.
    Runs that begin within words are turned with what lies between, and copied as rows."""
    name = node.inputs[0]
    x, word = lowering.graph.values[name], lowering.target.word
    source, size = lowering.layouts[name, position], x.format.nbytes
    count = lowering.samples(position) * x.pixels // rows
    columns = lowering.joins.columns[name]
    runs = _runs(columns)
    if all(at * size % word == 0 for at, *_ in runs):
        for at, first, width in runs:
            part, target = (
                source.inside(at * size),
                Layout(made.buffer, made.offset + first * made.stride, made.stride),
            )
            _turn(lowering, node, position, (part, target), (count, rows, width), x.columns)
        return
    turned = lowering.fresh(f"{node.output} turned", position, count * len(columns), made.stride)
    _turn(lowering, node, position, (source, turned), (count, rows, len(columns)), len(columns))
    for batch in range(count):
        for at, first, width in runs:
            start, end = batch * len(columns) + at, batch * x.columns + first
            work = lowering.target.move(
                turned.place(start), made.stride, made.place(end), made.stride, width, rows * size
            )
            lowering.add(
                position, work, label(node), reads=[turned.region(width, rows * size, start)],
                writes=[made.region(width, rows * size, end)],
            )  # fmt: skip


def _runs(columns: np.ndarray) -> list[tuple[int, int, int]]:
    """Where columns lie one behind the other in memory: at which element, which, and how many."""
    places = np.flatnonzero(columns >= 0)
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(columns[places]) != 1)) + 1
    return [(int(run[0]), int(columns[run[0]]), len(run)) for run in np.split(places, breaks)]


def _turn(
    lowering: Lowering, node: Node, position: int, layouts: tuple[Layout, Layout],
    shape: tuple[int, int, int], step: int,
) -> None:  # fmt: skip
    """TRANSPOSE of [rows, width] matrices that follow each other, to `width` of `step` rows."""
    name, (source, made), (count, rows, width) = node.inputs[0], layouts, shape
    nbytes = lowering.graph.values[name].format.nbytes
    for start in range(0, count, MATMUL_LIMIT):
        batches = min(count - start, MATMUL_LIMIT)
        work = lowering.target.transpose(
            lowering.rows_at(name, source, start * rows), rows * source.stride,
            lowering.rows_at(node.output, made, start * step), step * made.stride,
            batches, rows, width,
        )  # fmt: skip
        region = made.region(((batches - 1) * step + width), rows * nbytes, start * step)
        lowering.add(
            position, work, label(node),
            reads=[source.region(batches * rows, width * nbytes, start * rows)], writes=[region],
        )  # fmt: skip
