"""Who does what of a graph: each card all of it for some samples, or some for all samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from halfdome.host.graph.graph import Graph


class Parallelism(StrEnum):
    """What the cards that serve a graph divide between them."""

    #: The samples of a request: every card has all weights.
    DATA = "data"
    #: The nodes: every card has the weights of its section, and hands tensors on to the next.
    PIPELINE = "pipeline"


@dataclass(frozen=True)
class Division:
    """Which cards make and read what.

    Attributes
    ----------
    shares : samples of each card
    makers : for each input and each node's output the positions that load or compute it, each for
        its share
    users : the positions whose nodes read it
    """

    shares: tuple[range, ...]
    makers: Mapping[str, tuple[int, ...]]
    users: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Cores:
    """Which cores of each card do what.

    Attributes
    ----------
    dense : those that do all but pool
    pooling : those that pool embedding bags, which may be the same
    """

    dense: tuple[int, ...]
    pooling: tuple[int, ...]

    @property
    def sparse(self) -> int:
        """How many are kept for pooling."""
        return len(set(self.pooling) - set(self.dense))

    @property
    def all(self) -> tuple[int, ...]:
        """Those and those."""
        return tuple(sorted({*self.dense, *self.pooling}))


def kept_apart(cores: Sequence[int], sparse: int) -> Cores:
    """Of some cores the last `sparse` for pooling alone; if none is, all do everything."""
    dense = tuple(cores[: len(cores) - sparse])
    return Cores(dense, tuple(cores[len(dense) :]) or dense)


def shares(samples: int, cards: int) -> list[range]:
    """The samples of a request whose dense nets each card runs: as equal as can be."""
    ends = [samples * card // cards for card in range(cards + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


def by_samples(graph: Graph, cards: int) -> Division:
    """Every card that has samples runs all nodes."""
    parts = tuple(shares(graph.batch or 0, cards))
    busy = tuple(position for position, share in enumerate(parts) if len(share))
    everywhere = dict.fromkeys(_made(graph), busy)
    return Division(parts, everywhere, everywhere)


def by_sections(graph: Graph, cards: int, sections: Sequence[int]) -> Division:
    """Node `n` runs on card `sections[n]`; inputs are loaded wherever they are read."""
    place = {node.output: at for node, at in zip(graph.nodes, sections, strict=True)}
    readers: dict[str, set[int]] = {name: set() for name in _made(graph)}
    for node in graph.nodes:
        for name in readers.keys() & node.inputs:
            readers[name].add(place[node.output])
    users = {name: tuple(sorted(found)) for name, found in readers.items()}
    makers = {name: (place[name],) if name in place else users[name] or (0,) for name in users}
    return Division((range(graph.batch or 0),) * cards, makers, users)


def _made(graph: Graph) -> list[str]:
    return [value.name for value in graph.inputs] + [node.output for node in graph.nodes]
