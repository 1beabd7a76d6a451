"""Embedding pooling as the card computes it, bit for bit."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halfdome.hdl.commands import ElementFormat, IndexMode, RowFormat, Status
from halfdome.sim.golden.floats import add, divide, fma, multiply, narrow, quantise

_FAR = 1 << 40
"""Beyond every sum of good lengths."""


def unpack_rows(
    table: NDArray[np.uint8], dim: int, row_format: RowFormat
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Elements float32[rows, dim], scales float32[rows] and biases float32[rows] of rows.

    `table` is uint8[rows, stride]; bytes beyond a row are ignored. The layouts are those of
    `halfdome.hdl.commands.RowFormat`; without scale and bias these are 1 and -0: nothing changes.
    Raises `ValueError` if a row does not fit its stride.
    """
    size = row_format.row_bytes(dim)
    if table.ndim != 2 or table.shape[1] < size:
        raise ValueError(f"table of shape {table.shape}: a row of dim {dim} takes {size} bytes")
    end = size - row_format.tail_bytes
    raw = np.ascontiguousarray(table[:, :end])
    if row_format.element_bits == 4:
        nibbles = np.stack([raw & np.uint8(15), raw >> np.uint8(4)], axis=2)
        q = nibbles.reshape(len(table), -1)[:, :dim].astype(np.float32)
    else:
        real = {8: np.uint8, 16: np.float16, 32: np.float32}[row_format.element_bits]
        with np.errstate(invalid="ignore"):  # A signalling NaN.
            q = raw.view(real).astype(np.float32)
    if not row_format.tail_bytes:
        ones = np.ones(len(table), np.float32)
        return q, ones, np.float32(-0.0) * ones
    real = np.float32 if row_format.tail_bytes == 8 else np.float16
    with np.errstate(invalid="ignore"):
        tail = np.ascontiguousarray(table[:, end:size]).view(real).astype(np.float32)
    return q, tail[:, 0], tail[:, 1]


def lengths_of(offsets: ArrayLike, index_count: int) -> NDArray[np.int64]:
    """The length of each bag from where it starts; the last ends at `index_count`.

    Indices before the first bag make it too long.
    """
    start = np.clip(np.asarray(offsets, np.int64).reshape(-1), -_FAR, _FAR)
    length = np.diff(start, append=index_count)
    if len(start) and start[0] != 0:
        length[0] = _FAR
    return length


def sparse_lengths_sum(
    table: NDArray[np.uint8],
    indices: ArrayLike,
    lengths: ArrayLike,
    dim: int,
    row_format: RowFormat,
    weights: ArrayLike | None = None,
    mode: IndexMode = IndexMode.FATAL,
    *,
    pruned: bool = False,
    mean: bool = False,
    output_format: ElementFormat = ElementFormat.FLOAT32,
    multiplier: ArrayLike = 1.0,
    zero_point: int = 0,
) -> tuple[NDArray, Status, int]:
    """Pools rows into bags: the meaning of `commands.Opcode.GATHER`.

    Parameters
    ----------
    table : uint8[rows, stride]
        Rows; `stride` is at least `row_format.row_bytes(dim)`.
    indices : int[index_count]
    lengths : int[bags]
    weights : float32[index_count] or None
        Weight of each row; None means 1.
    pruned : bool
        Index -1 is not bad and contributes nothing.
    mean : bool
        Divide each sum by the number of rows in it.
    output_format, multiplier, zero_point
        See `pooled_as`.

    Returns
    -------
    pooled : float32, float16, uint8 or int8 [completed, dim]
        The bags that were written: all of them if the status is OK, else those before the fault.
    status : Status
        `OK`, `BAD_LENGTH`, `LENGTH_MISMATCH` or `BAD_INDEX`: the first fault in the order of bags,
        a bag's length before its indices.
    detail : int
        As `Status` describes.

    In index order, `acc = fma(weight * scale, q, acc + weight * bias)` from +0 in fp32, every step
    rounded to nearest even: what FBGEMM computes, checked against
    `torch.ops.quantized.embedding_bag_byte_rowwise_offsets` and its 4-bit twin. Of float rows that
    leaves `acc = fma(weight, x, acc)`: `torch.nn.functional.embedding_bag`.
    """
    index = np.asarray(indices, np.int64).reshape(-1)
    length = np.clip(np.asarray(lengths, np.int64).reshape(-1), -_FAR, _FAR)
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
    out = (index[:checked] < 0) | (index[:checked] >= len(table))
    bad = out & ~(pruned & (index[:checked] == -1))
    if mode == IndexMode.FATAL and bad.any():
        status, detail = Status.BAD_INDEX, int(np.argmax(bad))
        completed = int(np.searchsorted(ends, detail, side="right"))
    elif mode == IndexMode.WARN and status == Status.OK:
        detail = int(bad.sum())

    # Step `i` adds the i-th row of every bag that has one.
    pooled = np.zeros((completed, dim), np.float32)
    counts = np.zeros(completed, np.int64)
    starts, length = starts[:completed], length[:completed]
    for step in range(int(length.max(initial=0))):
        bags = np.flatnonzero(length > step)
        position = starts[bags] + step
        bags, position = bags[~out[position]], position[~out[position]]
        if not len(bags):
            continue
        counts[bags] += 1
        q, scale, bias = unpack_rows(table[index[position]], dim, row_format)
        if weights is not None:
            weight = np.asarray(weights, np.float32).reshape(-1)[position]
            scale = multiply(weight, scale)
            if row_format.tail_bytes:
                bias = multiply(weight, bias)
        shifted = add(pooled[bags], bias[:, None])
        pooled[bags] = fma(scale[:, None], q, shifted)
    if mean:
        pooled = means(pooled, counts, output_format)
    return pooled_as(pooled, output_format, multiplier, zero_point), status, detail


def means(
    sums: NDArray[np.float32], counts: NDArray[np.int64], output_format: ElementFormat
) -> NDArray[np.float32]:
    """Each row of `sums` divided by its count, or by 1 if that is 0.

    For an output in fp16 both are rounded to fp16 first, as PyTorch does, which divides what it
    has put out.
    """
    divisor = np.maximum(counts, 1).astype(np.float32)[:, None]
    if output_format == ElementFormat.FLOAT16:
        sums, divisor = narrow(sums).astype(np.float32), narrow(divisor).astype(np.float32)
    return divide(sums, divisor)


def pooled_as(
    pooled: NDArray[np.float32],
    output_format: ElementFormat,
    multiplier: ArrayLike,
    zero_point: int,
) -> NDArray:
    """`pooled` as float32, rounded to float16, or as 8 bits: `quantise` with `zero_point`.

    `zero_point` is the byte of the descriptor: of an int8 its two's complement.
    """
    match output_format:
        case ElementFormat.FLOAT32:
            return pooled
        case ElementFormat.FLOAT16:
            return narrow(pooled)
        case ElementFormat.UINT8:
            return quantise(pooled, multiplier, zero_point)
        case ElementFormat.INT8:
            # 128 more in zero point and result moves -128..127 to 0..255 and back.
            return (quantise(pooled, multiplier, zero_point ^ 128) ^ np.uint8(128)).view(np.int8)
    raise ValueError(f"output_format={output_format!r}: GATHER cannot write it")
