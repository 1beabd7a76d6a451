"""What the runtime asks of an accelerator, whoever made it.

An accelerator has memories, queues that each run commands in order, and counters of what they have
done: one for each queue, and one for each peer that tells it of its progress. It runs programs made
for its `target` and `design`, whose code only it understands. Its host reaches it over a bus.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from halfdome.host.driver.memory import Allocator, Block


class CardState(enum.Enum):
    """How the host finds a card."""

    RUNNING = enum.auto()
    #: A command could not be fetched.
    STOPPED = enum.auto()
    #: As after power-on, or about to be, though the driver had started it.
    RESET = enum.auto()
    #: It does not answer.
    SILENT = enum.auto()


@dataclass(frozen=True)
class Code:
    """One card's part of a program.

    Attributes
    ----------
    queue : uint8[commands]
    waits : int32[commands, n], events or -1
    peer : int16[commands], the position that a command tells of what was sent to it, or -1
    own : dict of arrays, the target's
    """

    queue: np.ndarray
    waits: np.ndarray
    peer: np.ndarray
    own: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Place:
    """What a card must know to run its part.

    Attributes
    ----------
    addresses : int64[slots, segments], where segments of its own lie in its memory
    bus_addresses : int64[slots, segments], where segments lie on the bus
    counters : int64[events], the counter of this card that counts an event, or -1
    peers : accelerators by position
    """

    addresses: np.ndarray
    bus_addresses: np.ndarray
    counters: np.ndarray
    peers: Sequence["Accelerator"]


@dataclass(frozen=True)
class Issue:
    """Commands of an installed part to be run, in this order.

    Attributes
    ----------
    commands, slots : int64[n], which command, for the request in which slot
    waits : int64[n, m], the values that the counters of the events waited for must reach
    signals : int64[n], what the counter of the command's queue is afterwards
    notices : int64[n], what the peer's counter is, of commands that tell one
    labels : for people; empty if nobody looks
    """

    commands: np.ndarray
    slots: np.ndarray
    waits: np.ndarray
    signals: np.ndarray
    notices: np.ndarray
    labels: Sequence[str]


class Installed(Protocol):
    """A part made ready to run on a card."""

    def set_symbols(self, slot: int, symbols: np.ndarray) -> None:
        """Patches a slot's commands with the numbers of the request that is in it."""
        ...


class Accelerator(Protocol):
    """One card. Methods that talk to it raise `CardError` if it does not do what it should.

    Attributes
    ----------
    index : int, its number on the platform
    target, design : str, what its programs are made for
    memories : allocators by the name that programs use
    shared : str, the memory that all its queues reach
    issued : int64[queues], the commands that each queue was given so far
    told : int64[cards], how often this card was asked to tell each other card of its progress
    alarms : int, rises when something went wrong that no completion tells
    traced : bool, whether labels of commands are kept
    idle : bool, whether nothing was prepared, and all that was submitted is done
    strayed : bool, whether it has done what it was not told
    answers : bool, whether it answers when it is asked once
    """

    index: int
    target: str
    design: str
    memories: Mapping[str, Allocator]
    shared: str
    issued: np.ndarray
    told: np.ndarray

    @property
    def alarms(self) -> int: ...

    @property
    def traced(self) -> bool: ...

    @property
    def idle(self) -> bool: ...

    @property
    def strayed(self) -> bool: ...

    @property
    def answers(self) -> bool: ...

    def upload(self, block: Block, values: np.ndarray) -> None:
        """Copies uint8[n] into a block and waits."""
        ...

    def download(self, block: Block, nbytes: int) -> np.ndarray:
        """A block's first bytes, once everything submitted is done."""
        ...

    def load(self, copies: Sequence[tuple[int, Block, int]]) -> Any:
        """Prepares copies of host memory into blocks: bus address, block, bytes each.

        Returns the event, of this card, that they are there; see `flush`.
        """
        ...

    def pass_on(
        self, peer: "Accelerator", copies: Sequence[tuple[Block, Block, int]], after: Any
    ) -> Any:
        """Prepares copies of blocks here into blocks of a peer, once `after` has happened.

        Returns the event, of the peer, that they are there.
        """
        ...

    def flush(self) -> Sequence[int]:
        """Submits what was prepared; the tickets."""
        ...

    def bus_address(self, block: Block) -> int:
        """Where peers and host reach a block on the bus."""
        ...

    def install(self, code: Code, place: Place) -> Any:
        """Makes a part ready: an `Installed`."""
        ...

    def submit(self, installed: Any, issue: Issue, as_list: bool) -> Sequence[int]:
        """Hands commands to the card, all at once or one by one; their tickets."""
        ...

    def wait(self, tickets: Iterable[int]) -> np.ndarray:
        """Sleeps until commands are done: records with `start_cycle` and `end_cycle`.

        Raises `CommandError` for the first that failed.
        """
        ...

    def done(self, tickets: np.ndarray) -> bool:
        """Whether `wait` would not sleep."""
        ...

    def sleep(self) -> None:
        """Sleeps until some commands are done, as some are not; raises if none can be."""
        ...

    def state(self) -> CardState:
        """How the card is."""
        ...

    def catch_up(self, peers: Sequence["Accelerator"]) -> None:
        """Sets what peers will have told this card, so that nothing waits for them."""
        ...

    def set_priority(self, cores: Sequence[int], priority: int) -> None:
        """What these cores do goes before what those of a lower priority do."""
        ...

    def drop(self) -> None:
        """Forgets what was prepared and not submitted."""
        ...

    def drain(self) -> bool:
        """Waits for all that was submitted; whether it ended, and nothing else was run."""
        ...

    def restart(self, peers: Sequence["Accelerator"]) -> bool:
        """Resets the card, its memory excepted, and counts all that was issued as done.

        False if that fails.
        """
        ...

    def give_up(self) -> None:
        """Listens to the card no more until `restart`."""
        ...
