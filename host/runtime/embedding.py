"""Embedding tables and bags as arrays: which stand for what a card pools."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from halfdome.hdl.commands import ElementFormat, RowFormat
from halfdome.host import arguments
from halfdome.host.driver.memory import Block
from halfdome.host.graph.values import DTYPES, REAL_ROWS

_BITS = {8: RowFormat.INT8, 4: RowFormat.INT4}
OUTPUTS = (np.float32, np.float16, np.uint8, np.int8)
"""Dtypes of pooled rows."""


@dataclass(frozen=True)
class Table:
    """An embedding table in the memory of card number `card`.

    `preloaded` says that it was placed there without simulating the transfer.
    """

    card: int
    block: Block
    rows: int
    row_bytes: int
    dim: int
    row_format: RowFormat
    preloaded: bool


def row_format_of(table: arguments.Shaped, bits: int, row_format: object) -> RowFormat:
    """The format of a table's rows: `row_format` if given, else by dtype, fused rows by `bits`.

    Raises `ValueError` for `bits` that no format has.
    """
    bits = arguments.integer("bits", bits, 1)
    if bits not in _BITS:
        raise ValueError(f"bits={bits}: must be 8 or 4")
    if row_format is not None:
        return arguments.choice("row_format", row_format, RowFormat)
    for known, real in REAL_ROWS.items():
        if table.dtype == DTYPES[real]:
            return known
    return _BITS[bits]


def row_elements(
    table: arguments.Shaped, row_format: RowFormat, dim: int | None, max_dim: int
) -> int:
    """Elements of a row.

    Raises `ValueError` for an array that is no such table, or whose rows do not have `dim`.
    """
    arguments.fitting(
        "table", table, (DTYPES[REAL_ROWS.get(row_format, ElementFormat.UINT8)],), (None, None)
    )
    rows, row_bytes = table.shape[0], table.shape[1] * table.dtype.itemsize
    most = (row_bytes - row_format.tail_bytes) * 8 // row_format.element_bits
    if rows < 1 or not 1 <= most <= max_dim:
        raise ValueError(
            f"table: {table.dtype}[{rows}, {table.shape[1]}] has {rows} rows of {most} elements, "
            f"must have at least one row and 1 to max_dim={max_dim} elements"
        )
    if dim is not None:
        dim = arguments.integer("dim", dim, 1, max_dim)
        if row_format.row_bytes(dim) != row_bytes:
            raise ValueError(
                f"dim={dim}: rows of {row_format.name} then have {row_format.row_bytes(dim)} "
                f"bytes, those of the table have {row_bytes}"
            )
    return dim or most


def integers(name: str, values: ArrayLike) -> np.ndarray:
    """`values` as int32[n], or as int64[n] if they do not fit; `ValueError` if no integers."""
    array = arguments.plain(name, values)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: is {arguments.described(array)}, must be integers with 1 dimension"
        )
    for dtype in (np.int32, np.int64):
        limits = np.iinfo(dtype)
        if not array.size or limits.min <= array.min() <= array.max() <= limits.max:
            return np.ascontiguousarray(array.astype(dtype))
    raise ValueError(f"{name}: a value does not fit int64")


def bag_starts(offsets: ArrayLike, count: int, include_last: bool) -> np.ndarray:
    """Where each bag starts in `count` indices; without the end of the last if that is included.

    Raises `ValueError` for offsets that do not cut the indices into bags.
    """
    found = integers("offsets", offsets)
    if include_last and len(found) and found[-1] != count:
        raise ValueError(f"offsets: the last is {found[-1]}, must be the {count} indices")
    starts = found[:-1] if include_last else found
    if len(starts) == 0:
        raise ValueError("offsets: empty, must name the start of at least one bag")
    if starts[0] != 0 or (np.diff(starts, append=count) < 0).any():
        raise ValueError(f"offsets: must start at 0, not decrease and stay within {count} indices")
    return starts
