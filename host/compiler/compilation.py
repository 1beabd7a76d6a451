"""The steps from a graph to a program: lowered, cut into strips, scheduled, placed, written."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import asdict
from math import inf

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host.compiler import bags, events, memory, needs, pipeline, staging, windows
from halfdome.host.compiler.commands import Buffer, Command, Contents, Place
from halfdome.host.compiler.division import (
    Cores,
    Division,
    by_sections,
)
from halfdome.host.compiler.joins import JOINS, Joins
from halfdome.host.compiler.lower import lower
from halfdome.host.compiler.lowering import Lowering
from halfdome.host.compiler.order import by_buffer, dependencies, one_by_one
from halfdome.host.compiler.parts import parts
from halfdome.host.compiler.placement import Placement, Task
from halfdome.host.compiler.schedule import IN_TURN, schedule
from halfdome.host.compiler.segments import Segments
from halfdome.host.compiler.target import Target
from halfdome.host.graph.graph import Graph
from halfdome.host.graph.values import DTYPES, Value
from halfdome.host.runtime.program import Output, Program, RowsInput, RowsPiece
from halfdome.host.runtime.transfers import Transfers

LEAST_IN_FLIGHT = 2
"""So many at least, unless one alone takes about as long: queues have what comes next when a
request ends."""
NEXT_CYCLES = 600
"""From the end of a request to the start of the next if the host has to see the first done."""
AGAIN = 2
"""Times that all is placed again once it is known what finds no near memory: where it lies says how
long far memory takes, which says who pools what."""
SLOWER = 1.02
"""How much longer a request may take that spares far memory."""


class Compilation:
    """The steps of a compilation, and what one leaves for the next."""

    def __init__(
        self, graph: Graph, target: Target, placed: Placement, transfers: Transfers,
        in_flight: int | None, cores: Cores,
    ):  # fmt: skip
        self._cores = cores
        self._graph = graph
        self._target = target
        self._transfers = transfers
        self._in_flight = in_flight
        self._placement = placed
        self._sections: dict[str, int] = {}
        self._apart = False
        # When all was placed before, what found no near memory, and how long far memory took.
        self._far: set[Contents] = set()
        self._far_time = 0.0
        self._padded = False  # whether rows of tables lie apart in far memory
        nodes = bags.bag_nodes(graph)
        self._tasks: dict[str, list[Task]] = {node.output: [] for node in nodes}
        for task in placed.tasks:
            self._tasks[nodes[task.table].output].append(task)
        # Several cores divide the tables of a card among them: each sends from a bus word on.
        apart = not transfers.fused or (placed.cards > 1 and len(cores.pooling) > 1)
        self._joins = Joins(graph, target, self._tasks, apart)

    def pipeline(self, cards: int) -> None:
        """Cuts the graph into sections that fit: what buffers take is known when all is placed."""
        steps = pipeline.rehearse(self._graph, self._target, self._joins)
        rooms = [self._target.far_bytes] * cards
        while True:
            sections = pipeline.cut(steps, rooms, self._target.far_bytes)
            self.divide(by_sections(self._graph, cards, sections))
            self._sections = {
                node.output: at for node, at in zip(self._graph.nodes, sections, strict=True)
            }
            if self.fits:
                return
            for card, excess in enumerate(self._excess):
                if excess > 0:
                    rooms[card] = self._target.far_bytes - self._buffer_bytes(card)

    def divide(self, division: Division) -> None:
        """Lowers the graph and places what its commands use, by a division: for requests one at a
        time, which have all near memory, if that spares far memory and takes about as long."""
        self._in_strips(division, self._in_flight)
        if self._tasks and len(self._cores.pooling) > 1:
            self._far = self._far_contents()
            for self._padded in (True, False):
                for _ in range(AGAIN):
                    self._far_time = self._far_cycles
                    self._in_strips(division, self._in_flight)
                if self.fits:
                    break
        if self._in_flight or self._tasks or self._schedule.latency > SLOWER * self._interval():
            return
        several = copy(self)
        self._in_strips(division, 1)
        if not self._spares(several):
            vars(self).update(vars(several))

    def _far_contents(self) -> set[Contents]:
        return {
            buffer.held
            for buffer in memory.buffers(self._lowering.commands)
            if buffer.contents is not None and self._placed.memories[id(buffer)] == self._target.far
        }

    def _in_strips(self, division: Division, slots: int | None) -> None:
        """Products whose operand is far away are done in strips, if that spares far memory and
        takes about as long."""
        self._divide(division, {}, slots)
        uncut, cuts, tried = copy(self), {}, set()
        for _ in range(staging.TRIES):
            # Strips that are near now may have sent an operand away that was near before.
            fresh = {key: height for key, height in self._cuts().items() if key not in tried}
            lower = staging.lower(self._lowering, self._placed.memories) | fresh
            if lower == cuts:
                break
            cuts = lower
            tried |= cuts.keys()
            self._divide(division, cuts, slots)
        if cuts and not self._spares(uncut):
            vars(self).update(vars(uncut))

    def apart(self) -> None:
        """Orders the layers of what was divided last one after the other, cut as they are, for as
        many requests."""
        self._apart = True
        self._divide(self._lowering.division, self._lowering.cuts, self._slots)

    def _cuts(self) -> dict[tuple[str, int], int]:
        """Rows of y in a strip, for products that are better done so: what they read is far."""
        target, memories = self._target, self._placed.memories
        found = {}
        for key, reading in self._lowering.readings.items():
            if memories[id(reading.buffer)] == target.far:
                found[key] = target.strip_height(
                    reading.window, reading.blocks, reading.row_bytes, self._slots, reading.alone
                )
        return {key: height for key, height in found.items() if height}

    def _spares(self, other: "Compilation") -> bool:
        """Whether far memory moves less than another way, and that takes about as long."""
        mine, theirs = (
            sum(each.get(self._target.far, 0.0) for each in made._traffic) for made in (self, other)
        )
        return mine < theirs and self._interval() <= SLOWER * other._interval()

    def _interval(self) -> float:
        """Cycles from one request to the next, taps in far memory included."""
        taken = windows.far_cycles(self._lowering, self._placed.memories)
        return max(self.period, *taken)

    @property
    def period(self) -> float:
        """Cycles from one request to the next, by what commands are expected to take."""
        return self._schedule.interval if self._slots > 1 else self._schedule.latency + NEXT_CYCLES

    @property
    def _fetching(self) -> float:
        """Cycles that the card takes longest that is told of the commands of a request."""
        by_card: dict[int, list[Command]] = defaultdict(list)
        for command in self._lowering.commands:
            by_card[command.position].append(command)
        return max(map(self._target.fetching, by_card.values()))

    @property
    def is_short(self) -> bool:
        """Whether commands of a request take about as long to come as to run."""
        return 2 * self._fetching > self.period

    @property
    def interval(self) -> float:
        """Cycles from one request to the next, those included in which commands come, and far
        memory serves all cores of a card."""
        return max(self.period, self._fetching, self._far_cycles)

    @property
    def _far_cycles(self) -> float:
        """Cycles that far memory of any card takes for a request."""
        moved = (each.get(self._target.far, 0.0) for each in self._traffic)
        return max(map(self._target.far_cycles, moved))

    def _divide(
        self, division: Division, cuts: Mapping[tuple[str, int], int], slots: int | None
    ) -> None:
        self._lowering = Lowering(self._graph, self._target, division, self._joins, cuts)
        self._bags = bags.Bags(
            self._lowering, self._tasks, self._transfers, self._cores.pooling, self._far,
            self._far_time, self._padded,
        )  # fmt: skip
        self._inputs: list[tuple[RowsInput, list[Buffer]]] = []
        self._outputs: list[tuple[Output, list[Buffer]]] = []
        self._lower()
        dealt = self._target.over_cores(self._lowering.commands, self._cores, self._far)
        commands = self._lowering.commands = self._target.in_bands(dealt)
        if self._apart:
            one_by_one(commands)
        longer = inf if self._apart or slots == 1 else IN_TURN
        least = self._far_time if self._bags.paced else 0.0
        self._schedule = schedule(commands, dependencies(commands, by_buffer), longer, least)
        self._slots = slots or max(LEAST_IN_FLIGHT, self._schedule.stages)
        self._place()
        while not (self.fits or slots or self._tasks) and self._slots > 1:
            self._slots -= 1
            self._place()
        self._traffic = memory.traffic(commands, self._placed, len(division.shares))

    def _lower(self) -> None:
        self._bags.lower()
        self._load_inputs()
        for node in self._graph.nodes:
            if node.op != "embedding_bag":
                lower(self._lowering, node)
                pipeline.hand_on(self._lowering, node.output)
        self._store_outputs()

    def _place(self) -> None:
        target = self._target
        self._placed = memory.plan(
            self._lowering.commands, self._schedule, target.near, target.near_bytes, target.far,
            self._slots, target.far_banks, target.line,
        )  # fmt: skip

    def _buffer_bytes(self, card: int) -> int:
        """What buffers of requests take of a card's large memory."""
        return self._slots * self._placed.arena_bytes.get((card, self._target.far), 0)

    @property
    def _excess(self) -> list[int]:
        """Bytes by which each card's large memory is too small."""
        placed, far = self._placed, self._target.far
        return [
            placed.contents_bytes.get((card, far), 0)
            + self._buffer_bytes(card) - self._target.far_bytes
            for card in range(len(self._lowering.shares))
        ]  # fmt: skip

    @property
    def fits(self) -> bool:
        """Whether every card has memory for its weights and all requests in flight."""
        return max(self._excess) <= 0

    def program(self, values: bool) -> Program:
        """What was divided last, as a program, whose weights hold something only with `values`."""
        plan, placed = self._schedule, self._placed

        def where(region):
            buffer = region.buffer
            if buffer.contents is not None:
                return id(buffer), 0
            return (buffer.position, placed.memories[id(buffer)]), placed.offsets[id(buffer)]

        order = events.ordered(self._lowering.commands, plan)
        waits = events.waits(order, dependencies(order, where, queued=True), plan)
        order, waits, before = events.with_fences(order, waits, self._target)
        segments = Segments(placed, values)
        made = parts(order, waits, before, plan, segments, len(self._lowering.shares), self._target)

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
            firsts=tuple(share.start for share in self._lowering.shares),
            inputs=tuple(with_segments(*each) for each in self._inputs),
            bags=tuple(self._bags.inputs), stagings=tuple(stagings),
            outputs=tuple(with_segments(*each) for each in self._outputs),
            segments=tuple(segments.found), parts=made, weights=segments.weights,
            about=self._about(),
        )  # fmt: skip

    def _staged(self, name: str) -> dict[range, tuple[int, Buffer]]:
        """Host memory for a tensor: for each share of its samples a card that has it, and room."""
        lowering = self._lowering
        return {
            lowering.shares[card]: (card, lowering.staging(name, card))
            for card in lowering.division.makers[name]
        }

    def _pieces(self, name: str, samples: Iterable[range]) -> tuple[RowsPiece, ...]:
        stride = self._lowering.wire_stride(name)
        return tuple(
            RowsPiece(place, 0, stride, share.start, share.stop)
            for place, share in enumerate(samples)
        )

    def _load_inputs(self) -> None:
        """Brings every card its rows of the inputs that are no bags."""
        lowering = self._lowering
        of_bags = bags.inputs(self._graph)
        for value in self._graph.inputs:
            if value.name in of_bags:
                continue
            if self._transfers.half_inputs and self._may_be_halved(value):
                lowering.formats[value.name] = ElementFormat.FLOAT16
            staged = self._staged(value.name)
            for card in lowering.division.makers[value.name]:
                lowering.load(value.name, card, staged[lowering.shares[card]][1])
            made = RowsInput(
                value.name, value.shape, str(value.dtype), str(DTYPES[lowering.format(value.name)]),
                self._pieces(value.name, staged),
            )  # fmt: skip
            self._inputs.append((made, [buffer for _, buffer in staged.values()]))

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
            value, staged = self._graph.values[name], self._staged(name)
            stride, row_bytes = lowering.wire_stride(name), lowering.row_bytes(name)
            for card, far in staged.values():
                layout, rows = lowering.layouts[name, card], lowering.rows(name, card)
                width = stride if stride == layout.stride else row_bytes
                work = self._target.store_rows(
                    layout.place(), layout.stride, Place(far), stride, rows, width
                )
                lowering.add(card, work, "answers", reads=[layout.region(rows, row_bytes)])
            columns = lowering.joins.columns[name]
            wanted = np.argsort(columns, kind="stable")[(columns < 0).sum() :]
            made = Output(
                name, value.shape, str(value.dtype), tuple(map(int, wanted)),
                self._pieces(name, staged),
            )  # fmt: skip
            self._outputs.append((made, [buffer for _, buffer in staged.values()]))

    def _about(self) -> dict[str, object]:
        commands = self._lowering.commands
        busy: list[dict[str, float]] = [{} for _ in self._lowering.shares]
        for command in commands:
            mine, queue = busy[command.position], str(command.queue)
            mine[queue] = mine.get(queue, 0.0) + command.cycles
        return {
            "interval_cycles": self.interval,
            "latency_cycles": self._schedule.latency,
            "busy_cycles": busy,
            "traffic_bytes": self._traffic,
            "gather_imbalance": self._placement.imbalance,
            "transfers": asdict(self._transfers),
            "layers": needs.plain(self._graph, self._lowering.format),
            "sections": self._sections,
            "cores": list(self._cores.all),
            "cores_sparse": self._cores.sparse,
            "tables": {
                name: [[t.card, *_ends(t.samples), *_ends(t.columns)] for t in tasks]
                for name, tasks in self._tasks.items()
            },
        }


def _ends(part: range) -> tuple[int, int]:
    return part.start, part.stop
