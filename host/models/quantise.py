"""A trained DLRM as a graph in the card's arithmetic: fused tables of 8 or 4 bits, int8 weights,
uint8 activations.

Weights are symmetric per output channel, activations have one scale and zero point per tensor,
taken from calibration samples. `y = saturate(round_half_even((acc + bias) * multiplier) + zero)`
is the requantisation of ONNX's QLinearMatMul.

The input of the top MLP is one uint8 matrix, and a matmul knows one zero point for it. Its segments
(bottom output, then each table's pooled rows) therefore share `INTERACTION_ZERO_POINT`, while each
keeps its own scale, which is folded into the columns of the top weights before they are quantised.
Dot products of segments are requantised with one multiplier, so that a product is the same number
whichever segment comes first; their scales, too, go into the columns of the top weights.
"""

from collections.abc import Sequence

import numpy as np

from halfdome.hdl.commands import ElementFormat, Function, RowFormat
from halfdome.host.graph.fused_rows import fuse_4bit, fuse_8bit
from halfdome.host.graph.graph import Graph, Node
from halfdome.host.graph.values import Value
from halfdome.host.models.dlrm import Dlrm
from halfdome.host.models.features import Batch

INTERACTION_ZERO_POINT = 128
"""Zero point of every segment of the top MLP's input: pooled rows have both signs."""
OUTPUT = "probability"
"""What the graph's response is called."""

TABLE_ROWS = {8: (RowFormat.INT8, fuse_8bit), 4: (RowFormat.INT4, fuse_4bit)}
"""How rows of tables are stored, by the bits of an element."""

_LARGEST_K = 32768  # 255 * 127 * k stays below 2**30, and so does a bias
_NEGLIGIBLE = 2.0**-100


def request(batch: Batch) -> dict[str, np.ndarray]:
    """A batch as the graph's inputs."""
    arrays: dict[str, np.ndarray] = {"dense": batch.dense}
    for table, bags in enumerate(batch.sparse):
        arrays[f"indices {table}"] = bags.indices
        arrays[f"lengths {table}"] = bags.lengths
    return arrays


def longest_bags(batches: Sequence[Batch]) -> list[int]:
    """The most indices that any bag of each table has."""
    return [
        max(1, *(int(bags.lengths.max(initial=0)) for bags in of_table))
        for of_table in zip(*(batch.sparse for batch in batches), strict=True)
    ]


def quantise(
    model: Dlrm, calibration: Batch, batch: int, longest: Sequence[int], table_bits: int = 8
) -> Graph:
    """The graph that answers up to `batch` samples, whose bags have up to `longest` indices.

    Its activations have the ranges that they have over `calibration`, and so have the lengths of
    bags by which tables are placed; elements of tables have `table_bits`, 8 or 4. Raises
    `ValueError` if there are no calibration samples or a layer is too wide for int32 sums.
    """
    if not len(calibration):
        raise ValueError("calibration: has 0 samples, at least 1 is needed")
    if len(longest) != len(model.tables):
        raise ValueError(
            f"longest: has {len(longest)} numbers, must have one for each of {len(model.tables)} "
            "tables"
        )
    return _Quantiser(model, calibration, batch, longest, table_bits).graph()


