"""The golden functions in the shape of the public operators: arrays in, arrays out."""

import numpy as np

from halfdome.hdl.commands import ElementFormat, Function, RowFormat, Status
from halfdome.sim.golden import floats, functions
from halfdome.sim.golden.gather import sparse_lengths_sum
from halfdome.sim.golden.matmul import matmul, product, requantise, triangle
from halfdome.sim.golden.vector import decode, quantise

__all__ = ["dot_interaction", "embedding_bag", "linear", "quantise", "sigmoid"]


def embedding_bag(
    table: np.ndarray,
    indices: np.ndarray,
    lengths: np.ndarray,
    weights: np.ndarray | None = None,
    bits: int = 8,
) -> np.ndarray:
    """uint8[rows, row_bytes] fused rows, int32[n], int32[bags] to float32[bags, dim].

    Raises `ValueError` for what the card would complete with a bad status.
    """
    row_format, dim = (
        (RowFormat.INT8, table.shape[1] - 8)
        if bits == 8
        else (RowFormat.INT4, 2 * (table.shape[1] - 4))
    )
    pooled, status, detail = sparse_lengths_sum(table, indices, lengths, dim, row_format, weights)
    if status is not Status.OK:
        raise ValueError(f"embedding_bag: {status.name}, detail {detail}")
    return pooled


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    multiplier: np.ndarray,
    bias: np.ndarray,
    x_zero_point: int = 0,
    y_zero_point: int = 0,
    relu: bool = False,
) -> np.ndarray:
    """uint8[m, k], int8[n, k], float32[n], int32[n] to uint8[m, n]."""
    folded = bias.astype(np.int64) - x_zero_point * weight.astype(np.int64).sum(axis=1)
    return matmul(x, weight.T, folded.astype(np.int32), multiplier, y_zero_point, relu)


def dot_interaction(x: np.ndarray, multiplier: np.float32, zero_point: int) -> np.ndarray:
    """uint8[n, segments, dim] to uint8[n, segments * (segments - 1) / 2].

    Of each sample the products of segments i and j < i, row after row, requantised.
    """
    total = product(x, x.transpose(0, 2, 1), zero_point, zero_point)
    count = x.shape[1]
    bias, multipliers = np.zeros(count, np.int32), np.full(count, multiplier, np.float32)
    return triangle(requantise(total, bias, multipliers, zero_point))


def sigmoid(x: np.ndarray, scale: np.float32, zero_point: int) -> np.ndarray:
    """uint8 to float32 of the same shape: sigmoid((x - zero_point) * scale)."""
    scaled = floats.multiply(decode(x, ElementFormat.UINT8, zero_point), scale)
    return functions.apply(Function.SIGMOID, scaled)
