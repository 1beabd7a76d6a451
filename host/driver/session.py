"""Calls on one platform: one after the other, each whole or without a trace."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from halfdome.host.driver.accelerator import Accelerator
from halfdome.host.driver.bus import Bus, DmaBuffer
from halfdome.host.driver.memory import Block
from halfdome.host.driver.settle import Settled, settle

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Mark:
    """What was owned when a call began."""

    mapped: tuple[DmaBuffer, ...]
    owned: tuple[tuple[Block, ...], ...]


class Session:
    """The state that calls on a platform must leave as it was if they fail.

    A call takes a copy of who owns what before it begins. If it fails, by whatever exception and
    wherever that was raised, what it had submitted is brought to an end, and then memory of host
    and cards is given back that it had taken. Should that be interrupted too, the next call does
    it first. All that is decided by one assignment each.

    Attributes
    ----------
    bus : Bus
    values : bool, whether cards compute; without, what they put out means nothing
    accelerators : list of Accelerator, all that write into host memory
    turn : int, the number of the call under way; calls within it have its number
    rests : int, how often cards were brought to rest and placed anew
    settled : Settled or None, what became of them the last time
    """

    def __init__(self, bus: Bus, values: bool = True):
        self.bus = bus
        self.values = values
        self.accelerators: list[Accelerator] = []
        self.turn = 0
        self.rests = 0
        self.settled: Settled | None = None
        self._lock = threading.RLock()
        self._mapped: tuple[DmaBuffer, ...] = ()
        self._abandoned: tuple[DmaBuffer, ...] = ()
        self._before: Mark | None = None
        self._process = os.getpid()
        self._closed = False

    def map(self, nbytes: int) -> DmaBuffer:
        """Host memory that cards reach, until `unmap` or the failure of this call."""
        self._mapped = (*self._mapped, self.bus.map(max(1, nbytes)))
        return self._mapped[-1]

    def unmap(self, buffer: DmaBuffer) -> None:
        """Gives host memory back; no command may be using it."""
        buffer.release()  # first: twice does nothing, never would lose it
        self._mapped = tuple(each for each in self._mapped if each is not buffer)

    def call(self, function: Callable[[], R]) -> R:
        """What `function` returns; if it raises, nothing is as if it had been called.

        From another thread it waits for its turn; within a call it is a part of that. Raises
        `RuntimeError` after `close`, and in a process that was forked off: the threads of a
        simulation stay where they were.
        """
        if os.getpid() != self._process:
            raise RuntimeError("the platform was opened by another process; open one in each")
        while self._lock._is_owned():  # type: ignore[attr-defined]
            if self._before is not None:
                return function()
            self._lock.release()  # an exception struck when the last call was over
        with self._lock:
            if self._closed:
                raise RuntimeError("the platform is closed")
            return self._whole(function)

    def close(self, function: Callable[[], None]) -> None:
        """The last call. A second time, and in a process that was forked off, it does nothing."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if not self._closed:
                self._whole(function)
                self._closed = True

    def _whole(self, function: Callable[[], R]) -> R:
        self._roll_back()
        self.turn += 1
        self.keep()
        try:
            result = function()
        except BaseException:
            self._roll_back()
            raise
        self._before = None
        return result

    def mark(self) -> Mark:
        """What is owned now, see `give_back`."""
        return Mark(self._mapped, tuple(memory.owned for memory in self._memories()))

    def give_back(self, mark: Mark) -> None:
        """Gives back what was taken since `mark`: host memory once no card can write there."""
        kept = set(map(id, mark.mapped))
        lost = tuple(buffer for buffer in self._mapped if id(buffer) not in kept)
        self._abandoned = (*self._abandoned, *lost)
        self._mapped = tuple(buffer for buffer in self._mapped if id(buffer) in kept)
        for memory, owned in zip(self._memories(), mark.owned, strict=True):
            memory.restore(owned)

    def keep(self) -> None:
        """What this call owns so far stays, also if it fails later."""
        self._before = self.mark()

    def _memories(self):
        return [m for each in self.accelerators for m in each.memories.values()]

    def _roll_back(self) -> None:
        """Does nothing if the last call ended well."""
        if self._before is None:
            return
        for accelerator in self.accelerators:
            accelerator.drop()
        busy = [each for each in self.accelerators if not each.idle]
        settled = settle(busy, self.accelerators)
        self.give_back(self._before)
        if len(settled.living) == len(busy):  # else one of them might still write there
            self.release_abandoned()
        self._before = None

    def abandon(self, buffers: Sequence[DmaBuffer]) -> None:
        """Gives host memory back once no card can write there any more."""
        self._mapped = tuple(each for each in self._mapped if each not in buffers)
        self._abandoned = (*self._abandoned, *buffers)

    def release_abandoned(self) -> None:
        """Gives back what was abandoned: every card has been brought to rest, or was reset."""
        while self._abandoned:
            self._abandoned[-1].release()  # twice does nothing
            self._abandoned = self._abandoned[:-1]


class InSession(Protocol):
    """What has public calls on a platform."""

    session: Session


S = TypeVar("S", bound=InSession)


def whole(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that is called by users: see `Session.call`."""

    @functools.wraps(method)
    def call(self: S, *args: P.args, **options: P.kwargs) -> R:
        return self.session.call(lambda: method(self, *args, **options))

    return call
