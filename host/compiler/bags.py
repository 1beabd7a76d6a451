"""Embedding bags: indices to cards, rows pooled, and pooled rows to whose samples they are.

The indices of a core travel in one run of bytes; or, if tables or weights find no near memory, in
pieces, one for each table, which come while the table before is pooled and then leave room for the
next. A card pools each of its tables straight into the columns that the next layer reads: of its
own samples in place, of others' beside each other, to be sent in one piece to each card. Rows of a
table that finds no near memory lie apart, so that they touch fewer lines of far memory.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from halfdome.hdl.commands import RowFormat
from halfdome.host.compiler import sharing
from halfdome.host.compiler.commands import Buffer, Command, Contents, Place, Symbol
from halfdome.host.compiler.lowering import Layout, Lowering, label, whole
from halfdome.host.compiler.placement import Load, Task
from halfdome.host.compiler.target import Target
from halfdome.host.driver.layout import round_up
from halfdome.host.graph import embedding
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.runtime.program import (
    HOST,
    SYMBOLS_PER_PIECE,
    BagsInput,
    BagsPiece,
    BagsStaging,
)
from halfdome.host.runtime.transfers import Transfers


def bag_nodes(graph: Graph) -> list[Node]:
    """The embedding bags of a graph."""
    return [node for node in graph.nodes if node.op == "embedding_bag"]


def inputs(graph: Graph) -> set[str]:
    """The values that tell embedding bags what to pool."""
    return {name for node in bag_nodes(graph) for name in node.inputs[1:]}


def mean_length(node: Node, graph: Graph) -> float:
    """Rows of a bag on average; if the node does not say, as many as there is room for."""
    return float(node.attributes.get("mean_length", longest(node, graph)))


def longest(node: Node, graph: Graph) -> int:
    """Room for indices, by bag."""
    indices, lengths = (graph.values[name] for name in node.inputs[1:3])
    return -(-indices.shape[0] // max(1, lengths.shape[0]))


def loads_of(graph: Graph, target: Target) -> list[Load]:
    """What each embedding bag of a graph costs."""
    found = []
    for node in bag_nodes(graph):
        table = graph.values[node.inputs[0]]
        row_format, dim = embedding.pooling(node, table)
        output = graph.values[node.output]
        rows = output.shape[0] * mean_length(node, graph)
        packed = row_format.row_bytes(dim)
        cycles = rows * target.row_cycles(row_format, dim, table.shape[0], packed)
        word = max(1, target.word // output.format.nbytes)
        found.append(Load(table.shape[0], row_format, dim, cycles, word))
    return found


@dataclass(frozen=True)
class _Pooled:
    """Columns of a tensor that a card has pooled for `samples`, in a layout of those rows."""

    node: Node
    task: Task
    layout: Layout
    nbytes: int


class Bags:
    """Adds the commands of all embedding bags to a lowering.

    Attributes
    ----------
    inputs, stagings : of the program; segments of stagings are numbers of `buffers`
    buffers : host buffers, of each staging
    symbols : how many numbers of a request there are
    relays : host buffers of pooled rows that others load once all are there
    paced : bool, whether far memory says when cores of any card pool what is near them
    """

    def __init__(
        self, lowering: Lowering, tasks: Mapping[str, Sequence[Task]], how: Transfers,
        cores: Sequence[int] = (0,), far: Collection[Contents] = (), period: float = 0.0,
        padded: bool = False,
    ):  # fmt: skip
        self._lowering = lowering
        self._padded = padded
        self._cores = cores
        self._far = far
        self._period = period
        self._loads = loads_of(lowering.graph, lowering.target)
        self._tasks = tasks
        self._how = how
        self._nodes = bag_nodes(lowering.graph)
        self._samples = max(1, lowering.graph.batch or 0)
        self.inputs: list[BagsInput] = []
        self.stagings: list[BagsStaging] = []
        self.buffers: list[Buffer] = []
        self.symbols = 0
        self.paced = False
        self._numbers: dict[tuple[str, ...], int] = {}

    def lower(self) -> None:
        """Loads, poolings and exchange."""
        cards = range(len(self._lowering.shares))
        for card, made in {card: self._pool(card) for card in cards}.items():
            if made:
                self._send(card, made)

    def _input(self, node: Node) -> int:
        """The number of the bags that a node pools."""
        _, indices, lengths, *weights = node.inputs
        key = (lengths, indices, *weights)
        if key not in self._numbers:
            graph = self._lowering.graph
            self._numbers[key] = len(self.inputs)
            bags = graph.values[lengths].shape[0]
            self.inputs.append(
                BagsInput(lengths, indices, "".join(weights), bags, longest(node, graph))
            )
        return self._numbers[key]

    # Pooling

    def _pool(self, card: int) -> list[list[_Pooled]]:
        """Brings each core of a card its indices and pools the card's tables; what each core has
        pooled for others."""
        dealt = self._dealt(card)
        self.paced |= dealt.paced
        tasks: dict[int, list[tuple[Node, Task]]] = defaultdict(list)
        for turn in sorted(dealt.turns, key=lambda turn: turn.core):
            tasks[turn.core].append((self._nodes[turn.task.table], turn.task))
        layouts = {core: self._beside(card, mine) for core, mine in tasks.items()}
        made: dict[int, list[_Pooled]] = {core: [] for core in tasks}
        staged: dict[Task, tuple[BagsPiece, Buffer]] = {}
        if not self._far:
            for core, mine in tasks.items():
                staged |= self._stage(card, core, mine)
        pooled: list[Command] = []
        by_core: dict[int, list[Command]] = defaultdict(list)
        for number, turn in enumerate(dealt.turns):
            node, task, mine = self._nodes[turn.task.table], turn.task, by_core[turn.core]
            if self._far:  # two of them lie there at a time
                staged |= self._stage(card, turn.core, [(node, task)], behind=mine[-2:-1])
            piece, near = staged[task]
            beside = layouts[turn.core].get((node.output, task))
            layout = beside or self._own(node, task)
            nbytes = len(task.columns) * self._lowering.format(node.output).nbytes
            command = self._gather(card, turn, piece, near, layout, nbytes)
            command.behind += [pooled[other] for other in dealt.behind(number)]
            pooled.append(command)
            mine.append(command)
            if beside:
                made[turn.core].append(_Pooled(node, task, layout, nbytes))
        return list(made.values())

    def _dealt(self, card: int) -> sharing.Dealt:
        """What each core of a card pools."""
        lowering = self._lowering
        mine = [task for tasks in self._tasks.values() for task in tasks if task.card == card]

        def cost(task: Task) -> float:
            load = self._loads[task.table]
            return load.cycles * len(task.columns) / load.dim * len(task.samples) / self._samples

        def far_cost(task: Task) -> float:
            node = self._nodes[task.table]
            rows = len(task.samples) * mean_length(node, lowering.graph)
            return lowering.target.far_cycles(rows * self._far_row(node, task))

        names = {task: held_name(self._nodes[task.table], task) for task in mine}
        far = [task for task in mine if (card, names[task]) in self._far]
        return sharing.deal(mine, cost, far_cost, len(self._cores), far, self._period)

    def _stage(
        self, card: int, core: int, tasks: Sequence[tuple[Node, Task]],
        behind: Sequence[Command] = (),
    ) -> dict[Task, tuple[BagsPiece, Buffer]]:  # fmt: skip
        """Lays out bags of a core in host memory, alike in its own, and loads them; where those of
        each task are."""
        word = self._lowering.target.word
        integer = 4 if self._how.narrow_indices else 8
        packed = self._how.partial_tensors and self._how.fused
        end = 0
        loads: list[tuple[int, int | Symbol]] = []

        def room(nbytes: int) -> int:
            nonlocal end
            start, end = end, end + round_up(nbytes, word)
            return start

        lengths_at = [room(len(task.samples) * integer) for _, task in tasks]
        packed_at, pieces = end, []
        for (node, task), lengths in zip(tasks, lengths_at, strict=True):
            most = len(task.samples) * longest(node, self._lowering.graph)
            indices, weights = room(most * integer), -1
            if len(node.inputs) > 3:
                weights = room(most * 4)
            symbol = self.symbols
            self.symbols += SYMBOLS_PER_PIECE
            loads.append((lengths, len(task.samples) * integer))
            partial = self._how.partial_tensors
            used = Symbol(symbol + 2) if partial else max(word, most * integer)
            loads.append((indices, used))
            if weights >= 0:
                loads.append((weights, max(word, most * 4)))
            pieces.append(BagsPiece(
                self._input(node), task.samples.start, task.samples.stop, lengths,
                -1 if packed else indices, -1 if packed and weights >= 0 else weights, symbol,
            ))  # fmt: skip
        total = self.symbols
        self.symbols += 1
        if packed:
            loads = [(0, Symbol(total))]
        elif self._how.fused:
            loads = [(0, end)]
        far = Buffer(f"indices {card}", HOST, end)
        near = Buffer("indices", card, end, core=self._cores[core])
        for start, nbytes in loads:
            most = end if isinstance(nbytes, Symbol) else nbytes
            work = self._lowering.target.load(Place(far, start), Place(near, start), nbytes, most)
            loaded = self._lowering.add(card, work, "indices", writes=[whole(near)])
            loaded.behind += behind
        self.buffers.append(far)
        self.stagings.append(
            BagsStaging(len(self.buffers) - 1, packed_at, word, integer, total, tuple(pieces))
        )
        return {task: (piece, near) for (_, task), piece in zip(tasks, pieces, strict=True)}

    def _beside(
        self, card: int, tasks: Sequence[tuple[Node, Task]]
    ) -> dict[tuple[str, Task], Layout]:
        """Where a card pools what is not for its own samples alone: for the same samples side by
        side, in the order in which the columns lie where they are sent."""
        word, share = self._lowering.target.word, self._lowering.shares[card]
        grouped: dict[range, list[tuple[tuple, Node, Task]]] = {}
        for node, task in tasks:
            if not (task.samples.start >= share.start and task.samples.stop <= share.stop):
                place = self._destination(node, task)
                grouped.setdefault(task.samples, []).append((place, node, task))
        layouts = {}
        for samples, group in grouped.items():
            group.sort(key=lambda each: each[0])
            starts, end, before = [], 0, None
            for (join, start), node, task in group:
                if (join, start) != before:
                    end = round_up(end, word)
                starts.append(end)
                nbytes = len(task.columns) * self._lowering.format(node.output).nbytes
                before = join, start + nbytes
                end += nbytes
            stride = round_up(end, word)
            buffer = Buffer("pooled", card, len(samples) * stride)
            for start, (_, node, task) in zip(starts, group, strict=True):
                layouts[node.output, task] = Layout(buffer, start, stride)
        return layouts

    def _destination(self, node: Node, task: Task) -> tuple[str, int]:
        """The tensor in whose rows a task's columns lie, and the byte at which they begin."""
        joins, nbytes = self._lowering.joins, self._lowering.format(node.output).nbytes
        if node.output not in joins.written_in:
            return node.output, task.columns.start * nbytes
        join, place = joins.written_in[node.output]
        pieces = joins.joins[join].pieces
        start = next(
            piece.start for piece in pieces if (piece.place, piece.columns) == (place, task.columns)
        )
        return join, start

    def _target(self, node: Node, task: Task, card: int) -> Layout:
        """The columns of a task among a card's rows, where they are read."""
        name, start = self._destination(node, task)
        lowering = self._lowering
        if name == node.output:
            return lowering.output(name, card).inside(start)
        target = lowering.joined(name, card).inside(start)
        if len(task.columns) == lowering.graph.values[node.output].shape[1]:
            lowering.layouts[node.output, card] = target
        return target

    def _own(self, node: Node, task: Task) -> Layout:
        """Where a card pools for itself alone: the rows where they are read."""
        target = self._target(node, task, task.card)
        first = task.samples.start - self._lowering.shares[task.card].start
        return replace(target, offset=target.offset + first * target.stride)

    def _gather(
        self, card: int, turn: sharing.Turn, piece: BagsPiece, near: Buffer, layout: Layout,
        nbytes: int,
    ) -> Command:  # fmt: skip
        lowering, task, node = self._lowering, turn.task, self._nodes[turn.task.table]
        graph = lowering.graph
        value, bags = graph.values[node.output], len(task.samples)
        row_format, dim = embedding.pooling(node, graph.values[node.inputs[0]])
        stride = self._stride(node, task)
        table = graph.constants[node.inputs[0]]
        rows = bags * mean_length(node, graph)
        integer = 4 if self._how.narrow_indices else 8
        held = lowering.hold(
            held_name(node, task), card, len(table) * stride,
            lambda: _columns(table, row_format, dim, task.columns, stride),
        )  # fmt: skip
        weights = None
        if len(node.inputs) > 3:
            weights = Place(near, 0, piece.symbol + SYMBOLS_PER_PIECE - 1)
        output = replace(lowering.rows_at(node.output, layout), zero_point=value.zero_point)
        work = lowering.target.gather(
            node, row_format, table.shape[0], len(task.columns), mean_length(node, graph),
            Place(held), stride, Place(near, 0, piece.symbol + 1), Symbol(piece.symbol),
            Place(near, piece.lengths_at), bags, output, weights, not self._how.narrow_indices,
        )  # fmt: skip
        return lowering.add(
            card, work, label(node),
            reads=[
                whole(held).moving(rows * self._far_row(node, task)),
                whole(near).moving((rows + bags) * integer),
            ],
            writes=[layout.region(bags, nbytes)],
        )  # fmt: skip

    def _far_row(self, node: Node, task: Task) -> float:
        """Bytes in their order that take as long as a row of a table in far memory."""
        row_bytes, rows = self._size(node, task)
        stride = self._stride(node, task)
        return self._lowering.target.far_row_bytes(row_bytes, rows, stride)

    def _stride(self, node: Node, task: Task) -> int:
        """Bytes from one row to the next of the columns of a table that a card holds."""
        row_bytes, rows = self._size(node, task)
        if self._padded and (task.card, held_name(node, task)) in self._far:
            return self._lowering.target.far_stride(row_bytes, rows)
        return row_bytes

    def _size(self, node: Node, task: Task) -> tuple[int, int]:
        """Bytes of a row of those columns, and how many rows there are."""
        table = self._lowering.graph.values[node.inputs[0]]
        row_format, _ = embedding.pooling(node, table)
        return row_format.row_bytes(len(task.columns)), table.shape[0]

    # Exchange

    def _send(self, card: int, pooled: Sequence[Sequence[_Pooled]]) -> None:
        """Brings every card the rows of its samples."""
        lowering, cards = self._lowering, len(self._lowering.shares)
        runs = [run for made in pooled for run in self._runs(made)]
        # The next card first: so no two cards send to the same one at the same time.
        for step in range(1, cards + 1):
            peer = (card + step) % cards
            share, told, stored = lowering.shares[peer], [], []
            for run in runs:
                samples = run[0].task.samples
                common = range(max(share.start, samples.start), min(share.stop, samples.stop))
                if not len(common):
                    continue
                first = common.start - samples.start
                target = self._target(run[0].node, run[0].task, peer)
                row = common.start - share.start
                target = replace(target, offset=target.offset + row * target.stride)
                nbytes = sum(each.nbytes for each in run)
                if peer == card:
                    self._copy(card, run[0], target, first, len(common), nbytes)
                else:
                    stored.append(
                        self._store(card, peer, run[0], target, first, len(common), nbytes)
                    )
                    told.append(target.region(len(common), nbytes))
            if told and self._how.peer_pooling:
                sent = lowering.add(card, lowering.target.signal(), "sent", writes=told, tells=peer)
                sent.behind += stored

    def _runs(self, pooled: Sequence[_Pooled]) -> list[list[_Pooled]]:
        """What lies side by side here and where it is sent, and so travels together."""
        runs: list[list[_Pooled]] = []
        end: tuple | None = None
        for each in sorted(pooled, key=lambda p: (p.task.samples.start, p.layout.offset)):
            name, start = self._destination(each.node, each.task)
            here = each.layout.buffer, each.layout.offset, name, start
            if here != end or not self._how.fused:
                runs.append([])
            runs[-1].append(each)
            end = (each.layout.buffer, each.layout.offset + each.nbytes, name, start + each.nbytes)
        return runs

    def _copy(
        self, card: int, first: _Pooled, target: Layout, row: int, rows: int, nbytes: int
    ) -> None:
        lowering = self._lowering
        source = lowering.rows_at(first.node.output, first.layout, row)
        columns = nbytes // source.format.nbytes
        work = lowering.target.copy(source, target.place(), target.stride, rows, columns)
        lowering.add(
            card, work, "own",
            reads=[first.layout.region(rows, nbytes, row)], writes=[target.region(rows, nbytes)],
        )  # fmt: skip

    def _store(
        self, card: int, peer: int, first: _Pooled, target: Layout, row: int, rows: int, nbytes: int
    ) -> Command:  # fmt: skip
        lowering, layout = self._lowering, first.layout
        target.buffer.exclusive = True
        reads = [layout.region(rows, nbytes, row)]
        if self._how.peer_pooling:
            work = lowering.target.store_rows(
                layout.place(row), layout.stride, target.place(), target.stride, rows, nbytes
            )
            return lowering.add(card, work, f"to card {peer}", reads=reads)
        stride = round_up(nbytes, lowering.target.word)
        relay = Layout(Buffer(f"relay {card} {peer}", HOST, rows * stride), 0, stride)
        work = lowering.target.store_rows(
            layout.place(row), layout.stride, relay.place(), stride, rows, nbytes
        )
        stored = lowering.add(card, work, f"to card {peer}", reads=reads)
        work = lowering.target.load_rows(
            relay.place(), stride, target.place(), target.stride, rows, nbytes
        )
        loaded = lowering.add(peer, work, f"from card {card}", writes=[target.region(rows, nbytes)])
        loaded.once_seen.append(stored)
        return stored


def held_name(node: Node, task: Task) -> str:
    """What the columns of a table are called that a card holds."""
    return f"{node.output} columns {task.columns.start}-{task.columns.stop - 1}"


def _columns(
    table: np.ndarray, row_format: RowFormat, dim: int, columns: range, stride: int
) -> np.ndarray:
    """Some columns of a table, each row with its scale and bias, as uint8[rows * stride]."""
    raw = np.ascontiguousarray(table).reshape(len(table), -1).view(np.uint8)
    if len(columns) < dim:
        bits = row_format.element_bits
        elements = raw[:, columns.start * bits // 8 : -(-columns.stop * bits // 8)]
        tail = raw[:, raw.shape[1] - row_format.tail_bytes :]
        raw = np.concatenate([elements, tail], axis=1)
    if stride == raw.shape[1]:
        return raw.reshape(-1)
    return np.pad(raw, ((0, 0), (0, stride - raw.shape[1]))).reshape(-1)
