"""Tensors put side by side: in which order, and where each begins.

Whoever makes a tensor that is joined with others writes it where it belongs. What comes from one
card stands together, so that it travels in one piece; a piece begins at a bus word, which costs
padding: columns that nobody reads. The order is the same on all cards, for they share weights.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from halfdome.host.compiler.placement import Task
from halfdome.host.compiler.target import Target
from halfdome.host.driver.layout import round_up
from halfdome.host.graph import elements, moves, pooling
from halfdome.host.graph.graph import Graph, Node

JOINS = ("concat", "pairs")
"""Operators whose inputs lie side by side."""
_APART = ("reshape", "transpose", "batch_matmul")
"""Operators whose output lies by itself."""
_WINDOWS = ("conv2d", "max_pool", "average_pool")
"""Operators that read rows above and below those that they write."""
LOCAL = "local"
"""The origin of what every card makes for itself."""


@dataclass(frozen=True)
class Piece:
    """Some columns of an input of a join, at byte `start` of a row of the joined tensor."""

    place: int
    columns: range
    start: int


@dataclass(frozen=True)
class Join:
    """How the inputs of a node lie.

    Attributes
    ----------
    pieces : in the order in which they lie
    stride : int, bytes from one row to the next
    columns : int[width], for each element of a row its column of the inputs put side by side in
        the order of the node; -1 for padding
    """

    pieces: tuple[Piece, ...]
    stride: int
    columns: np.ndarray

    def start(self, place: int) -> int:
        """Where an input begins that lies in one piece."""
        return next(piece.start for piece in self.pieces if piece.place == place)

    def order(self) -> np.ndarray:
        """The inputs in the order in which they lie."""
        return np.array(list(dict.fromkeys(piece.place for piece in self.pieces)))


class Joins:
    """Every join of a graph, and how the elements of every tensor lie.

    Parameters
    ----------
    graph : Graph
    tasks : for each embedding bag's output the tasks that pool it
    apart : bool, whether every piece begins at a bus word, so that it can travel by itself

    Attributes
    ----------
    columns : int[width] by tensor; for each element of a row in memory its column, -1 for padding
    joins : Join by the name of the node's output
    written_in : for each tensor that is written where it belongs, the join and its input number
    """

    def __init__(
        self, graph: Graph, target: Target, tasks: Mapping[str, Sequence[Task]], apart: bool
    ):
        self._graph = graph
        self._target = target
        self._tasks = tasks
        self._apart = apart
        self._uses = Counter(graph.outputs)
        for node in graph.nodes:
            self._uses.update(node.inputs)
        self.columns: dict[str, np.ndarray] = {}
        self.joins: dict[str, Join] = {}
        self.written_in: dict[str, tuple[str, int]] = {}
        self._makers = {node.output: node for node in graph.nodes}
        self._reshaped = {node.inputs[0] for node in graph.nodes if node.op == "reshape"}
        for value in graph.inputs:
            self.columns[value.name] = np.arange(value.columns)
        for node in graph.nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        if node.op in JOINS:
            for place, name in enumerate(node.inputs):
                if name in self.written_in or self._is_read_beside(name, node):
                    continue
                if self._may_be_written(name):
                    self.written_in[name] = node.output, place
            join = self.joins[node.output] = self._joined(node)
            self.columns[node.output] = join.columns
            if node.op == "pairs":
                self.columns[node.output] = _pair_columns(join.order())
        elif node.op in elements.OPERATORS or node.op in pooling.OPERATORS:
            self.columns[node.output] = self.columns[node.inputs[0]]
        else:
            value = self._graph.values[node.output]
            self.columns[node.output] = np.arange(value.columns)
            if node.op == "reshape" and (rows := self._merged(node)):
                self.columns[node.output] = self.side_by_side(node.inputs[0], rows)

    def _merged(self, node: Node) -> int:
        return moves.merged(*(self._graph.values[name] for name in (node.inputs[0], node.output)))

    def side_by_side(self, name: str, rows: int) -> np.ndarray:
        """So many rows of a tensor as one, with what lies between them."""
        columns, value = self.columns[name], self._graph.values[name]
        laid = np.full((rows, self.stride(name) // value.format.nbytes), -1)
        firsts = np.arange(rows)[:, None] * value.columns
        laid[:, : len(columns)] = np.where(columns >= 0, firsts + columns, -1)
        gap = laid.shape[1] - len(columns)
        return laid.reshape(-1)[: laid.size - gap]

    def parts(self, node: Node) -> list[int]:
        """At which byte of a row each part begins into which a reshape cuts it; none if a part
        begins within a word, or lies in pieces."""
        name, word = node.inputs[0], self._target.word
        x, y = (self._graph.values[each] for each in (name, node.output))
        count, left = divmod(x.columns, y.columns)
        columns, own = self.columns[name], np.arange(y.columns)
        found = []
        for part in range(0 if left else count):
            at = int(np.flatnonzero(columns == part * y.columns)[0])
            begins = at * x.format.nbytes
            piece = columns[at : at + y.columns]
            if begins % word or not np.array_equal(piece, own + part * y.columns):
                return []
            found.append(begins)
        return found

    def pitch(self, node: Node) -> int:
        """Bytes from one part of a row to the next, if parts lie evenly through all rows, so that
        they are rows where they lie; else 0."""
        parts = self.parts(node)
        pitch, left = divmod(self.stride(node.inputs[0]), max(len(parts), 1))
        even = parts == [part * pitch for part in range(len(parts))]
        return pitch if parts and even and not left and pitch % self._target.word == 0 else 0

    def stride(self, name: str) -> int:
        """Bytes from one row of a tensor to the next, unless others decide where it is written."""
        value, node = self._graph.values[name], self._makers.get(name)
        nbytes = len(self.columns[name]) * value.format.nbytes
        if node is None:
            return round_up(nbytes, self._target.word)
        if node.op == "concat":
            return self.joins[name].stride
        if node.op == "reshape":
            rows = self._merged(node)
            if rows:
                return rows * self.stride(node.inputs[0])
            return self.pitch(node) or round_up(nbytes, self._target.word)
        return self._target.row_stride(nbytes)

    def _is_read_beside(self, name: str, join: Node) -> bool:
        """Whether parts of a tensor are made of rows that would lie beside others of its rows: a
        command is refused there, whose windows reach over several rows."""
        node = self._makers.get(name)
        return (
            node is not None and node.op in _WINDOWS and not {*join.inputs}.isdisjoint(node.inputs)
        )

    def _may_be_written(self, name: str) -> bool:
        """Whether a node makes it that can write it anywhere: in pieces only if nobody else reads
        it; never where rows are made of rows, and by no product of batches, which is refused beside
        what it reads."""
        node = self._makers.get(name)
        if node is None or node.op in _APART or name in self._reshaped:
            return False
        return len(self._cuts(name)) < 2 or self._uses[name] == 1

    def _cuts(self, name: str) -> list[range]:
        """The columns of each piece in which a tensor is pooled."""
        cuts = {task.columns for task in self._tasks.get(name, ())}
        return sorted(cuts, key=lambda columns: columns.start)

    def _origin(self, name: str, columns: range) -> object:
        """Who makes some columns of a tensor: equal origins stand together."""
        tasks = [t for t in self._tasks.get(name, ()) if t.columns == columns]
        origin = tuple(sorted((t.card, t.samples.start, t.samples.stop) for t in tasks))
        return origin or LOCAL

    def _joined(self, node: Node) -> Join:
        graph, word = self._graph, self._target.word
        nbytes = graph.values[node.inputs[0]].format.nbytes
        pieces = []  # (origin, input, columns)
        for place, name in enumerate(node.inputs):
            if self.written_in.get(name) == (node.output, place) and self._uses[name] == 1:
                for columns in self._cuts(name) or [range(len(self.columns[name]))]:
                    pieces.append((self._origin(name, columns), place, columns))
            else:  # copied to here, or read from here by others: both need whole words
                pieces.append((LOCAL, place, range(len(self.columns[name]))))
        # Locally made first; a sort keeps the order of the node within an origin.
        pieces.sort(key=lambda piece: (piece[0] != LOCAL, str(piece[0])))
        if node.op == "pairs":  # all pieces of a segment follow its first
            firsts_of = list(dict.fromkeys(piece[1] for piece in pieces))
            pieces = sorted(pieces, key=lambda p: (firsts_of.index(p[1]), p[2].start))
        firsts = np.cumsum([0, *(graph.values[name].columns for name in node.inputs)])
        laid, columns, end, before = [], [], 0, None
        for origin, place, mine in pieces:
            alone = origin == LOCAL or self._apart or origin != before
            if node.op == "pairs":  # segments are equally far from each other
                alone = mine.start == 0
            if alone:
                padding = -end % word
                columns.append(np.full(padding // nbytes, -1))
                end += padding
            laid.append(Piece(place, mine, end))
            inner = self.columns[node.inputs[place]][mine.start : mine.stop]
            columns.append(np.where(inner >= 0, firsts[place] + inner, -1))
            end += len(mine) * nbytes
            before = origin
        stride = self._target.row_stride(end)
        if node.op == "pairs":
            stride = round_up(end, word)
        return Join(tuple(laid), stride, np.concatenate(columns))


def _pair_columns(order: np.ndarray) -> np.ndarray:
    """The pair that each product of segments in some order is, as a column of the node's output."""
    high, low = np.tril_indices(len(order), -1)
    one, other = order[high], order[low]
    larger, smaller = np.maximum(one, other), np.minimum(one, other)
    return larger * (larger - 1) // 2 + smaller
