"""SparseLengthsSum as the card computes it, bit for bit."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdl.commands import IndexMode, RowFormat, Status
from sim.golden.floats import add, fma, multiply


def row_bytes(dim: int, row_format: RowFormat) -> int:
    """Bytes of a table row of `dim` elements, scale and bias included."""
    return dim + 8 if row_format == RowFormat.INT8 else (dim + 1) // 2 + 4


def unpack_rows(
    table: NDArray[np.uint8], dim: int, row_format: RowFormat
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Elements uint8[rows, dim], scales float32[rows] and biases float32[rows] of fused rows.

    `table` is uint8[rows, stride]; bytes beyond `row_bytes` are ignored. The layouts are those of
    `hdl.commands.RowFormat`. Raises `ValueError` if a row does not fit its stride.
    """
    size = row_bytes(dim, row_format)
    if table.ndim != 2 or table.shape[1] < size:
        raise ValueError(f"table of shape {table.shape}: a row of dim {dim} takes {size} bytes")
    q: NDArray[np.uint8]
    if row_format == RowFormat.INT8:
        q = table[:, :dim]
        tail = np.ascontiguousarray(table[:, dim:size]).view("<f4")
    else:
        pairs = table[:, : (dim + 1) // 2]
        nibbles = np.stack([pairs & np.uint8(15), pairs >> np.uint8(4)], axis=2)
        q = nibbles.reshape(len(table), -1)[:, :dim]
        tail = np.ascontiguousarray(table[:, size - 4 : size]).view("<f2").astype(np.float32)
    return q, tail[:, 0], tail[:, 1]


def sparse_lengths_sum(
    table: NDArray[np.uint8],
    indices: ArrayLike,
    lengths: ArrayLike,
    dim: int,
    row_format: RowFormat,
    weights: ArrayLike | None = None,
    mode: IndexMode = IndexMode.FATAL,
) -> tuple[NDArray[np.float32], Status, int]:
    """Pools rows into bags: the meaning of `commands.Opcode.GATHER`.

    Parameters
    ----------
    table : uint8[rows, stride]
        Fused rows; `stride` is at least `row_bytes(dim, row_format)`.
    indices : int[index_count]
    lengths : int[bags]
    weights : float32[index_count] or None
        Weight of each row; None means 1.

    Returns
    -------
    pooled : float32[completed, dim]
        The bags that were written: all of them if the status is OK, else those before the fault.
    status : Status
        `OK`, `BAD_LENGTH`, `LENGTH_MISMATCH` or `BAD_INDEX`: the first fault in the order of bags,
        a bag's length before its indices.
    detail : int
        As `Status` describes.

    In index order, `acc = fma(weight * scale, q, acc + weight * bias)` from +0 in fp32, every step
    rounded to nearest even: what FBGEMM computes, checked against
    `torch.ops.quantized.embedding_bag_byte_rowwise_offsets` and its 4-bit twin.
    """
    index = np.asarray(indices, np.int64).reshape(-1)
    length = np.asarray(lengths, np.int64).reshape(-1)
    ends = np.cumsum(np.maximum(length, 0))
    starts = ends - np.maximum(length, 0)
    faulty = np.flatnonzero((length < 0) | (ends > len(index)))
    if len(faulty):
        completed = int(faulty[0])
        negative = length[completed] < 0
        status = Status.BAD_LENGTH if negative else Status.LENGTH_MISMATCH
        detail, checked = completed, int(starts[completed])
    else:
        completed = len(length)
        checked = int(ends[-1]) if completed else 0
        status, detail = (Status.OK, 0)
        if checked != len(index):
            status, detail = Status.LENGTH_MISMATCH, completed
    bad = (index[:checked] < 0) | (index[:checked] >= len(table))
    if mode == IndexMode.FATAL and bad.any():
        status, detail = Status.BAD_INDEX, int(np.argmax(bad))
        completed = int(np.searchsorted(ends, detail, side="right"))
    elif mode == IndexMode.WARN and status == Status.OK:
        detail = int(bad.sum())

    # Step `i` adds the i-th row of every bag that has one.
    pooled = np.zeros((completed, dim), np.float32)
    starts, length = starts[:completed], length[:completed]
    for step in range(int(length.max(initial=0))):
        bags = np.flatnonzero(length > step)
        position = starts[bags] + step
        bags, position = bags[~bad[position]], position[~bad[position]]
        if not len(bags):
            continue
        q, scale, bias = unpack_rows(table[index[position]], dim, row_format)
        if weights is not None:
            weight = np.asarray(weights, np.float32).reshape(-1)[position]
            scale, bias = multiply(weight, scale), multiply(weight, bias)
        shifted = add(pooled[bags], bias[:, None])
        pooled[bags] = fma(scale[:, None], q.astype(np.float32), shifted)
    return pooled, status, detail
