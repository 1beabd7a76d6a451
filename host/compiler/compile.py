"""From a graph to a program for so many cards of one target."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import MOST_CARDS, CardConfig, preset
from halfdome.host import arguments
from halfdome.host.compiler import bags, events, memory
from halfdome.host.compiler.commands import Buffer, Place
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.joins import JOINS, Joins
from halfdome.host.compiler.lower import lower
from halfdome.host.compiler.lowering import Lowering
from halfdome.host.compiler.order import by_buffer, dependencies
from halfdome.host.compiler.parts import parts
from halfdome.host.compiler.placement import Placement, Task, place
from halfdome.host.compiler.schedule import Schedule, schedule
from halfdome.host.compiler.segments import Segments
from halfdome.host.compiler.target import NEAR_SHARE, Target
from halfdome.host.driver.layout import round_up
from halfdome.host.graph import operator, operators
from halfdome.host.graph.graph import Graph
from halfdome.host.graph.values import DTYPES, GraphError, Value
from halfdome.host.runtime.program import HOST, Output, Program, RowsInput, RowsPiece
from halfdome.host.runtime.transfers import Transfers

TABLE_SHARE = 0.5
"""What of a card's large memory tables may take; the rest is for weights and buffers."""
MOST_IN_FLIGHT = 64
"""Requests that a program may work on at a time."""
SLOWER = 1.02
"""How much longer a request may take that spares far memory."""
SMALL_SHARE = 1 / 64
"""What of its near memory a table may take to be on every card."""


