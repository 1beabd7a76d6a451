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
from host.runtime.member import IN_FLIGHT, Member, Pooled
from host.runtime.placement import TableLoad, place
from host.runtime.runtime import Runtime
from host.runtime.timeline import Event

STAGES = ("run_bottom", "send", "run_top", "deliver")
"""What follows the pooling of a batch, in the order in which it needs one another."""
STAGE_LAGS = {"run_top": 2, "run_bottom": 0, "deliver": 3, "send": 1}
"""What is issued after the pooling of a batch, and for which batch: the one so many before it.

A card takes commands in the order in which they are issued, and stops at one whose queue is full.
What waits longest therefore comes last: rows are sent when the gathers are done, and those of the
next batch must be at hand by then; a top net waits for the slowest card's rows."""


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

    `staging` holds the dense features, then the bags of each card. By card: `pooled` rows not yet
    sent, events after which its `bottoms` and all `arrivals` of pooled rows are in the top net's
    input, `logits` not yet delivered. `stages_left` are those of `STAGES` to issue.
    """

    label: str
    slot: int
    shares: list[range]
    staging: list[DmaBuffer]
    landing: DmaBuffer
    submitted: list[list[int]]
    pooled: dict[int, Pooled]
    arrivals: list[list[Event]]
    bottoms: dict[int, Event] = field(default_factory=dict)
    logits: dict[int, Logits] = field(default_factory=dict)
    stages_left: deque[str] = field(default_factory=lambda: deque(STAGES))

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
            for number in range(len(batches) + max(STAGE_LAGS.values())):
                if number < len(batches):
                    if len(flying) == IN_FLIGHT:
                        answers.append(self._land(flying.popleft(), progress))
                    flying.append(self._pool(number, batches[number]))
                for stage, lag in STAGE_LAGS.items():
                    position = number - lag - len(answers)
                    if 0 <= position < len(flying):
                        self._issue(flying[position], stage)
            while flying:
                answers.append(self._land(flying.popleft(), progress))
        except CommandError:
            for left in flying:
                with suppress(CommandError):  # the first failure is the one to tell
                    self._land(left, lambda samples: None)
            raise
        return answers

    def _pool(self, number: int, batch: Batch) -> _InFlight:
        """Issues what every card pools of a batch."""
        members, label = self._members, f"batch {number}"
        rows = np.ascontiguousarray(batch.dense, np.float32).view(np.uint8)
        staging = [self._stage(pad_rows(rows, members[0].dense.floats_stride))]
        pooled = {}
        for member in members:
            if member.tables:
                bags = member.pack(batch)
                staging.append(self._stage(bags.raw))
                pooled[member.card.index] = member.pool(batch, bags, staging[-1], label)
        return _InFlight(
            label=label,
            slot=number % IN_FLIGHT,
            shares=shares(len(batch), len(members)),
            staging=staging,
            landing=self._runtime.platform.bus.map(len(batch) * self._runtime.config.bus_bytes),
            submitted=[member.card.timeline.flush() for member in members],
            pooled=pooled,
            arrivals=[[] for _ in members],
        )

    def _issue(self, batch: _InFlight, stage: str) -> None:
        """Issues what is left of a batch up to and with `stage`."""
        while stage in batch.stages_left:
            issue = getattr(self, f"_{batch.stages_left.popleft()}")
            for member, share in zip(self._members, batch.shares, strict=True):
                issue(batch, member, share)
                batch.submitted[member.card.index] += member.card.timeline.flush()

    def _run_bottom(self, batch: _InFlight, member: Member, share: range) -> None:
        if not len(share):
            return
        features = batch.staging[0].address + share.start * member.dense.floats_stride
        batch.bottoms[member.card.index] = member.dense.run_bottom(
            len(share), features, member.joined[batch.slot], f"{batch.label} bottom"
        )

    def _send(self, batch: _InFlight, member: Member, share: range) -> None:
        pooled = batch.pooled.pop(member.card.index, None)
        if pooled is None:
            return
        sent = member.send(pooled, batch.shares, self._members, batch.slot, batch.label)
        for card, event in sent.items():
            batch.arrivals[card].append(event)

    def _run_top(self, batch: _InFlight, member: Member, share: range) -> None:
        if not len(share):
            return
        card = member.card.index
        batch.logits[card] = member.dense.run_top(
            len(share), member.joined[batch.slot], batch.bottoms[card],
            batch.arrivals[card], f"{batch.label} top",
        )  # fmt: skip

    def _deliver(self, batch: _InFlight, member: Member, share: range) -> None:
        if not len(share):
            return
        landing = batch.landing.address + share.start * self._runtime.config.bus_bytes
        member.dense.deliver(batch.logits.pop(member.card.index), landing, batch.label)

    def _stage(self, values: np.ndarray) -> DmaBuffer:
        """uint8[n] in host memory that cards can read."""
        buffer = self._runtime.platform.bus.map(values.size)
        buffer.array[: values.size] = values
        return buffer

    def _land(self, batch: _InFlight, progress: Callable[[int], None]) -> Answer:
        """Waits for one batch and gives its host memory back, whatever became of it."""
        self._issue(batch, "deliver")
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
