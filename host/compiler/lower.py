"""From nodes of a graph to commands of cards, on operands laid out in their memory.

A graph that works row by row is dealt out by samples: every card runs its nodes on its share of
them. Tensors lie as rows of whole bus words.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host.compiler.commands import Buffer, Command, Extent, Place, Region
from halfdome.host.compiler.joins import Joins
from halfdome.host.compiler.target import Target
from halfdome.host.driver.kernels import Rows, Work
from halfdome.host.graph import elements, operator
from halfdome.host.graph.graph import Graph, Node


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
    shares : samples of each card
    joins : Joins

    Attributes
    ----------
    commands : list of Command
    layouts : Layout by tensor and position
    formats : format of tensors that is another in the cards than in the graph
    """

    def __init__(self, graph: Graph, target: Target, shares: Sequence[range], joins: Joins):
        self.graph = graph
        self.target = target
        self.shares = shares
        self.joins = joins
        self.commands: list[Command] = []
        self.layouts: dict[tuple[str, int], Layout] = {}
        self.formats: dict[str, ElementFormat] = {}
        self._contents: dict[tuple[str, int], Buffer] = {}
        self._joined: dict[tuple[str, int], Layout] = {}

    def add(
        self, position: int, work: Work, label: str, *,
        reads: Iterable[Region] = (), writes: Iterable[Region] = (), tells: int = -1,
    ) -> Command:  # fmt: skip
        """Appends a command."""
        command = Command(position, work, label, list(reads), list(writes), tells)
        for region in (*command.reads, *command.writes):
            if region.buffer.contents is None:
                region.buffer.traffic += region.nbytes
        self.commands.append(command)
        return command

    def hold(self, name: str, position: int, contents: np.ndarray, traffic: float) -> Buffer:
        """A buffer with contents, of which a request reads so many bytes."""
        told = blake2b(np.ascontiguousarray(contents), digest_size=6).hexdigest()
        key = f"{name} {told}", position
        if key not in self._contents:
            self._contents[key] = Buffer(key[0], position, contents.size, contents)
        self._contents[key].traffic += traffic
        return self._contents[key]

    def rows(self, position: int) -> int:
        """The samples of a card."""
        return len(self.shares[position])

    def format(self, name: str) -> ElementFormat:
        """The format of a tensor in the cards."""
        return self.formats.get(name, self.graph.values[name].format)

    def row_bytes(self, name: str) -> int:
        """Bytes of a row of a tensor in the cards, padding between columns included."""
        return len(self.joins.columns[name]) * self.format(name).nbytes

    def fresh(self, name: str, position: int, stride: int) -> Layout:
        """New room for a card's rows of a tensor."""
        return Layout(Buffer(name, position, self.rows(position) * stride), 0, stride)

    def joined(self, output: str, position: int) -> Layout:
        """Where the inputs of a join lie side by side; inside another join if they are one of its
        inputs as they are."""
        key = output, position
        if key not in self._joined:
            outer = self.joins.written_in.get(output)
            node = next(node for node in self.graph.nodes if node.output == output)
            if node.op == "concat" and outer is not None:
                join = self.joins.joins[outer[0]]
                self._joined[key] = self.joined(outer[0], position).inside(join.start(outer[1]))
            else:
                stride = self.joins.joins[output].stride
                self._joined[key] = self.fresh(f"{output} inputs", position, stride)
        return self._joined[key]

    def output(self, name: str, position: int) -> Layout:
        """Where a tensor is made: where a join wants it, else in new room."""
        key = name, position
        if key not in self.layouts:
            if name in self.joins.written_in:
                join, place = self.joins.written_in[name]
                start = self.joins.joins[join].start(place)
                self.layouts[key] = self.joined(join, position).inside(start)
            else:
                stride = self.target.row_stride(self.row_bytes(name))
                self.layouts[key] = self.fresh(name, position, stride)
        return self.layouts[key]

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

    def lower(self, node: Node) -> None:
        """Adds what every card does for a node that is no embedding bag."""
        for position in range(len(self.shares)):
            if self.rows(position):
                _LOWERINGS[node.op](self, node, position)


