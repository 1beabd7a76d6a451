"""One card's part in serving a recommendation model: its tables, its dense nets, its buffers.

Methods only issue commands; the caller flushes the timelines of all cards and waits.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hdl.commands import ElementFormat, Flag, Function, Opcode
from host.driver.bus import DmaBuffer
from host.models.features import Batch
from host.models.quantise import INTERACTION_ZERO_POINT, QuantisedDlrm, QuantisedLinear
from host.runtime.card import Card, Table
from host.runtime.layout import pack_params, pack_weights, round_up
from host.runtime.memory import Block
from host.runtime.timeline import Event

PROBABILITY_BYTES = ElementFormat.FLOAT32.nbytes
"""Bytes of an answer."""
SLOTS = 2
"""Copies of every buffer, so that one batch can be written while the one before is read."""


@dataclass
class Buffer:
    """Card memory that is reused: its next writer waits for the last reader."""

    block: Block
    free_after: tuple[Event, ...] = ()


class Ring:
    """`SLOTS` buffers of card memory used in turn."""

    def __init__(self, card: Card, nbytes: int):
        self.nbytes = nbytes
        self._card = card
        self._buffers = deque(Buffer(card.place(nbytes)) for _ in range(SLOTS))

    def take(self) -> Buffer:
        """The buffer that was used longest ago."""
        self._buffers.rotate(-1)
        return self._buffers[0]

    def release(self) -> None:
        """Gives the memory back; no command may be using it."""
        for buffer in self._buffers:
            self._card.release(buffer.block)


@dataclass(frozen=True)
class Matrix:
    """Rows in card memory, `stride` bytes apart."""

    address: int
    stride: int


@dataclass(frozen=True)
class _Layer:
    """A linear layer in a card's memory; `output` is None where the caller names the target."""

    linear: QuantisedLinear
    weights: Block
    params: Block
    output: Matrix | None


@dataclass(frozen=True)
class PackedBags:
    """One card's lengths and indices of a batch as one run of bytes.

    `places[table]` holds the byte offsets of the table's lengths and of its indices.
    """

    raw: np.ndarray = field(repr=False)
    places: dict[int, tuple[int, int]]


def _bits(value: np.float32) -> int:
    """A float32 as the descriptor carries it."""
    return int(np.float32(value).view(np.uint32))


_ONE = _bits(np.float32(1))


@dataclass(frozen=True)
class Logits:
    """What `run_dense` leaves in card memory after `computed`: uint8, one a bus word."""

    buffer: Buffer
    samples: int
    computed: Event


