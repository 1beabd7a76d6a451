"""One card behind the bus: its registers, its rings, and the commands in flight."""

import enum
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest

from halfdome.hdl import registers
from halfdome.hdl.commands import COMPLETION_BYTES, DESCRIPTOR_BYTES, Engine
from halfdome.hdl.config import CardConfig
from halfdome.hdl.registers import CONTROL_RESET, CONTROL_RUN, STATUS_FETCH_FAILED, STATUS_RESETTING
from halfdome.host.driver.bus import Bus
from halfdome.host.driver.completion import PHASE_BYTE, Completion
from halfdome.host.driver.errors import CardError, CardLost, CommandError

RING_ENTRIES = 1024
WAIT_CYCLES = 1_000_000
"""Cycles without any interrupt after which a card on which no engine was busy counts as hung."""
RESET_POLL_CYCLES = 1000
"""Cycles between two looks at a card that is being reset."""
LOOKS = 16
"""How often the host looks for errors while no interrupt comes, before it gives up."""
ALL_ONES = 0xFFFF_FFFF
"""What a read returns that nobody answers."""
ERROR_COUNTERS = (
    "DROPPED_REQUESTS", "UNEXPECTED_COMPLETIONS", "LATE_COMPLETIONS", "MALFORMED_COMPLETIONS",
    "UNSUCCESSFUL_COMPLETIONS", "POISONED_COMPLETIONS", "COMPLETION_TIMEOUTS",
    "REJECTED_DOORBELLS",
)  # fmt: skip
"""Registers that count what a card has noticed going wrong, each thing once."""


class CardState(enum.Enum):
    """How the host finds a card."""

    RUNNING = enum.auto()
    #: A descriptor could not be fetched.
    STOPPED = enum.auto()
    #: As after power-on, or about to be, though the driver had started it.
    RESET = enum.auto()
    #: It does not answer.
    SILENT = enum.auto()


@dataclass
class Submitted:
    """A descriptor handed to a card: as `label`, at `cycle`, into slot `slot` of its ring."""

    descriptor: bytes
    label: str
    cycle: int
    slot: int
    completion: Completion | None = None


