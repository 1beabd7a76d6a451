"""How operands lie in card memory (docs/architecture.md): packed weights, params, padded rows."""

import numpy as np

from halfdome.hdl.config import CardConfig

PARAM = np.dtype([("bias", "<i4"), ("multiplier", "<f4")])
"""Parameters of one output channel as they lie in memory."""


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def row_stride(nbytes: int, config: CardConfig) -> int:
    """Bytes from one row of `nbytes` to the next where rows stay on the card: whole bus words, and
    no row touches more memory lines than it must."""
    unit = config.bus_bytes
    while unit < min(nbytes, config.line_bytes):
        unit *= 2
    return round_up(nbytes, unit)


def pack_weights(weight: np.ndarray, config: CardConfig, *, diagonal: bool = False) -> np.ndarray:
    """8-bit weights [n, k], or [n, kernel_height, kernel_width, k], as uint8 tiles, in the order
    in which the array takes them: group of tiles along n, tap, line along k, then each tile along n
    of the group with the tiles along k of the line. `diagonal`: as `on_diagonal` makes them."""
    n, k = weight.shape[0], weight.shape[-1]
    rows, columns = config.array_rows, config.array_columns
    taps = weight.view(np.uint8).reshape(n, -1, k).transpose(1, 2, 0)
    padded = np.zeros((len(taps), round_up(k, rows), round_up(n, columns)), np.uint8)
    padded[:, :k, :n] = taps
    tiles = padded.reshape(len(taps), -1, rows, padded.shape[2] // columns, columns)
    tap, k_tile, n_tile = (
        index.reshape(-1) for index in np.indices((tiles.shape[0], tiles.shape[1], tiles.shape[3]))
    )
    together = config.diagonal_tiles if diagonal else config.group_tiles
    group, line = n_tile // together, k_tile // config.line_tiles
    order = np.lexsort((k_tile, n_tile, line, tap, group))
    packed = np.zeros((len(order), config.weight_tile_bytes), np.uint8)
    packed[:, : rows * columns] = tiles.transpose(0, 1, 3, 2, 4).reshape(len(order), -1)[order]
    return packed.reshape(-1)


def pack_taps(weight: np.ndarray, config: CardConfig) -> np.ndarray:
    """8-bit weights [k, kernel_height, kernel_width] of channels by themselves as uint8: for each
    tap a row of k, in whole bus words."""
    rows = weight.reshape(len(weight), -1).T.view(np.uint8)
    return pad_rows(rows, round_up(len(weight), config.bus_bytes)).reshape(-1)


def is_diagonal(config: CardConfig, k: int, n: int, groups: int) -> bool:
    """Whether one command with the flag DIAGONAL does for all groups of k inputs and n outputs."""
    return groups > 1 and k == n and config.diagonal_tiles > 0 and config.array_rows % k == 0


def on_diagonal(weight: np.ndarray, tile: int, zero_point: int) -> np.ndarray:
    """[n, ..., k] of groups of k outputs as [n, ..., tile]: what each sees of its inputs' tile."""
    n, k = weight.shape[0], weight.shape[-1]
    laid = np.full((*weight.shape[:-1], tile), zero_point, weight.dtype)
    place = np.arange(n) // k * k % tile
    for first in range(0, tile, k):
        laid[place == first, ..., first : first + k] = weight[place == first]
    return laid


def pack_params(
    weight: np.ndarray, multiplier: np.ndarray, bias: np.ndarray, x_zero_point: int
) -> np.ndarray:
    """Per output channel int32 bias (input zero point folded in) and float32 multiplier."""
    sums = weight.astype(np.int64).sum(axis=1)
    folded = bias.astype(np.int64) - x_zero_point * sums
    params = np.zeros(len(bias), PARAM)
    params["bias"] = folded.astype(np.int32)  # int32 arithmetic wraps, here as in the card
    params["multiplier"] = multiplier
    return params.view(np.uint8)


def pad_rows(matrix: np.ndarray, stride: int) -> np.ndarray:
    """uint8[rows, columns] as a contiguous uint8 array with rows `stride` bytes apart."""
    padded = np.zeros((matrix.shape[0], stride), np.uint8)
    padded[:, : matrix.shape[1]] = matrix
    return padded.reshape(-1)
