"""What each layer of a model took and moved, and what bounds it, by a request that cards ran.

A layer is what a graph's nodes of one label became, or what brings inputs and takes outputs away.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod

import numpy as np

from halfdome.hdl.commands import Engine, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.host.compiler import needs, traffic
from halfdome.host.compiler.halfdome import HalfdomeTarget
from halfdome.host.compiler.needs import Need
from halfdome.host.compiler.operands import Decoded, decoded
from halfdome.host.runtime.flights import Response
from halfdome.host.runtime.program import HOST, Program, ProgramError

MOVED = (traffic.LINK, "dram", "scratchpad")
LONG, NEAR, START = 20_000, 1.1, 200
"""Cycles of its bound from which on a layer should take no more than so many times as long; what is
shorter, no more than so many cycles longer."""


@dataclass(frozen=True)
class Layer:
    """One layer. What the host computes has the first five alone.

    Attributes
    ----------
    name : str
    operators : of the graph's nodes, or what the commands are if it has none
    where : "cards" or "host"
    reason : str, why it is on the host
    seconds : float, of the card that is busiest with it, or of the host
    commands : int, on all cards
    busy_cycles : int, of its commands one after the other, on the card that is busiest with it
    ran_cycles : int, in which one of its commands or more ran there
    shared_cycles : int, of these, in which other layers' commands ran, too
    span_cycles : int, from its first command's start to the end of its last, on any card
    macs : int, useful multiply-accumulates of all cards
    mac_utilisation : float, of what the array could have done in the time of its products, those
        that the vector engine does included; None without
    moved_bytes : by `MOVED`, all cards together; what arrives over a link is written to memory, too
    least_bytes : int, each operand and result moved once, of weights once on each card
    bound_cycles : what `halfdome.host.compiler.costs` expects of each resource that it uses, on the
        card that is busiest with it
    bound : str, the resource that takes longest of these
    of_bound : float, `ran_cycles` over the cycles of that resource, less than 1 where `costs`
        expects more than it took; None if it expects nothing
    """

    name: str
    operators: tuple[str, ...]
    where: str = "cards"
    reason: str = ""
    seconds: float = 0.0
    commands: int = 0
    busy_cycles: int = 0
    ran_cycles: int = 0
    shared_cycles: int = 0
    span_cycles: int = 0
    macs: int = 0
    mac_utilisation: float | None = None
    moved_bytes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(MOVED, 0))
    least_bytes: int = 0
    bound_cycles: Mapping[str, float] = field(default_factory=dict)
    bound: str = ""
    of_bound: float | None = None

    @property
    def is_near_bound(self) -> bool:
        """Whether it takes no more than it should: `NEAR` of its bound, or `START` beyond it."""
        bound = self.bound_cycles.get(self.bound, 0.0)
        return self.ran_cycles <= (NEAR * bound if bound >= LONG else bound + START)


@dataclass(frozen=True)
class Layers:
    """The layers of one request, in the order in which they began.

    Attributes
    ----------
    layers : tuple of Layer
    rows : int, samples of the request
    cards : int, those that worked on it
    latency_cycles : int
    """

    layers: tuple[Layer, ...]
    rows: int
    cards: int
    latency_cycles: int

    @property
    def moved_bytes(self) -> dict[str, int]:
        """Of all layers, by `MOVED`."""
        return {kind: sum(layer.moved_bytes[kind] for layer in self.layers) for kind in MOVED}

    @property
    def least_bytes(self) -> int:
        """Of all layers."""
        return sum(layer.least_bytes for layer in self.layers)

    @property
    def beyond(self) -> list[str]:
        """Names of the layers that take more than they should, of those that have a bound."""
        return [layer.name for layer in self.layers if layer.bound and not layer.is_near_bound]

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self) | {
            "moved_bytes": self.moved_bytes, "least_bytes": self.least_bytes, "beyond": self.beyond,
        }  # fmt: skip


def of(program: Program, config: CardConfig, response: Response) -> Layers:
    """The layers of a request.

    Parameters
    ----------
    program : Program for Halfdome cards
    config : CardConfig of the cards
    response : Response of that program

    Raises `ProgramError` for a program of other cards, and `ValueError` for a response of another.
    """
    if (program.target, program.design) != (HalfdomeTarget.name, config.hash):
        raise ProgramError(
            f"the program is for {program.target} {program.design}, the configuration is "
            f"{HalfdomeTarget.name} {config.hash}: give that of the cards"
        )
    shapes = [(len(part), 2) for part in program.parts]
    if [spans.shape for spans in response.spans] != shapes:
        raise ValueError("response: its spans are not of this program's commands: give its own")
    return _Account(program, config, response).layers()


def moved_bytes(program: Program, config: CardConfig, response: Response) -> Counter[str]:
    """What a request moved as a whole, by `MOVED`, all cards together."""
    total: Counter[str] = Counter()
    for part, spans in zip(program.parts, response.spans, strict=True):
        commands = decoded(part, response.symbols)
        for start, command in zip(spans[:, 0].tolist(), commands, strict=True):
            if start >= 0:
                total += traffic.moved(command, program.segments, config)
    return total


@dataclass(frozen=True)
class _Ran:
    """A command that ran."""

    layer: str
    position: int
    start: int
    end: int
    command: Decoded
    moved: Counter[str]

    @property
    def cycles(self) -> int:
        return self.end - self.start


class _Account:
    """One request of a program."""

    def __init__(self, program: Program, config: CardConfig, response: Response):
        self._program = program
        self._config = config
        self._response = response
        self._rows = len(next(iter(response.outputs.values())))
        self._needs = needs.of(program)
        self._transfers = self._host_bytes()

    def layers(self) -> Layers:
        """All of them."""
        groups = self._groups()
        everything = [each for ran in groups.values() for each in ran]
        layers = [self._layer(name, ran, everything) for name, ran in groups.items()]
        cards = {each.position for each in everything}
        return Layers(tuple(layers), self._rows, len(cards), self._response.latency_cycles)

    def _groups(self) -> dict[str, list[_Ran]]:
        """The commands that ran by the layer that they belong to, which is the one that makes a
        tensor if their label is that tensor's name."""
        makers = {made: name for name, need in self._needs.items() for made in need.makes}
        groups: dict[str, list[_Ran]] = {}
        parts = zip(self._program.parts, self._response.spans, strict=True)
        for position, (part, spans) in enumerate(parts):
            commands = decoded(part, self._response.symbols)
            for name, (start, end), command in zip(
                part.labels, spans.tolist(), commands, strict=True
            ):
                if start >= 0:
                    layer = name if name in self._needs else makers.get(name, name)
                    moved = traffic.moved(command, self._program.segments, self._config)
                    groups.setdefault(layer, []).append(
                        _Ran(layer, position, start, end, command, moved)
                    )
        return dict(sorted(groups.items(), key=lambda group: min(each.start for each in group[1])))

    def _layer(self, name: str, ran: Sequence[_Ran], everything: Sequence[_Ran]) -> Layer:
        segments, config = self._program.segments, self._config
        busy: Counter[int] = Counter()
        moved: Counter[str] = Counter()
        for each in ran:
            busy[each.position] += each.cycles
            moved += each.moved
        busiest, busy_cycles = max(busy.items(), key=lambda item: item[1])
        expected: Counter[str] = Counter()
        for each in ran:
            if each.position == busiest:
                expected += traffic.cycles(each.command, each.moved, segments, config)
        here = [each for each in everything if each.position == busiest]
        others = [each for each in here if each.layer != name]
        ran_cycles = _covered(each for each in ran if each.position == busiest)
        bound = max(expected, key=lambda resource: expected[resource], default="")
        need = self._needs.get(name)
        macs = self._rows * need.macs if need else 0
        products = sum(each.cycles for each in ran if _multiplies(each.command.opcode))
        done = (each.command.opcode for each in ran if not each.command.opcode.is_fence)
        operators = need.operators if need else dict.fromkeys(each.name.lower() for each in done)
        array = config.array_rows * config.array_columns
        return Layer(
            name, tuple(operators),
            seconds=busy_cycles / (config.clock_mhz * 1e6), commands=len(ran),
            busy_cycles=busy_cycles, ran_cycles=ran_cycles,
            shared_cycles=ran_cycles + _covered(others) - _covered(here),
            span_cycles=max(each.end for each in ran) - min(each.start for each in ran),
            macs=macs, mac_utilisation=macs / (array * products) if products else None,
            moved_bytes={kind: moved[kind] for kind in MOVED},
            least_bytes=self._least(need, ran), bound_cycles=dict(expected), bound=bound,
            of_bound=ran_cycles / expected[bound] if bound and expected[bound] else None,
        )  # fmt: skip

    # The least that must move

    def _host_bytes(self) -> dict[int, int]:
        """What of each segment in host memory a request needs."""
        needed: Counter[int] = Counter()
        program = self._program
        for each in (*program.inputs, *program.outputs):
            dtype = getattr(each, "wire_dtype", each.dtype)
            for piece in each.pieces:
                rows = max(0, min(self._rows, piece.stop) - piece.start)
                needed[piece.segment] += rows * _row_bytes(each.shape, dtype)
        for staging in program.stagings:
            needed[staging.segment] += int(self._response.symbols[staging.symbol])
        return needed

    def _least(self, need: Need | None, ran: Iterable[_Ran]) -> int:
        """Transfers from end to end, rows that embedding bags were asked for, and the need."""
        touched, positions, pooled = set(), set(), 0
        for each in ran:
            positions.add(each.position)
            touched |= {
                number
                for number, _ in each.command.places.values()
                if self._program.segments[number].position == HOST
            }
            if each.command.opcode.engine is Engine.GATHER:
                pooled += sum(each.moved.values())
        total = pooled + 2 * sum(self._transfers[number] for number in touched)
        if need:
            total += self._rows * need.sample_bytes + len(positions) * need.constant_bytes
        return total


def _covered(ran: Iterable[_Ran]) -> int:
    """Cycles in which at least one of some commands ran."""
    total = reached = 0
    for each in sorted(ran, key=lambda each: each.start):
        total += max(0, each.end - max(each.start, reached))
        reached = max(reached, each.end)
    return total


def _multiplies(opcode: Opcode) -> bool:
    return opcode.engine is Engine.MATMUL or opcode is Opcode.DEPTHWISE


def _row_bytes(shape: Sequence[int], dtype: str) -> int:
    return prod(shape[1:]) * np.dtype(dtype).itemsize
