"""Batches under way: issued to all cards of a model, several at a time, landed in order.

One batch: every card that owns tables loads its indices, pools all samples, and stores its columns
of each card's share of the samples straight into that card's memory. Every card meanwhile runs the
bottom net on its share, waits for its peers, runs the top net, and stores probabilities in host
memory. Nothing passes through the host in between, but for pooled rows where `Transfers` says so.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from halfdome.host.driver.bus import Bus, DmaBuffer
from halfdome.host.driver.completion import Completion
from halfdome.host.driver.errors import CommandError, DataLost
from halfdome.host.models.features import Batch
from halfdome.host.runtime.dense import PROBABILITY_BYTES, Logits
from halfdome.host.runtime.layout import pad_rows
from halfdome.host.runtime.member import IN_FLIGHT, Member, Pooled
from halfdome.host.runtime.timeline import Event
from halfdome.host.runtime.transfers import Transfers

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
    sent, `relays` where they are for the others to fetch, events after which its `bottoms` and all
    `arrivals` of pooled rows are in the top net's input, `logits` not yet delivered. `stages_left`
    are those of `STAGES` to issue.
    """

    number: int
    label: str
    slot: int
    shares: list[range]
    landing: DmaBuffer
    submitted: list[list[int]]
    arrivals: list[list[Event]]
    alarms: int
    staging: list[DmaBuffer] = field(default_factory=list)
    pooled: dict[int, Pooled] = field(default_factory=dict)
    relays: dict[int, DmaBuffer] = field(default_factory=dict)
    bottoms: dict[int, Event] = field(default_factory=dict)
    logits: dict[int, Logits] = field(default_factory=dict)
    stages_left: deque[str] = field(default_factory=lambda: deque(STAGES))
    completed: list[Completion] = field(default_factory=list)
    failures: list[CommandError] = field(default_factory=list)

    @property
    def samples(self) -> int:
        return self.shares[-1].stop

    def buffers(self) -> list[DmaBuffer]:
        """All host memory of the batch."""
        return [*self.staging, *self.relays.values(), self.landing]


