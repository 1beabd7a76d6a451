"""What each command does on an accelerator of plain numpy."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from halfdome.hdl.commands import TABLE_BYTES, ElementFormat, RowFormat, Status
from halfdome.host.driver.errors import CardError
from halfdome.host.driver.numpy_bus import SPACING, NumpyBus
from halfdome.host.graph import operators
from halfdome.host.graph.graph import Node
from halfdome.host.graph.values import DTYPES, Value
from halfdome.sim.golden import matmul
from halfdome.sim.golden.gather import sparse_lengths_sum
from halfdome.sim.golden.pool import average_pool, max_pool
from halfdome.sim.golden.products import convolution
from halfdome.sim.golden.sums import depthwise
from halfdome.sim.golden.vector import lookup


@dataclass(frozen=True)
class Rows:
    """An operand bound to a slot: rows of elements in memory."""

    address: int
    stride: int
    format: ElementFormat
    zero_point: int

    def at(self, address: int) -> "Rows":
        """The same rows elsewhere."""
        return replace(self, address=address)


@dataclass(frozen=True)
class Reach:
    """What the commands of an accelerator read and write.

    Attributes
    ----------
    index : int, the accelerator's
    memory : uint8, its own, at addresses below those of the bus
    bus : NumpyBus, for all other addresses
    """

    index: int
    memory: np.ndarray
    bus: NumpyBus

    def bytes(self, address: int, nbytes: int) -> np.ndarray:
        """Bytes of its own memory, or of whoever has the bus address."""
        if address < SPACING:
            return self.memory[address : address + nbytes]
        return self.bus.at(address, nbytes)

    def get(self, operand: Rows, rows: int, columns: int) -> np.ndarray:
        """[rows, columns] of an operand."""
        dtype = DTYPES[operand.format]
        nbytes = columns * dtype.itemsize
        taken = [self.bytes(operand.address + row * operand.stride, nbytes) for row in range(rows)]
        return np.stack(taken).view(dtype)

    def put(self, operand: Rows, values: np.ndarray) -> None:
        """Writes [rows, columns] to an operand."""
        for row, each in enumerate(np.ascontiguousarray(values)):
            raw = each.view(np.uint8)
            self.bytes(operand.address + row * operand.stride, raw.size)[:] = raw


def _move(
    reach: Reach, source: int, source_stride: int, target: int, target_stride: int,
    rows: int, row_bytes: int,
) -> None:  # fmt: skip
    for row in range(rows):
        taken = reach.bytes(source + row * source_stride, row_bytes)
        reach.bytes(target + row * target_stride, row_bytes)[:] = taken


def _nothing(reach: Reach) -> None:
    pass


def _copy(reach: Reach, source: Rows, target: int, stride: int, rows: int, columns: int) -> None:
    values = reach.get(source, rows, columns)
    reach.put(Rows(target, stride, source.format, source.zero_point), values)


def _gather(
    reach: Reach, table: int, row_format: int, rows: int, dim: int, stride: int, indices: int,
    count: int, lengths: int, bags: int, output: Rows, weights: int | None, wide: bool,
    mean: bool, multiplier: float,
) -> None:  # fmt: skip
    kind, integer = RowFormat(row_format), np.dtype(np.int64 if wide else np.int32)
    size = kind.row_bytes(dim)

    def integers(address: int, many: int) -> np.ndarray:
        return reach.bytes(address, many * integer.itemsize).view(integer)

    factors = None if weights is None else reach.bytes(weights, 4 * count).view(np.float32)
    pooled, status, detail = sparse_lengths_sum(
        reach.bytes(table, rows * stride).reshape(rows, stride)[:, :size], integers(indices, count),
        integers(lengths, bags), dim, kind, factors, mean=mean, output_format=output.format,
        multiplier=np.float32(multiplier), zero_point=output.zero_point & 0xFF,
    )  # fmt: skip
    if status is not Status.OK:
        raise CardError(f"accelerator {reach.index}: {status.name}, detail {detail}")
    reach.put(output, pooled)


def _linear(
    reach: Reach, x: Rows, weights: int, params: int, y: Rows, shape: Sequence[int],
    w_format: int, w_zero_point: int, relu: bool,
) -> None:  # fmt: skip
    m, k, n = shape
    weight = reach.bytes(weights, n * k).view(DTYPES[ElementFormat(w_format)]).reshape(n, k)
    total = matmul.product(reach.get(x, m, k), weight.T, x.zero_point, w_zero_point)
    reach.put(y, _requantised(reach, total, params, y, relu))


def _requantised(reach: Reach, total: np.ndarray, params: int, y: Rows, relu: bool) -> np.ndarray:
    if y.format is ElementFormat.INT32:
        return total
    pairs = reach.bytes(params, total.shape[-1] * matmul.PARAM.itemsize).view(matmul.PARAM)
    return matmul.requantise(
        total, np.ascontiguousarray(pairs["bias"]), np.ascontiguousarray(pairs["multiplier"]),
        y.zero_point, relu, DTYPES[y.format].type,
    )  # fmt: skip


def _conv2d(
    reach: Reach, x: Rows, weights: int, params: int, y: Rows,
    window: Mapping[str, Any], w_format: int, w_zero_point: int, relu: bool,
) -> None:  # fmt: skip
    (height, width), k, n, kernel = (window[name] for name in ("image", "k", "n", "kernel"))
    raw = reach.bytes(weights, n * kernel[0] * kernel[1] * k)
    weight = raw.view(DTYPES[ElementFormat(w_format)]).reshape(n, *kernel, k)
    total = convolution(
        reach.get(x, height * width, k).reshape(height, width, k), weight.transpose(1, 2, 3, 0),
        out=window["out"], stride=window["stride"], pad=window["pad"], dilation=window["dilation"],
        x_zero_point=x.zero_point, w_zero_point=w_zero_point,
    )  # fmt: skip
    reach.put(y, _requantised(reach, total.reshape(-1, n), params, y, relu))


def _depthwise(
    reach: Reach, x: Rows, weights: int | None, params: int, y: Rows,
    window: Mapping[str, Any], w_format: int, w_zero_point: int, relu: bool,
) -> None:  # fmt: skip
    (height, width), k, kernel = (window[name] for name in ("image", "k", "kernel"))
    weight, zero_point = np.ones((*kernel, k), np.int8), 0
    if weights is not None:
        raw = reach.bytes(weights, k * kernel[0] * kernel[1])
        kind = DTYPES[ElementFormat(w_format)]
        weight = raw.view(kind).reshape(k, *kernel).transpose(1, 2, 0)
        zero_point = w_zero_point
    total = depthwise(
        reach.get(x, height * width, k).reshape(height, width, k), weight, out=window["out"],
        stride=window["stride"], pad=window["pad"], dilation=window["dilation"],
        x_zero_point=x.zero_point, w_zero_point=zero_point,
    )  # fmt: skip
    reach.put(y, _requantised(reach, total.reshape(-1, k), params, y, relu))


def _batch_matmul(
    reach: Reach, operands: Sequence[Rows], steps: Sequence[int], params: int,
    shape: Sequence[int], transposed: bool,
) -> None:  # fmt: skip
    x, w, y = operands
    batches, m, k, n = shape
    for batch in range(batches):
        left, right, made = (
            each.at(each.address + batch * step) for each, step in zip(operands, steps, strict=True)
        )
        second = reach.get(right, n, k).T if transposed else reach.get(right, k, n)
        total = matmul.product(reach.get(left, m, k), second, x.zero_point, w.zero_point)
        reach.put(made, _requantised(reach, total, params, y, relu=False))


def _pairs(
    reach: Reach, inputs: Sequence[Rows], dim: int, params: int, y: Rows, samples: int
) -> None:
    record = reach.bytes(params, matmul.PARAM.itemsize).view(matmul.PARAM)
    attributes = {"multiplier": record["multiplier"][0]}
    _operator(reach, "pairs", attributes, inputs, y, samples, dim)


def _lookup(reach: Reach, table: int, y: Rows, a: Rows, rows: int, columns: int) -> None:
    reach.put(y, lookup(reach.get(a, rows, columns), reach.bytes(table, TABLE_BYTES)))


def _transpose(
    reach: Reach, source: Rows, source_step: int, target: Rows, target_step: int,
    batches: int, rows: int, columns: int,
) -> None:  # fmt: skip
    for batch in range(batches):
        matrix = reach.get(source.at(source.address + batch * source_step), rows, columns)
        reach.put(target.at(target.address + batch * target_step), matrix.T)


def _max_pool(reach: Reach, x: Rows, y: Rows, window: Mapping[str, Any]) -> None:
    _pool(reach, x, y, window, max_pool)


def _average_pool(
    reach: Reach, x: Rows, y: Rows, window: Mapping[str, Any], x_scale: float,
    y_scale: float, outside: bool,
) -> None:  # fmt: skip
    _pool(reach, x, y, window, partial(
        average_pool, dtype=DTYPES[y.format].type, outside=outside, x_zero_point=x.zero_point,
        y_zero_point=y.zero_point, x_scale=np.float32(x_scale), y_scale=np.float32(y_scale),
    ))  # fmt: skip


def _pool(
    reach: Reach, x: Rows, y: Rows, window: Mapping[str, Any],
    pool: Callable[..., np.ndarray],
) -> None:  # fmt: skip
    (height, width), k = window["image"], window["k"]
    sides = {name: window[name] for name in ("out", "kernel", "stride", "pad", "dilation")}
    made = pool(reach.get(x, height * width, k).reshape(height, width, k), **sides)
    reach.put(y, made.reshape(-1, k))


def _elements(
    reach: Reach, op: str, attributes: str, inputs: Sequence[Rows], y: Rows, rows: int,
    columns: int, column: bool,
) -> None:  # fmt: skip
    _operator(reach, op, json.loads(attributes), inputs, y, rows, columns, column=column)


def _operator(
    reach: Reach, op: str, attributes: dict[str, Any], inputs: Sequence[Rows], y: Rows,
    rows: int, columns: int, *, column: bool = False,
) -> None:  # fmt: skip
    """An operator as the graph itself computes it."""
    widths = [columns, 1 if column else columns]
    arrays = (
        [reach.get(each, rows, width) for each, width in zip(inputs, widths, strict=False)]
        if op != "pairs"
        else [reach.get(each, rows, columns) for each in inputs]
    )
    values = [
        Value("x", array.shape, each.format, zero_point=each.zero_point)
        for each, array in zip(inputs, arrays, strict=True)
    ]
    names = tuple("x" for _ in values)
    node = Node(op, names, "y", attributes | {"format": y.format, "zero_point": y.zero_point})
    reach.put(y, operators.find(op).evaluate(node, values, arrays))


OPERATIONS: Mapping[str, Callable[..., None]] = {
    "move": _move, "signal": _nothing, "fence": _nothing, "copy": _copy, "gather": _gather,
    "linear": _linear, "conv2d": _conv2d, "batch_matmul": _batch_matmul, "pairs": _pairs,
    "elements": _elements, "lookup": _lookup, "max_pool": _max_pool,
    "average_pool": _average_pool,
    "transpose": _transpose, "depthwise": _depthwise,
}  # fmt: skip
