"""Averages over windows as ONNX Runtime computes them: in float32, tap after tap.

No order of additions but its own has its bits. So the bytes become floats, the taps are added up by
rows of y, and what is divided is divided by one step of correction.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host.compiler.lowering import Layout, Lowering, label
from halfdome.host.driver.kernels import Rows
from halfdome.host.graph import operator, pooling, products
from halfdome.host.graph.graph import Node

F32 = ElementFormat.FLOAT32


class _Floats:
    """The commands of one node on a card, each of some rows of float32."""

    def __init__(self, lowering: Lowering, node: Node, position: int):
        self._lowering, self._node, self._position = lowering, node, position
        self.columns = len(lowering.joins.columns[node.inputs[0]])

    def room(self, name: str, rows: int) -> Layout:
        """New rows."""
        stride = self._lowering.target.row_stride(self.columns * F32.nbytes)
        return self._lowering.fresh(f"{self._node.output} {name}", self._position, rows, stride)

    def do(
        self, op: str, rows: int, y: Layout, *operands: Layout, like: Rows | None = None,
        made: Rows | None = None, **constants: float,
    ) -> None:  # fmt: skip
        """A vector command of `rows` rows; `like` says what the first operand is if not floats, and
        `made` what is written."""
        nbytes = self.columns * F32.nbytes
        inputs = [Rows(each.place(), each.stride, F32) for each in operands]
        reads = [each.region(rows, nbytes) for each in operands]
        written = Rows(y.place(), y.stride, F32), y.region(rows, nbytes)
        if like is not None:
            inputs[0], reads[0] = like, operands[0].region(rows, self.columns)
        if made is not None:
            written = made, y.region(rows, self.columns)
        node = Node(op, self._node.inputs * len(operands), self._node.output, constants)
        work = self._lowering.target.vector(node, written[0], inputs, rows, self.columns)
        self._lowering.add(
            self._position, work, label(self._node), reads=reads, writes=[written[1]]
        )

    def divide(self, rows: int, x: Layout, by: np.float32, y: Layout, rest: Layout) -> None:
        """y = x / by, rounded once: with r = 1 / by rounded, q = x * r is nearly x / by, and
        q + (x - q * by) * r is it (Markstein, "IA-64 and elementary functions", 2000)."""
        inverse = float(np.float32(1) / by)
        self.do("affine", rows, y, x, scale=inverse)
        self.do("add", rows, rest, x, y, scale=-float(by))
        self.do("add", rows, y, y, rest, scale=inverse)


def average_pool(lowering: Lowering, node: Node, position: int) -> None:
    """AFFINE to float32, ADD for each row of taps, two divisions, and AFFINE to bytes."""
    (name,) = node.inputs
    value, made = lowering.graph.values[name], lowering.graph.values[node.output]
    image, out = value.shape[-3:-1], made.shape[-3:-1]
    x, y = lowering.layouts[name, position], lowering.output(node.output, position)
    pixels, written = lowering.rows(name, position), lowering.rows(node.output, position)
    floats = _Floats(lowering, node, position)
    taps, total, mean, rest = (
        floats.room(*each) for each in (
            ("floats", pixels), ("totals", written), ("means", written), ("rest", written),
        )
    )  # fmt: skip
    x_scale, y_scale = (operator.float_of(node, each, 1) for each in ("x_scale", "y_scale"))
    floats.do("affine", pixels, taps, x, like=lowering.rows_at(name, x), scale=float(x_scale))
    stride = products.window(node)[0]
    for number in range(pixels // (image[0] * image[1])):
        source, target = number * image[0] * image[1], number * out[0] * out[1]
        for row, first, count, pixel, is_first in _runs(node, image, out):
            to = _from(total, target + row * out[1] + first, 1)
            tap = _from(taps, source + pixel, stride[1])
            if is_first:
                floats.do("affine", count, to, tap)
            else:
                floats.do("add", count, to, to, tap)
    counts = np.tile(pooling.counts(node, image, out).reshape(-1), written // (out[0] * out[1]))
    start = 0
    for by, alike in groupby(counts.tolist()):
        count = len(list(alike))
        divided = (_from(each, start, 1) for each in (total, mean, rest))
        floats.divide(count, next(divided), np.float32(by), *divided)
        start += count
    floats.divide(written, mean, y_scale, total, rest)
    bytes_ = lowering.rows_at(node.output, y)
    floats.do(
        "affine", written, y, total, made=Rows(bytes_.address, bytes_.stride, bytes_.format),
        shift=float(operator.zero_point_of(node)),
    )  # fmt: skip


def _from(layout: Layout, row: int, step: int) -> Layout:
    """Every `step`th row from one on."""
    return Layout(layout.buffer, layout.offset + row * layout.stride, layout.stride * step)


def _runs(
    node: Node, image: Sequence[int], out: Sequence[int]
) -> Iterator[tuple[int, int, int, int, bool]]:
    """In the order in which they are added up: row of y, first pixel there and number of pixels of
    which a tap is inside, the first one's pixel of x, and whether it is the first tap of each."""
    stride, pads, _ = products.window(node)
    kernel = pooling.kernel_of(node)
    columns = np.arange(out[1]) * stride[1] - pads[1]
    for row in range(out[0]):
        begun = np.zeros(out[1], bool)
        for down in range(row * stride[0] - pads[0], row * stride[0] - pads[0] + kernel[0]):
            if not 0 <= down < image[0]:
                continue
            for right in range(kernel[1]):
                at = columns + right
                inside = (at >= 0) & (at < image[1])
                first = 0
                for (sees, seen), run in groupby(zip(inside, begun, strict=True)):
                    count = len(list(run))
                    if sees:
                        yield row, first, count, down * image[1] + int(at[first]), not seen
                    first += count
                begun = begun | inside
