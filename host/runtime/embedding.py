"""Embedding tables and bags on the host's side: which arrays stand for what the card pools."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from halfdome.hdl.commands import ElementFormat, RowFormat
from halfdome.host.runtime.memory import Block

_BITS = {8: RowFormat.INT8, 4: RowFormat.INT4}
_REALS = {RowFormat.FLOAT16: np.float16, RowFormat.FLOAT32: np.float32}
OUTPUTS = {
    np.dtype(np.float32): ElementFormat.FLOAT32,
    np.dtype(np.float16): ElementFormat.FLOAT16,
    np.dtype(np.uint8): ElementFormat.UINT8,
    np.dtype(np.int8): ElementFormat.INT8,
}
"""Formats of pooled rows by dtype."""


@dataclass(frozen=True)
class Table:
    """An embedding table in the DRAM of card number `card`.

    `preloaded` says that it was placed there without simulating the transfer.
    """

    card: int
    block: Block
    rows: int
    row_bytes: int
    dim: int
    row_format: RowFormat
    preloaded: bool


def row_format_of(table: np.ndarray, bits: int, row_format: RowFormat | None) -> RowFormat:
    """The format of a table's rows: `row_format` if given, else by dtype, fused rows by `bits`.

    Raises `ValueError` for `bits` that no format has.
    """
    if row_format is not None:
        return RowFormat(row_format)
    for known, real in _REALS.items():
        if table.dtype == real:
            return known
    if bits not in _BITS:
        raise ValueError(f"bits={bits}: must be 8 or 4")
    return _BITS[bits]


def table_bytes(table: np.ndarray, row_format: RowFormat, max_dim: int) -> tuple[np.ndarray, int]:
    """uint8[rows, row_bytes] and elements of a row.

    Raises `ValueError` for an array that is no such table.
    """
    dtype = _REALS.get(row_format, np.uint8)
    if table.dtype != dtype or table.ndim != 2:
        raise ValueError(
            f"table: is {table.dtype}[{', '.join(map(str, table.shape))}], "
            f"must be {np.dtype(dtype)} with 2 dimensions"
        )
    raw = np.ascontiguousarray(table)
    rows, row_bytes = table.shape[0], table.shape[1] * table.itemsize
    dim = (row_bytes - row_format.tail_bytes) * 8 // row_format.element_bits
    if rows < 1 or not 1 <= dim <= max_dim:
        raise ValueError(
            f"table: {table.dtype}[{rows}, {table.shape[1]}] has {rows} rows of {dim} elements, "
            f"must have at least one row and 1 to max_dim={max_dim} elements"
        )
    return raw.view(np.uint8).reshape(rows, row_bytes), dim


def integers(name: str, values: np.ndarray) -> np.ndarray:
    """`values` as int32[n], or as int64[n] if they do not fit; `ValueError` if no integers."""
    values = np.asarray(values)
    if values.size == 0:
        values = values.astype(np.int32)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: is {values.dtype} with {values.ndim} dimensions, must be 1-D int"
        )
    for dtype in (np.int32, np.int64):
        limits = np.iinfo(dtype)
        if not values.size or limits.min <= values.min() <= values.max() <= limits.max:
            return np.ascontiguousarray(values.astype(dtype))
    raise ValueError(f"{name}: a value does not fit int64")


def bag_starts(offsets: np.ndarray, count: int, include_last: bool) -> np.ndarray:
    """Where each bag starts in `count` indices; without the end of the last if that is included.

    Raises `ValueError` for offsets that do not cut the indices into bags.
    """
    offsets = integers("offsets", offsets)
    if include_last and len(offsets) and offsets[-1] != count:
        raise ValueError(f"offsets: the last is {offsets[-1]}, must be the {count} indices")
    starts = offsets[:-1] if include_last else offsets
    if len(starts) == 0:
        raise ValueError("offsets: empty, must name the start of at least one bag")
    if starts[0] != 0 or (np.diff(starts, append=count) < 0).any():
        raise ValueError(f"offsets: must start at 0, not decrease and stay within {count} indices")
    return starts


def output_format(dtype: DTypeLike, multiplier: float, zero_point: int) -> ElementFormat:
    """The format of pooled rows. Raises `ValueError` for values that it does not take."""
    chosen = OUTPUTS.get(np.dtype(dtype))
    if chosen is None:
        known = ", ".join(map(str, OUTPUTS))
        raise ValueError(f"dtype={np.dtype(dtype)}: must be one of {known}")
    if chosen.nbytes == 1:
        limits = np.iinfo(np.dtype(dtype))
        if not limits.min <= zero_point <= limits.max:
            raise ValueError(f"zero_point={zero_point}: must fit {np.dtype(dtype)}")
        if not np.isfinite(np.float32(multiplier)):
            raise ValueError(f"multiplier={multiplier}: must be finite")
    return chosen
