"""Made-up commands for tests of the compiler's steps."""

from dataclasses import dataclass

from hypothesis import strategies as st

from halfdome.host.compiler.commands import Buffer, Command, Extent, Region
from halfdome.host.compiler.order import by_buffer, dependencies

QUEUES = 3


@dataclass(frozen=True)
class Work:
    """A command without meaning."""

    queue: int
    cycles: float


@st.composite
def extents(draw, nbytes):
    """Some rows within so many bytes."""
    start = draw(st.integers(0, nbytes - 1))
    row_bytes = draw(st.integers(1, min(24, nbytes - start)))
    stride = draw(st.sampled_from([row_bytes, 16, 24, 32]))
    stride = max(stride, row_bytes)
    most = 1 + (nbytes - start - row_bytes) // stride
    return Extent(start, draw(st.integers(1, most)), row_bytes, stride)


@st.composite
def programs(draw, cards=1, most=14):
    """Commands of one request in an order in which they could run, on buffers of their cards."""
    sizes = draw(st.lists(st.integers(1, 300), min_size=cards, max_size=5 * cards))
    buffers = [
        Buffer(f"b{n}", n % cards, nbytes, exclusive=draw(st.integers(0, 5)) == 0)
        for n, nbytes in enumerate(sizes)
    ]
    commands = []
    for number in range(draw(st.integers(1, most))):
        position = draw(st.integers(0, cards - 1))
        mine = [buffer for buffer in buffers if buffer.position == position]

        def regions(count, mine=mine):
            chosen = draw(st.lists(st.sampled_from(mine), max_size=count))
            return [Region(buffer, draw(extents(buffer.nbytes))) for buffer in chosen]

        work = Work(draw(st.integers(0, QUEUES - 1)), float(draw(st.integers(1, 60))))
        command = Command(position, work, f"c{number}", regions(2), regions(1))
        for region in (*command.reads, *command.writes):
            region.buffer.traffic += region.traffic
        commands.append(command)
    return commands


def needed(commands):
    """Which must be done before which, whatever shares memory."""
    return dependencies(commands, by_buffer)