def _linear(lowering: Lowering, node: Node, position: int) -> None:
    target, constants = lowering.target, lowering.graph.constants
    name, weight_name, *params = node.inputs
    x, y = lowering.layouts[name, position], lowering.output(node.output, position)
    weight, columns = constants[weight_name], lowering.joins.columns[name]
    zero_point = int(node.attributes.get("weight_zero_point", 0))
    # What nobody reads is multiplied by the weight that stands for zero.
    spread = np.full((len(weight), len(columns)), zero_point, weight.dtype)
    spread[:, columns >= 0] = weight[:, columns[columns >= 0]]
    rows, (n, k) = lowering.rows(position), spread.shape
    packed = target.pack_weights(spread)
    held = lowering.hold(f"{node.output} weights", position, packed, packed.size)
    reads, place = [x.region(rows, k), whole(held)], 0
    if params:
        bias, multiplier = (constants[each] for each in params)
        packed = target.pack_params(multiplier, bias)
        place = Place(lowering.hold(f"{node.output} params", position, packed, packed.size))
        reads.append(whole(place.buffer))
    work = target.linear(
        node, lowering.rows_at(name, x), Place(held), place, lowering.rows_at(node.output, y),
        (rows, k, n), lowering.format(weight_name), zero_point,
    )  # fmt: skip
    lowering.add(
        position, work, label(node), reads=reads,
        writes=[y.region(rows, lowering.row_bytes(node.output))],
    )  # fmt: skip


def _vector(lowering: Lowering, node: Node, position: int) -> None:
    rows, first = lowering.rows(position), node.inputs[0]
    columns = lowering.joins.columns[first]
    for name in node.inputs:
        if not np.array_equal(lowering.joins.columns[name], columns):
            raise operator.refuse(node, f"{name} lies in another order of columns than {first}")
    inputs = {name: lowering.layouts[name, position] for name in node.inputs}
    y = lowering.output(node.output, position)
    operands = [lowering.rows_at(name, inputs[name]) for name in node.inputs]
    work = lowering.target.vector(
        node, lowering.rows_at(node.output, y), operands, rows, len(columns)
    )
    lowering.add(
        position, work, label(node),
        reads=[layout.region(rows, lowering.row_bytes(n)) for n, layout in inputs.items()],
        writes=[y.region(rows, lowering.row_bytes(node.output))],
    )  # fmt: skip


def _pairs(lowering: Lowering, node: Node, position: int) -> None:
    for name in node.inputs:
        columns = lowering.joins.columns[name]
        if not np.array_equal(columns, np.arange(len(columns))):
            raise operator.refuse(node, f"{name} lies in another order of columns than its own")
    _join(lowering, node, position)
    target, rows, count = lowering.target, lowering.rows(position), len(node.inputs)
    x, y = lowering.joined(node.output, position), lowering.output(node.output, position)
    join, first = lowering.joins.joins[node.output], node.inputs[0]
    dim, step = lowering.graph.values[first].shape[1], join.stride // count
    multiplier = np.full(count, node.attributes.get("multiplier", 1), np.float32)
    packed = target.pack_params(multiplier, np.zeros(count, np.int32))
    params = lowering.hold(f"{node.output} params", position, packed, packed.size)
    work = target.pairs(
        lowering.rows_at(first, x), count, step, dim, Place(params),
        lowering.rows_at(node.output, y), rows,
    )  # fmt: skip
    lowering.add(
        position, work, label(node),
        reads=[x.region(rows, join.stride), whole(params)],
        writes=[y.region(rows, lowering.row_bytes(node.output))],
    )  # fmt: skip


def _concat(lowering: Lowering, node: Node, position: int) -> None:
    _join(lowering, node, position)
    lowering.layouts[node.output, position] = lowering.joined(node.output, position)


def _join(lowering: Lowering, node: Node, position: int) -> None:
    """Copies what was not written where it belongs by whoever made it."""
    joined, join = lowering.joined(node.output, position), lowering.joins.joins[node.output]
    for place, name in enumerate(node.inputs):
        if lowering.joins.written_in.get(name) != (node.output, place):
            lowering.copy(
                position, name, lowering.layouts[name, position],
                joined.inside(join.start(place)), lowering.rows(position), name,
            )  # fmt: skip


_LOWERINGS: Mapping[str, Callable[[Lowering, Node, int], None]] = {
    "linear": _linear, "pairs": _pairs, "concat": _concat,
    **dict.fromkeys(elements.VECTOR_OPCODES, _vector),
}  # fmt: skip
