"""A quantised DLRM served by all cards: tables sharded, dense nets replicated, batches in flight.

One batch: every card that owns tables loads its share of the indices, pools, quantises, and stores
its columns of the top net's input straight into the memory of the card whose turn it is; that card
has meanwhile run the bottom net, waits for its peers, runs the top net and stores the logits in
host memory. Nothing passes through the host in between.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hdl.commands import Flag, Opcode
from host.models.features import Batch
from host.models.quantise import INTERACTION_ZERO_POINT, QuantisedDlrm, QuantisedLinear
from host.runtime.card import Card, Table
from host.runtime.layout import pack_params, pack_weights, pad_rows, round_up
from host.runtime.memory import Block
from host.runtime.placement import TableLoad, place
from host.runtime.runtime import Runtime
from host.runtime.timeline import Event, Issued

SLOTS = 2
"""Copies of every buffer, so that one batch can be written while the one before is read."""


@dataclass
class Buffer:
    """Card memory that is reused: its next writer waits for the last reader."""

    block: Block
    free_after: tuple[Event, ...] = ()


class Ring:
    """`SLOTS` buffers used in turn."""

    def __init__(self, card: Card, nbytes: int):
        self._buffers = deque(Buffer(card.place(nbytes)) for _ in range(SLOTS))

    def take(self) -> Buffer:
        """The buffer that was used longest ago."""
        self._buffers.rotate(-1)
        return self._buffers[0]


@dataclass
class _Layer:
    """A linear layer in a card's memory."""

    linear: QuantisedLinear
    weights: Block
    params: Block
    output: Block | None
    """Where the output goes, rows `stride` bytes apart; None if the caller says."""
    stride: int

    @property
    def n(self) -> int:
        return self.linear.weight.shape[0]


@dataclass(frozen=True)
class Answer:
    """What the cards said of one batch.

    `logits` are uint8[samples]; `latency_cycles` runs from the first command that any card starts
    to the end of the last.
    """

    logits: np.ndarray
    dense_card: int
    latency_cycles: int
    commands: tuple[Issued, ...] = field(repr=False)


class _Member:
    """One card's part: its tables, its copy of the dense nets, its buffers."""

    def __init__(self, card: Card, model: QuantisedDlrm, tables: dict[int, Table], batch: int):
        config = card.config
        self.card = card
        self.tables = tables
        self.dim = model.architecture.dim
        self.pooled_stride = round_up(4 * self.dim, config.bus_bytes)
        self.joined_stride = round_up(model.top[0].weight.shape[1], config.bus_bytes)
        self.features = model.bottom[0].weight.shape[1]
        self.features_stride = round_up(4 * self.features, config.bus_bytes)
        self.dense_stride = round_up(self.features, config.bus_bytes)
        self.joined = [card.place(batch * self.joined_stride) for _ in range(SLOTS)]
        self.bottom = [self._load(layer, batch) for layer in model.bottom[:-1]]
        self.bottom.append(self._load(model.bottom[-1], 0))
        self.top = [self._load(layer, batch) for layer in model.top[:-1]]
        self.top.append(self._load(model.top[-1], 0))
        self.floats = Ring(card, batch * self.features_stride)
        self.dense = Ring(card, batch * self.dense_stride)
        self.logits = Ring(card, batch * config.bus_bytes)
        if tables:
            self.pooled = Ring(card, batch * self.pooled_stride)
            self.quantised = Ring(card, batch * self.dim)
        self.indices: Ring | None = None

    def _load(self, linear: QuantisedLinear, batch: int) -> _Layer:
        card = self.card
        packed = pack_weights(linear.weight, card.config)
        params = pack_params(linear.weight, linear.multiplier, linear.bias, linear.x_zero_point)
        weights_block, params_block = card.place(packed.size), card.place(params.size)
        card.upload(weights_block, packed)
        card.upload(params_block, params)
        stride = round_up(linear.weight.shape[0], card.config.bus_bytes)
        output = card.place(batch * stride) if batch else None
        return _Layer(linear, weights_block, params_block, output, stride)

    def multiply(
        self, layer: _Layer, source: tuple[int, int], target: tuple[int, int], m: int,
        after: Sequence[Event], label: str,
    ) -> Event:  # fmt: skip
        """One layer; `source` and `target` are (card address, row stride)."""
        n, k = layer.linear.weight.shape
        return self.card.timeline.issue(
            Opcode.MATMUL,
            after=after,
            label=label,
            flags=Flag.RELU if layer.linear.relu else 0,
            x=source[0],
            x_stride=source[1],
            w=layer.weights.address,
            params=layer.params.address,
            y=target[0],
            y_stride=target[1],
            m=m,
            k=k,
            n=n,
            y_zero_point=layer.linear.y_zero_point,
        )

    def copy_in(self, staging: int, block: Block, nbytes: int, after: Sequence[Event], label: str):
        """Brings a contiguous run of bytes from host memory."""
        stride = round_up(nbytes, self.card.config.bus_bytes)
        return self.card.timeline.issue(
            Opcode.LOAD,
            after=after,
            label=label,
            source=staging,
            destination=block.address,
            rows=1,
            row_bytes=nbytes,
            source_stride=stride,
            destination_stride=stride,
        )