def shares(samples: int, cards: int) -> list[range]:
    """The samples of a batch whose dense nets each card runs: as equal as can be."""
    ends = [samples * card // cards for card in range(cards + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


class Pipeline:
    """The batches that the cards of a model work on.

    Cards are told apart by their position among `members`.
    """

    def __init__(self, bus: Bus, members: Sequence[Member], transfers: Transfers):
        self._bus = bus
        self._members = members
        self._transfers = transfers
        self._issued = 0
        self._flying: deque[_InFlight] = deque()

    @property
    def numbers(self) -> list[int]:
        """The batches under way, oldest first."""
        return [batch.number for batch in self._flying]

    @property
    def has_room(self) -> bool:
        """Whether another batch may be issued."""
        return len(self._flying) < IN_FLIGHT

    def issue(self, number: int, batch: Batch) -> None:
        """Hands a batch to the cards, and what they can now do of those before it."""
        flight = _InFlight(
            number,
            f"batch {number}",
            self._issued % IN_FLIGHT,
            shares(len(batch), len(self._members)),
            self._bus.map(len(batch) * self._members[0].card.config.bus_bytes),
            [[] for _ in self._members],
            [[] for _ in self._members],
            self._alarms(),
        )
        self._issued += 1
        self._flying.append(flight)
        self._pool(flight, batch)
        self._advance(len(self._flying) - 1)

    def land(self, last: bool) -> Answer:
        """The answer of the oldest batch, whose host memory is given back whatever became of it.

        `last` says that no other will be issued before the next `land`. Raises `CommandError` for
        the first of its commands that failed, but for one whose PCIe read failed before others, and
        `DataLost` if a card or the root port has told of an error since it was issued.
        """
        if last:
            for beyond in range(max(STAGE_LAGS.values())):
                self._advance(len(self._flying) + beyond)
        flight = self._flying[0]
        self._issue(flight, "deliver")
        self._finish(flight)
        self._flying.popleft()
        rows = flight.landing.array.reshape(flight.samples, -1)[:, :PROBABILITY_BYTES]
        probabilities = rows.copy().view(np.float32)[:, 0]
        for buffer in flight.buffers():
            buffer.release()
        for failure in flight.failures:
            if failure.is_transfer:
                raise failure
        if self._alarms() != flight.alarms:  # then others may have failed because of that
            raise DataLost("a write was refused by a card or by the root port: it never arrived")
        if flight.failures:
            raise flight.failures[0]
        first = min(command.start_cycle for command in flight.completed)
        last_end = max(command.end_cycle for command in flight.completed)
        return Answer(probabilities, last_end - first)

    def abandon(self) -> list[DmaBuffer]:
        """Forgets every batch. Returns their host memory, which a card may still write."""
        left = [buffer for flight in self._flying for buffer in flight.buffers()]
        for flight in self._flying:
            for member, identifiers in zip(self._members, flight.submitted, strict=True):
                member.card.device.forget(identifiers)
        self._flying.clear()
        return left

    def _alarms(self) -> int:
        return sum(member.card.device.alarms for member in self._members)

    def _pool(self, flight: _InFlight, batch: Batch) -> None:
        """Issues what every card pools of a batch."""
        features = np.asarray(batch.dense, np.float32)
        if self._transfers.half_inputs:
            features = features.astype(np.float16)
        rows = np.ascontiguousarray(features).view(np.uint8)
        self._stage(flight, pad_rows(rows, self._members[0].dense.features_stride))
        for member in self._members:
            if member.tables:
                bags = member.pack(batch)
                staging = self._stage(flight, bags.raw)
                flight.pooled[member.position] = member.pool(batch, bags, staging, flight.label)
            self._flush(flight, member)

    def _advance(self, newest: int) -> None:
        """Issues what the batches can do when the one at place `newest`, or beyond, is pooled."""
        for stage, lag in STAGE_LAGS.items():
            if 0 <= newest - lag < len(self._flying):
                self._issue(self._flying[newest - lag], stage)

    def _issue(self, flight: _InFlight, stage: str) -> None:
        """Issues what is left of a batch up to and with `stage`."""
        while stage in flight.stages_left:
            following = flight.stages_left.popleft()
            if following == "run_top" and flight.relays:
                self._finish(flight)  # what the cards sent is in host memory then
            issue = getattr(self, f"_{following}")
            for member, share in zip(self._members, flight.shares, strict=True):
                issue(flight, member, share)
                self._flush(flight, member)

    def _run_bottom(self, flight: _InFlight, member: Member, share: range) -> None:
        if not len(share):
            return
        features = flight.staging[0].address + share.start * member.dense.features_stride
        flight.bottoms[member.position] = member.dense.run_bottom(
            len(share), features, member.joined[flight.slot], f"{flight.label} bottom"
        )

    def _send(self, flight: _InFlight, member: Member, share: range) -> None:
        pooled = flight.pooled.pop(member.position, None)
        if pooled is None:
            return
        relay = None
        if not self._transfers.peer_pooling:
            relay = self._bus.map(flight.samples * member.width)
            flight.relays[member.position] = relay
        sent = member.send(pooled, flight.shares, self._members, flight.slot, relay, flight.label)
        for position, event in sent.items():
            flight.arrivals[position].append(event)

    def _run_top(self, flight: _InFlight, member: Member, share: range) -> None:
        if not len(share):
            return
        arrivals = flight.arrivals[member.position]
        for position, relay in flight.relays.items():
            if position != member.position:
                sender = self._members[position]
                arrivals.append(member.receive(sender, relay, share, flight.slot, flight.label))
        flight.logits[member.position] = member.dense.run_top(
            len(share), member.joined[flight.slot], flight.bottoms[member.position],
            arrivals, f"{flight.label} top",
        )  # fmt: skip

    def _deliver(self, flight: _InFlight, member: Member, share: range) -> None:
        if not len(share):
            return
        landing = flight.landing.address + share.start * member.card.config.bus_bytes
        member.dense.deliver(flight.logits.pop(member.position), landing, flight.label)

    def _stage(self, flight: _InFlight, values: np.ndarray) -> DmaBuffer:
        """uint8[n] in host memory that cards can read."""
        flight.staging.append(self._bus.map(values.size))
        flight.staging[-1].array[: values.size] = values
        return flight.staging[-1]

    def _flush(self, flight: _InFlight, member: Member) -> None:
        identifiers = member.card.timeline.flush(as_list=self._transfers.command_lists)
        flight.submitted[member.position] += identifiers

    def _finish(self, flight: _InFlight) -> None:
        """Waits for everything that has been submitted for a batch so far."""
        for member in self._members:
            identifiers, flight.submitted[member.position] = flight.submitted[member.position], []
            try:
                flight.completed += member.card.timeline.wait(identifiers)
            except CommandError as failure:
                flight.failures.append(failure)
