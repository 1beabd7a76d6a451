"""A second kind of accelerator, deliberately unlike a Halfdome card: no rings, no descriptors.

It runs commands that are operators of graphs, in one queue, on one memory, in no time. It keeps
`halfdome.host.driver.accelerator` honest, and lets programs be tried where nothing is compiled.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from halfdome.hdl.commands import ElementFormat
from halfdome.host.driver.accelerator import CardState, Code, Issue, Place
from halfdome.host.driver.errors import CardError, CardLost
from halfdome.host.driver.memory import Allocator, Block
from halfdome.host.driver.numpy_bus import SPACING, NumpyBus
from halfdome.host.driver.numpy_operations import OPERATIONS, Reach, Rows
from halfdome.host.driver.rings import ENTRY

TARGET = "numpy"
MEMORY = "memory"


@dataclass(frozen=True)
class _Command:
    """A command that was submitted."""

    ticket: int
    op: str
    arguments: Mapping[str, Any]
    waits: Sequence[tuple[int, int]]
    signal: int
    tells: "NumpyAccelerator | None"
    notice: int


class NumpyInstalled:
    """Commands as dictionaries, and what each slot binds their operands to."""

    def __init__(self, code: Code, place: Place):
        self.code = code
        self.place = place
        self.commands = json.loads(code.own["commands"].tobytes())
        self._symbols = [np.zeros(0, np.int64)] * len(place.addresses)

    def set_symbols(self, slot: int, symbols: np.ndarray) -> None:
        """Keeps the numbers of a slot's request."""
        self._symbols[slot] = symbols

    def bound(self, command: int, slot: int) -> dict[str, Any]:
        """The arguments of a command for the request in a slot."""
        arguments = self.commands[command]["arguments"]
        return {name: self._bind(value, slot) for name, value in arguments.items()}

    def _bind(self, value: Any, slot: int) -> Any:
        if isinstance(value, list):
            return [self._bind(each, slot) for each in value]
        if not isinstance(value, dict):
            return value
        if "rows" in value:
            address, stride, kind, zero_point = value["rows"]
            return Rows(self._bind(address, slot), stride, ElementFormat(kind), zero_point)
        symbol = value["symbol"]
        more = int(self._symbols[slot][symbol]) if symbol >= 0 else 0
        if "segment" not in value:
            return more
        bases = self.place.bus_addresses if value["remote"] else self.place.addresses
        return int(bases[slot, value["segment"]]) + value["offset"] + more


