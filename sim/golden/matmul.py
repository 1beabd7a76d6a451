"""The meaning of MATMUL, bit for bit, and the formats of its operands in card memory."""

import numpy as np

from halfdome.hdl.config import CardConfig
from halfdome.sim.golden.floats import int_to_float, quantise

PARAM = np.dtype([("bias", "<i4"), ("multiplier", "<f4")])
"""Parameters of one output channel as they lie in memory."""


def product(
    x: np.ndarray, w: np.ndarray, x_zero_point: int = 0, w_zero_point: int = 0
) -> np.ndarray:
    """int32[..., m, n]: (x - x_zero_point) @ (w - w_zero_point), which wraps: ONNX's MatMulInteger.

    Parameters: x uint8 or int8 [..., m, k]; w uint8 or int8 [..., k, n].
    """
    for name, value in (("x", x), ("w", w)):
        if value.dtype not in (np.uint8, np.int8):
            raise ValueError(f"{name}: is {value.dtype}, must be uint8 or int8")
    # Exact: no sum of 2**16 such products comes near 2**53; and floats are what is fast.
    left, right = (v.astype(np.float64) - z for v, z in ((x, x_zero_point), (w, w_zero_point)))
    return (left @ right).astype(np.int64).astype(np.int32)


def requantise(
    total: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    zero_point: int = 0,
    relu: bool = False,
    dtype: type = np.uint8,
) -> np.ndarray:
    """`saturate(round_half_even(float32(total + bias) * multiplier) + zero_point)`, of `dtype`.

    The sum wraps in int32; conversion and product round to nearest even in float32; the result is
    not below `zero_point` if `relu`. `total` int32[..., n], bias int32[n], multiplier float32[n],
    dtype uint8 or int8. Raises `ValueError` if shapes or dtypes differ from that.
    """
    n = total.shape[-1]
    _expect("bias", bias, np.int32, (n,))
    _expect("multiplier", multiplier, np.float32, (n,))
    low = np.iinfo(dtype).min
    scaled = int_to_float((total.astype(np.int64) + bias).astype(np.int32))
    above = quantise(scaled, multiplier, zero_point - low, zero_point - low if relu else 0)
    return (above.astype(np.int16) + low).astype(dtype)


def matmul(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    zero_point: int,
    relu: bool,
    *,
    x_zero_point: int = 0,
    w_zero_point: int = 0,
    dtype: type = np.uint8,
) -> np.ndarray:
    """Quantised matrix product, `dtype`[m, n]: `requantise` of the `product`.

    This is ONNX's QLinearMatMul as ONNX Runtime computes it, with `multiplier` =
    x_scale * w_scale / y_scale.
    """
    total = product(x, w, x_zero_point, w_zero_point)
    return requantise(total, bias, multiplier, zero_point, relu, dtype)


def triangle(y: np.ndarray) -> np.ndarray:
    """[..., n, n] to [..., n * (n - 1) / 2]: of row i the columns j < i, row after row."""
    rows, columns = np.tril_indices(y.shape[-1], -1)
    return y[..., rows, columns]


def tile_order(
    k: int, n: int, taps: int, config: CardConfig, *, diagonal: bool = False
) -> list[tuple[int, int, int]]:
    """(tap, k_tile, n_tile) of each weight tile, in the order in which the array takes them.

    `diagonal`: of those whose numbers along k and n are the same.
    """
    k_tiles, n_tiles = -(-k // config.array_rows), -(-n // config.array_columns)
    line, group = config.line_tiles, config.group_tiles
    if diagonal:
        group = config.diagonal_tiles
        return [
            (tap, tile, tile)
            for first in range(0, n_tiles, group)
            for tap in range(taps)
            for tile in range(first, min(first + group, n_tiles))
        ]
    return [
        (tap, k_tile, n_tile)
        for first_n in range(0, n_tiles, group)
        for tap in range(taps)
        for first_k in range(0, k_tiles, line)
        for n_tile in range(first_n, min(first_n + group, n_tiles))
        for k_tile in range(first_k, min(first_k + line, k_tiles))
    ]


def pack_weights(w: np.ndarray, config: CardConfig, *, diagonal: bool = False) -> np.ndarray:
    """8-bit [k, n] or [taps, k, n] as the weight tiles of `config`'s array: the operand `w`.

    Tiles of `array_rows` x `array_columns`, row-major, zero beyond the matrix, each padded to
    whole bus words, in `tile_order`. Returns uint8[bytes].
    """
    w = w.reshape(-1, *w.shape[-2:])
    taps, k, n = w.shape
    rows, columns = config.array_rows, config.array_columns
    order = tile_order(k, n, taps, config, diagonal=diagonal)
    packed = np.zeros((len(order), config.weight_tile_bytes), np.uint8)
    for place, (tap, i, j) in enumerate(order):
        piece = w[tap, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        tile = np.zeros((rows, columns), np.uint8)
        tile[: piece.shape[0], : piece.shape[1]] = piece.view(np.uint8)
        packed[place, : rows * columns] = tile.reshape(-1)
    return packed.reshape(-1)


def unpack_weights(
    packed: np.ndarray,
    k: int,
    n: int,
    config: CardConfig,
    taps: int = 1,
    *,
    diagonal: bool = False,
    zero_point: int = 0,
) -> np.ndarray:
    """The uint8[taps * k, n] that `pack_weights` packed; where no tile was, the byte `zero_point`.
    Raises `ValueError` for another length."""
    rows, columns = config.array_rows, config.array_columns
    order = tile_order(k, n, taps, config, diagonal=diagonal)
    _expect("packed", packed, np.uint8, (len(order) * config.weight_tile_bytes,))
    k_end, n_end = -(-k // rows) * rows, -(-n // columns) * columns
    matrix = np.full((taps, k_end, n_end), zero_point, np.uint8)
    tiles = packed.reshape(-1, config.weight_tile_bytes)[:, : rows * columns]
    for tile, (tap, i, j) in zip(tiles, order, strict=True):
        matrix[tap, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns] = tile.reshape(
            rows, columns
        )
    return matrix[:, :k, :n].reshape(taps * k, n)


def pack_params(bias: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """int32[n] and float32[n] as uint8[8 * n]: MATMUL's operand `params`."""
    _expect("bias", bias, np.int32, (len(bias),))
    _expect("multiplier", multiplier, np.float32, (len(bias),))
    pairs = np.empty(len(bias), PARAM)
    pairs["bias"], pairs["multiplier"] = bias, multiplier
    return pairs.view(np.uint8)


def _expect(name: str, value: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if value.dtype != dtype or value.shape != shape:
        raise ValueError(
            f"{name}: is {value.dtype}{list(value.shape)}, must be {np.dtype(dtype)}{list(shape)}"
        )