@dataclass
class _InFlight:
    number: int
    samples: int
    staging: list
    landing: object
    submitted: dict[int, list[int]]


def _bits(value: np.float32) -> int:
    """A float32 as the descriptor carries it."""
    return int(np.float32(value).view(np.uint32))


class Recommender:
    """Answers batches with a model placed on the cards of a runtime.

    Parameters
    ----------
    runtime : Runtime
    model : QuantisedDlrm
    batch_size : int, the most samples of a batch

    Raises `MemoryError` if tables, weights or buffers do not fit.
    """

    def __init__(
        self,
        runtime: Runtime,
        model: QuantisedDlrm,
        batch_size: int,
    ):
        bus_bytes, dim = runtime.config.bus_bytes, model.architecture.dim
        if dim % bus_bytes:
            raise ValueError(
                f"dim={dim}: columns of the top input are stored card to card in whole bus "
                f"words, so it must be a multiple of bus_bytes={bus_bytes}"
            )
        self._runtime = runtime
        self._model = model
        self._batch_size = batch_size
        loads = [
            TableLoad(*table.shape, length)
            for table, length in zip(model.tables, model.mean_bag_length, strict=True)
        ]
        self.placement = place(loads, len(runtime.cards), runtime.config.dram_bytes // 2)
        self._members = [
            _Member(
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

        Raises `CommandError` if any command of a batch failed.
        """
        for batch in batches:
            if not 1 <= len(batch) <= self._batch_size:
                raise ValueError(f"batch of {len(batch)} samples: must be 1 to {self._batch_size}")
        self._size_index_buffers(batches)
        answers: list[Answer] = []
        flying: deque[_InFlight] = deque()
        # A card's slot for the top input is free again once the batch that used it is answered.
        most = SLOTS * len(self._members)
        for number, batch in enumerate(batches):
            if len(flying) == most:
                answers.append(self._land(flying.popleft(), progress))
            flying.append(self._launch(number, batch))
        while flying:
            answers.append(self._land(flying.popleft(), progress))
        return answers

    def _size_index_buffers(self, batches: Sequence[Batch]) -> None:
        for member in self._members:
            largest = max((self._pack(member, batch)[0].size for batch in batches), default=0)
            if largest:
                member.indices = Ring(member.card, largest)

    def _pack(self, member: _Member, batch: Batch) -> tuple[np.ndarray, dict[int, tuple[int, int]]]:
        """One card's lengths and indices as one run of bytes, and where each table's start."""
        word = member.card.config.bus_bytes
        pieces: list[np.ndarray] = []
        starts = {}
        position = 0
        for table in member.tables:
            places = []
            for values in (batch.sparse[table].lengths, batch.sparse[table].indices):
                raw = values.astype(np.int32).view(np.uint8)
                padded = np.zeros(round_up(raw.size, word), np.uint8)
                padded[: raw.size] = raw
                places.append(position)
                pieces.append(padded)
                position += padded.size
            starts[table] = (places[0], places[1])
        return np.concatenate(pieces) if pieces else np.zeros(0, np.uint8), starts

    def _stage(self, values: np.ndarray):
        staging = self._runtime.platform.bus.map(values.size)
        staging.array[: values.size] = values
        return staging

    def _launch(self, number: int, batch: Batch) -> _InFlight:
        members = self._members
        dense = members[number % len(members)]
        joined = dense.joined[number // len(members) % SLOTS]
        staging = []
        arrivals: list[Event] = []
        for member in members:
            if member.tables:
                staging.append(self._pool(number, batch, member, dense, joined, arrivals))
        landing = self._runtime.platform.bus.map(len(batch) * self._runtime.config.bus_bytes)
        raw = np.ascontiguousarray(batch.dense, np.float32).view(np.uint8)
        staging.append(self._stage(pad_rows(raw, dense.features_stride)))
        self._run_dense(number, len(batch), dense, joined, staging[-1], landing, arrivals)
        submitted = {m.card.index: m.card.timeline.flush() for m in members}
        return _InFlight(number, len(batch), staging, landing, submitted)

    def _pool(self, number, batch, member, dense, joined, arrivals):
        """Issues one card's gathers; appends to `arrivals` what the dense card must wait for."""
        timeline, model = member.card.timeline, self._model
        packed, starts = self._pack(member, batch)
        staging = self._stage(packed)
        indices = member.indices.take()
        label = f"batch {number}"
        loaded = member.copy_in(
            staging.address, indices.block, packed.size, indices.free_after, f"{label} indices"
        )
        gathers = []
        for index, table in member.tables.items():
            pooled = member.pooled.take()
            lengths_at, indices_at = starts[index]
            gathers.append(
                timeline.issue(
                    Opcode.GATHER,
                    after=(loaded, *pooled.free_after),
                    label=f"{label} table {index}",
                    table=table.block.address,
                    lengths=indices.block.address + lengths_at,
                    indices=indices.block.address + indices_at,
                    output=pooled.block.address,
                    rows=table.rows,
                    index_count=len(batch.sparse[index].indices),
                    bags=len(batch),
                    row_stride=table.row_bytes,
                    dim=table.dim,
                    output_stride=member.pooled_stride,
                )
            )
            column = joined.address + (index + 1) * member.dim
            local = member is dense
            target = None if local else member.quantised.take()
            quantised = timeline.issue(
                Opcode.QUANTISE,
                after=(gathers[-1], *(target.free_after if target else ())),
                label=f"{label} table {index}",
                source=pooled.block.address,
                destination=column if local else target.block.address,
                rows=len(batch),
                columns=member.dim,
                source_stride=member.pooled_stride,
                destination_stride=dense.joined_stride if local else member.dim,
                multiplier=_bits(model.pooled_multiplier[index]),
                zero_point=INTERACTION_ZERO_POINT,
            )
            pooled.free_after = (quantised,)
            if local:
                arrivals.append(quantised)
            else:
                target.free_after = (
                    timeline.issue(
                        Opcode.STORE,
                        after=(quantised,),
                        label=f"{label} table {index} to card {dense.card.index}",
                        source=target.block.address,
                        destination=dense.card.device.bar2 + column,
                        rows=len(batch),
                        row_bytes=member.dim,
                        source_stride=member.dim,
                        destination_stride=dense.joined_stride,
                    ),
                )
        indices.free_after = tuple(gathers)
        if member is not dense:
            arrivals.append(timeline.notify(dense.card.device, label=f"{label} sent"))
        return staging

    def _run_dense(self, number, samples, dense, joined, staging, landing, arrivals) -> None:
        label = f"batch {number}"
        floats, features = dense.floats.take(), dense.dense.take()
        loaded = dense.copy_in(
            staging.address,
            floats.block,
            samples * dense.features_stride,
            floats.free_after,
            f"{label} dense",
        )
        quantised = dense.card.timeline.issue(
            Opcode.QUANTISE,
            after=(loaded, *features.free_after),
            label=f"{label} dense",
            source=floats.block.address,
            destination=features.block.address,
            rows=samples,
            columns=dense.features,
            source_stride=dense.features_stride,
            destination_stride=dense.dense_stride,
            multiplier=_bits(self._model.dense_multiplier),
            zero_point=self._model.dense_zero_point,
        )
        floats.free_after = (quantised,)
        source = (features.block.address, dense.dense_stride)
        after: Sequence[Event] = (quantised,)
        for position, layer in enumerate(dense.bottom):
            last = layer is dense.bottom[-1]
            target = (
                (joined.address, dense.joined_stride)
                if last
                else (layer.output.address, layer.stride)
            )
            done = dense.multiply(
                layer, source, target, samples, after, f"{label} bottom {position}"
            )
            if position == 0:
                features.free_after = (done,)
            source, after = target, ()
        logits = dense.logits.take()
        source, after = (joined.address, dense.joined_stride), arrivals
        for position, layer in enumerate(dense.top):
            last = layer is dense.top[-1]
            if last:
                target = (logits.block.address, dense.card.config.bus_bytes)
                after = logits.free_after
            else:
                target = (layer.output.address, layer.stride)
            done = dense.multiply(layer, source, target, samples, after, f"{label} top {position}")
            source, after = target, ()
        nbytes = samples * dense.card.config.bus_bytes
        stored = dense.card.timeline.issue(
            Opcode.STORE,
            after=(done,),
            label=f"{label} logits",
            source=logits.block.address,
            destination=landing.address,
            rows=1,
            row_bytes=nbytes,
            source_stride=nbytes,
            destination_stride=nbytes,
        )
        logits.free_after = (stored,)

    def _land(self, batch: _InFlight, progress: Callable[[int], None]) -> Answer:
        commands: list[Issued] = []
        for member in self._members:
            commands += member.card.timeline.wait(batch.submitted[member.card.index])
        logits = batch.landing.array.reshape(batch.samples, -1)[:, 0].copy()
        for buffer in (*batch.staging, batch.landing):
            buffer.release()
        first = min(command.completion.start_cycle for command in commands)
        last = max(command.completion.end_cycle for command in commands)
        progress(batch.samples)
        dense_card = batch.number % len(self._members)
        return Answer(logits, dense_card, last - first, tuple(commands))
