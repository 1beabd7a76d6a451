"""Which command must wait for which: whoever touches the same bytes, one of them writing."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from itertools import groupby

from halfdome.host.compiler.commands import Command, Extent, Region
from halfdome.host.compiler.touching import conflicts

Where = Callable[[Region], tuple[Hashable, int]]
"""The memory that a region lies in, and how far its buffer is from the start of that."""

_of_buffer = lru_cache(maxsize=4096)(conflicts)
"""Buffers are touched alike in each try of a compilation, and by layers of one shape."""


def by_buffer(region: Region) -> tuple[Hashable, int]:
    """Every buffer as a memory of its own: as long as nobody knows where it lies."""
    return id(region.buffer), 0


def dependencies(
    commands: Sequence[Command], where: Where, *, queued: bool = False
) -> dict[Command, list[Command]]:
    """For each command those before it in `commands` that must be done when it starts, but for what
    these need in turn.

    `queued` says that queues run them in this order, so that the last of a queue stands for those
    before it. A command that tells a peer stands for what it has sent there: who reads that waits
    for it.
    """
    touched: dict[Hashable, list[tuple[Command, Extent, bool]]] = defaultdict(list)
    for command in commands:
        for regions, writing in ((command.reads, False), (command.writes, True)):
            for region in regions:
                if region.buffer.in_host or (region.buffer.contents is not None and not writing):
                    continue
                memory, start = where(region)
                touched[memory].append((command, region.at(start), writing))
    needed: dict[Command, dict[int, Command]] = {command: {} for command in commands}
    for found in touched.values():
        extents, writes = tuple(each[1] for each in found), tuple(each[2] for each in found)
        if queued:
            queues = [(each[0].position, each[0].queue) for each in found]
            pairs = conflicts(extents, writes, queues)
        else:
            pairs = _of_buffer(extents, writes)
        for one, two in pairs:
            earlier, later = found[one][0], found[two][0]
            if earlier is not later:
                needed[later][id(earlier)] = earlier
    for command in commands:
        for other in command.behind:
            needed[command][id(other)] = other
    return {command: list(others.values()) for command, others in needed.items()}


def one_by_one(commands: Sequence[Command]) -> None:
    """Has each layer of a card wait for the one before: what it takes is then its own alone."""
    before: dict[int, list[Command]] = {}
    for (position, _), group in groupby(commands, lambda each: (each.position, each.label)):
        layer = list(group)
        for command in layer:
            command.behind += before.get(position, ())
        before[position] = layer