def shares(samples: int, cards: int) -> list[range]:
    """The samples of a request whose dense nets each card runs: as equal as can be."""
    ends = [samples * card // cards for card in range(cards + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


def target_of(design: CardConfig | Target | str) -> Target:
    """What is compiled for: a target, or cards of a configuration, which may be a preset's name."""
    if isinstance(design, str):
        design = preset(design)
    return HalfdomeTarget(design) if isinstance(design, CardConfig) else design


def placement(
    graph: Graph, design: CardConfig | Target | str, cards: int, kept: Mapping[int, int] = {}
) -> Placement:
    """Which card pools which columns of which table for which samples.

    `kept` tells the card of tables that are there already. Raises `GraphError` for a graph that
    cannot be dealt out by samples, or rows longer than `max_dim`, and `MemoryError` for a table
    that fits on no card.
    """
    if not isinstance(graph, Graph):
        raise ValueError(f"graph: is a {type(graph).__name__}, must be a Graph")
    cards = arguments.integer("cards", cards, 1, MOST_CARDS)
    target = target_of(design)
    _check(graph, target)
    capacity = int(target.far_bytes * TABLE_SHARE)
    small = int(target.near_bytes * SMALL_SHARE)
    near = int(target.near_bytes * NEAR_SHARE)
    samples = shares(graph.batch or 0, cards)
    return place(bags.loads(graph, target), samples, capacity, small, near, kept)


def _check(graph: Graph, target: Target) -> None:
    """Refuses what no card can do, or not by samples."""
    if graph.batch is None:
        raise GraphError(
            "the graph does not work row by row on inputs of one batch: it cannot be dealt out by "
            "samples"
        )
    if not graph.batch:
        raise GraphError("the graph has no rows: its batch must be at least 1")
    for node in graph.nodes:
        operands = node.inputs[1:] if node.op == "embedding_bag" else node.inputs
        for name in operands[: operators.find(node.op).constant_from]:
            if name in graph.constants:
                raise operator.refuse(node, f"{name} is a constant, and not one for each row")
    of_bags = bags.inputs(graph)
    for name in graph.outputs:
        if name in graph.constants or name in of_bags:
            what = "a constant" if name in graph.constants else "an input of bags"
            raise GraphError(f"output {name}: is {what}, which no card has by samples")
    for value in graph.values.values():
        if value.name not in graph.constants and 0 in value.shape[1:]:
            raise GraphError(f"{value.name}: has no columns")
    for node in bags.bag_nodes(graph):
        if (dim := graph.values[node.output].shape[1]) > target.max_dim:
            raise GraphError(
                f"{node.output}: max_dim={target.max_dim}: must be at least its dim={dim}"
            )


def compile(
    graph: Graph, design: CardConfig | Target | str, cards: int = 1, *,
    transfers: Transfers | None = None, in_flight: int | None = None,
    kept: Mapping[int, int] = {}, values: bool = True,
) -> Program:  # fmt: skip
    """Compiles a graph that works row by row for `cards` cards.

    Parameters
    ----------
    graph : Graph with a batch
    design : configuration of every card, or the name of a preset, or another target
    cards : int
    transfers : Transfers or None for its defaults
    in_flight : int, requests that are worked on at a time; by default as many as a request takes
        part in rounds: more would only wait
    kept : position of the card that holds a table already, by number of the embedding bag
    values : bool; without, weights are not read, and the program has all but them: it tells what it
        costs, and cannot be saved or deployed. Constants may then be arrays without memory, such as
        `np.broadcast_to` makes

    Raises what `placement` raises, and `GraphError` for what no card can do.
    """
    if in_flight is not None:
        in_flight = arguments.integer("in_flight", in_flight, 1, MOST_IN_FLIGHT)
    if transfers is not None and not isinstance(transfers, Transfers):
        raise ValueError(f"transfers: is a {type(transfers).__name__}, must be Transfers or None")
    target = target_of(design)
    placed = placement(graph, target, cards, kept)
    how = transfers or Transfers()
    made = _Compilation(graph, target, cards, how, in_flight, placed, {})
    if cuts := made.cuts():
        cut = _Compilation(graph, target, cards, how, in_flight, placed, cuts)
        made = cut if cut.spares(made) else made
    program = made.program(values)
    target.check(program)
    return program


class _Compilation:
    """The steps of a compilation, and what one leaves for the next.

    `cuts` says which products are done in strips, as `Lowering` takes it.
    """

    def __init__(
        self, graph: Graph, target: Target, cards: int, transfers: Transfers,
        in_flight: int | None, placement: Placement, cuts: Mapping[tuple[str, int], int],
    ):  # fmt: skip
        self._graph = graph
        self._target = target
        self._cards = cards
        self._transfers = transfers
        self._placement = placement
        nodes = bags.bag_nodes(graph)
        self._tasks: dict[str, list[Task]] = {node.output: [] for node in nodes}
        for task in self._placement.tasks:
            self._tasks[nodes[task.table].output].append(task)
        joins = Joins(graph, target, self._tasks, apart=not transfers.fused)
        self._lowering = Lowering(graph, target, shares(graph.batch or 0, cards), joins, cuts)
        self._bags = bags.Bags(self._lowering, self._tasks, transfers)
        self._inputs: list[tuple[RowsInput, list[Buffer]]] = []
        self._outputs: list[tuple[Output, list[Buffer]]] = []
        self._lower()
        commands = self._lowering.commands
        self._plan = schedule(commands, dependencies(commands, by_buffer))
        self._slots = in_flight or self._plan.stages
        self._placed = memory.plan(
            commands, self._plan, target.near, target.near_bytes, target.far, self._slots
        )
        self._traffic = memory.traffic(commands, self._placed, cards)

    def _lower(self) -> None:
        """Makes the commands of a request."""
        self._bags.lower()
        self._load_inputs()
        for node in self._graph.nodes:
            if node.op != "embedding_bag":
                lower(self._lowering, node)
        self._store_outputs()

    def cuts(self) -> dict[tuple[str, int], int]:
        """The products that are better done in strips, for what they read is not near."""
        target, memories = self._target, self._placed.memories
        found = {}
        for key, reading in self._lowering.readings.items():
            if memories[id(reading.buffer)] == target.far:
                found[key] = target.strip_height(
                    reading.window, reading.blocks, reading.row_bytes, self._slots
                )
        return {key: height for key, height in found.items() if height}

    def spares(self, other: "_Compilation") -> bool:
        """Whether far memory moves less than another way, and that takes about as long."""
        mine, theirs = (
            sum(each.get(self._target.far, 0.0) for each in made._traffic) for made in (self, other)
        )
        return mine < theirs and self._plan.interval <= SLOWER * other._plan.interval

    def _load_inputs(self) -> None:
        """Brings every card its rows of the inputs that are no bags."""
        lowering, word = self._lowering, self._target.word
        of_bags = bags.inputs(self._graph)
        for value in self._graph.inputs:
            if value.name in of_bags:
                continue
            if self._transfers.half_inputs and self._may_be_halved(value):
                lowering.formats[value.name] = ElementFormat.FLOAT16
            wire = DTYPES[lowering.format(value.name)]
            stride = round_up(lowering.row_bytes(value.name), word)
            pieces, buffers = [], []
            for card, share in enumerate(lowering.shares):
                if not len(share):
                    continue
                rows = lowering.rows(value.name, card)
                nbytes = rows * stride
                far = Buffer(value.name, HOST, nbytes)
                near = lowering.fresh(value.name, card, rows, stride)
                lowering.layouts[value.name, card] = near
                # In parts, so that whoever reads the first need not wait for the last.
                count = max(1, nbytes // self._target.load_bytes)
                for first, last in pairwise(rows * part // count for part in range(count + 1)):
                    part = (last - first) * stride
                    work = self._target.load(
                        Place(far, first * stride), near.place(first), part, part
                    )
                    lowering.add(card, work, value.name, writes=[near.region(1, part, first)])
                pieces.append(RowsPiece(len(buffers), 0, stride, share.start, share.stop))
                buffers.append(far)
            made = RowsInput(value.name, value.shape, str(value.dtype), str(wire), tuple(pieces))
            self._inputs.append((made, buffers))

    def _may_be_halved(self, value: Value) -> bool:
        """Whether only its numbers matter: commands read any format, but move what there is."""
        consumers = self._graph.consumers(value.name)
        moved = [node for node in consumers if node.op in (*JOINS, "reshape", "quantise")]
        is_moved = bool(moved) or value.name in self._graph.outputs
        return value.format is ElementFormat.FLOAT32 and not is_moved

    def _store_outputs(self) -> None:
        """Leaves every card's rows of the outputs in host memory."""
        lowering = self._lowering
        for name in self._graph.outputs:
            value, pieces, buffers = self._graph.values[name], [], []
            for card, share in enumerate(lowering.shares):
                if not len(share):
                    continue
                layout, row_bytes = lowering.layouts[name, card], lowering.row_bytes(name)
                stride, rows = round_up(row_bytes, self._target.word), lowering.rows(name, card)
                far = Buffer(name, HOST, rows * stride)
                width = stride if stride == layout.stride else row_bytes
                work = self._target.store_rows(
                    layout.place(), layout.stride, Place(far), stride, rows, width
                )
                lowering.add(card, work, "answers", reads=[layout.region(rows, row_bytes)])
                pieces.append(RowsPiece(len(buffers), 0, stride, share.start, share.stop))
                buffers.append(far)
            columns = lowering.joins.columns[name]
            wanted = np.argsort(columns, kind="stable")[(columns < 0).sum() :]
            made = Output(
                name, value.shape, str(value.dtype), tuple(map(int, wanted)), tuple(pieces)
            )
            self._outputs.append((made, buffers))

    def program(self, values: bool) -> Program:
        """The program, whose weights hold something only with `values`."""
        plan, placed = self._plan, self._placed

        def where(region):
            buffer = region.buffer
            if buffer.contents is not None:
                return id(buffer), 0
            return (buffer.position, placed.memories[id(buffer)]), placed.offsets[id(buffer)]

        order = events.ordered(self._lowering.commands, plan)
        waits = events.waits(order, dependencies(order, where, queued=True), plan)
        order, waits, before = events.with_fences(order, waits, self._target)
        segments = Segments(placed, values)
        made = parts(order, waits, before, plan, segments, self._cards, self._target)

        def moved(piece, buffers):
            segment = segments.of(buffers[piece.segment])[0]
            return type(piece)(**asdict(piece) | {"segment": segment})

        def with_segments(made, buffers):
            pieces = tuple(moved(piece, buffers) for piece in made.pieces)
            return type(made)(**vars(made) | {"pieces": pieces})

        stagings = [
            type(each)(**vars(each) | {"segment": segments.of(buffer)[0]})
            for each, buffer in zip(self._bags.stagings, self._bags.buffers, strict=True)
        ]
        return Program(
            target=self._target.name, design=self._target.design, slots=self._slots,
            batch=self._graph.batch or 0, stages=plan.stages, syncs=plan.syncs,
            symbols=self._bags.symbols,
            inputs=tuple(with_segments(*each) for each in self._inputs),
            bags=tuple(self._bags.inputs), stagings=tuple(stagings),
            outputs=tuple(with_segments(*each) for each in self._outputs),
            segments=tuple(segments.found), parts=made, weights=segments.weights,
            about=self._about(plan),
        )  # fmt: skip

    def _about(self, plan: Schedule) -> dict[str, object]:
        commands = self._lowering.commands
        busy: list[dict[str, float]] = [{} for _ in range(self._cards)]
        for command in commands:
            mine, queue = busy[command.position], str(command.queue)
            mine[queue] = mine.get(queue, 0.0) + command.cycles
        return {
            "interval_cycles": plan.interval,
            "latency_cycles": max(plan.starts[c] + c.cycles for c in commands),
            "busy_cycles": busy,
            "traffic_bytes": self._traffic,
            "gather_imbalance": self._placement.imbalance,
            "transfers": asdict(self._transfers),
            "tables": {
                name: [[t.card, *_ends(t.samples), *_ends(t.columns)] for t in tasks]
                for name, tasks in self._tasks.items()
            },
        }


def _ends(part: range) -> tuple[int, int]:
    return part.start, part.stop
