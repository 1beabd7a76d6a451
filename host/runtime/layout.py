"""How operands lie in card memory (docs/architecture.md): packed weights, params, padded rows."""

import numpy as np

from hdl.config import CardConfig


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def pack_weights(weight: np.ndarray, config: CardConfig) -> np.ndarray:
    """int8[n, k] weights as uint8 tiles, in the order the array loads them."""
    n, k = weight.shape
    rows, columns = config.array_rows, config.array_columns
    padded = np.zeros((round_up(k, rows), round_up(n, columns)), np.int8)
    padded[:k, :n] = weight.T
    tiles = padded.reshape(-1, rows, padded.shape[1] // columns, columns).transpose(2, 0, 1, 3)
    packed = np.zeros((tiles.shape[0] * tiles.shape[1], config.weight_tile_bytes), np.uint8)
    packed[:, : rows * columns] = tiles.reshape(len(packed), -1).view(np.uint8)
    return packed.reshape(-1)


def pack_params(
    weight: np.ndarray, multiplier: np.ndarray, bias: np.ndarray, x_zero_point: int
) -> np.ndarray:
    """Per output channel int32 bias (input zero point folded in) and float32 multiplier."""
    sums = weight.astype(np.int64).sum(axis=1)
    folded = bias.astype(np.int64) - x_zero_point * sums
    params = np.zeros(len(bias), np.dtype([("bias", "<i4"), ("multiplier", "<f4")]))
    params["bias"] = folded.astype(np.int32)  # int32 arithmetic wraps, here as in the card
    params["multiplier"] = multiplier
    return params.view(np.uint8)


def pad_rows(matrix: np.ndarray, stride: int) -> np.ndarray:
    """uint8[rows, columns] as a contiguous uint8 array with rows `stride` bytes apart."""
    padded = np.zeros((matrix.shape[0], stride), np.uint8)
    padded[:, : matrix.shape[1]] = matrix
    return padded.reshape(-1)