class Device:
    """Drives one card through `bus`. Refuses a card that is not built from `config`.

    Parameters
    ----------
    index : int, the card's number in messages
    bar0, bar2 : int, bus addresses
    message : (int, int), address and data of the interrupt message
    clock : function that returns the time in card cycles, for `history`
    patience_cycles : int, cycles without any interrupt after which a card on which no engine was
        busy counts as hung; reads by the card fail after a quarter of that

    Attributes
    ----------
    patience_cycles : int
    clock : function, see above
    history : list of Submitted, or None
        While it is a list, everything submitted is appended to it.
    """

    history: list[Submitted] | None = None

    def __init__(
        self,
        bus: Bus,
        config: CardConfig,
        *,
        index: int,
        bar0: int,
        bar2: int,
        message: tuple[int, int],
        clock: Callable[[], int] = lambda: 0,
        patience_cycles: int = WAIT_CYCLES,
    ):
        self.bus = bus
        self.config = config
        self.index = index
        self.bar0 = bar0
        self.bar2 = bar2
        self.clock = clock
        self._identify()
        self._submission = bus.map(RING_ENTRIES * DESCRIPTOR_BYTES)
        self._completion = bus.map(RING_ENTRIES * COMPLETION_BYTES)
        self._alarm = bus.map(4)
        self._alarms = 0
        self._alarms_seen = bus.errors
        self._message = message
        self.patience_cycles = patience_cycles
        self._errors: Counter[str] = Counter()
        self._errors_read: dict[str, int] = {}
        self._next_id = 0
        self._submitted: dict[int, Submitted] = {}
        self._order: deque[Submitted] = deque()
        self._busy_cycles = 0
        self._start()

    def _start(self) -> None:
        """Sets up a card that is as after power-on."""
        self._completion.array[:] = 0
        self._given_up = False
        self._tail = 0
        self._completion_head = 0
        self._phase = 1
        self._write64("SQ_BASE", self._submission.address)
        self.write("SQ_SIZE", RING_ENTRIES)
        self._write64("CQ_BASE", self._completion.address)
        self.write("CQ_SIZE", RING_ENTRIES)
        # An error message is no interrupt: it is left where the host looks anyway.
        messages = self._message, (self._alarm.address, 1)
        for vector, (address, data) in zip(registers.MSIX_VECTORS, messages, strict=True):
            self._write64(f"{vector}_ADDRESS", address)
            self.write(f"{vector}_DATA", data)
            self.write(f"{vector}_CONTROL", 0)
        self.write("COMPLETION_TIMEOUT_CYCLES", self.patience_cycles // 4)
        self.write("CONTROL", CONTROL_RUN)

    def reset(self) -> list[Submitted]:
        """Makes the card as after power-on, its memory excepted, and starts it again.

        Completions of reads that have timed out are waited for, up to `patience_cycles`: later they
        must not come. Commands that run end first, reads wait for their completions until they time
        out. Returns what was submitted and has not completed: it never will. Raises `CardLost` if
        the card does not answer and `TimeoutError` if it has not finished after `patience_cycles`.
        """
        self.poll()
        lost = list(self._order)
        self.error_counts()
        self._await_late_completions()
        self.write("CONTROL", CONTROL_RESET)
        for _ in range(max(1, self.patience_cycles // RESET_POLL_CYCLES)):
            if not self.read("STATUS") & STATUS_RESETTING:
                break
            self.bus.wait(RESET_POLL_CYCLES)
        else:
            raise TimeoutError(
                f"card {self.index}: a reset is not over after {self.patience_cycles} cycles; "
                "power it off"
            )
        self._errors_read = {}
        lost = [each for each in lost if each.completion is None]
        self._drop_submitted()
        self._start()
        return lost

    def _await_late_completions(self) -> None:
        """What comes after a reset could be taken for the answer to another read of its tag."""
        for _ in range(self.patience_cycles // RESET_POLL_CYCLES):
            if not self.read("QUARANTINED_TAGS"):
                return
            self.bus.wait(RESET_POLL_CYCLES)

    def _drop_submitted(self) -> None:
        """Forgets what has not completed."""
        self._order.clear()
        self._submitted = {i: s for i, s in self._submitted.items() if s.completion is not None}

    def give_up(self) -> None:
        """Tells the card, if it hears, to send nothing any more, and listens no more until `reset`.

        What was submitted and has not completed never will.
        """
        self.poll()
        self._given_up = True
        self._drop_submitted()
        self.write("BUS_MASTER", 0)

    def state(self) -> CardState:
        """How the card is, asked by reading its registers."""
        try:
            status, control = self.read("STATUS"), self.read("CONTROL")
        except CardLost:
            return CardState.SILENT
        if status & STATUS_RESETTING:
            return CardState.RESET
        if status & STATUS_FETCH_FAILED:
            return CardState.STOPPED
        return CardState.RUNNING if control & CONTROL_RUN else CardState.RESET

    def error_counts(self) -> dict[str, int]:
        """What the card has noticed going wrong since it was opened, resets included."""
        now = {name: self.read(name) for name in ERROR_COUNTERS}
        for name, count in now.items():
            before = self._errors_read.get(name, 0)
            # A count that fell was reset behind the driver's back.
            self._errors[name] += count - before if count >= before else count
        self._errors_read = now
        return dict(self._errors)

    def known_errors(self) -> dict[str, int]:
        """`error_counts`, or as much of them as is known of a card that does not answer."""
        with suppress(CardLost):
            return self.error_counts()
        return dict(self._errors)

    @property
    def alarms(self) -> int:
        """Rises when the card, or the root port, has told of an error that no completion tells.

        What the card computed after that, or a peer from what it sent, is not to be trusted.
        """
        if self._alarm.array[0]:
            self._alarm.array[0] = 0
            self._alarms += 1
        return self._alarms + self.bus.errors

    def _identify(self) -> None:
        if (found := self.read("ID")) != registers.IDENTIFICATION:
            raise CardError(f"card {self.index}: ID={found:#010x} is not a Halfdome card")
        if (found := self.read("VERSION")) != registers.INTERFACE_VERSION:
            raise CardError(
                f"card {self.index}: interface version {found}, "
                f"this driver speaks {registers.INTERFACE_VERSION}"
            )
        found = f"{self.read('CONFIG_HASH_HI'):08x}{self.read('CONFIG_HASH_LO'):08x}"
        if found != self.config.hash:
            raise CardError(
                f"card {self.index}: built from configuration {found}, expected "
                f"{self.config.hash}; open the platform with the card's own configuration"
            )

    def read(self, name: str) -> int:
        """A 32-bit register by name."""
        return self.read_at(registers.offset(name), 4)

    def read_at(self, offset: int, nbytes: int) -> int:
        """A 4- or 8-byte register by BAR0 offset."""
        low = self._read32(offset)
        if nbytes == 4:
            return low
        return low | self._read32(offset + 4) << 32

    def _read32(self, offset: int) -> int:
        """Raises `CardLost` if nobody answers; all-ones may be a value, or that."""
        identification = registers.offset("ID")
        try:
            value = self._read_word(offset)
            if value != ALL_ONES or offset == identification:
                return value
            if self._read_word(identification) == registers.IDENTIFICATION:
                return self._read_word(offset)
        except TimeoutError as error:
            raise CardLost(f"card {self.index}: does not answer") from error
        raise CardLost(f"card {self.index}: nothing answers in its place, its link is down")

    def _read_word(self, offset: int) -> int:
        return int.from_bytes(self.bus.read(self.bar0 + offset, 4), "little")

    def write(self, name: str, value: int) -> None:
        """Writes a 32-bit register by name."""
        self.bus.write(self.bar0 + registers.offset(name), value.to_bytes(4, "little"))

    def _write64(self, name: str, value: int) -> None:
        self.write(f"{name}_LO", value & 0xFFFF_FFFF)
        self.write(f"{name}_HI", value >> 32)

    def set_counter(self, index: int, value: int) -> None:
        """Sets a timeline counter, as a peer's SIGNAL would."""
        self.bus.write(self.counter_address(index), (value & ALL_ONES).to_bytes(4, "little"))

    def counter_address(self, index: int) -> int:
        """Bus address of a timeline counter, for a peer's SIGNAL."""
        return self.bar0 + registers.counter_offset(index)

    @property
    def ring_address(self) -> int:
        """Bus address of slot 0 of the submission ring."""
        return self._submission.address

    @property
    def completions_address(self) -> int:
        """Bus address of entry 0 of the completion ring."""
        return self._completion.address

    @property
    def room(self) -> int:
        """Descriptors that can be submitted now."""
        return RING_ENTRIES - 1 - len(self._order)

    def submit(self, descriptors: Sequence[bytes], labels: Sequence[str] = ()) -> list[int]:
        """Hands descriptors to the card with one doorbell; returns their ids.

        Each descriptor's id field is overwritten. Waits for room if the ring is full. `labels`
        say what each is for, in `history`.
        """
        ids = []
        for raw, label in zip_longest(descriptors, labels, fillvalue=""):
            if self.room == 0:
                self._ring_doorbell()
                self.poll()
                while self.room == 0:
                    self._sleep()
            identifier = self._next_id
            self._next_id = (self._next_id + 1) & 0xFFFF
            raw = raw[:2] + identifier.to_bytes(2, "little") + raw[4:]
            start = self._tail * DESCRIPTOR_BYTES
            self._submission.array[start : start + DESCRIPTOR_BYTES] = memoryview(raw)
            self._tail = (self._tail + 1) % RING_ENTRIES
            submitted = Submitted(raw, label, self.clock(), start // DESCRIPTOR_BYTES)
            self._submitted[identifier] = submitted
            self._order.append(submitted)
            if self.history is not None:
                self.history.append(submitted)
            ids.append(identifier)
        if ids:
            self._ring_doorbell()
        return ids

    def _ring_doorbell(self) -> None:
        self.write("SQ_TAIL", self._tail)

    def poll(self) -> None:
        """Takes every completion that has arrived and tells the card so."""
        before = self._completion_head
        while not self._given_up:
            start = self._completion_head * COMPLETION_BYTES
            if self._completion.array[start + PHASE_BYTE] != self._phase:
                break
            raw = self._completion.array[start : start + COMPLETION_BYTES].tobytes()
            completion = Completion.parse(raw)
            if completion.id not in self._submitted:
                raise CardError(f"card {self.index}: completion of unknown id {completion.id}")
            self._submitted[completion.id].completion = completion
            self._completion_head = (self._completion_head + 1) % RING_ENTRIES
            if self._completion_head == 0:
                self._phase ^= 1
        # A ring slot is free once its descriptor and all before it have completed.
        while self._order and self._order[0].completion is not None:
            self._order.popleft()
        if self._completion_head != before:
            self.write("CQ_HEAD", self._completion_head)

    def done(self, identifier: int) -> bool:
        """Whether a command has completed."""
        return self._submitted[identifier].completion is not None

    def _sleep(self) -> None:
        """Until an interrupt has come, then polls; raises if the card will not go on.

        To be called after a `poll` that left commands to complete.
        """
        quiet = 0
        part = max(1, self.patience_cycles // LOOKS)
        while self._order and not self.bus.wait(part, self._message[0]):
            self.poll()
            quiet += part
            if self._has_alarm() or quiet >= self.patience_cycles:
                self._examine()
            if self._order and quiet >= self.patience_cycles and not self._has_worked():
                oldest = self._order[0].descriptor
                identifier = int.from_bytes(oldest[2:4], "little")
                raise TimeoutError(
                    f"card {self.index}: nothing completed in {quiet} cycles and no engine "
                    f"is busy; the oldest command has opcode {oldest[0]:#04x}, id {identifier}"
                )
            quiet %= self.patience_cycles
        self.poll()
        if self._has_alarm():
            self._examine()

    def _has_alarm(self) -> bool:
        before, self._alarms_seen = self._alarms_seen, self.alarms
        return self._alarms_seen != before

    def _examine(self) -> None:
        """Raises `CardError` if the card has stopped with commands still to complete."""
        self.poll()
        if not self._order:
            return
        state = self.state()
        if state is CardState.STOPPED:
            raise CardError(
                f"card {self.index}: a descriptor could not be fetched, so the card stopped; "
                "reset it and submit again"
            )
        if state is CardState.RESET:
            raise CardError(
                f"card {self.index}: was reset behind the driver's back; reset it and submit again"
            )
        if state is CardState.SILENT:
            raise CardLost(f"card {self.index}: does not answer, its commands are lost")

    def drain(self) -> bool:
        """Waits for all that was submitted, of which it tells the card again; whether it ended."""
        self._ring_doorbell()
        self.poll()
        try:
            while self._order:
                self._sleep()
        except (CardError, TimeoutError):
            return False
        return True

    def forget(self, identifiers: Sequence[int]) -> None:
        """Drops commands that nobody will wait for."""
        for identifier in identifiers:
            self._submitted.pop(identifier, None)

    def _has_worked(self) -> bool:
        """Whether any engine was busy since the last call: a long command is no hang."""
        before = self._busy_cycles
        counters = self.counters()
        self._busy_cycles = sum(v for name, v in counters.items() if name.endswith("busy_cycles"))
        return self._busy_cycles != before

    def wait(self, identifiers: Sequence[int]) -> list[Completion]:
        """Sleeps until all have completed and returns their completions, good or bad."""
        self.poll()
        while not all(self.done(identifier) for identifier in identifiers):
            self._sleep()
        return [self._submitted.pop(i).completion for i in identifiers]  # type: ignore[misc]

    def check(self, identifiers: Sequence[int]) -> list[Completion]:
        """Like `wait`, but raises `CommandError` for the first command that failed."""
        descriptors = [self._submitted[i].descriptor for i in identifiers]
        completions = self.wait(identifiers)
        for descriptor, completion in zip(descriptors, completions, strict=True):
            if completion.status:
                raise CommandError(self.index, descriptor, completion)
        return completions

    def counters(self) -> dict[str, int]:
        """Cycle counts of every engine, byte counts, and "cycles", read from the card.

        Read one after the other: they agree with each other to the cycle only if the card is
        idle in between; per engine the four activities always sum to the cycles elapsed.
        """
        values = {"cycles": self.read_at(registers.offset("CYCLES_LO"), 8)}
        for core in range(self.config.cores):
            for engine in Engine:
                for activity in registers.ACTIVITIES:
                    name = f"core{core}_{engine.name.lower()}_{activity}_cycles"
                    place = registers.activity_offset(core, engine, activity)
                    values[name] = self.read_at(place, 8)
        for name in registers.TRAFFIC:
            values[name] = self.read_at(registers.traffic_offset(name), 8)
        return values
