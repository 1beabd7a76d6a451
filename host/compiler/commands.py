"""Commands before it is known where their operands lie, and when they run."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from halfdome.host.runtime.program import HOST


class Work(Protocol):
    """What a command does, in the terms of its target."""

    @property
    def queue(self) -> int:
        """The in-order queue that it joins."""
        ...

    @property
    def cycles(self) -> float:
        """What it is expected to take."""
        ...


Contents = tuple[int, str]
"""What a card holds: position and name."""


@dataclass(eq=False)
class Buffer:
    """Memory that a program needs in one piece.

    Attributes
    ----------
    name : str, for people
    position : int, of the card, or `HOST`
    nbytes : int
    contents : makes the uint8[n] that must be in it before the first request, or None: then each
        request in flight has its own
    traffic : float, bytes of it that a request moves, for deciding what is kept near
    exclusive : bool, whether it shares memory with nothing: others than the card write to it
    staging : bool, whether it is of use only in near memory, and so comes first there
    core : int, the core in whose near memory it may lie; -1 if several use it
    part_of : str, the name of the contents of which it has a part; empty if it has all
    """

    name: str
    position: int
    nbytes: int
    contents: Callable[[], np.ndarray] | None = None
    traffic: float = 0.0
    exclusive: bool = False
    staging: bool = False
    core: int = 0
    part_of: str = ""

    @property
    def held(self) -> Contents:
        """What it has, or has a part of."""
        return self.position, self.part_of or self.name

    @property
    def in_host(self) -> bool:
        """Whether it is host memory."""
        return self.position == HOST


@dataclass(frozen=True)
class Place:
    """A byte of a buffer; with a symbol, so many bytes further as a request says."""

    buffer: Buffer
    offset: int = 0
    symbol: int = -1

    def __add__(self, nbytes: int) -> "Place":
        return Place(self.buffer, self.offset + nbytes, self.symbol)


@dataclass(frozen=True)
class Symbol:
    """A number that a request says."""

    number: int


@dataclass(frozen=True)
class Extent:
    """Rows of bytes in some memory, from byte `start` on."""

    start: int
    rows: int
    row_bytes: int
    stride: int

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.start + (self.rows - 1) * self.stride + self.row_bytes

    def touches(self, other: "Extent") -> bool:
        """Whether a byte may be in both. Rows of one stride beside each other have none."""
        if self.end <= other.start or other.end <= self.start:
            return False
        strides = {each.stride for each in (self, other) if each.rows > 1}
        if len(strides) != 1:
            return True
        stride = strides.pop()
        gap = (other.start - self.start) % stride
        return gap < self.row_bytes or gap + other.row_bytes > stride


@dataclass(frozen=True)
class Region:
    """What of a buffer a command reads or writes.

    `moved` is how many bytes it moves, None for each of them once.
    """

    buffer: Buffer
    extent: Extent
    moved: float | None = None

    @property
    def traffic(self) -> float:
        """Bytes that are moved."""
        return self.extent.rows * self.extent.row_bytes if self.moved is None else self.moved

    def moving(self, nbytes: float) -> "Region":
        """The same, of which a command moves so many bytes."""
        return replace(self, moved=nbytes)

    def at(self, start: int) -> Extent:
        """Where it is if the buffer begins at byte `start`."""
        return replace(self.extent, start=start + self.extent.start)


@dataclass(eq=False)
class Command:
    """One command of a request.

    Attributes
    ----------
    position : int, of the card that runs it
    work : what it does, in the target's terms; an address is a `Place`
    label : str
    reads, writes : regions of this card's memory; of a command that tells a peer, what it has sent
    tells : int, the position told, or -1
    behind : commands that must come before it, whatever they touch
    once_seen : commands of other cards that the host must have seen done before this is issued
    """

    position: int
    work: Work
    label: str
    reads: list[Region] = field(default_factory=list)
    writes: list[Region] = field(default_factory=list)
    tells: int = -1
    behind: list["Command"] = field(default_factory=list)
    once_seen: list["Command"] = field(default_factory=list)

    @property
    def queue(self) -> int:
        """The in-order queue that it joins."""
        return self.work.queue

    @property
    def cycles(self) -> float:
        """What it is expected to take."""
        return self.work.cycles
