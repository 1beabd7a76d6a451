"""Which buffers of a card are one core's own, once it is known which core does what."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from halfdome.host.compiler.commands import Buffer, Command, Place, Region
from halfdome.host.driver.kernels import Work


def house(commands: Sequence[Command], line: int) -> None:
    """Gives each core buffers of its own, of what no other core touches.

    Contents come in a copy for each core, or in the part of them that it reads; so does what is
    filled by the core that reads it. What several cores touch stays as it is. Parts begin at
    multiples of `line` bytes.
    """
    used: dict[int, dict[int, list[Region]]] = defaultdict(lambda: defaultdict(list))
    buffers: dict[int, Buffer] = {}
    for command in commands:
        work: Work = command.work  # type: ignore[assignment]
        for region in (*command.reads, *command.writes):
            if region.buffer.position == command.position:
                buffers[id(region.buffer)] = region.buffer
                used[id(region.buffer)][work.core].append(region)
    own: dict[tuple[int, int], tuple[Buffer, int]] = {}
    for key, by_core in used.items():
        for core, (buffer, start) in _shared_out(buffers[key], by_core, line).items():
            own[key, core] = buffer, start
    for command in commands:
        work: Work = command.work  # type: ignore[assignment]

        def moved(buffer: Buffer, core: int = work.core) -> tuple[Buffer, int]:
            return own.get((id(buffer), core), (buffer, 0))

        command.reads, command.writes = (
            [_moved(region, *moved(region.buffer)) for region in regions]
            for regions in (command.reads, command.writes)
        )
        fields = {
            name: _placed(value, *moved(value.buffer)) if isinstance(value, Place) else value
            for name, value in work.fields.items()
        }
        command.work = replace(work, fields=fields)
    for buffer in (*buffers.values(), *(buffer for buffer, _ in own.values())):
        buffer.traffic = 0.0
    for command in commands:
        for region in (*command.reads, *command.writes):
            region.buffer.traffic += region.traffic


def _shared_out(
    buffer: Buffer, by_core: Mapping[int, Sequence[Region]], line: int
) -> dict[int, tuple[Buffer, int]]:
    """What each core has of a buffer, and the byte at which that begins."""
    if len(by_core) == 1:
        buffer.core = next(iter(by_core))
        return {}
    hulls = {
        core: (
            min(region.extent.start for region in regions) // line * line,
            max(region.extent.end for region in regions),
        )
        for core, regions in by_core.items()
    }
    ends = sorted(hulls.values())
    apart = all(before[1] <= after[0] for before, after in pairwise(ends))
    if buffer.exclusive or not (apart or buffer.staging or buffer.contents is not None):
        buffer.core = -1
        return {}
    found, whole = {}, replace(buffer)
    for number, (core, (start, end)) in enumerate(hulls.items()):
        mine = buffer if number == 0 else replace(whole)
        mine.core = core
        if apart:
            mine.nbytes = end - start
            if whole.contents is not None:
                mine.name, mine.part_of = f"{whole.name} from {start}", whole.name
                mine.contents = lambda start=start, end=end: whole.contents()[start:end]  # type: ignore[misc]
        found[core] = mine, start if apart else 0
    return found


def _moved(region: Region, buffer: Buffer, start: int) -> Region:
    extent = replace(region.extent, start=region.extent.start - start)
    return replace(region, buffer=buffer, extent=extent)


def _placed(place: Place, buffer: Buffer, start: int) -> Place:
    return Place(buffer, place.offset - start, place.symbol)
