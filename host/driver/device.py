"""One card behind the bus: its registers, its rings, and the commands in flight."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from halfdome.hdl import registers
from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, offset
from halfdome.hdl.registers import CONTROL_RESET, CONTROL_RUN, STATUS_FETCH_FAILED, STATUS_RESETTING
from halfdome.host.driver.accelerator import CardState
from halfdome.host.driver.bus import Bus
from halfdome.host.driver.completion import Completion
from halfdome.host.driver.errors import CardError, CardLost, CommandError
from halfdome.host.driver.registers import Registers
from halfdome.host.driver.rings import RING_ENTRIES, Rings

WAIT_CYCLES = 1_000_000
"""Cycles without any interrupt after which a card on which no engine was busy counts as hung."""
RESET_POLL_CYCLES = 1000
"""Cycles between two looks at a card that is being reset."""
LOOKS = 16
"""How often the host looks for errors while no interrupt comes, before it gives up."""
_CORE = offset(Opcode.LOAD, "core")  # the header is the same in every command
ERROR_COUNTERS = (
    "DROPPED_REQUESTS", "UNEXPECTED_COMPLETIONS", "LATE_COMPLETIONS", "MALFORMED_COMPLETIONS",
    "UNSUCCESSFUL_COMPLETIONS", "POISONED_COMPLETIONS", "COMPLETION_TIMEOUTS",
    "REJECTED_DOORBELLS",
)  # fmt: skip
"""Registers that count what a card has noticed going wrong, each thing once."""


@dataclass
class Submitted:
    """A descriptor handed to a card: as `label`, at `cycle`, into slot `slot` of all its rings."""

    descriptor: bytes
    label: str
    cycle: int
    slot: int
    completion: Completion | None = None


class Device(Registers):
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
    rings : Rings
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
        super().__init__(bus, config, index=index, bar0=bar0)
        self.bar2 = bar2
        self.clock = clock
        self.rings = Rings(bus, config.cores)
        self._alarm = bus.map(4)
        self._alarms = 0
        self._alarms_seen = bus.errors
        self._message = message
        self.patience_cycles = patience_cycles
        self._errors: Counter[str] = Counter()
        self._errors_read: dict[str, int] = {}
        self._traced: dict[int, Submitted] = {}
        self._work: tuple[int, ...] = (0, 0)
        self._start()

    def _start(self) -> None:
        """Sets up a card that is as after power-on."""
        self.rings.restart()
        self._priorities = [0] * self.config.cores
        self._given_up = False
        for core in range(self.config.cores):
            self.write64("SQ_BASE", self.rings.submission_address(core), core)
            self.write("SQ_SIZE", RING_ENTRIES, core)
        self.write64("CQ_BASE", self.rings.completion_address)
        self.write("CQ_SIZE", self.rings.completion_entries)
        # An error message is no interrupt: it is left where the host looks anyway.
        messages = self._message, (self._alarm.address, 1)
        for vector, (address, data) in zip(registers.MSIX_VECTORS, messages, strict=True):
            self.write64(f"{vector}_ADDRESS", address)
            self.write(f"{vector}_DATA", data)
            self.write(f"{vector}_CONTROL", 0)
        self.write("COMPLETION_TIMEOUT_CYCLES", self.patience_cycles // 4)
        self.write("CONTROL", CONTROL_RUN)

    def reset(self) -> None:
        """Makes the card as after power-on, its memory excepted, and starts it again.

        Completions of reads that have timed out are waited for, up to `patience_cycles`: later they
        must not come. Commands that run end first, reads wait for their completions until they time
        out. What was submitted and has not completed never will. Raises `CardLost` if the card does
        not answer and `TimeoutError` if it has not finished after `patience_cycles`.
        """
        self.poll()
        self.error_counts()
        self._await_late_completions()
        self.write("CONTROL", CONTROL_RESET)
        self._await_reset("STATUS", "a reset", "power it off")
        self._errors_read = {}
        self._start()

    def reset_core(self, core: int) -> None:
        """Brings one core to its start, beside the others, which go on.

        Commands of it that run end first; what was submitted to it and has not completed never
        will, nor signal. Timeline counters and memory stay as they are. Raises `CardLost` if the
        card does not answer and `TimeoutError` if it has not finished after `patience_cycles`.
        """
        if core not in range(self.config.cores):
            raise ValueError(f"core={core}: card {self.index} has {self.config.cores}")
        self.poll()
        self.write("CORE_CONTROL", CONTROL_RESET, core)
        self._await_reset("CORE_STATUS", f"a reset of core {core}", "reset the card", core)
        self.poll()
        self.rings.restart_core(core)

    def set_priority(self, core: int, priority: int) -> None:
        """Cores of a higher one of `registers.PRIORITIES` go first: their commands are fetched
        before others', and DRAM serves them before others. All have 0 after a reset of the card."""
        if self._priorities[core] != priority:
            self.write("SQ_PRIORITY", priority, core)
            self._priorities[core] = priority

    def stopped_cores(self) -> list[int]:
        """The cores whose ring stands still, as a descriptor could not be fetched."""
        return [
            core
            for core in range(self.config.cores)
            if self.read("CORE_STATUS", core) & STATUS_FETCH_FAILED
        ]

    def _await_reset(self, register: str, what: str, advice: str, core: int = 0) -> None:
        for _ in range(max(1, self.patience_cycles // RESET_POLL_CYCLES)):
            if not self.read(register, core) & STATUS_RESETTING:
                return
            self.bus.wait(RESET_POLL_CYCLES)
        raise TimeoutError(
            f"card {self.index}: {what} is not over after {self.patience_cycles} cycles; {advice}"
        )

    def _await_late_completions(self) -> None:
        """What comes after a reset could be taken for the answer to another read of its tag."""
        for _ in range(self.patience_cycles // RESET_POLL_CYCLES):
            if not self.read("QUARANTINED_TAGS"):
                return
            self.bus.wait(RESET_POLL_CYCLES)

    def give_up(self) -> None:
        """Tells the card, if it hears, to send nothing any more, and listens no more until `reset`.

        What was submitted and has not completed never will.
        """
        self.poll()
        self._given_up = True
        self.rings.restart()
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

    def submit(
        self,
        descriptors: Sequence[bytes] | np.ndarray,
        labels: Sequence[str] = (),
        sizes: np.ndarray | None = None,
    ) -> Sequence[int]:
        """Hands commands to the card, each to the ring of its core, with one doorbell a ring;
        returns their tickets.

        Each descriptor's id field is overwritten. A ring that is full holds up its own commands
        alone; waits for room for them once all others are handed over. Raises `CardLost` for a
        card that was given up.

        Parameters
        ----------
        descriptors : 64 bytes for each slot of the ring, or uint8[n, 64]
        labels : what each command is for, in `history`
        sizes : int[commands], the descriptors of each command; by default one
        """
        if self._given_up:
            raise CardLost(f"card {self.index}: was given up, as it did not answer")
        if isinstance(descriptors, np.ndarray):
            slots = descriptors
        else:
            slots = np.frombuffer(b"".join(descriptors), np.uint8).reshape(-1, DESCRIPTOR_BYTES)
        sizes = np.ones(len(slots), np.int64) if sizes is None else sizes
        first = self.rings.submitted
        waiting = {0: np.arange(len(sizes))}
        if self.config.cores > 1:
            cores = slots[np.cumsum(sizes) - sizes, _CORE]
            cores = np.where(cores < self.config.cores, cores, 0)  # its checker refuses the others
            waiting = {int(core): np.flatnonzero(cores == core) for core in np.unique(cores)}
        command_of = np.repeat(np.arange(len(sizes)), sizes)
        in_order = len(waiting) < 2
        tickets = np.zeros(len(sizes), np.int64)
        while waiting:
            for core, commands in waiting.items():
                ends = np.cumsum(sizes[commands])
                fitting = int(np.searchsorted(ends, self.rings.room(core), side="right"))
                commands, waiting[core] = commands[:fitting], commands[fitting:]
                taken = sizes[commands]
                chosen = np.zeros(len(sizes), bool)
                chosen[commands] = True
                piece = slots[chosen[command_of]]
                tickets[commands] = self.rings.put(piece, taken, core)
                if self.history is not None:
                    own = [labels[each] for each in commands] if labels else ()
                    self._note(tickets[commands], piece, taken, own)
                self._ring_doorbell(core)
            waiting = {core: commands for core, commands in waiting.items() if len(commands)}
            if waiting:
                self.poll()
                while all(self.rings.room(c) < sizes[left[0]] for c, left in waiting.items()):
                    self.sleep()
        return range(first, first + len(sizes)) if in_order else tickets.tolist()

    def _note(
        self, tickets: np.ndarray, slots: np.ndarray, sizes: np.ndarray, labels: Sequence[str]
    ) -> None:
        """Appends what was just put into a ring to `history`."""
        starts = np.cumsum(sizes) - sizes
        for place, ticket in enumerate(tickets.tolist()):
            start, size = starts[place], sizes[place]
            descriptor = slots[start : start + size].tobytes()
            descriptor = descriptor[:2] + (ticket & 0xFFFF).to_bytes(2, "little") + descriptor[4:]
            label = labels[place] if place < len(labels) else ""
            slot = self.rings.place(ticket)
            self._traced[ticket] = Submitted(descriptor, label, self.clock(), slot)
            self.history.append(self._traced[ticket])  # type: ignore[union-attr]

    def _ring_doorbell(self, core: int) -> None:
        self.write("SQ_TAIL", self.rings.tail(core), core)

    def poll(self) -> None:
        """Takes every completion that has arrived and tells the card so."""
        if self._given_up:
            return
        before = self.rings.head
        tickets = self.rings.take()
        if self._traced:
            for ticket, entry in zip(tickets, self.rings.entries(tickets), strict=True):
                if submitted := self._traced.pop(int(ticket), None):
                    submitted.completion = Completion.of(entry)
        if self.rings.head != before:
            self.write("CQ_HEAD", self.rings.head)

    def sleep(self) -> None:
        """Sleeps until an interrupt has come, then polls; raises if the card will not go on.

        To be called after a `poll` that left commands to complete.
        """
        quiet = 0
        part = max(1, self.patience_cycles // LOOKS)
        while not self.rings.idle and not self.bus.wait(part, self._message[0]):
            self.poll()
            quiet += part
            if self._has_alarm() or quiet >= self.patience_cycles:
                self._examine()
            if not self.rings.idle and quiet >= self.patience_cycles and not self._has_worked():
                oldest = self.rings.oldest()
                identifier = int.from_bytes(oldest[2:4], "little")
                raise TimeoutError(
                    f"card {self.index}: nothing completed in {quiet} cycles and no engine "
                    f"is busy; the oldest command has opcode {oldest[0]:#04x}, id {identifier}"
                )
            quiet %= self.patience_cycles
        self.poll()
        self._refuse_strays()
        if self._has_alarm():
            self._examine()

    def _refuse_strays(self) -> None:
        if self.rings.stray:
            raise CardError(
                f"card {self.index}: {self.rings.stray}; reset it, and load what its memory held"
            )

    def _has_alarm(self) -> bool:
        before, self._alarms_seen = self._alarms_seen, self.alarms
        return self._alarms_seen != before

    def _examine(self) -> None:
        """Raises `CardError` if the card has stopped with commands still to complete."""
        self.poll()
        self._refuse_strays()
        if self.rings.idle:
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
        try:
            for core in range(self.config.cores):
                self._ring_doorbell(core)
            self.poll()
            while not self.rings.idle:
                self.sleep()
        except (CardError, TimeoutError):
            return False
        return not self.rings.stray

    def _has_worked(self) -> bool:
        """Whether any engine was busy, or bytes moved, since the last call: a long command, or one
        that waits for a slow link, is no hang."""
        (busy, moved), counters = self._work, self.counters()
        self._work = tuple(
            sum(count for name, count in counters.items() if name.endswith(kind))
            for kind in ("busy_cycles", "_bytes")
        )
        # Bytes that moved before the first look say nothing of what came after.
        return self._work[0] != busy or moved not in (0, self._work[1])

    def wait(self, tickets: Iterable[int]) -> np.ndarray:
        """Sleeps until all have completed; their completions, good or bad, a record each.

        Raises `CardError` for one that was lost in a reset.
        """
        numbers = np.fromiter(tickets, np.int64)
        self.poll()
        self._refuse_strays()
        if self.rings.lost(numbers):
            raise CardError(f"card {self.index}: its commands were lost in a reset")
        while not self.rings.done(numbers):
            self.sleep()
        return self.rings.entries(numbers).view(np.recarray)

    def check(self, tickets: Iterable[int]) -> np.ndarray:
        """Like `wait`, but raises `CommandError` for the first command that failed."""
        numbers = np.fromiter(tickets, np.int64)
        completions = self.wait(numbers)
        if len(bad := np.flatnonzero(completions.status)):
            first = int(bad[0])
            descriptor = self.rings.failed(int(numbers[first]))
            raise CommandError(self.index, descriptor, Completion.of(completions[first]))
        return completions
