"""A quantised DLRM served by all cards: tables sharded, dense nets replicated, batches in flight.

One batch: every card that owns tables loads its share of the indices, pools, quantises, and stores
its columns of the top net's input straight into the memory of the card whose turn it is; that card
has meanwhile run the bottom net, waits for its peers, runs the top net and stores the
probabilities in host memory. Nothing passes through the host in between.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from hdl.config import CardConfig
from host.driver.bus import DmaBuffer
from host.driver.completion import Completion
from host.driver.errors import CommandError
from host.models.features import Batch
from host.models.quantise import QuantisedDlrm
from host.runtime.layout import pad_rows
from host.runtime.member import PROBABILITY_BYTES, SLOTS, Logits, Member
from host.runtime.placement import TableLoad, place
from host.runtime.runtime import Runtime
from host.runtime.timeline import Event

LAG = 3
"""Batches issued between a batch and the delivery of its answers. That waits for a dense net, and
the pooled rows of later batches would wait behind it in the same queues."""


@dataclass(frozen=True)
class Answer:
    """What the cards said of one batch.

    `probabilities` of the label 1 are float32[samples]; `latency_cycles` runs from the first
    command that any card starts to the end of the last.
    """

    probabilities: np.ndarray
    dense_card: int
    latency_cycles: int


@dataclass
class _InFlight:
    """A batch the cards work on: its host memory, and the command ids of each card.

    `logits` is None once their delivery has been issued.
    """

    label: str
    samples: int
    dense: Member
    staging: list[DmaBuffer]
    landing: DmaBuffer
    submitted: list[list[int]]
    logits: Logits | None

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
        self.placement = placement(model, runtime.config, len(runtime.cards))
        self._members = [
            Member(
                card,
                model,
                {
                    index: card.table(model.tables[index])
                    for index, owner in enumerate(self.placement)
                    if owner == card.index
                },
                batch_size,
            )
            for card in runtime.cards
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
        # A card's slot for the top input is free again once the batch that used it is answered.
        most = SLOTS * len(self._members)
        try:
            for number, batch in enumerate(batches):
                if len(flying) == most:
                    answers.append(self._land(flying.popleft(), progress))
                flying.append(self._launch(number, batch))
                if len(flying) > LAG:
                    self._deliver(flying[-1 - LAG])
            for batch in flying:
                self._deliver(batch)
            while flying:
                answers.append(self._land(flying.popleft(), progress))
        except CommandError:
            for left in flying:
                with suppress(CommandError):  # the first failure is the one to tell
                    self._land(left, lambda samples: None)
            raise
        return answers

    def _launch(self, number: int, batch: Batch) -> _InFlight:
        members, label = self._members, f"batch {number}"
        dense = members[number % len(members)]
        joined = dense.joined[number // len(members) % SLOTS]
        staging: list[DmaBuffer] = []
        arrivals: list[Event] = []
        for member in members:
            if member.tables:
                bags = member.pack(batch)
                staging.append(self._stage(bags.raw))
                arrivals += member.pool(batch, bags, staging[-1], dense, joined, label)
        rows = np.ascontiguousarray(batch.dense, np.float32).view(np.uint8)
        staging.append(self._stage(pad_rows(rows, dense.floats_stride)))
        landing = self._runtime.platform.bus.map(len(batch) * self._runtime.config.bus_bytes)
        logits = dense.run_dense(len(batch), staging[-1], joined, arrivals, label)
        submitted = [member.card.timeline.flush() for member in members]
        return _InFlight(label, len(batch), dense, staging, landing, submitted, logits)

    def _deliver(self, batch: _InFlight) -> None:
        """Issues the store of a batch's answers, once."""
        if batch.logits is not None:
            card = batch.dense.card
            batch.dense.deliver(batch.logits, batch.landing, batch.label)
            batch.submitted[card.index] += card.timeline.flush()
            batch.logits = None

    def _stage(self, values: np.ndarray) -> DmaBuffer:
        """uint8[n] in host memory that cards can read."""
        buffer = self._runtime.platform.bus.map(values.size)
        buffer.array[: values.size] = values
        return buffer

    def _land(self, batch: _InFlight, progress: Callable[[int], None]) -> Answer:
        """Waits for one batch and gives its host memory back, whatever became of it."""
        self._deliver(batch)
        completions: list[Completion] = []
        failures: list[CommandError] = []
        for member, identifiers in zip(self._members, batch.submitted, strict=True):
            try:
                completions += member.card.timeline.wait(identifiers)
            except CommandError as error:
                failures.append(error)
        rows = batch.landing.array.reshape(batch.samples, -1)[:, :PROBABILITY_BYTES]
        probabilities = rows.copy().view(np.float32)[:, 0]
        batch.release()
        if failures:
            raise failures[0]
        first = min(completion.start_cycle for completion in completions)
        last = max(completion.end_cycle for completion in completions)
        progress(batch.samples)
        return Answer(probabilities, batch.dense.card.index, last - first)
