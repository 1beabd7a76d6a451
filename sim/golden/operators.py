"""The golden functions with the parameters of a card's methods: arrays in, arrays out."""

import enum
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfdome.hdl.commands import (
    ElementFormat,
    Flag,
    Function,
    IndexMode,
    Opcode,
    RowFormat,
    Status,
)
from halfdome.hdl.config import CardConfig
from halfdome.sim.golden import matmul as products
from halfdome.sim.golden import pairs, pool, vector
from halfdome.sim.golden.gather import lengths_of, sparse_lengths_sum
from halfdome.sim.golden.products import convolution

_FORMATS = {
    np.dtype(np.float32): ElementFormat.FLOAT32,
    np.dtype(np.float16): ElementFormat.FLOAT16,
    np.dtype(np.uint8): ElementFormat.UINT8,
    np.dtype(np.int8): ElementFormat.INT8,
    np.dtype(np.int32): ElementFormat.INT32,
}
_FLOAT_ROWS = {np.dtype(np.float16): RowFormat.FLOAT16, np.dtype(np.float32): RowFormat.FLOAT32}


Member = TypeVar("Member", bound=enum.Enum)


def _member(kind: type[Member], value: Member | str) -> Member:
    return kind[value.upper()] if isinstance(value, str) else value


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


class Reference:
    """What the methods of `halfdome.Card` return, for operands that they take.

    Parameters
    ----------
    config : CardConfig, which decides the order in which the elements of a row are added
    """

    def __init__(self, config: CardConfig):
        self._lanes = config.vector_lanes

    def embedding_bag(
        self, table: np.ndarray, indices: ArrayLike, offsets: ArrayLike, bits: int = 8,
        per_sample_weights: ArrayLike | None = None, *, row_format: RowFormat | str | None = None,
        dim: int | None = None, mode: str = "sum", include_last_offset: bool = False,
        pruned: bool = False, bad_indices: IndexMode | str = IndexMode.FATAL,
        dtype: DTypeLike = np.float32, multiplier: float = 1.0, zero_point: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.embedding_bag`. Raises `ValueError` for a bad index."""
        kind = _FLOAT_ROWS.get(table.dtype, RowFormat.INT8 if bits == 8 else RowFormat.INT4)
        kind = kind if row_format is None else _member(RowFormat, row_format)
        raw = np.ascontiguousarray(table).view(np.uint8).reshape(len(table), -1)
        elements = (raw.shape[1] - kind.tail_bytes) * 8 // kind.element_bits
        starts = np.asarray(offsets)[:-1] if include_last_offset else offsets
        pooled, status, detail = sparse_lengths_sum(
            raw, indices, lengths_of(starts, len(np.asarray(indices))), dim or elements, kind,
            per_sample_weights, _member(IndexMode, bad_indices), pruned=pruned, mean=mode == "mean",
            output_format=_FORMATS[np.dtype(dtype)], multiplier=np.float32(multiplier),
            zero_point=zero_point & 0xFF,
        )  # fmt: skip
        if status is not Status.OK:
            raise ValueError(f"embedding_bag: {status.name}, detail {detail}")
        return pooled

    def linear(
        self, x: np.ndarray, weight: np.ndarray, multiplier: ArrayLike | None = None,
        bias: np.ndarray | None = None, x_zero_point: int = 0, y_zero_point: int = 0,
        relu: bool = False, *, weight_zero_point: int = 0, dtype: DTypeLike = np.uint8,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.linear`."""
        total = products.product(x, weight.T, x_zero_point, weight_zero_point)
        return _requantised(total, multiplier, bias, y_zero_point, relu, dtype)

    def matmul(
        self, x: np.ndarray, w: np.ndarray, multiplier: ArrayLike | None = None,
        bias: np.ndarray | None = None, x_zero_point: int = 0, w_zero_point: int = 0,
        y_zero_point: int = 0, *, transposed: bool = False, triangle: bool = False,
        dtype: DTypeLike = np.uint8,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.matmul`."""
        right = w.transpose(0, 2, 1) if transposed else w
        total = products.product(x, right, x_zero_point, w_zero_point)
        y = _requantised(total, multiplier, bias, y_zero_point, False, dtype)
        return products.triangle(y) if triangle else y

    def conv2d(
        self, x: np.ndarray, weight: np.ndarray, multiplier: ArrayLike | None = None,
        bias: np.ndarray | None = None, x_zero_point: int = 0, y_zero_point: int = 0,
        relu: bool = False, *, weight_zero_point: int = 0, dtype: DTypeLike = np.uint8,
        stride: int | tuple[int, int] = 1, pads: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, int] = 1, groups: int = 1,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.conv2d`."""
        steps, spread, sides = _pair(stride), _pair(dilation), _sides(pads)
        out = tuple(
            (x.shape[axis] + sides[axis] + sides[axis + 2]
             - spread[axis] * (weight.shape[1 + axis] - 1) - 1) // steps[axis] + 1
            for axis in (0, 1)
        )  # fmt: skip
        n, k = len(weight) // groups, weight.shape[3]
        totals = [
            convolution(
                x[:, :, group * k : (group + 1) * k],
                weight[group * n : (group + 1) * n].transpose(1, 2, 3, 0),
                out=out, stride=steps, pad=(sides[0], sides[1]),
                dilation=spread, x_zero_point=x_zero_point,
                w_zero_point=weight_zero_point,
            )
            for group in range(groups)
        ]  # fmt: skip
        total = np.concatenate(totals, axis=2)
        return _requantised(total, multiplier, bias, y_zero_point, relu, dtype)

    def affine(
        self, a: np.ndarray, scale: float = 1.0, shift: float = -0.0, *,
        function: Function | str = Function.IDENTITY, multiplier: float = 1.0,
        reduce: str | None = None, dtype: DTypeLike = np.float32, a_zero_point: int = 0,
        y_zero_point: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.affine`."""
        constants = {"scale": scale, "shift": shift}
        return self._vector(Opcode.AFFINE, a, None, constants, function, multiplier, reduce, dtype,
                            a_zero_point, 0, y_zero_point)  # fmt: skip

    def add(
        self, a: np.ndarray, b: np.ndarray, scale: float = 1.0, *,
        function: Function | str = Function.IDENTITY, multiplier: float = 1.0,
        reduce: str | None = None, dtype: DTypeLike = np.float32, a_zero_point: int = 0,
        b_zero_point: int = 0, y_zero_point: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.add`."""
        return self._vector(Opcode.ADD, a, b, {"scale": scale}, function, multiplier, reduce, dtype,
                            a_zero_point, b_zero_point, y_zero_point)  # fmt: skip

    def multiply(
        self, a: np.ndarray, b: np.ndarray, shift: float = -0.0, *,
        function: Function | str = Function.IDENTITY, multiplier: float = 1.0,
        reduce: str | None = None, dtype: DTypeLike = np.float32, a_zero_point: int = 0,
        b_zero_point: int = 0, y_zero_point: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.multiply`."""
        constants = {"shift": shift}
        return self._vector(Opcode.MULTIPLY, a, b, constants, function, multiplier, reduce, dtype,
                            a_zero_point, b_zero_point, y_zero_point)  # fmt: skip

    def clamp(
        self, a: np.ndarray, low: float = -np.inf, high: float = np.inf, *,
        function: Function | str = Function.IDENTITY, multiplier: float = 1.0,
        reduce: str | None = None, dtype: DTypeLike = np.float32, a_zero_point: int = 0,
        y_zero_point: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.clamp`."""
        bounds = {"low": low, "high": high}
        return self._vector(Opcode.CLAMP, a, None, bounds, function, multiplier, reduce, dtype,
                            a_zero_point, 0, y_zero_point)  # fmt: skip

    def quantise(
        self, x: np.ndarray, multiplier: float, zero_point: int = 0, dtype: DTypeLike = np.uint8
    ) -> np.ndarray:
        """See `halfdome.Card.quantise`."""
        return self.affine(x, multiplier=multiplier, dtype=dtype, y_zero_point=zero_point)

    def quantise_linear(
        self, x: np.ndarray, scale: float, zero_point: int = 0, dtype: DTypeLike = np.uint8
    ) -> np.ndarray:
        """See `halfdome.Card.quantise_linear`."""
        a = vector.decode(np.ascontiguousarray(x).view(np.uint8), _FORMATS[x.dtype])
        element = _FORMATS[np.dtype(dtype)]
        return vector.divide(a, np.float32(scale), element, zero_point & 0xFF)

    def sigmoid(self, x: np.ndarray, scale: float = 1.0, zero_point: int = 0) -> np.ndarray:
        """See `halfdome.Card.sigmoid`."""
        return self.affine(x, scale, function=Function.SIGMOID, a_zero_point=zero_point)

    def lookup(self, a: np.ndarray, table: np.ndarray) -> np.ndarray:
        """See `halfdome.Card.lookup`."""
        return vector.lookup(np.ascontiguousarray(a), np.asarray(table))

    def add_quantised(
        self, a: np.ndarray, b: np.ndarray, a_ratio: float, b_ratio: float, offset: float = 0.0, *,
        inner: str = "b", dtype: DTypeLike = np.uint8,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.add_quantised`."""
        terms = [(b, np.float32(b_ratio)), (a, np.float32(a_ratio))]
        within, outer = reversed(terms) if inner == "a" else terms
        return pairs.add(*outer, *within, np.float32(offset), _FORMATS[np.dtype(dtype)])

    def multiply_quantised(
        self, a: np.ndarray, b: np.ndarray, multiplier: float, *, dtype: DTypeLike = np.uint8,
        a_zero_point: int = 0, b_zero_point: int = 0, y_zero_point: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.multiply_quantised`."""
        left, right = (
            (x.astype(np.int32) - zero).astype(np.float32)
            for x, zero in ((a, a_zero_point), (b, b_zero_point))
        )
        made = _FORMATS[np.dtype(dtype)]
        return pairs.multiply(left, right, np.float32(multiplier), y_zero_point, made)

    def max_pool(
        self, x: np.ndarray, kernel: int | tuple[int, int], stride: int | tuple[int, int] = 1,
        pads: int | tuple[int, ...] = 0, dilation: int | tuple[int, int] = 1,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.max_pool`."""
        return pool.max_pool(x, **_windows(x, kernel, stride, pads, dilation))

    def average_pool(
        self, x: np.ndarray, kernel: int | tuple[int, int], x_scale: float, y_scale: float,
        stride: int | tuple[int, int] = 1, pads: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, int] = 1, *, include_pads: bool = False,
        dtype: DTypeLike = np.uint8, x_zero_point: int = 0, y_zero_point: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """See `halfdome.Card.average_pool`."""
        return pool.average_pool(
            x, **_windows(x, kernel, stride, pads, dilation), outside=include_pads,
            dtype=np.dtype(dtype).type, x_scale=np.float32(x_scale), y_scale=np.float32(y_scale),
            x_zero_point=x_zero_point, y_zero_point=y_zero_point,
        )  # fmt: skip

    def transpose(self, x: np.ndarray) -> np.ndarray:
        """See `halfdome.Card.transpose`."""
        return np.ascontiguousarray(np.swapaxes(x, -1, -2))

    def _vector(
        self, opcode: Opcode, a: np.ndarray, b: np.ndarray | None, constants: dict[str, float],
        function: Function | str, multiplier: float, reduce: str | None, dtype: DTypeLike,
        a_zero_point: int, b_zero_point: int, y_zero_point: int,
    ) -> np.ndarray:  # fmt: skip
        fields = {name: _bits(value) for name, value in constants.items()} | {
            "flags": {None: 0, "sum": Flag.SUM, "max": Flag.MAX}[reduce],
            "function": _member(Function, function),
            "multiplier": _bits(multiplier), "y_format": _FORMATS[np.dtype(dtype)],
            "y_zero_point": y_zero_point & 0xFF,
        }  # fmt: skip

        def decoded(x: np.ndarray, zero_point: int) -> np.ndarray:
            raw = np.ascontiguousarray(x).view(np.uint8)
            return vector.decode(raw, _FORMATS[x.dtype], zero_point & 0xFF)

        second = None if b is None else decoded(b, b_zero_point)
        return vector.result(opcode, fields, decoded(a, a_zero_point), second, self._lanes)


def _requantised(
    total: np.ndarray, multiplier: ArrayLike | None, bias: np.ndarray | None, zero_point: int,
    relu: bool, dtype: DTypeLike,
) -> np.ndarray:  # fmt: skip
    if np.dtype(dtype) == np.int32:
        return total
    n = total.shape[-1]
    scale = np.broadcast_to(np.asarray(multiplier, np.float32), (n,))
    bias = np.zeros(n, np.int32) if bias is None else bias
    return products.requantise(
        total, bias, np.ascontiguousarray(scale), zero_point, relu, np.dtype(dtype).type
    )


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Along height and width."""
    height, width = np.broadcast_to(value, 2).tolist()
    return height, width


def _sides(pads: int | tuple[int, ...]) -> list[int]:
    """Top, left, bottom, right."""
    return (np.tile(pads, 2) if np.size(pads) == 2 else np.broadcast_to(pads, 4)).tolist()


def _windows(
    x: np.ndarray, kernel: int | tuple[int, int], stride: int | tuple[int, int],
    pads: int | tuple[int, ...], dilation: int | tuple[int, int],
) -> dict[str, tuple[int, int]]:  # fmt: skip
    """Where the windows of a pooling lie."""
    taps, steps, spread = (_pair(each) for each in (kernel, stride, dilation))
    sides = _sides(pads)
    out = [
        (x.shape[axis] + sides[axis] + sides[axis + 2] - spread[axis] * (taps[axis] - 1) - 1)
        // steps[axis]
        + 1
        for axis in (0, 1)
    ]
    return {
        "out": (out[0], out[1]), "kernel": taps, "stride": steps, "pad": (sides[0], sides[1]),
        "dilation": spread,
    }  # fmt: skip
