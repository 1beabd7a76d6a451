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
from halfdome.host.graph.graph import Graph, Node

JOINS = ("concat", "pairs")
"""Operators whose inputs lie side by side."""
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
    apart : bool, whether every piece travels by itself

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
        for value in graph.inputs:
            width = int(np.prod(value.shape[1:], dtype=np.int64))
            self.columns[value.name] = np.arange(width)
        for node in graph.nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        if node.op in JOINS:
            for place, name in enumerate(node.inputs):
                if name not in self.written_in and self._may_be_written(name):
                    self.written_in[name] = node.output, place
            join = self.joins[node.output] = self._joined(node)
            self.columns[node.output] = join.columns
            if node.op == "pairs":
                self.columns[node.output] = _pair_columns(join.order())
        elif node.op in ("affine", "add", "multiply", "clamp"):
            self.columns[node.output] = self.columns[node.inputs[0]]
        else:
            self.columns[node.output] = np.arange(self._graph.values[node.output].shape[1])

    def _may_be_written(self, name: str) -> bool:
        """Whether a node makes it that can write it anywhere: in pieces only if nobody else reads
        it."""
        is_made = any(node.output == name for node in self._graph.nodes)
        return is_made and (len(self._cuts(name)) < 2 or self._uses[name] == 1)

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
        firsts = np.cumsum([0, *(graph.values[name].shape[1] for name in node.inputs)])
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
