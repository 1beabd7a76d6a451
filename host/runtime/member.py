"""One card's part in serving a recommendation model: its tables, its share of the dense nets.

Methods only issue commands; the caller flushes the timelines of all cards and waits.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.host.driver.bus import DmaBuffer
from halfdome.host.models.features import Batch
from halfdome.host.models.quantise import INTERACTION_ZERO_POINT, QuantisedDlrm
from halfdome.host.runtime.buffers import Buffer, Holding, Matrix, Ring
from halfdome.host.runtime.card import Card
from halfdome.host.runtime.dense import DenseNet, copy, float_bits
from halfdome.host.runtime.embedding import Table
from halfdome.host.runtime.layout import round_up
from halfdome.host.runtime.timeline import Event
from halfdome.host.runtime.transfers import Transfers

IN_FLIGHT = 8
"""Most batches that the cards work on: each has its own copy of the top net's input."""
_SLOTS = 3
"""Copies of the buffers of tables, so that one batch is pooled while another is sent."""


@dataclass(frozen=True)
class PackedBags:
    """One card's lengths and indices of a batch as one run of bytes.

    `places[table]` holds the byte offsets of the table's lengths and of its indices; `loads` are
    the offsets and sizes of what travels by itself.
    """

    raw: np.ndarray = field(repr=False)
    places: dict[int, tuple[int, int]]
    loads: tuple[tuple[int, int], ...]


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
    position : int, its place among the cards that serve the model
    model : QuantisedDlrm
    placement : the card of each table
    samples : int, the most samples of a batch
    share : int, the most of them whose dense nets run here
    transfers : Transfers
    tables : those that are in the card's memory already, by number

    Raises `MemoryError` if weights, buffers and tables do not fit. `dense.operands` must be
    brought to the card before the first batch.
    """

    def __init__(
        self, card: Card, position: int, model: QuantisedDlrm, placement: Sequence[int],
        samples: int, share: int, transfers: Transfers, tables: Mapping[int, Table],
    ):  # fmt: skip
        dim = model.architecture.dim
        order = sorted(range(len(placement)), key=lambda table: placement[table])
        mine = [table for table in order if placement[table] == card.index]
        self.card = card
        self.position = position
        self._memory = Holding(card)
        self._model = model
        self._samples = samples
        self._transfers = transfers
        self._dim = dim
        self.width = len(mine) * dim
        self._column = dim * (1 + (order.index(mine[0]) if mine else 0))
        columns = model.architecture.top_columns([0, *(1 + table for table in order)])
        stride = (1 + len(order)) * dim
        self.dense = DenseNet(
            card, self._memory, model, columns, share, IN_FLIGHT, transfers.half_inputs
        )
        self.joined = [
            Matrix(self._memory.place(share * stride).address, stride) for _ in range(IN_FLIGHT)
        ]
        self._indices: Ring | None = None
        self._longest = dict.fromkeys(mine, 1)
        if mine:
            self._pooled = Ring(self._memory, samples * self.width, _SLOTS)
        # What is gathered most often has the first claim to what the scratchpad has left.
        costliest = sorted(mine, key=lambda t: -model.mean_bag_length[t])
        placed: dict[int, Table] = {}
        with ExitStack() as unless_done:
            unless_done.callback(self.release)
            for table in costliest:
                if table not in tables:
                    placed[table] = card.table(model.tables[table], near=True)
                    unless_done.callback(card.release, placed[table].block)
            unless_done.pop_all()
        self.tables = {table: tables.get(table) or placed[table] for table in mine}

    def release(self) -> None:
        """Gives back all card memory but that of the tables; no command may be using it."""
        self._memory.release_all()

    def prepare(self, batches: Sequence[Batch]) -> None:
        """Makes room for the bags of any of the batches; none may be in flight."""
        for table in self.tables:
            longest = max((int(b.sparse[table].lengths.max()) for b in batches), default=1)
            self._longest[table] = max(self._longest[table], longest)
        nbytes = max((self.pack(batch).raw.size for batch in batches), default=0)
        if nbytes and (self._indices is None or self._indices.nbytes < nbytes):
            if self._indices:
                self._indices.release()
                self._indices = None
            self._indices = Ring(self._memory, nbytes, _SLOTS)

    def pack(self, batch: Batch) -> PackedBags:
        """What this card needs to pool its tables for a batch."""
        word = self.card.config.bus_bytes
        integer = np.dtype(np.int32 if self._transfers.narrow_indices else np.int64)
        pieces = [np.zeros(0, np.uint8)]
        places: dict[int, tuple[int, int]] = {}
        loads: list[tuple[int, int]] = []
        end = 0
        for table in self.tables:
            bags, starts = batch.sparse[table], []
            room = self._samples, self._samples * self._longest[table]
            for values, most in zip((bags.lengths, bags.indices), room, strict=True):
                raw = np.ascontiguousarray(values, integer).view(np.uint8)
                used = raw.size if self._transfers.partial_tensors else most * integer.itemsize
                padded = np.zeros(round_up(used, word), np.uint8)
                padded[: raw.size] = raw
                pieces.append(padded)
                starts.append(end)
                loads += [(end, used)] if used else []
                end += padded.size
            places[table] = (starts[0], starts[1])
        if self._transfers.fused:
            loads = [(0, end)]
        return PackedBags(np.concatenate(pieces), places, tuple(loads))

    def pool(self, batch: Batch, bags: PackedBags, staging: DmaBuffer, label: str) -> Pooled:
        """Pools every table of this card, of which there must be one, straight to uint8."""
        if self._indices is None:
            raise ValueError("prepare: must come before the first batch")
        indices, pooled = self._indices.take(), self._pooled.take()
        for offset, nbytes in bags.loads:
            stride = round_up(nbytes, self.card.config.bus_bytes)
            ready = self.card.timeline.issue(
                Opcode.LOAD,
                after=indices.free_after,
                label=f"{label} indices",
                source=staging.address + offset,
                source_stride=stride,
                destination=indices.block.address + offset,
                destination_stride=stride,
                rows=1,
                row_bytes=nbytes,
            )
        after = (ready, *pooled.free_after)
        for position, (index, table) in enumerate(self.tables.items()):
            lengths_at, indices_at = bags.places[index]
            ready = self.card.timeline.issue(
                Opcode.GATHER,
                after=after,
                label=f"{label} table {index}",
                flags=0 if self._transfers.narrow_indices else Flag.WIDE,
                table=table.block.address,
                lengths=indices.block.address + lengths_at,
                indices=indices.block.address + indices_at,
                output=pooled.block.address + position * self._dim,
                rows=table.rows,
                index_count=len(batch.sparse[index].indices),
                bags=len(batch),
                row_stride=table.row_bytes,
                dim=table.dim,
                output_stride=self.width,
                output_format=ElementFormat.UINT8,
                multiplier=float_bits(self._model.pooled_multiplier[index]),
                zero_point=INTERACTION_ZERO_POINT,
            )
            after = ()
        indices.give_back(ready)
        return Pooled(pooled, ready)

    def send(
        self, pooled: Pooled, shares: Sequence[range], peers: Sequence["Member"], slot: int,
        relay: DmaBuffer | None, label: str,
    ) -> dict[int, Event]:  # fmt: skip
        """Brings each peer the rows of its share, into its input number `slot`.

        Returns for the position of each card that has a share the event, of that card, after which
        its rows are there. With `relay`, host memory for all rows of the batch, they only go there,
        for `receive`; then this card alone has an event.
        """
        arrivals: dict[int, Event] = {}
        sent: list[Event] = []
        rows = Matrix(pooled.buffer.block.address, self.width)
        # The next card first: so no two cards send to the same one at the same time.
        for step in range(1, len(peers) + 1):
            peer = peers[(self.position + step) % len(peers)]
            share = shares[peer.position]
            if not len(share):
                continue
            source = rows.rows_from(share.start)
            if peer is self:
                sent.append(
                    copy(
                        self.card.timeline, source, self._columns_of(self, slot), len(share),
                        self.width, (pooled.gathered,), f"{label} own",
                    )
                )  # fmt: skip
                arrivals[peer.position] = sent[-1]
                continue
            name = f"{label} to card {peer.card.index}"
            if relay is not None:
                target = Matrix(relay.address, self.width).rows_from(share.start)
                sent += self._store(source, target, len(share), pooled.gathered, name)
                continue
            inside = self._columns_of(peer, slot)
            target = Matrix(peer.card.device.bar2 + inside.address, inside.stride)
            sent += self._store(source, target, len(share), pooled.gathered, name)
            arrivals[peer.position] = self.card.timeline.notify(
                peer.card.device, label=f"{label} sent"
            )
        pooled.buffer.give_back(*sent)
        return arrivals

    def receive(
        self, sender: "Member", relay: DmaBuffer, share: range, slot: int, label: str
    ) -> Event:
        """Fetches the rows of a share that `sender` has left in host memory; when they are here."""
        source = Matrix(relay.address, sender.width).rows_from(share.start)
        target = sender._columns_of(self, slot)
        pieces = self._pieces(sender.width)
        for start, nbytes in pieces:
            ready = self.card.timeline.issue(
                Opcode.LOAD,
                label=f"{label} from card {sender.card.index}",
                source=source.address + start,
                source_stride=source.stride,
                destination=target.address + start,
                destination_stride=target.stride,
                rows=len(share),
                row_bytes=nbytes,
            )
        return ready

    def _columns_of(self, peer: "Member", slot: int) -> Matrix:
        """Where this card's columns lie in a peer's input."""
        return Matrix(peer.joined[slot].address + self._column, peer.joined[slot].stride)

    def _pieces(self, width: int) -> list[tuple[int, int]]:
        """Offset and size of the parts of a row that travel together."""
        size = width if self._transfers.fused else self._dim
        return [(start, size) for start in range(0, width, size)]

    def _store(
        self, source: Matrix, target: Matrix, rows: int, after: Event, label: str
    ) -> list[Event]:
        """Issues the transfer of this card's columns to a bus address."""
        return [
            self.card.timeline.issue(
                Opcode.STORE,
                after=(after,),
                label=label,
                source=source.address + start,
                source_stride=source.stride,
                destination=target.address + start,
                destination_stride=target.stride,
                rows=rows,
                row_bytes=nbytes,
            )
            for start, nbytes in self._pieces(self.width)
        ]
