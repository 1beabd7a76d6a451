"""One card's part in serving a recommendation model: its tables, its share of the dense nets.

Methods only issue commands; the caller flushes the timelines of all cards and waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hdl.commands import ElementFormat, Opcode
from host.driver.bus import DmaBuffer
from host.models.features import Batch
from host.models.quantise import INTERACTION_ZERO_POINT, QuantisedDlrm
from host.runtime.buffers import Buffer, Matrix, Ring
from host.runtime.card import Card
from host.runtime.dense import DenseNet, copy, float_bits
from host.runtime.layout import round_up
from host.runtime.timeline import Event

IN_FLIGHT = 8
"""Most batches that the cards work on: each has its own copy of the top net's input."""
_SLOTS = 3
"""Copies of the buffers of tables, so that one batch is pooled while another is sent."""


@dataclass(frozen=True)
class PackedBags:
    """One card's lengths and indices of a batch as one run of bytes.

    `places[table]` holds the byte offsets of the table's lengths and of its indices.
    """

    raw: np.ndarray = field(repr=False)
    places: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Pooled:
    """Rows of a batch, the columns of a card's tables side by side, after `gathered`."""

    buffer: Buffer
    gathered: Event


class Member:
    """One card with its share of a model in its memory.

    The top net's input has the bottom net's columns first, then those of each card's tables: a
    card sends its columns of a peer's samples in one piece.

    Parameters
    ----------
    card : Card
    model : QuantisedDlrm
    placement : the card of each table
    samples : int, the most samples of a batch
    share : int, the most of them whose dense nets run here

    Raises `MemoryError` if weights, buffers and tables do not fit.
    """

    def __init__(
        self, card: Card, model: QuantisedDlrm, placement: Sequence[int], samples: int, share: int
    ):
        dim = model.architecture.dim
        order = sorted(range(len(placement)), key=lambda table: placement[table])
        mine = [table for table in order if placement[table] == card.index]
        self.card = card
        self._model = model
        self._dim = dim
        self._width = len(mine) * dim
        self._column = dim * (1 + (order.index(mine[0]) if mine else 0))
        columns = model.architecture.top_columns([0, *(1 + table for table in order)])
        stride = (1 + len(order)) * dim
        self.dense = DenseNet(card, model, columns, share, IN_FLIGHT)
        self.joined = [Matrix(card.place(share * stride).address, stride) for _ in range(IN_FLIGHT)]
        self._indices: Ring | None = None
        if mine:
            self._pooled = Ring(card, samples * self._width, _SLOTS)
        # What is gathered most often has the first claim to what the scratchpad has left.
        costliest = sorted(mine, key=lambda t: -model.mean_bag_length[t])
        tables = {table: card.table(model.tables[table], near=True) for table in costliest}
        self.tables = {table: tables[table] for table in mine}

    def pack(self, batch: Batch) -> PackedBags:
        """What this card needs to pool its tables for a batch."""
        word = self.card.config.bus_bytes
        pieces = [np.zeros(0, np.uint8)]
        places: dict[int, tuple[int, int]] = {}
        end = 0
        for table in self.tables:
            bags, starts = batch.sparse[table], []
            for values in (bags.lengths, bags.indices):
                raw = np.ascontiguousarray(values, np.int32).view(np.uint8)
                padded = np.zeros(round_up(raw.size, word), np.uint8)
                padded[: raw.size] = raw
                pieces.append(padded)
                starts.append(end)
                end += padded.size
            places[table] = (starts[0], starts[1])
        return PackedBags(np.concatenate(pieces), places)

    def reserve_indices(self, nbytes: int) -> None:
        """Makes room for packed bags of up to `nbytes`; no batch may be in flight."""
        if nbytes and (self._indices is None or self._indices.nbytes < nbytes):
            if self._indices:
                self._indices.release()
                self._indices = None
            self._indices = Ring(self.card, nbytes, _SLOTS)

    def pool(self, batch: Batch, bags: PackedBags, staging: DmaBuffer, label: str) -> Pooled:
        """Pools every table of this card, of which there must be one, straight to uint8."""
        if self._indices is None:
            raise ValueError("reserve_indices: must come before the first batch")
        indices, pooled = self._indices.take(), self._pooled.take()
        stride = round_up(bags.raw.size, self.card.config.bus_bytes)
        ready = self.card.timeline.issue(
            Opcode.LOAD,
            after=indices.free_after,
            label=f"{label} indices",
            source=staging.address,
            source_stride=stride,
            destination=indices.block.address,
            destination_stride=stride,
            rows=1,
            row_bytes=bags.raw.size,
        )
        after = (ready, *pooled.free_after)
        for position, (index, table) in enumerate(self.tables.items()):
            lengths_at, indices_at = bags.places[index]
            ready = self.card.timeline.issue(
                Opcode.GATHER,
                after=after,
                label=f"{label} table {index}",
                table=table.block.address,
                lengths=indices.block.address + lengths_at,
                indices=indices.block.address + indices_at,
                output=pooled.block.address + position * self._dim,
                rows=table.rows,
                index_count=len(batch.sparse[index].indices),
                bags=len(batch),
                row_stride=table.row_bytes,
                dim=table.dim,
                output_stride=self._width,
                output_format=ElementFormat.UINT8,
                multiplier=float_bits(self._model.pooled_multiplier[index]),
                zero_point=INTERACTION_ZERO_POINT,
            )
            after = ()
        indices.give_back(ready)
        return Pooled(pooled, ready)

    def send(
        self, pooled: Pooled, shares: Sequence[range], peers: Sequence["Member"], slot: int,
        label: str,
    ) -> dict[int, Event]:  # fmt: skip
        """Brings each peer the rows of its share, into its input number `slot`.

        Returns for each card that has a share the event, of that card, after which its rows are
        there.
        """
        arrivals: dict[int, Event] = {}
        sent: list[Event] = []
        rows = Matrix(pooled.buffer.block.address, self._width)
        # The next card first: so no two cards send to the same one at the same time.
        for step in range(len(peers)):
            peer = peers[(self.card.index + 1 + step) % len(peers)]
            share = shares[peer.card.index]
            if not len(share):
                continue
            target = Matrix(peer.joined[slot].address + self._column, peer.joined[slot].stride)
            source = rows.rows_from(share.start)
            if peer is self:
                sent.append(
                    copy(
                        self.card.timeline, source, target, len(share), self._width,
                        (pooled.gathered,), f"{label} own",
                    )
                )  # fmt: skip
                arrivals[peer.card.index] = sent[-1]
                continue
            sent.append(
                self.card.timeline.issue(
                    Opcode.STORE,
                    after=(pooled.gathered,),
                    label=f"{label} to card {peer.card.index}",
                    source=source.address,
                    source_stride=source.stride,
                    destination=peer.card.device.bar2 + target.address,
                    destination_stride=target.stride,
                    rows=len(share),
                    row_bytes=self._width,
                )
            )
            arrivals[peer.card.index] = self.card.timeline.notify(
                peer.card.device, label=f"{label} sent"
            )
        pooled.buffer.give_back(*sent)
        return arrivals
