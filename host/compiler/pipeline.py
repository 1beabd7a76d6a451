"""A graph as a pipeline: a section of its nodes on each card, tensors handed on from card to card.

Sections follow the order of the nodes, so that tensors only ever go to later cards: no two cards
wait for each other. Where nodes are cut apart is decided by what each is expected to take, which a
lowering of the whole graph to one card tells.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halfdome.host.compiler.commands import Place, Work
from halfdome.host.compiler.division import by_samples
from halfdome.host.compiler.joins import Joins
from halfdome.host.compiler.lower import lower
from halfdome.host.compiler.lowering import Lowering, label
from halfdome.host.compiler.target import Target
from halfdome.host.driver.layout import round_up
from halfdome.host.graph.graph import Graph


@dataclass(frozen=True)
class Step:
    """What a node costs.

    Attributes
    ----------
    label : str
    weight_bytes : int, as much as they take in a card's memory
    cycles : what each queue of the card that runs it is busy
    handing_on : what sends its output to another card
    last : int, number of the last node that reads its output; -1 if none does
    """

    label: str
    weight_bytes: int
    cycles: Counter[int]
    handing_on: Work
    last: int


def rehearse(graph: Graph, target: Target, joins: Joins) -> list[Step]:
    """What every node costs for all samples of a request; an input counts where it is first read,
    an output of the graph where it is made."""
    lowering = Lowering(graph, target, by_samples(graph, 1), joins)
    last = {name: n for n, node in enumerate(graph.nodes) for name in node.inputs}
    waiting = {value.name for value in graph.inputs}
    steps = []
    for node in graph.nodes:
        first = len(lowering.commands)
        for name in sorted(waiting.intersection(node.inputs)):
            lowering.load(name, 0, lowering.staging(name, 0))
            waiting.remove(name)
        lower(lowering, node)
        mine = lowering.commands[first:]
        cycles: Counter[int] = Counter()
        for command in mine:
            cycles[command.queue] += command.cycles  # type: ignore[assignment]
        layout, rows = lowering.layouts[node.output, 0], lowering.rows(node.output, 0)
        handing_on = target.store_rows(
            layout.place(), layout.stride, Place(lowering.staging(node.output, 0)),
            lowering.wire_stride(node.output), rows, lowering.row_bytes(node.output),
        )  # fmt: skip
        if node.output in graph.outputs:
            cycles[handing_on.queue] += handing_on.cycles  # type: ignore[assignment]
        held = {region.buffer for command in mine for region in command.reads}
        nbytes = sum(
            round_up(buffer.nbytes, target.line) for buffer in held if buffer.contents is not None
        )
        reader = last.get(node.output, -1)
        steps.append(Step(label(node), nbytes, cycles, handing_on, reader))
    return steps


def cut(steps: Sequence[Step], rooms: Sequence[int], far_bytes: int) -> list[int]:
    """The card of every node: the busiest queue of any card has as little to do as can be.

    Parameters
    ----------
    steps : of every node
    rooms : bytes that each card has for weights
    far_bytes : int, bytes of a card's large memory, for people

    Raises `MemoryError` if weights do not fit, naming a layer that fits on no card.
    """
    count = len(steps)
    origins, costs = _best(steps, rooms)
    used = int(np.argmin(costs[:, count]))
    if np.isinf(costs[used, count]):
        raise _too_large(steps, rooms, far_bytes)
    sections, stop = [0] * count, count
    for card in reversed(range(used)):
        start = int(origins[card + 1, stop])
        sections[start:stop] = [card] * (stop - start)
        stop = start
    return sections


def _best(steps: Sequence[Step], rooms: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For so many cards and the nodes before each: where the last section begins at best, and what
    the busiest queue has to do then."""
    count = len(steps)
    queues = sorted({queue for step in steps for queue in (*step.cycles, step.handing_on.queue)})
    done, handing_on = np.zeros((count + 1, len(queues))), np.zeros((count, len(queues)))
    for number, step in enumerate(steps):
        done[number + 1] = [step.cycles[queue] for queue in queues]
        handing_on[number, queues.index(step.handing_on.queue)] = step.handing_on.cycles
    done = done.cumsum(axis=0)
    weights = np.cumsum([0, *(step.weight_bytes for step in steps)])
    last = np.array([step.last for step in steps])
    costs = np.full((len(rooms) + 1, count + 1), np.inf)
    origins = np.zeros(costs.shape, int)
    costs[:, 0] = 0
    for stop in range(1, count + 1):
        spent = done[stop] - done[: stop + 1]  # by sections that begin at a node and end here
        leaving = np.where(last[:stop, None] >= stop, handing_on[:stop], 0)
        spent[:stop] += leaving[::-1].cumsum(axis=0)[::-1]
        busiest = spent.max(axis=1)
        for card, room in enumerate(rooms):
            fits = weights[stop] - weights[: stop + 1] <= room
            total = np.where(fits, np.maximum(costs[card, : stop + 1], busiest), np.inf)
            origins[card + 1, stop] = int(np.argmin(total))
            costs[card + 1, stop] = total.min()
    return origins, costs


def _too_large(steps: Sequence[Step], rooms: Sequence[int], far_bytes: int) -> MemoryError:
    room, cards = max(rooms), len(rooms)
    largest = max(steps, key=lambda step: step.weight_bytes)
    about = f"of whose {far_bytes} bytes buffers of requests take {far_bytes - room}"
    if largest.weight_bytes > room:
        return MemoryError(
            f"{largest.label}: its weights of {largest.weight_bytes} bytes fit no card, {about}: "
            "cut the layer, take a smaller batch, or cards with more memory"
        )
    total = sum(step.weight_bytes for step in steps)
    return MemoryError(
        f"weights of {total} bytes do not fit {cards} card{'s' * (cards > 1)}, {about}: take "
        f"{max(cards + 1, _fewest(steps, room))} cards at least, a smaller batch, or cards with "
        "more memory"
    )


def _fewest(steps: Sequence[Step], room: int) -> int:
    """The least number of sections none of which has more weights than there is room for."""
    cards, taken = 1, 0
    for step in steps:
        if taken + step.weight_bytes > room:
            cards, taken = cards + 1, 0
        taken += step.weight_bytes
    return cards


def hand_on(lowering: Lowering, name: str) -> None:
    """Sends a tensor straight to every card that reads it and does not make it: into the place
    where it is read, with a signal behind it."""
    division = lowering.division
    for peer in division.users[name]:
        if peer in division.makers[name]:
            continue
        (position,) = division.makers[name]
        rows, nbytes = lowering.rows(name, position), lowering.row_bytes(name)
        source, target = lowering.layouts[name, position], lowering.output(name, peer)
        target.buffer.exclusive = True
        work = lowering.target.store_rows(
            source.place(), source.stride, target.place(), target.stride, rows, nbytes
        )
        stored = lowering.add(
            position, work, f"to card {peer}", reads=[source.region(rows, nbytes)]
        )
        sent = lowering.add(
            position, lowering.target.signal(), "sent", tells=peer,
            writes=[target.region(rows, nbytes)],
        )  # fmt: skip
        sent.behind.append(stored)
