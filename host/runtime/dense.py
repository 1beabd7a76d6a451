"""The dense nets of a recommendation model on one card: a share of each batch's samples.

Methods only issue commands; the caller flushes the timeline and waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import ElementFormat, Flag, Function, Opcode
from halfdome.host.models.quantise import INTERACTION_ZERO_POINT, QuantisedDlrm, QuantisedLinear
from halfdome.host.runtime.buffers import Buffer, Matrix, Memory, Ring
from halfdome.host.runtime.card import Card
from halfdome.host.runtime.layout import pack_params, pack_weights, round_up, row_stride
from halfdome.host.runtime.memory import Block
from halfdome.host.runtime.timeline import Event, Timeline

PROBABILITY_BYTES = ElementFormat.FLOAT32.nbytes
"""Bytes of an answer."""

_SLOTS = 2


def float_bits(value: float | np.float32) -> int:
    """A float32 as the descriptor carries it."""
    return int(np.float32(value).view(np.uint32))


def copy(
    timeline: Timeline, source: Matrix, target: Matrix, rows: int, columns: int,
    after: Sequence[Event], label: str,
) -> Event:  # fmt: skip
    """Issues a copy of uint8[rows, columns] within a card, by its vector engine."""
    return timeline.issue(
        Opcode.AFFINE,
        after=after,
        label=label,
        a=source.address,
        a_stride=source.stride,
        a_format=ElementFormat.UINT8,
        y=target.address,
        y_stride=target.stride,
        y_format=ElementFormat.UINT8,
        rows=rows,
        columns=columns,
        scale=float_bits(1),
        multiplier=float_bits(1),
    )


@dataclass(frozen=True)
class _Layer:
    """A linear layer in a card's memory; `output` is None where the caller names the target."""

    linear: QuantisedLinear
    weights: Block
    params: Block
    output: Matrix | None


@dataclass(frozen=True)
class Logits:
    """What `run_top` leaves in card memory after `computed`: uint8, one a bus word."""

    buffer: Buffer
    samples: int
    computed: Event