class _Quantiser:
    """Builds the graph: nodes in order, constants beside them."""

    def __init__(
        self, model: Dlrm, calibration: Batch, batch: int, longest: Sequence[int], table_bits: int
    ):
        self._row_format, self._fuse = TABLE_ROWS[table_bits]
        self._model = model
        self._calibration = calibration
        self._batch = batch
        self._longest = longest
        self._seen = model.activations(calibration)
        self._inputs: list[Value] = []
        self._nodes: list[Node] = []
        self._constants: dict[str, np.ndarray] = {}

    def graph(self) -> Graph:
        """Quantises."""
        architecture = self._model.architecture
        seen = self._seen["segments"]
        scales = [_magnitude(seen[:, segment]) / 127 for segment in range(seen.shape[1])]
        bottom = self._bottom(scales[0])
        segments = [bottom, *self._tables(scales[1:])]
        # What the card multiplies by is the rounded reciprocal, so that is what a step is worth.
        steps = np.array([scales[0], *(1 / float(np.float32(1 / s)) for s in scales[1:])])
        columns = np.repeat(steps, architecture.dim)
        if architecture.interaction == "dot":
            segments, columns = self._pairs(segments, steps)
        self._node("concat", segments, "interaction")
        scale = self._top(columns)
        last = f"top {len(architecture.top) - 2}"
        self._node(
            "affine", [last], OUTPUT, label="sigmoid", scale=np.float32(scale), shift=-0.0,
            function=Function.SIGMOID, format=ElementFormat.FLOAT32,
        )  # fmt: skip
        return Graph(self._inputs, [OUTPUT], self._nodes, self._constants)

    def _node(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self._nodes.append(Node(op, tuple(inputs), output, attributes))
        return output

    def _bottom(self, output_scale: float) -> str:
        """The bottom net's layers; the name of its output."""
        architecture, dense = self._model.architecture, self._calibration.dense
        self._inputs.append(
            Value("dense", (self._batch, architecture.bottom[0]), ElementFormat.FLOAT32)
        )
        scale, zero_point = _affine(dense)
        multiplier = np.float32(1 / scale)
        x = self._node(
            "affine", ["dense"], "dense quantised", label="dense", format=ElementFormat.UINT8,
            multiplier=multiplier, zero_point=zero_point,
        )  # fmt: skip
        x_scale: float | np.ndarray = 1 / float(multiplier)
        layers = list(self._model.layers("bot_l"))
        for number, (weight, bias) in enumerate(layers):
            last = number == len(layers) - 1
            y_scale, y_zero_point = output_scale, INTERACTION_ZERO_POINT
            if not last:
                y_scale, y_zero_point = _magnitude(self._seen[f"bot_l.{2 * number}"]) / 255, 0
            x = self._linear(
                f"bottom {number}", x, weight, bias, x_scale, y_scale, y_zero_point, relu=True
            )
            x_scale = y_scale
        return x

    def _tables(self, scales: Sequence[float]) -> list[str]:
        """The embedding bags, pooled straight to 8 bits."""
        names = []
        for table, (rows, bags, scale) in enumerate(
            zip(self._model.tables, self._calibration.sparse, scales, strict=True)
        ):
            most = self._batch * self._longest[table]
            self._inputs += [
                Value(f"indices {table}", (most,), ElementFormat.INT32, ragged=True),
                Value(f"lengths {table}", (self._batch,), ElementFormat.INT32),
            ]
            self._constants[f"rows {table}"] = self._fuse(rows)
            names.append(self._node(
                "embedding_bag", [f"rows {table}", f"indices {table}", f"lengths {table}"],
                f"table {table}", row_format=self._row_format, dim=rows.shape[1],
                format=ElementFormat.UINT8, multiplier=np.float32(1 / scale),
                zero_point=INTERACTION_ZERO_POINT, mean_length=float(bags.lengths.mean()),
            ))  # fmt: skip
        return names

    def _pairs(self, segments: Sequence[str], steps: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The dot products of all pairs beside the bottom output; what each column's step is."""
        dim = self._model.architecture.dim
        high, low = np.tril_indices(len(segments), -1)
        pair_steps = steps[high] * steps[low]
        products = self._seen["interaction"][:, dim:] / pair_steps
        multiplier = np.float32(127 / _magnitude(products))
        self._node(
            "pairs", segments, "pairs", multiplier=multiplier, zero_point=INTERACTION_ZERO_POINT
        )
        columns = [np.repeat(steps[0], dim), pair_steps / float(multiplier)]
        return [segments[0], "pairs"], np.concatenate(columns)

    def _top(self, columns: np.ndarray) -> float:
        """The top net's layers; what a step of the logit is worth."""
        x, x_scale, scale = "interaction", columns, 1.0
        layers = list(self._model.layers("top_l"))
        for number, (weight, bias) in enumerate(layers):
            last = number == len(layers) - 1
            output = self._seen[f"top_l.{2 * number}"]
            scale, zero_point = _affine(output) if last else (_magnitude(output) / 255, 0)
            x = self._linear(
                f"top {number}", x, weight, bias, x_scale, scale, zero_point, relu=not last
            )
            x_scale = scale
        return scale

    def _linear(
        self, name: str, x: str, weight: np.ndarray, bias: np.ndarray,
        x_scale: float | np.ndarray, y_scale: float, zero_point: int, relu: bool,
    ) -> str:  # fmt: skip
        """Quantises float32[n, k]; `x_scale` is what a step is worth, of all columns or of each."""
        if weight.shape[1] > _LARGEST_K:
            raise ValueError(f"k={weight.shape[1]}: int32 sums are safe up to {_LARGEST_K}")
        folded = weight.astype(np.float64) * x_scale
        # The second bound keeps the bias within int32 for a channel with next to no weights.
        w_scale = np.maximum(
            np.abs(folded).max(axis=1) / 127, np.abs(bias, dtype=np.float64) / 2**30
        )
        w_scale[w_scale == 0] = 1.0
        constants = {
            "weight": np.rint(folded / w_scale[:, None]).astype(np.int8),
            "bias": np.rint(bias / w_scale).astype(np.int32),
            "multiplier": (w_scale / y_scale).astype(np.float32),
        }
        self._constants |= {f"{name} {what}": values for what, values in constants.items()}
        return self._node(
            "linear", [x, *(f"{name} {what}" for what in constants)], name, relu=relu,
            scale=float(y_scale), zero_point=zero_point,
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
