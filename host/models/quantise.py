"""A trained DLRM in the card's arithmetic: fused 8-bit tables, int8 weights, uint8 activations.

Weights are symmetric per output channel, activations have one scale and zero point per tensor,
taken from calibration samples. `y = saturate(round_half_even((acc + bias) * multiplier) + zero)`
is the requantisation of ONNX's QLinearMatMul; see `Operators` for the rest.

The input of the top MLP is one uint8 matrix, and a matmul knows one zero point for it. Its segments
(bottom output, then each table's pooled rows) therefore share `INTERACTION_ZERO_POINT`, while each
keeps its own scale, which is folded into the columns of the top weights before they are quantised.
Dot products of segments are requantised with one multiplier, so that a product is the same number
whichever segment comes first; their scales, too, go into the columns of the top weights.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from halfdome.host.models.dlrm import Architecture, Dlrm
from halfdome.host.models.features import Batch
from halfdome.host.models.fused_rows import fuse_8bit

INTERACTION_ZERO_POINT = 128
"""Zero point of every segment of the top MLP's input: pooled rows have both signs."""

_LARGEST_K = 32768  # 255 * 127 * k stays below 2**30, and so does a bias
_NEGLIGIBLE = 2.0**-100


class Operators(Protocol):
    """The operators a quantised model runs on: golden functions, a card, or several cards."""

    def embedding_bag(
        self, table: np.ndarray, indices: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Fused 8-bit rows uint8[rows, dim + 8], int32[n], int32[bags] to float32[bags, dim]."""
        ...

    def linear(
        self, x: np.ndarray, weight: np.ndarray, multiplier: np.ndarray, bias: np.ndarray,
        x_zero_point: int, y_zero_point: int, relu: bool,
    ) -> np.ndarray:  # fmt: skip
        """uint8[m, k] to uint8[m, n]; acc = (x - x_zero_point) @ weight.T in int32.

        `relu` clamps at `y_zero_point` from below.
        """
        ...

    def quantise(self, x: np.ndarray, multiplier: np.float32, zero_point: int) -> np.ndarray:
        """float32 to uint8: saturate(round_half_even(x * multiplier) + zero_point)."""
        ...

    def dot_interaction(self, x: np.ndarray, multiplier: np.float32, zero_point: int) -> np.ndarray:
        """uint8[n, segments, dim] to uint8[n, segments * (segments - 1) / 2].

        The dot product of each segment with each before it, both less `zero_point`, in int32, then
        saturate(round_half_even(float32(product) * multiplier) + zero_point).
        """
        ...

    def sigmoid(self, x: np.ndarray, scale: np.float32, zero_point: int) -> np.ndarray:
        """uint8 to float32: 1 / (1 + exp(-(x - zero_point) * scale))."""
        ...


@dataclass(frozen=True)
class QuantisedLinear:
    """One layer: `weight` int8[n, k], `bias` int32[n], `multiplier` float32[n].

    `bias` is in units of x_scale * w_scale and does not hold the input's zero point; `multiplier`
    is x_scale * w_scale / y_scale.
    """

    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    x_zero_point: int
    y_zero_point: int
    relu: bool

    def apply(self, x: np.ndarray, operators: Operators) -> np.ndarray:
        """uint8[m, k] to uint8[m, n]."""
        return operators.linear(
            x, self.weight, self.multiplier, self.bias,
            self.x_zero_point, self.y_zero_point, self.relu,
        )  # fmt: skip


@dataclass(frozen=True)
class QuantisedDlrm:
    """All that the cards need: fused tables, layers, and how floats become uint8.

    `tables` are uint8[rows, dim + 8]. `dense_multiplier` and `dense_zero_point` quantise the dense
    features; `pooled_multiplier[table]` and `INTERACTION_ZERO_POINT` the pooled rows of a table,
    `pair_multiplier` and the same zero point the dot products, if there are any.
    A logit is worth `(q - logit_zero_point) * logit_scale`. `mean_bag_length[table]` is that of the
    calibration samples, for placement.
    """

    architecture: Architecture
    tables: tuple[np.ndarray, ...]
    bottom: tuple[QuantisedLinear, ...]
    top: tuple[QuantisedLinear, ...]
    dense_multiplier: np.float32
    dense_zero_point: int
    pooled_multiplier: tuple[np.float32, ...]
    pair_multiplier: np.float32
    logit_scale: np.float32
    logit_zero_point: int
    mean_bag_length: tuple[float, ...]

    def forward(self, batch: Batch, operators: Operators) -> np.ndarray:
        """Probability of the label 1, float32[n], every operation done by `operators`."""
        x = operators.quantise(batch.dense, self.dense_multiplier, self.dense_zero_point)
        for layer in self.bottom:
            x = layer.apply(x, operators)
        segments = [x]
        for table, bags, multiplier in zip(
            self.tables, batch.sparse, self.pooled_multiplier, strict=True
        ):
            pooled = operators.embedding_bag(table, bags.indices, bags.lengths)
            segments.append(operators.quantise(pooled, multiplier, INTERACTION_ZERO_POINT))
        if self.architecture.interaction == "dot":
            stacked = np.stack(segments, axis=1)
            segments[1:] = [
                operators.dot_interaction(stacked, self.pair_multiplier, INTERACTION_ZERO_POINT)
            ]
        x = np.concatenate(segments, axis=1)
        for layer in self.top:
            x = layer.apply(x, operators)
        return operators.sigmoid(x[:, 0], self.logit_scale, self.logit_zero_point)


def quantise(model: Dlrm, calibration: Batch) -> QuantisedDlrm:
    """Quantises a model, with the ranges that its activations have over `calibration`.

    Raises `ValueError` if there are no calibration samples or a layer is too wide for int32 sums.
    """
    if not len(calibration):
        raise ValueError("calibration: has 0 samples, at least 1 is needed")
    seen = model.activations(calibration)
    dim, tables = model.architecture.dim, len(model.architecture.table_rows)
    dense_scale, dense_zero_point = _affine(calibration.dense)
    dense_multiplier = np.float32(1 / dense_scale)

    scales = [_magnitude(seen["segments"][:, segment]) / 127 for segment in range(tables + 1)]
    pooled_multiplier = tuple(np.float32(1 / scale) for scale in scales[1:])
    # What the card multiplies by is the rounded reciprocal, so that is what a step is worth.
    steps = np.array([scales[0], *(1 / float(multiplier) for multiplier in pooled_multiplier)])
    pair_multiplier = np.float32(1)
    if model.architecture.interaction == "cat":
        column_scale = np.repeat(steps, dim)
    else:
        rows, columns = np.tril_indices(tables + 1, -1)
        pair_steps = steps[rows] * steps[columns]
        pair_multiplier = np.float32(127 / _magnitude(seen["interaction"][:, dim:] / pair_steps))
        column_scale = np.concatenate(
            [np.repeat(steps[0], dim), pair_steps / float(pair_multiplier)]
        )

    bottom = []
    layers = list(model.layers("bot_l"))
    x_scale, x_zero_point = 1 / float(dense_multiplier), dense_zero_point
    for number, (weight, bias) in enumerate(layers):
        last = number == len(layers) - 1
        y_scale = scales[0] if last else _magnitude(seen[f"bot_l.{2 * number}"]) / 255
        y_zero_point = INTERACTION_ZERO_POINT if last else 0
        bottom.append(
            _linear(weight, bias, x_scale, x_zero_point, y_scale, y_zero_point, relu=True)
        )
        x_scale, x_zero_point = y_scale, y_zero_point

    top = []
    layers = list(model.layers("top_l"))
    x_scale = column_scale
    for number, (weight, bias) in enumerate(layers):
        last = number == len(layers) - 1
        output = seen[f"top_l.{2 * number}"]
        y_scale, y_zero_point = _affine(output) if last else (_magnitude(output) / 255, 0)
        top.append(
            _linear(weight, bias, x_scale, x_zero_point, y_scale, y_zero_point, relu=not last)
        )
        x_scale, x_zero_point = y_scale, y_zero_point

    return QuantisedDlrm(
        model.architecture, tuple(map(fuse_8bit, model.tables)), tuple(bottom), tuple(top),
        dense_multiplier, dense_zero_point, pooled_multiplier, pair_multiplier,
        np.float32(x_scale), x_zero_point,
        tuple(float(bags.lengths.mean()) for bags in calibration.sparse),
    )  # fmt: skip


def _magnitude(x: np.ndarray) -> float:
    """Largest magnitude, or 1 where there is next to none: no scale is then infinite inverted."""
    largest = float(np.abs(x).max())
    return largest if largest > _NEGLIGIBLE else 1.0


def _affine(x: np.ndarray) -> tuple[float, int]:
    """Scale and zero point of uint8 over the range of `x`, widened so that it includes zero."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low if high - low > _NEGLIGIBLE else 1.0) / 255
    return scale, round(-low / scale)


def _linear(
    weight: np.ndarray, bias: np.ndarray, x_scale: float | np.ndarray, x_zero_point: int,
    y_scale: float, y_zero_point: int, relu: bool,
) -> QuantisedLinear:  # fmt: skip
    """Quantises float32[n, k]; `x_scale` is what a step is worth: one number or one a column."""
    if weight.shape[1] > _LARGEST_K:
        raise ValueError(f"k={weight.shape[1]}: int32 sums are safe up to {_LARGEST_K}")
    folded = weight.astype(np.float64) * x_scale
    # The second bound keeps the bias within int32 for a channel with next to no weights.
    w_scale = np.maximum(np.abs(folded).max(axis=1) / 127, np.abs(bias, dtype=np.float64) / 2**30)
    w_scale[w_scale == 0] = 1.0
    return QuantisedLinear(
        weight=np.rint(folded / w_scale[:, None]).astype(np.int8),
        bias=np.rint(bias / w_scale).astype(np.int32),
        multiplier=(w_scale / y_scale).astype(np.float32),
        x_zero_point=x_zero_point, y_zero_point=y_zero_point, relu=relu,
    )  # fmt: skip