class NumpyAccelerator:
    """An accelerator of plain numpy.

    Parameters
    ----------
    index : int
    bus : NumpyBus, which it joins
    memory_bytes : int
    peers : int, most accelerators that it hears of
    """

    target = TARGET
    shared = MEMORY

    def __init__(self, index: int, bus: NumpyBus, memory_bytes: int, peers: int):
        self.index = index
        self.design = f"{memory_bytes} bytes"
        self.memory = np.zeros(memory_bytes, np.uint8)
        self.memories = {MEMORY: Allocator(f"accelerator {index}", 0, memory_bytes, 1)}
        self.issued = np.zeros(1, np.int64)
        self.told = np.zeros(peers, np.int64)
        self.alarms = 0
        self.traced = self.strayed = False
        self.answers = True
        self.counters = np.zeros(1 + peers, np.int64)
        self._bus = bus
        self._reach = Reach(index, self.memory, bus)
        self._waiting: deque[_Command] = deque()
        self._submitted = 0
        self._prepared: list[Callable[[], None]] = []
        bus.accelerators.append(self)

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def bus_address(self, block: Block) -> int:
        """Where others reach a block."""
        return (1 + self._bus.accelerators.index(self)) * SPACING + block.address

    def upload(self, block: Block, values: np.ndarray) -> None:
        """Copies bytes into memory."""
        self._expect_answer()
        self.memory[block.address : block.address + len(values)] = values

    def download(self, block: Block, nbytes: int) -> np.ndarray:
        """A block's bytes once everything is done."""
        self._expect_answer()
        self._bus.run()
        return self.memory[block.address : block.address + nbytes].copy()

    def _expect_answer(self) -> None:
        if not self.answers:
            raise CardLost(f"accelerator {self.index}: does not answer")

    def load(self, copies: Sequence[tuple[int, Block, int]]) -> None:
        """Prepares copies of host memory."""
        for address, block, nbytes in copies:
            self._prepared.append(lambda a=address, b=block, n=nbytes: self.upload(
                b, self._bus.at(a, n)
            ))  # fmt: skip

    def pass_on(
        self, peer: "NumpyAccelerator", copies: Sequence[tuple[Block, Block, int]], after: object
    ) -> None:
        """Prepares copies into a peer: they are made when the peer submits what it prepared."""
        for source, target, nbytes in copies:
            peer._prepared.append(lambda s=source, t=target, n=nbytes: peer.upload(
                t, self.memory[s.address : s.address + n]
            ))  # fmt: skip

    def flush(self) -> range:
        """Makes the copies that were prepared."""
        prepared, self._prepared = self._prepared, []
        for copy in prepared:
            copy()
        return range(0)

    def install(self, code: Code, place: Place) -> NumpyInstalled:
        """Reads a part's commands."""
        return NumpyInstalled(code, place)

    def submit(self, installed: NumpyInstalled, issue: Issue, as_list: bool) -> range:
        """Appends commands to the queue."""
        self._expect_answer()
        code, place = installed.code, installed.place
        first = self._submitted
        for row, (command, slot) in enumerate(zip(issue.commands, issue.slots, strict=True)):
            events = code.waits[command]
            waits = [
                (int(place.counters[event]), int(value))
                for event, value in zip(events, issue.waits[row], strict=True)
                if event >= 0
            ]
            peer = int(code.peer[command])
            self._waiting.append(_Command(
                first + row, installed.commands[command]["op"], installed.bound(command, slot),
                waits, int(issue.signals[row]), place.peers[peer] if peer >= 0 else None,  # type: ignore[arg-type]
                int(issue.notices[row]),
            ))  # fmt: skip
        self._submitted = first + len(issue.commands)
        return range(first, self._submitted)

    def step(self) -> bool:
        """Runs the oldest command if all that it waits for has happened."""
        if not self._waiting or not self.answers:
            return False
        command = self._waiting[0]
        if any(self.counters[counter] < value for counter, value in command.waits):
            return False
        OPERATIONS[command.op](self._reach, **command.arguments)
        if command.tells is not None:
            command.tells.counters[1 + self.index] = command.notice
        self.counters[0] = command.signal
        self._waiting.popleft()
        return True

    def wait(self, tickets: Iterable[int]) -> np.ndarray:
        """Lets all accelerators work until these commands are done."""
        numbers = np.fromiter(tickets, np.int64)
        self._bus.run()
        self._expect_answer()
        if self._waiting and len(numbers) and numbers.max() >= self._waiting[0].ticket:
            raise CardError(f"accelerator {self.index}: waits for what never happens")
        entries = np.zeros(len(numbers), ENTRY)
        entries["start_cycle"] = entries["end_cycle"] = numbers % 2**32
        return entries.view(np.recarray)

    def done(self, tickets: np.ndarray) -> bool:
        """Nothing is done before it is waited for, and then all is."""
        return True

    def sleep(self) -> None:
        """Lets all accelerators work."""
        self._bus.run()

    def state(self) -> CardState:
        """Whether it answers."""
        return CardState.RUNNING if self.answers else CardState.SILENT

    def catch_up(self, peers: Sequence["NumpyAccelerator"]) -> None:
        """Sets what peers will have told."""
        for peer in peers:
            if peer is not self:
                self.counters[1 + peer.index] = peer.told[self.index]

    def set_priority(self, cores: Sequence[int], priority: int) -> None:
        """It has one core, which goes before nobody."""

    def drop(self) -> None:
        """Forgets what was prepared."""
        self._prepared = []

    def drain(self) -> bool:
        """Lets all that was submitted end."""
        self._bus.run()
        return self.idle

    def restart(self, peers: Sequence["NumpyAccelerator"]) -> bool:
        """Throws away what waits and counts it as done."""
        if not self.answers:
            return False
        self._waiting.clear()
        self.counters[0] = self.issued[0]
        self.catch_up(peers)
        return True

    def give_up(self) -> None:
        """Throws away what waits."""
        self._waiting.clear()
