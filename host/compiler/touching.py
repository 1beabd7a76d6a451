"""Which of many accesses touch the same bytes, one of them writing.

What a later write has covered need not be looked at again: whoever touches it touches that, too.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from halfdome.host.compiler.commands import Extent


def conflicts(
    extents: Sequence[Extent], writes: Sequence[bool], queues: Sequence[Hashable] | None = None
) -> list[tuple[int, int]]:
    """Pairs of accesses to one memory that touch and of which at least one writes; where each of
    them is kept in order, all others are.

    Parameters
    ----------
    extents : of accesses, in an order in which they could be made
    writes : whether each of them writes
    queues : the in-order queue that makes each, None for none; of a queue the last alone stands for
        all before it

    A pair is two places in `extents`, the earlier first; pairs are sorted by the later.
    """
    numbers: dict[Hashable, int] = {}
    queue = np.arange(len(extents))  # by itself each
    for place, name in enumerate(queues or ()):
        if name is not None:
            queue[place] = -1 - numbers.setdefault(name, len(numbers))
    fields = [(e.start, e.end, e.row_bytes, e.stride if e.rows > 1 else -1) for e in extents]
    table = np.array(fields, np.int64).reshape(-1, 4)
    written = np.asarray(writes, bool)
    live, found = np.empty(0, np.int64), []  # what no write has covered
    for place in range(len(extents)):
        start, end, _, _ = table[place]
        near = (table[live, 0] < end) & (table[live, 1] > start)
        if not written[place]:
            near &= written[live]
        others = live[near]
        others = others[_share(table[others].T, table[place])]
        if queues is not None and len(others) > 1:  # the last of each queue
            _, last = np.unique(queue[others[::-1]], return_index=True)
            others = np.sort(others[::-1][last])
        found += [(other, place) for other in others.tolist()]
        if written[place]:
            live = live[~_covered(table[live].T, table[place])]
        live = np.append(live, place)
    return found


def _share(those: np.ndarray, this: np.ndarray) -> np.ndarray:
    """Whether extents may have a byte in common with another one, whose spans meet its: what
    `Extent.touches` says. Rows are start, end, bytes of a row, and the stride, -1 of a single
    one."""
    starts, _, row_bytes, strides = those
    start, _, mine, stride = this
    step = np.where(strides < 0, stride, strides)
    alike = (step > 0) & ((stride < 0) | (stride == step))
    gap = (start - starts) % np.where(alike, step, 1)
    return ~alike | (gap < row_bytes) | (gap + mine > step)


def _covered(those: np.ndarray, this: np.ndarray) -> np.ndarray:
    """Whether all bytes of extents are bytes of another one, as far as that is easily said."""
    starts, ends, row_bytes, strides = those
    start, end, mine, stride = this
    within = (starts >= start) & (ends <= end)
    if stride in (-1, mine):
        return within
    return within & (strides == stride) & ((starts - start) % stride + row_bytes <= mine)