class DenseNet:
    """Both nets of a model on one card.

    Parameters
    ----------
    card : Card
    memory : of that card
    model : QuantisedDlrm
    columns : for each column of the top input as it lies in card memory, its number in the model
    samples : int, the most samples of a share
    in_flight : int, batches whose logits may wait to be delivered
    half_inputs : the dense features come as float16, not float32

    Attributes
    ----------
    operands : list of (Block, uint8[n])
        What must be in card memory before the first batch, the same in every card.
    features_stride : int, bytes from one sample's dense features to the next

    Raises `MemoryError` if weights and buffers do not fit.
    """

    def __init__(
        self, card: Card, memory: Memory, model: QuantisedDlrm, columns: np.ndarray, samples: int,
        in_flight: int, half_inputs: bool,
    ):  # fmt: skip
        word = card.config.bus_bytes
        self.operands: list[tuple[Block, np.ndarray]] = []
        self._card = card
        self._memory = memory
        self._model = model
        self._features = model.bottom[0].weight.shape[1]
        self._segments = 1 + len(model.tables)
        self._dense_stride = row_stride(self._features, card.config)
        self._format = ElementFormat.FLOAT16 if half_inputs else ElementFormat.FLOAT32
        self.features_stride = round_up(self._format.nbytes * self._features, word)
        self._bottom = self._place_net(model.bottom, samples)
        self._top = self._place_net(model.top, samples, columns)
        self._paired: Ring | None = None
        if model.architecture.interaction == "dot":
            width = model.architecture.top[0]
            self._paired_stride = row_stride(width, card.config)
            self._paired = Ring(memory, samples * self._paired_stride, _SLOTS)
            multiplier = np.full(self._segments, model.pair_multiplier, np.float32)
            params = pack_params(
                np.zeros((self._segments, 1), np.int8), multiplier,
                np.zeros(self._segments, np.int32), 0,
            )  # fmt: skip
            self._pair_params = self._hold(params)
        self._floats = Ring(memory, samples * self.features_stride, _SLOTS)
        self._dense = Ring(memory, samples * self._dense_stride, _SLOTS)
        self._logits = Ring(memory, samples * word, in_flight)
        self._probabilities = Ring(memory, samples * word, _SLOTS)

    def _hold(self, operand: np.ndarray) -> Block:
        self.operands.append((self._memory.place(operand.size), operand))
        return self.operands[-1][0]

    def _place_net(
        self, net: Sequence[QuantisedLinear], samples: int, columns: np.ndarray | None = None
    ) -> list[_Layer]:
        """Places layers; `columns` orders the inputs of the first."""
        config, layers = self._card.config, []
        for linear in net:
            weight = linear.weight
            if columns is not None and linear is net[0]:
                weight = weight[:, columns]
            weights = self._hold(pack_weights(weight, config))
            params = self._hold(
                pack_params(weight, linear.multiplier, linear.bias, linear.x_zero_point)
            )
            output = None
            if linear is not net[-1]:
                stride = row_stride(weight.shape[0], config)
                output = Matrix(self._memory.place(samples * stride).address, stride)
            layers.append(_Layer(linear, weights, params, output))
        return layers

    def run_bottom(self, samples: int, features: int, joined: Matrix, label: str) -> Event:
        """Dense features through the bottom net into the first columns of `joined`.

        `features` is the bus address of rows `features_stride` apart. Returns when they are there.
        """
        dense, quantised = self._quantise_features(samples, features, label)
        source = Matrix(dense.block.address, self._dense_stride)
        layers = self._run_net(self._bottom, source, joined, samples, (quantised,), (), label)
        dense.give_back(layers[0])
        return layers[-1]

    def run_top(
        self, samples: int, joined: Matrix, bottom: Event, arrivals: Sequence[Event], label: str
    ) -> Logits:
        """The top net over `joined`, or its dot products, after `bottom` and `arrivals`."""
        logits = self._logits.take()
        target = Matrix(logits.block.address, self._card.config.bus_bytes)
        source, paired = joined, None
        if self._paired:
            paired = self._paired.take()
            source = Matrix(paired.block.address, self._paired_stride)
            arrivals = self._interact(samples, joined, source, paired, bottom, arrivals, label)
        layers = self._run_net(
            self._top, source, target, samples, arrivals, logits.free_after, label
        )
        if paired:
            paired.give_back(layers[0])
        return Logits(logits, samples, layers[-1])

    def _interact(
        self, samples: int, joined: Matrix, target: Matrix, paired: Buffer, bottom: Event,
        arrivals: Sequence[Event], label: str,
    ) -> list[Event]:  # fmt: skip
        """The bottom output, then the dot products of all pairs of segments, into `target`."""
        dim = self._model.architecture.dim
        copied = copy(
            self._card.timeline, joined, target, samples, dim,
            (bottom, *paired.free_after), f"{label} bottom output",
        )  # fmt: skip
        self._card.timeline.issue(
            Opcode.BATCH_MATMUL,
            after=(*arrivals, *paired.free_after),
            label=f"{label} pairs",
            flags=Flag.W_UINT8 | Flag.TRANSPOSED | Flag.TRIANGLE,
            x=joined.address,
            w=joined.address,
            params=self._pair_params.address,
            y=target.address + dim,
            m=self._segments,
            k=dim,
            n=self._segments,
            batches=samples,
            x_stride=dim,
            w_stride=dim,
            x_batch_stride=joined.stride,
            w_batch_stride=joined.stride,
            y_batch_stride=target.stride,
            x_zero_point=INTERACTION_ZERO_POINT,
            w_zero_point=INTERACTION_ZERO_POINT,
            y_zero_point=INTERACTION_ZERO_POINT,
            y_format=ElementFormat.UINT8,
        )
        return [copied]

    def deliver(self, logits: Logits, landing: int, label: str) -> None:
        """Stores the probabilities of `logits` at a bus address, one a bus word."""
        timeline, word = self._card.timeline, self._card.config.bus_bytes
        outputs = self._probabilities.take()
        computed = timeline.issue(
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
            scale=float_bits(self._model.logit_scale),
            shift=float_bits(-0.0),
            multiplier=float_bits(1),
        )
        logits.buffer.give_back(computed)
        nbytes = logits.samples * word
        stored = timeline.issue(
            Opcode.STORE,
            after=(computed,),
            label=f"{label} answers",
            source=outputs.block.address,
            source_stride=nbytes,
            destination=landing,
            destination_stride=nbytes,
            rows=1,
            row_bytes=nbytes,
        )
        outputs.give_back(stored)

    def _quantise_features(self, samples: int, source: int, label: str) -> tuple[Buffer, Event]:
        """Brings the dense features in and quantises them; where, and when they are there."""
        timeline = self._card.timeline
        floats, features = self._floats.take(), self._dense.take()
        nbytes = samples * self.features_stride
        loaded = timeline.issue(
            Opcode.LOAD,
            after=floats.free_after,
            label=f"{label} dense",
            source=source,
            source_stride=nbytes,
            destination=floats.block.address,
            destination_stride=nbytes,
            rows=1,
            row_bytes=nbytes,
        )
        quantised = timeline.issue(
            Opcode.AFFINE,
            after=(loaded, *features.free_after),
            label=f"{label} dense",
            a=floats.block.address,
            a_stride=self.features_stride,
            a_format=self._format,
            y=features.block.address,
            y_stride=self._dense_stride,
            y_format=ElementFormat.UINT8,
            y_zero_point=self._model.dense_zero_point,
            rows=samples,
            columns=self._features,
            scale=float_bits(1),
            multiplier=float_bits(self._model.dense_multiplier),
        )
        floats.give_back(quantised)
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
            n, k = layer.linear.weight.shape
            events.append(
                self._card.timeline.issue(
                    Opcode.MATMUL,
                    after=after,
                    label=f"{label} {position}",
                    flags=Flag.RELU if layer.linear.relu else 0,
                    x=source.address,
                    x_stride=source.stride,
                    w=layer.weights.address,
                    params=layer.params.address,
                    y=output.address,
                    y_stride=output.stride,
                    m=samples,
                    k=k,
                    n=n,
                    y_zero_point=layer.linear.y_zero_point,
                )
            )
            source = output
        return events
