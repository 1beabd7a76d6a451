"""The order in which a tensor's elements lie, which is not that of its ONNX axes.

An order lists axes, outermost first; axes of one element are left out, as they change nothing.
"""

from collections.abc import Sequence

Order = tuple[int, ...]


def plain(shape: Sequence[int], first: int = 0) -> Order:
    """The axes from `first` on as ONNX has them."""
    return tuple(axis for axis in range(first, len(shape)) if shape[axis] != 1)


def without_ones(order: Sequence[int], shape: Sequence[int]) -> Order:
    """An order without the axes of one element."""
    return tuple(axis for axis in order if shape[axis] != 1)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[Order, Order]]:
    """Axes of the old shape and of the new one that make up each other, as finely as possible."""
    groups: list[tuple[Order, Order]] = []
    left, right = list(plain(old)), list(plain(new))
    while left or right:
        mine, others = [left.pop(0)], [right.pop(0)]
        size, other = old[mine[0]], new[others[0]]
        while size != other:
            if size < other:
                mine.append(left.pop(0))
                size *= old[mine[-1]]
            else:
                others.append(right.pop(0))
                other *= new[others[-1]]
        groups.append((tuple(mine), tuple(others)))
    return groups


def reshaped(order: Order, old: Sequence[int], new: Sequence[int]) -> Order | None:
    """The order of a tensor of shape `old` after an ONNX Reshape to `new` that moves nothing.

    None if there is none: axes that become one, or are split in common, do not lie in a row.
    `order` may leave out the first axis, where both shapes begin with it.
    """
    made: list[int] = []
    rest = list(order)
    groups = {mine[0]: (mine, others) for mine, others in _groups(old, new)}
    while rest:
        if rest[0] not in groups:
            return None
        mine, others = groups[rest[0]]
        if tuple(rest[: len(mine)]) != mine:
            return None
        del rest[: len(mine)]
        made += others
    return tuple(made)


def gathered(order: Order, old: Sequence[int], new: Sequence[int], *, last: bool) -> Order:
    """An order close to this one of which an ONNX Reshape to `new` moves nothing.

    Axes that become one, or are split in common, come to where the first of them is, or the last.
    """
    made = order
    for mine, _ in _groups(old, new):
        if len(mine) > 1 and set(mine) <= set(made):
            places = [made.index(axis) for axis in mine]
            at = max(places) + 1 if last else min(places)
            before, after = (
                tuple(axis for axis in part if axis not in mine) for part in (made[:at], made[at:])
            )
            made = before + mine + after
    return made


def transpositions(
    old: Order, new: Order, limit: int = 2
) -> list[tuple[Order, Order, Order]] | None:
    """How to get from an order to another by swapping what comes last: [prefix, a, b] each.

    Every step makes prefix + b + a of prefix + a + b. None if more than `limit` are needed.
    """
    ways: dict[Order, list[tuple[Order, Order, Order]]] = {old: []}
    for _ in range(limit + 1):
        if new in ways:
            return ways[new]
        for order, steps in list(ways.items()):
            for start in range(len(order)):
                for middle in range(start + 1, len(order)):
                    prefix, a, b = order[:start], order[start:middle], order[middle:]
                    ways.setdefault(prefix + b + a, [*steps, (prefix, a, b)])
    return None
