"""From a graph to a program for so many cards of one target."""

from collections.abc import Mapping, Sequence

from halfdome.hdl.config import MOST_CARDS, CardConfig, preset
from halfdome.host import arguments
from halfdome.host.compiler import bags
from halfdome.host.compiler.compilation import Compilation
from halfdome.host.compiler.division import (
    Cores,
    Parallelism,
    by_samples,
    kept_apart,
    shares,
)
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.placement import Placement, place
from halfdome.host.compiler.target import NEAR_SHARE, Target
from halfdome.host.graph import operator, operators
from halfdome.host.graph.graph import Graph
from halfdome.host.graph.values import GraphError
from halfdome.host.runtime.program import Program
from halfdome.host.runtime.transfers import Transfers

TABLE_SHARE = 0.5
"""What of a card's large memory tables may take; the rest is for weights and buffers."""
MOST_IN_FLIGHT = 64
"""Requests that a program may work on at a time."""
SMALL_SHARE = 1 / 64
"""What of its near memory a table may take to be on every card."""


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
    return place(bags.loads_of(graph, target), samples, capacity, small, near, kept)


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
    kept: Mapping[int, int] = {}, parallelism: Parallelism | str | None = None,
    values: bool = True, apart: bool = False, cores: Sequence[int] | None = None,
    cores_sparse: int | None = None,
) -> Program:  # fmt: skip
    """Compiles a graph that works row by row for `cards` cards.

    Parameters
    ----------
    graph : Graph with a batch
    design : configuration of every card, or the name of a preset, or another target
    cards : int
    transfers : Transfers or None for its defaults
    in_flight : int, requests that are worked on at a time; by default as many as a request takes
        part in rounds, for more would only wait, two at the least, or as there is memory for; one
        if its tensors are then nearer, and it takes about as long
    kept : position of the card that holds a table already, by number of the embedding bag
    parallelism : Parallelism or its value; by default that of data, or of a pipeline for a graph
        without embedding bags whose weights and buffers do not fit every card
    values : bool; without, weights are not read, and the program has all but them: it tells what it
        costs, and cannot be saved or deployed. Constants may then be arrays without memory, such as
        `np.broadcast_to` makes
    apart : bool; each layer of a card begins when the one before has ended, so that what a layer
        takes can be measured without what others take of the card meanwhile
    cores : numbers of the cores of each card that run it; by default all, or half as many, and so
        on, if the commands of each take so long to come that fewer answer more requests
    cores_sparse : int, how many of them pool embedding bags and do nothing else; if none, all do
        everything. By default what is expected to answer most requests

    Raises what `placement` raises, `GraphError` for what no card can do, and `MemoryError` for
    sections of a pipeline that fit no card.
    """
    if in_flight is not None:
        in_flight = arguments.integer("in_flight", in_flight, 1, MOST_IN_FLIGHT)
    if transfers is not None and not isinstance(transfers, Transfers):
        raise ValueError(f"transfers: is a {type(transfers).__name__}, must be Transfers or None")
    if parallelism is not None:
        parallelism = arguments.choice("parallelism", parallelism, Parallelism)
    target = target_of(design)
    chosen = chosen_cores(cores, target.cores)
    placed, tables = placement(graph, target, cards, kept), bags.bag_nodes(graph)
    if cores_sparse is not None:
        cores_sparse = sparse_cores(cores_sparse, chosen)
    if parallelism is Parallelism.PIPELINE and tables:
        raise operator.refuse(
            tables[0], "the tables of embedding bags lie on all cards, and are no part of a "
            "pipeline: compile the graph with parallelism='data'"
        )  # fmt: skip

    def tried(shared: Cores) -> Compilation:
        made = Compilation(graph, target, placed, transfers or Transfers(), in_flight, shared)
        if parallelism is not Parallelism.PIPELINE:
            made.divide(by_samples(graph, cards))
        if parallelism is Parallelism.PIPELINE or not (parallelism or tables or made.fits):
            made.pipeline(cards)
        return made

    def best(chosen: Sequence[int]) -> Compilation:
        some = range(len(chosen)) if tables else range(1)
        ways = some if cores_sparse is None else [cores_sparse]
        return min((tried(kept_apart(chosen, way)) for way in ways), key=lambda each: each.interval)

    made, count = best(chosen), len(chosen)
    while cores is None and made.is_short and (count := count // 2) > (cores_sparse or 0):
        fewer = best(chosen[:count])
        if fewer.interval > made.interval:
            break
        made = fewer
    if apart:
        made.apart()
    program = made.program(values)
    target.check(program)
    return program


def chosen_cores(cores: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The cores of each card that run a program, of so many. Raises `ValueError` for others."""
    if cores is None:
        return tuple(range(count))
    if isinstance(cores, str) or not isinstance(cores, Sequence):
        raise ValueError(f"cores: is a {type(cores).__name__}, must be numbers of cores")
    numbers = [arguments.integer("cores", core, 0) for core in cores]
    for core in numbers:
        if core >= count:
            raise ValueError(f"cores={core}: a card has {count}, numbered from 0")
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"cores={numbers}: must be one at least, and each once")
    return tuple(sorted(numbers))


def sparse_cores(cores_sparse: int, cores: Sequence[int]) -> int:
    """How many of `cores` are kept for embedding bags. Raises `ValueError` for too many."""
    sparse = arguments.integer("cores_sparse", cores_sparse, 0)
    if sparse >= len(cores):
        raise ValueError(
            f"cores_sparse={sparse}: one of {len(cores)} cores at least does everything else, so "
            f"at most {len(cores) - 1}"
        )
    return sparse
