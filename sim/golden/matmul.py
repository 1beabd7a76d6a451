"""The meaning of MATMUL, bit for bit, and the formats of its operands in card memory."""

import numpy as np

from hdl.config import CardConfig
from sim.golden.floats import int_to_float, quantise

PARAM = np.dtype([("bias", "<i4"), ("multiplier", "<f4")])
"""Parameters of one output channel as they lie in memory."""


def matmul(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    zero_point: int,
    relu: bool,
) -> np.ndarray:
    """Quantised matrix product, uint8[m, n].

    `acc = x @ w + bias` in int32, which wraps; then
    `saturate(round_half_even(float32(acc) * multiplier) + zero_point)`, not below `zero_point`
    if `relu`. Conversion and product round to nearest even in float32. This is ONNX's
    QLinearMatMul as ONNX Runtime computes it, with `multiplier` = x_scale * w_scale / y_scale and
    the input's zero point folded into `bias`.

    Parameters: x uint8[m, k]; w int8[k, n]; bias int32[n]; multiplier float32[n];
    zero_point 0 to 255. Raises `ValueError` if shapes or dtypes differ from that.
    """
    _expect("x", x, np.uint8, (x.shape[0], x.shape[-1]))
    _expect("w", w, np.int8, (x.shape[1], w.shape[-1]))
    _expect("bias", bias, np.int32, (w.shape[1],))
    _expect("multiplier", multiplier, np.float32, (w.shape[1],))
    total = x.astype(np.int64) @ w.astype(np.int64) + bias
    scaled = int_to_float(total.astype(np.int32))
    return quantise(scaled, multiplier, zero_point, zero_point if relu else 0)


def pack_weights(w: np.ndarray, config: CardConfig) -> np.ndarray:
    """int8[k, n] as the weight tiles of `config`'s array, uint8[bytes]: MATMUL's operand `w`.

    Tiles of `array_rows` x `array_columns`, row-major, zero beyond the matrix, each padded to
    whole bus words, in the order `for n_tile: for k_tile`.
    """
    _expect("w", w, np.int8, (w.shape[0], w.shape[-1]))
    rows, columns = config.array_rows, config.array_columns
    k_tiles, n_tiles = -(-w.shape[0] // rows), -(-w.shape[1] // columns)
    padded = np.zeros((k_tiles * rows, n_tiles * columns), np.int8)
    padded[: w.shape[0], : w.shape[1]] = w
    tiles = padded.reshape(k_tiles, rows, n_tiles, columns).transpose(2, 0, 1, 3)
    packed = np.zeros((n_tiles * k_tiles, config.weight_tile_bytes), np.uint8)
    packed[:, : rows * columns] = tiles.reshape(len(packed), -1).view(np.uint8)
    return packed.reshape(-1)


def unpack_weights(packed: np.ndarray, k: int, n: int, config: CardConfig) -> np.ndarray:
    """The int8[k, n] that `pack_weights` packed. Raises `ValueError` for another length."""
    rows, columns = config.array_rows, config.array_columns
    k_tiles, n_tiles = -(-k // rows), -(-n // columns)
    _expect("packed", packed, np.uint8, (k_tiles * n_tiles * config.weight_tile_bytes,))
    tiles = packed.reshape(-1, config.weight_tile_bytes)[:, : rows * columns].copy()
    matrix = tiles.view(np.int8).reshape(n_tiles, k_tiles, rows, columns).transpose(1, 2, 0, 3)
    return matrix.reshape(k_tiles * rows, n_tiles * columns)[:k, :n]


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
