"""A quantised DLRM served by all cards: tables sharded, dense nets replicated, batches in flight.

One batch: every card that owns tables loads its indices, pools all samples, and stores its columns
of each card's share of the samples straight into that card's memory. Every card meanwhile runs the
bottom net on its share, waits for its peers, runs the top net, and stores probabilities in host
memory. Nothing passes through the host in between.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from hdl.config import CardConfig
from host.driver.bus import DmaBuffer
from host.driver.completion import Completion
from host.driver.errors import CommandError
from host.models.features import Batch
from host.models.quantise import QuantisedDlrm
from host.runtime.dense import PROBABILITY_BYTES, Logits
from host.runtime.layout import pad_rows
from host.runtime.member import IN_FLIGHT, Member
from host.runtime.placement import TableLoad, place
from host.runtime.runtime import Runtime
from host.runtime.timeline import Event

TOP_LAG = 1
"""Batches pooled between a batch and its top net. That waits for the slowest card's rows, and what
a card pools for that batch's successors must not wait behind it."""
ANSWER_LAG = 3
"""Batches pooled between a batch and the delivery of its answers, which waits for its dense nets,
while the pooled rows of later batches would wait behind it in the same queues."""


@dataclass(frozen=True)
class Answer:
    """What the cards said of one batch.

    `probabilities` of the label 1 are float32[samples]; `latency_cycles` runs from the first
    command that any card starts to the end of the last.
    """

    probabilities: np.ndarray
    latency_cycles: int


@dataclass
class _InFlight:
    """A batch the cards work on: its host memory, and the command ids of each card.

    `staging` holds the dense features and the bags of each card. `bottoms[card]` and
    `arrivals[card]` are the events after which the card's rows of the top net's input are there.
    `logits` are those of each card whose top net has been issued and whose answers have not.
    """

    label: str
    slot: int
    shares: list[range]
    staging: list[DmaBuffer]
    landing: DmaBuffer
    submitted: list[list[int]]
    bottoms: dict[int, Event]
    arrivals: list[list[Event]]
    logits: dict[int, Logits] = field(default_factory=dict)
    top_issued: bool = False

    @property
    def samples(self) -> int:
        return self.shares[-1].stop

    def release(self) -> None:
        """Gives the host memory back; no command may be using it."""
        for buffer in (*self.staging, self.landing):
            buffer.release()