class Member:
    """One card with its share of a model in its memory.

    Parameters
    ----------
    card : Card
    model : QuantisedDlrm
    tables : dict of Table, the tables this card owns, by their number in the model
    batch_size : int, the most samples of a batch

    Raises `MemoryError` if weights and buffers do not fit.
    """

    def __init__(self, card: Card, model: QuantisedDlrm, tables: dict[int, Table], batch_size: int):
        config = card.config
        self.card = card
        self.tables = tables
        self._model = model
        self._dim = model.architecture.dim
        self._features = model.bottom[0].weight.shape[1]
        self._pooled_stride = round_up(4 * self._dim, config.bus_bytes)
        self._dense_stride = round_up(self._features, config.bus_bytes)
        self.floats_stride = round_up(4 * self._features, config.bus_bytes)
        joined_stride = round_up(model.top[0].weight.shape[1], config.bus_bytes)
        self.joined = [
            Matrix(card.place(batch_size * joined_stride).address, joined_stride)
            for _ in range(SLOTS)
        ]
        self._bottom = self._load_net(model.bottom, batch_size)
        self._top = self._load_net(model.top, batch_size)
        self._floats = Ring(card, batch_size * self.floats_stride)
        self._dense = Ring(card, batch_size * self._dense_stride)
        self._logits = Ring(card, batch_size * config.bus_bytes)
        self._probabilities = Ring(card, batch_size * config.bus_bytes)
        if tables:
            self._pooled = Ring(card, batch_size * self._pooled_stride)
            self._quantised = Ring(card, batch_size * self._dim)
        self._indices: Ring | None = None

    def _load_net(self, net: Sequence[QuantisedLinear], batch_size: int) -> list[_Layer]:
        card, layers = self.card, []
        for linear in net:
            operands = (
                pack_weights(linear.weight, card.config),
                pack_params(linear.weight, linear.multiplier, linear.bias, linear.x_zero_point),
            )
            weights, params = (card.place(operand.size) for operand in operands)
            for block, operand in zip((weights, params), operands, strict=True):
                card.upload(block, operand)
            output = None
            if linear is not net[-1]:
                stride = round_up(linear.weight.shape[0], card.config.bus_bytes)
                output = Matrix(card.place(batch_size * stride).address, stride)
            layers.append(_Layer(linear, weights, params, output))
        return layers

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
            self._indices = Ring(self.card, nbytes)

    def pool(
        self, batch: Batch, bags: PackedBags, staging: DmaBuffer, dense: "Member", joined: Matrix,
        label: str,
    ) -> list[Event]:  # fmt: skip
        """Pools every table of this card into its columns of `joined`, in memory of `dense`.

        Returns the events of `dense` after which the columns are there.
        """
        if self._indices is None:
            raise ValueError("reserve_indices: must come before the first batch")
        indices = self._indices.take()
        loaded = self._load(
            staging, indices.block, bags.raw.size, indices.free_after, f"{label} indices"
        )
        gathered: list[Event] = []
        arrivals: list[Event] = []
        for index, table in self.tables.items():
            name = f"{label} table {index}"
            column = Matrix(joined.address + (index + 1) * self._dim, joined.stride)
            pooled = self._pooled.take()
            lengths_at, indices_at = bags.places[index]
            gathered.append(
                self.card.timeline.issue(
                    Opcode.GATHER,
                    after=(loaded, *pooled.free_after),
                    label=name,
                    table=table.block.address,
                    lengths=indices.block.address + lengths_at,
                    indices=indices.block.address + indices_at,
                    output=pooled.block.address,
                    rows=table.rows,
                    index_count=len(batch.sparse[index].indices),
                    bags=len(batch),
                    row_stride=table.row_bytes,
                    dim=table.dim,
                    output_stride=self._pooled_stride,
                    output_format=ElementFormat.FLOAT32,
                )
            )
            if dense is self:
                done = self._quantise_pooled(index, len(batch), pooled, column, gathered[-1:], name)
                arrivals.append(done)
            else:
                self._send(index, len(batch), pooled, column, gathered[-1], dense, name)
        indices.free_after = tuple(gathered)
        if dense is not self:
            arrivals.append(self.card.timeline.notify(dense.card.device, label=f"{label} sent"))
        return arrivals

    def _quantise_pooled(
        self, index: int, samples: int, pooled: Buffer, target: Matrix, after: Sequence[Event],
        label: str,
    ) -> Event:  # fmt: skip
        done = self.card.timeline.issue(
            Opcode.AFFINE,
            after=after,
            label=label,
            a=pooled.block.address,
            a_stride=self._pooled_stride,
            a_format=ElementFormat.FLOAT32,
            y=target.address,
            y_stride=target.stride,
            y_format=ElementFormat.UINT8,
            y_zero_point=INTERACTION_ZERO_POINT,
            rows=samples,
            columns=self._dim,
            scale=_ONE,
            multiplier=_bits(self._model.pooled_multiplier[index]),
        )
        pooled.free_after = (done,)
        return done

    def _send(
        self, index: int, samples: int, pooled: Buffer, column: Matrix, gathered: Event,
        peer: "Member", label: str,
    ) -> None:  # fmt: skip
        """Quantises here and stores into the peer's memory through its window."""
        buffer = self._quantised.take()
        rows = Matrix(buffer.block.address, self._dim)
        after = (gathered, *buffer.free_after)
        quantised = self._quantise_pooled(index, samples, pooled, rows, after, label)
        stored = self.card.timeline.issue(
            Opcode.STORE,
            after=(quantised,),
            label=f"{label} to card {peer.card.index}",
            source=rows.address,
            source_stride=rows.stride,
            destination=peer.card.device.bar2 + column.address,
            destination_stride=column.stride,
            rows=samples,
            row_bytes=self._dim,
        )
        buffer.free_after = (stored,)

    def run_dense(
        self, samples: int, staging: DmaBuffer, joined: Matrix, arrivals: Sequence[Event],
        label: str,
    ) -> Logits:  # fmt: skip
        """Dense features through the bottom net into `joined`, the top net over it.

        `staging` holds float32 rows `floats_stride` apart. The top net starts after `arrivals`.
        """
        word = self.card.config.bus_bytes
        features, quantised = self._quantise_features(samples, staging, label)
        source = Matrix(features.block.address, self._dense_stride)
        layers = self._run_net(
            self._bottom, source, joined, samples, (quantised,), (), f"{label} bottom"
        )
        features.free_after = (layers[0],)
        logits = self._logits.take()
        target = Matrix(logits.block.address, word)
        layers = self._run_net(
            self._top, joined, target, samples, arrivals, logits.free_after, f"{label} top"
        )
        return Logits(logits, samples, layers[-1])

    def deliver(self, logits: Logits, landing: DmaBuffer, label: str) -> None:
        """Stores the probabilities that logits stand for in host memory, one a bus word."""
        word = self.card.config.bus_bytes
        outputs = self._probabilities.take()
        computed = self.card.timeline.issue(
            Opcode.AFFINE,
            after=(logits.computed, *outputs.free_after),
            label=f"{label} sigmoid",
            function=Function.SIGMOID,
            a=logits.buffer.block.address,
            a_stride=word,
            a_format=ElementFormat.UINT8,
            a_zero_point=self._model.logit_zero_point,
            y=outputs.block.address,
            y_stride=word,
            y_format=ElementFormat.FLOAT32,
            rows=logits.samples,
            columns=1,
            scale=_bits(self._model.logit_scale),
            shift=_bits(np.float32(-0.0)),
            multiplier=_ONE,
        )
        logits.buffer.free_after = (computed,)
        nbytes = logits.samples * word
        stored = self.card.timeline.issue(
            Opcode.STORE,
            after=(computed,),
            label=f"{label} answers",
            source=outputs.block.address,
            source_stride=nbytes,
            destination=landing.address,
            destination_stride=nbytes,
            rows=1,
            row_bytes=nbytes,
        )
        outputs.free_after = (stored,)

    def _quantise_features(
        self, samples: int, staging: DmaBuffer, label: str
    ) -> tuple[Buffer, Event]:
        """Brings the dense features in and quantises them; where, and when they are there."""
        floats, features = self._floats.take(), self._dense.take()
        nbytes = samples * self.floats_stride
        loaded = self._load(staging, floats.block, nbytes, floats.free_after, f"{label} dense")
        quantised = self.card.timeline.issue(
            Opcode.AFFINE,
            after=(loaded, *features.free_after),
            label=f"{label} dense",
            a=floats.block.address,
            a_stride=self.floats_stride,
            a_format=ElementFormat.FLOAT32,
            y=features.block.address,
            y_stride=self._dense_stride,
            y_format=ElementFormat.UINT8,
            y_zero_point=self._model.dense_zero_point,
            rows=samples,
            columns=self._features,
            scale=_ONE,
            multiplier=_bits(self._model.dense_multiplier),
        )
        floats.free_after = (quantised,)
        return features, quantised

    def _run_net(
        self, net: Sequence[_Layer], source: Matrix, target: Matrix, samples: int,
        ready: Sequence[Event], free: Sequence[Event], label: str,
    ) -> list[Event]:  # fmt: skip
        """Issues every layer: the first starts after `ready`, the last writes after `free` too."""
        events: list[Event] = []
        for position, layer in enumerate(net):
            after = (*(() if events else ready), *(() if layer.output else free))
            output = layer.output or target
            events.append(
                self._multiply(layer, source, output, samples, after, f"{label} {position}")
            )
            source = output
        return events

    def _multiply(
        self, layer: _Layer, source: Matrix, target: Matrix, samples: int, after: Sequence[Event],
        label: str,
    ) -> Event:  # fmt: skip
        n, k = layer.linear.weight.shape
        return self.card.timeline.issue(
            Opcode.MATMUL,
            after=after,
            label=label,
            flags=Flag.RELU if layer.linear.relu else 0,
            x=source.address,
            x_stride=source.stride,
            w=layer.weights.address,
            params=layer.params.address,
            y=target.address,
            y_stride=target.stride,
            m=samples,
            k=k,
            n=n,
            y_zero_point=layer.linear.y_zero_point,
        )

    def _load(
        self, staging: DmaBuffer, block: Block, nbytes: int, after: Sequence[Event], label: str
    ) -> Event:
        """Brings the first `nbytes` of host memory as they are."""
        stride = round_up(nbytes, self.card.config.bus_bytes)
        return self.card.timeline.issue(
            Opcode.LOAD,
            after=after,
            label=label,
            source=staging.address,
            source_stride=stride,
            destination=block.address,
            destination_stride=stride,
            rows=1,
            row_bytes=nbytes,
        )
