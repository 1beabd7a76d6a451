"""Embedding tables as fused rows: each row carries its own scale and bias behind its elements.

The formats and their rounding are those of FBGEMM (`src/QuantUtils.cc`), which PyTorch uses for
`torch.ops.quantized.embedding_bag_byte_prepack` and `embedding_bag_4bit_prepack`. The card reads
them as `RowFormat.INT8` and `RowFormat.INT4`. An element is worth `q * scale + bias`.
"""

import numpy as np

_EPSILON = np.float32(1e-8)


def fuse_8bit(table: np.ndarray) -> np.ndarray:
    """float32[rows, dim] to uint8[rows, dim + 8]: elements, fp32 scale, fp32 bias, little-endian.

    Raises `ValueError` for another shape or type, or a row whose range is not finite.
    """
    low, high = _extremes(table)
    span = high - low
    scale = span / np.float32(255)
    inverse = np.float32(255) / (span + _EPSILON)
    elements = np.rint((table - low) * inverse).astype(np.uint8)
    tail = np.concatenate([scale, low], axis=1).astype("<f4")
    return np.concatenate([elements, tail.view(np.uint8)], axis=1)


def fuse_4bit(table: np.ndarray) -> np.ndarray:
    """float32[rows, dim] to uint8[rows, ceil(dim / 2) + 4]: elements, fp16 scale, fp16 bias.

    Even columns lie in the low nibble. Raises `ValueError` for another shape or type, or a row
    whose scale or bias does not fit fp16.
    """
    low, high = _extremes(table)
    with np.errstate(over="ignore", divide="ignore"):
        bias = low.astype(np.float16)
        span = high - bias.astype(np.float32)
        scale = np.where(span == 0, np.float32(1), span / np.float32(15)).astype(np.float16)
        # Too small for fp16, or for its reciprocal: any scale will do, all elements are 0.
        scale[(scale == 0) | np.isinf(np.float32(1) / scale.astype(np.float32))] = 1
    bad = np.flatnonzero(~(np.isfinite(bias) & np.isfinite(scale)))
    if len(bad):
        raise ValueError(
            f"table row {bad[0]}: {low[bad[0], 0]} to {high[bad[0], 0]} does not fit fp16 "
            "scale and bias"
        )
    inverse = np.float32(1) / scale.astype(np.float32)
    elements = np.rint((table - bias.astype(np.float32)) * inverse).clip(0, 15).astype(np.uint8)
    if elements.shape[1] % 2:
        elements = np.pad(elements, ((0, 0), (0, 1)))
    tail = np.concatenate([scale, bias], axis=1).astype("<f2")
    packed = elements[:, ::2] | elements[:, 1::2] << 4
    return np.concatenate([packed, tail.view(np.uint8)], axis=1)


def _extremes(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest element of each row, float32[rows, 1] each, after checking the table."""
    if table.ndim != 2 or table.shape[1] == 0 or table.dtype != np.float32:
        raise ValueError(f"table {table.dtype}{list(table.shape)}: must be float32[rows, dim >= 1]")
    # Which zero is the least depends on the order of comparing: adding 0 makes either +0.
    low, high = table.min(axis=1, keepdims=True) + 0, table.max(axis=1, keepdims=True) + 0
    with np.errstate(over="ignore", invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(high - low))
    if len(bad):
        raise ValueError(
            f"table row {bad[0]}: the range {low[bad[0], 0]} to {high[bad[0], 0]} is not finite"
        )
    return low, high
