"""Strips of x in near memory, each copied there while the array works on the one before."""

from collections.abc import Mapping
from itertools import cycle

from halfdome.hdl.commands import MATMUL_LIMIT
from halfdome.host.compiler.commands import Buffer
from halfdome.host.compiler.lowering import Layout, Lowering, Reading, label
from halfdome.host.compiler.strips import Strip, strips
from halfdome.host.driver.layout import round_up
from halfdome.host.graph.graph import Node

TRIES = 5
"""How often strips are made, lower each time if some have found no place near, and more of them if
they have taken that of others."""


class Staging:
    """What the products of one node read: x where it lies, or strips of it if it is to be cut.

    Parameters
    ----------
    lowering, node, position : whose products they are, and where
    x : Layout, of the rows of all images
    reading : Reading, of those

    Attributes
    ----------
    strips : list of Strip of an image; if x is read where it lies, as few as commands can say
    """

    def __init__(
        self, lowering: Lowering, node: Node, position: int, x: Layout, reading: Reading
    ):  # fmt: skip
        self._lowering = lowering
        self._position = position
        self._label = label(node)
        self._x = x
        self._row_bytes = reading.row_bytes
        window = reading.window
        self._width = window.image[1]
        lowering.readings[node.output, position] = reading
        height = lowering.cuts.get((node.output, position), 0)
        self._is_cut = height > 0
        self.strips = strips(window, min(height or window.out[0], MATMUL_LIMIT), reading.alone)
        self._stride = round_up(reading.row_bytes, lowering.target.word)
        most = max(len(strip.image) for strip in self.strips) * self._width * self._stride
        buffers = [Buffer(f"{self._label} strip", position, most, staging=True) for _ in range(2)]
        if self._is_cut:
            lowering.strips[node.output, position] = buffers
        self._buffers = cycle(buffers)

    def rows(self, first: int, strip: Strip) -> Layout:
        """Where the rows lie that a strip of the image that begins at row `first` is made of."""
        start, count = first + strip.image.start * self._width, len(strip.image) * self._width
        x = self._x.inside(start * self._x.stride)
        if not self._is_cut:
            return x
        near = Layout(next(self._buffers), 0, self._stride)
        work = self._lowering.target.move(
            x.place(), x.stride, near.place(), near.stride, count, self._row_bytes
        )
        self._lowering.add(
            self._position, work, self._label,
            reads=[x.region(count, self._row_bytes).moving(count * self._stride)],
            writes=[near.region(count, self._row_bytes).moving(count * self._stride)],
        )  # fmt: skip
        return near


def lower(lowering: Lowering, memories: Mapping[int, str]) -> dict[tuple[str, int], int]:
    """The cuts of a lowering, but half as high where strips have found no place near, by
    `memories` of buffers; none where they were of one row."""

    def height(key: tuple[str, int]) -> int:
        found = {memories.get(id(buffer)) for buffer in lowering.strips.get(key, ())}
        return lowering.cuts[key] // (2 if lowering.target.far in found else 1)

    heights = {key: height(key) for key in lowering.cuts}
    return {key: rows for key, rows in heights.items() if rows}
