"""What becomes of a graph on the cards: commands, on operands laid out in their memory.

Every card runs nodes on its share of the samples, all nodes or some: that is the *division*. A
tensor lies as rows of whole bus words, one for each position of all its axes but the last:
an image as its pixels. What a row holds, `joins.columns` says.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host.compiler.commands import Buffer, Command, Extent, Place, Region
from halfdome.host.compiler.division import Division
from halfdome.host.compiler.joins import Joins
from halfdome.host.compiler.target import Target
from halfdome.host.driver.kernels import Rows, Window, Work
from halfdome.host.driver.layout import round_up
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.runtime.program import HOST


@dataclass(frozen=True)
class Layout:
    """Rows of bytes in a buffer, `stride` bytes apart."""

    buffer: Buffer
    offset: int
    stride: int

    def place(self, row: int = 0, byte: int = 0) -> Place:
        """A byte of a row."""
        return Place(self.buffer, self.offset + row * self.stride + byte)

    def region(self, rows: int, row_bytes: int, row: int = 0, byte: int = 0) -> Region:
        """Some bytes of some rows."""
        start = self.offset + row * self.stride + byte
        return Region(self.buffer, Extent(start, rows, row_bytes, self.stride))

    def inside(self, byte: int) -> "Layout":
        """What begins at a byte of each row."""
        return Layout(self.buffer, self.offset + byte, self.stride)


@dataclass(frozen=True)
class Reading:
    """A buffer whose rows, `row_bytes` of each, `blocks` products see as a window of an image, or
    each channel of `images` is seen `alone`."""

    buffer: Buffer
    row_bytes: int
    window: Window
    blocks: int = 1
    alone: bool = False
    images: int = 1


def whole(buffer: Buffer) -> Region:
    """All bytes of a buffer."""
    return Region(buffer, Extent(0, 1, buffer.nbytes, 0))


def label(node: Node) -> str:
    """What people know a node by."""
    return str(node.attributes.get("label", node.output))


class Lowering:
    """Commands of one request, in an order in which they could run one after the other.

    Parameters
    ----------
    graph : Graph with a batch
    target : Target
    division : Division
    joins : Joins
    cuts : rows of y in a strip, by output and position of products that are done in strips

    Attributes
    ----------
    commands : list of Command
    shares : samples of each card
    layouts : Layout by tensor and position
    formats : format of tensors that is another in the cards than in the graph
    readings : Reading by output and position of each product with weights
    strips : Buffers by output and position of those that are done in strips, which these are in
    """

    def __init__(
        self, graph: Graph, target: Target, division: Division, joins: Joins,
        cuts: Mapping[tuple[str, int], int] = {},
    ):  # fmt: skip
        self.graph = graph
        self.target = target
        self.division = division
        self.shares = division.shares
        self.joins = joins
        self.cuts = cuts
        self.commands: list[Command] = []
        self.layouts: dict[tuple[str, int], Layout] = {}
        self.formats: dict[str, ElementFormat] = {}
        self.readings: dict[tuple[str, int], Reading] = {}
        self.strips: dict[tuple[str, int], list[Buffer]] = {}
        self._contents: dict[tuple[str, int], Buffer] = {}
        self._joined: dict[tuple[str, int], Layout] = {}

    def add(
        self, position: int, work: Work, label: str, *,
        reads: Iterable[Region] = (), writes: Iterable[Region] = (), tells: int = -1,
    ) -> Command:  # fmt: skip
        """Appends a command."""
        command = Command(position, work, label, list(reads), list(writes), tells)
        for region in (*command.reads, *command.writes):
            region.buffer.traffic += region.traffic
        self.commands.append(command)
        return command

    def hold(self, name: str, position: int, nbytes: int, pack: Callable[[], np.ndarray]) -> Buffer:
        """A buffer with the uint8[nbytes] that `pack` makes."""
        key = name, position
        if key not in self._contents:
            self._contents[key] = Buffer(name, position, nbytes, pack)
        return self._contents[key]

    def samples(self, position: int) -> int:
        """The samples of a card."""
        return len(self.shares[position])

    def rows(self, name: str, position: int) -> int:
        """The rows of a tensor on a card."""
        return self.samples(position) * self.graph.values[name].pixels

    def format(self, name: str) -> ElementFormat:
        """The format of a tensor in the cards."""
        return self.formats.get(name, self.graph.values[name].format)

    def row_bytes(self, name: str) -> int:
        """Bytes of a row of a tensor in the cards, padding between columns included."""
        return len(self.joins.columns[name]) * self.format(name).nbytes

    def wire_stride(self, name: str) -> int:
        """Bytes from one row of a tensor to the next in host memory: whole bus words."""
        return round_up(self.row_bytes(name), self.target.word)

    def staging(self, name: str, position: int) -> Buffer:
        """Host memory for a card's rows of a tensor."""
        return Buffer(name, HOST, self.rows(name, position) * self.wire_stride(name))

    def load(self, name: str, position: int, source: Buffer) -> None:
        """Brings a card its rows of an input from host memory, in parts: whoever reads the first
        need not wait for the last."""
        nbytes, rows, stride = source.nbytes, self.rows(name, position), self.wire_stride(name)
        near = self.fresh(name, position, rows, stride)
        self.layouts[name, position] = near
        count = max(1, nbytes // self.target.load_bytes)
        for first, last in pairwise(rows * part // count for part in range(count + 1)):
            part = (last - first) * stride
            place = Place(source, first * stride)
            work = self.target.load(place, near.place(first), part, part)
            self.add(position, work, name, writes=[near.region(1, part, first)])

    @staticmethod
    def fresh(label: str, position: int, rows: int, stride: int) -> Layout:
        """New room for so many rows on a card."""
        return Layout(Buffer(label, position, rows * stride), 0, stride)

    def joined(self, output: str, position: int) -> Layout:
        """Where the inputs of a join lie side by side; inside another join of the card if they are
        one of its inputs as they are."""
        key = output, position
        if key not in self._joined:
            node = next(node for node in self.graph.nodes if node.output == output)
            inside = self._inside(output, position) if node.op == "concat" else None
            if inside is not None:
                self._joined[key] = inside
            else:
                stride = self.joins.joins[output].stride
                rows = self.rows(node.inputs[0], position)
                self._joined[key] = self.fresh(f"{output} inputs", position, rows, stride)
        return self._joined[key]

    def _inside(self, name: str, position: int) -> Layout | None:
        """Where a join that the card runs wants a tensor; None if none does."""
        join, place = self.joins.written_in.get(name, ("", 0))
        if position not in self.division.makers.get(join, ()):
            return None
        return self.joined(join, position).inside(self.joins.joins[join].start(place))

    def output(self, name: str, position: int) -> Layout:
        """Where a tensor is written: where a join wants it, else in new room."""
        key = name, position
        if key not in self.layouts:
            rows, stride = self.rows(name, position), self.joins.stride(name)
            inside = self._inside(name, position)
            self.layouts[key] = inside or self.fresh(name, position, rows, stride)
        return self.layouts[key]

    def region(self, name: str, position: int) -> Region:
        """All that a card has of a tensor."""
        layout = self.layouts[name, position]
        return layout.region(self.rows(name, position), self.row_bytes(name))

    def operand(self, name: str, position: int) -> Rows:
        """All that a card has of a tensor, as an operand."""
        return self.rows_at(name, self.layouts[name, position])

    def rows_at(self, name: str, layout: Layout, row: int = 0, byte: int = 0) -> Rows:
        """A tensor as an operand of a kernel."""
        zero_point = self.graph.values[name].zero_point
        return Rows(layout.place(row, byte), layout.stride, self.format(name), zero_point)

    def copy(
        self, position: int, name: str, source: Layout, target: Layout, rows: int, label: str,
        first: int = 0,
    ) -> None:  # fmt: skip
        """Copies a card's `rows` of a tensor from row `first` on, to the first rows of `target`."""
        columns, nbytes = len(self.joins.columns[name]), self.row_bytes(name)
        work = self.target.copy(
            self.rows_at(name, source, first), target.place(), target.stride, rows, columns
        )
        self.add(
            position, work, label,
            reads=[source.region(rows, nbytes, first)], writes=[target.region(rows, nbytes)],
        )  # fmt: skip
