"""Which of many accesses touch the same bytes: a sweep over where they begin."""

from collections.abc import Sequence

import numpy as np

from halfdome.host.compiler.commands import Extent


def conflicts(extents: Sequence[Extent], writes: Sequence[bool]) -> list[tuple[int, int]]:
    """Every pair of extents of one memory that touch and of which at least one is written.

    A pair is two places in `extents`, the earlier first; pairs are sorted by the later.
    """
    fields = [(e.start, e.end, e.row_bytes, e.stride if e.rows > 1 else -1) for e in extents]
    table = np.array(fields, np.int64).reshape(-1, 4)
    order = np.argsort(table[:, 0], kind="stable")
    starts, ends, row_bytes, strides = table[order].T
    written = np.asarray(writes, bool)[order]
    lasts = np.searchsorted(starts, ends)  # what begins before an extent ends
    found = []
    for one, last in enumerate(lasts.tolist()):
        others = slice(one + 1, last)
        meets = (written[others] | written[one]) & (ends[others] > starts[one])
        if meets.any():
            meets &= _share(starts, row_bytes, strides, one, others)
            two = one + 1 + np.flatnonzero(meets)
            found.append(np.stack([np.full(len(two), order[one]), order[two]], axis=1))
    if not found:
        return []
    pairs = np.sort(np.concatenate(found), axis=1)
    return list(map(tuple, pairs[np.lexsort(pairs.T)].tolist()))


def _share(
    starts: np.ndarray, row_bytes: np.ndarray, strides: np.ndarray, one: int, others: slice
) -> np.ndarray:
    """Whether `one` may have a byte in common with others that begin later, but before it ends:
    what `Extent.touches` says. The stride of a single row is -1."""
    theirs = strides[others]
    stride = np.where(theirs < 0, strides[one], theirs)
    alike = (stride > 0) & ((strides[one] < 0) | (strides[one] == stride))
    gap = (starts[others] - starts[one]) % np.where(alike, stride, 1)
    return ~alike | (gap < row_bytes[one]) | (gap + row_bytes[others] > stride)