def placement(model: QuantisedDlrm, config: CardConfig, cards: int) -> list[int]:
    """The card of each table, half of every DRAM being left to weights and buffers.

    Raises `ValueError` for a model that this configuration cannot serve and `MemoryError` for a
    table that fits on no card.
    """
    dim = model.architecture.dim
    if dim % config.bus_bytes:
        raise ValueError(
            f"bus_bytes={config.bus_bytes}: columns of the top input are stored card to card in "
            f"whole bus words, so it must divide the model's dim={dim}"
        )
    if dim > config.max_dim:
        raise ValueError(f"max_dim={config.max_dim}: must be at least the model's dim={dim}")
    loads = [
        TableLoad(*table.shape, length)
        for table, length in zip(model.tables, model.mean_bag_length, strict=True)
    ]
    return place(loads, cards, config.dram_bytes // 2)


def shares(samples: int, cards: int) -> list[range]:
    """The samples of a batch whose dense nets each card runs: as equal as can be."""
    ends = [samples * card // cards for card in range(cards + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


class Recommender:
    """Answers batches with a model placed on the cards of a runtime.

    Parameters
    ----------
    runtime : Runtime
    model : QuantisedDlrm
    batch_size : int, the most samples of a batch

    Raises `ValueError` for a model that the configuration cannot serve and `MemoryError` if
    tables, weights or buffers do not fit.
    """

    def __init__(self, runtime: Runtime, model: QuantisedDlrm, batch_size: int):
        self._runtime = runtime
        self._batch_size = batch_size
        cards = len(runtime.cards)
        self.placement = placement(model, runtime.config, cards)
        share = -(-batch_size // cards)
        self._members = [
            Member(card, model, self.placement, batch_size, share) for card in runtime.cards
        ]

    def answer(
        self, batches: Sequence[Batch], progress: Callable[[int], None] = lambda samples: None
    ) -> list[Answer]:
        """Answers every batch, several in flight; `progress` is told of each batch's samples.

        Raises `CommandError` if a command of a batch failed, once nothing is in flight any more.
        """
        for batch in batches:
            if not 1 <= len(batch) <= self._batch_size:
                raise ValueError(f"batch of {len(batch)} samples: must be 1 to {self._batch_size}")
        for member in self._members:
            member.reserve_indices(
                max((member.pack(batch).raw.size for batch in batches), default=0)
            )
        answers: list[Answer] = []
        flying: deque[_InFlight] = deque()
        try:
            for number, batch in enumerate(batches):
                if len(flying) == IN_FLIGHT:
                    answers.append(self._land(flying.popleft(), progress))
                flying.append(self._pool(number, batch))
                if len(flying) > TOP_LAG:
                    self._run_top(flying[-1 - TOP_LAG])
                if len(flying) > ANSWER_LAG:
                    self._deliver(flying[-1 - ANSWER_LAG])
            for batch in flying:
                self._run_top(batch)
            while flying:
                answers.append(self._land(flying.popleft(), progress))
        except CommandError:
            for left in flying:
                with suppress(CommandError):  # the first failure is the one to tell
                    self._land(left, lambda samples: None)
            raise
        return answers

    def _pool(self, number: int, batch: Batch) -> _InFlight:
        """Issues what brings each card its rows of the top net's input, bottom net included."""
        members, label, slot = self._members, f"batch {number}", number % IN_FLIGHT
        parts = shares(len(batch), len(members))
        rows = np.ascontiguousarray(batch.dense, np.float32).view(np.uint8)
        staging = [self._stage(pad_rows(rows, members[0].dense.floats_stride))]
        arrivals: list[list[Event]] = [[] for _ in members]
        bottoms: dict[int, Event] = {}
        for member, share in zip(members, parts, strict=True):
            pooled = None
            if member.tables:
                bags = member.pack(batch)
                staging.append(self._stage(bags.raw))
                pooled = member.pool(batch, bags, staging[-1], label)
            # Before this card's own pooled rows, for which later commands of that queue wait.
            if len(share):
                features = staging[0].address + share.start * member.dense.floats_stride
                bottoms[member.card.index] = member.dense.run_bottom(
                    len(share), features, member.joined[slot], f"{label} bottom"
                )
            if pooled:
                for card, event in member.send(pooled, parts, members, slot, label).items():
                    arrivals[card].append(event)
        landing = self._runtime.platform.bus.map(len(batch) * self._runtime.config.bus_bytes)
        submitted = [member.card.timeline.flush() for member in members]
        return _InFlight(label, slot, parts, staging, landing, submitted, bottoms, arrivals)

    def _run_top(self, batch: _InFlight) -> None:
        """Issues the top net of a batch on every card that has a share of it, once."""
        if batch.top_issued:
            return
        batch.top_issued = True
        for member, share in zip(self._members, batch.shares, strict=True):
            if len(share):
                card = member.card.index
                batch.logits[card] = member.dense.run_top(
                    len(share), member.joined[batch.slot], batch.bottoms[card],
                    batch.arrivals[card], f"{batch.label} top",
                )  # fmt: skip
                batch.submitted[card] += member.card.timeline.flush()

    def _deliver(self, batch: _InFlight) -> None:
        """Issues the delivery of a batch's answers, once."""
        self._run_top(batch)
        word = self._runtime.config.bus_bytes
        for card, logits in batch.logits.items():
            member = self._members[card]
            landing = batch.landing.address + batch.shares[card].start * word
            member.dense.deliver(logits, landing, batch.label)
            batch.submitted[card] += member.card.timeline.flush()
        batch.logits = {}

    def _stage(self, values: np.ndarray) -> DmaBuffer:
        """uint8[n] in host memory that cards can read."""
        buffer = self._runtime.platform.bus.map(values.size)
        buffer.array[: values.size] = values
        return buffer

    def _land(self, batch: _InFlight, progress: Callable[[int], None]) -> Answer:
        """Waits for one batch and gives its host memory back, whatever became of it."""
        self._deliver(batch)
        commands: list[Completion] = []
        failures: list[CommandError] = []
        for member, identifiers in zip(self._members, batch.submitted, strict=True):
            try:
                commands += member.card.timeline.wait(identifiers)
            except CommandError as error:
                failures.append(error)
        rows = batch.landing.array.reshape(batch.samples, -1)[:, :PROBABILITY_BYTES]
        probabilities = rows.copy().view(np.float32)[:, 0]
        batch.release()
        if failures:
            raise failures[0]
        first = min(command.start_cycle for command in commands)
        last = max(command.end_cycle for command in commands)
        progress(batch.samples)
        return Answer(probabilities, last - first)
