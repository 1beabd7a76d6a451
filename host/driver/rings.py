"""The rings through which a card is told what to do, one a core, and the one in which it tells what
it did.

Every command has a ticket, its number since the card was opened; a descriptor carries the low 16
bits of it as its id. What is known changes in steps of one assignment each, so that an exception
anywhere leaves the rings as they were before or as they are after.
"""

import numpy as np

from halfdome.hdl.commands import Status
from halfdome.hdl.descriptors import COMPLETION, COMPLETION_BYTES, DESCRIPTOR_BYTES
from halfdome.host.driver.bus import Bus

RING_ENTRIES = 1024
MOST_ENTRIES = 4096
"""Slots of a core's submission ring, and the most that a card's completion ring may have."""
TICKETS = 1 << 16
"""How many commands later a completion that nobody asked for is forgotten."""

ENTRY = np.dtype([(field.name, f"<u{field.bits // 8}") for field in COMPLETION])
"""A completion as numpy sees it. Cycles count the card's clock, modulo 2**32."""

_IS_STATUS = np.isin(np.arange(256), list(Status))


def spans(entries: np.ndarray) -> np.ndarray:
    """Start and end of some completions, at least one, as cycles that do not wrap: int64[n, 2].

    The earliest is as it was counted. All must lie within 2**31 cycles of each other.
    """
    counts = np.stack([entries["start_cycle"], entries["end_cycle"]], axis=1)
    since = (counts - counts[0, 0]).astype(np.int32).astype(np.int64)
    least = int(since.min())
    return since - least + (int(counts[0, 0]) + least) % 2**32


def span_cycles(entries: np.ndarray) -> int:
    """Cycles from the first start of some completions to their last end; see `spans`."""
    cycles = spans(entries)
    return int(cycles[:, 1].max() - cycles[:, 0].min())


class Rings:
    """Submission rings, one for each core, and the completion ring of one card, in host memory.

    Attributes
    ----------
    submitted : int, the ticket of the next command
    retired : int, of the oldest command that is awaited
    stray : str, says of a completion that belongs to no command; empty if there was none
    completion_entries : int, size of the completion ring
    """

    def __init__(self, bus: Bus, cores: int = 1):
        self.cores = cores
        self.completion_entries = min(MOST_ENTRIES, RING_ENTRIES << (cores - 1).bit_length())
        slots = cores * RING_ENTRIES
        submission = bus.map(slots * DESCRIPTOR_BYTES)
        completion = bus.map(self.completion_entries * COMPLETION_BYTES)
        self._submission_address = submission.address
        self.completion_address = completion.address
        self._slots = submission.array[: slots * DESCRIPTOR_BYTES].reshape(slots, -1)
        told = completion.array[: self.completion_entries * COMPLETION_BYTES]
        self._ring = told.view(ENTRY)
        self._phases = memoryview(self._ring["phase"])
        self._entries = np.zeros(TICKETS, ENTRY)
        self._done = np.zeros(TICKETS, bool)
        self._core = np.zeros(TICKETS, np.uint8)
        # Of each ring, up to and with a command.
        self._slots_after = np.zeros((TICKETS, cores), np.int64)
        self._failed: dict[int, bytes] = {}
        self.submitted = 0
        self.restart()

    def submission_address(self, core: int = 0) -> int:
        """Bus address of a core's ring; they lie one after the other."""
        return self._submission_address + core * RING_ENTRIES * DESCRIPTOR_BYTES

    def restart(self) -> None:
        """As the card's rings are after a reset; what has not completed never will."""
        self._ring["phase"] = 0
        self._taken = 0
        self.stray = ""
        # The oldest ticket since then, of each core, too, and the slots that were used before.
        firsts = np.full(self.cores, self.submitted)
        self._since = self.submitted, firsts, self._slots_used(self.submitted)
        self.retired = self.submitted

    def restart_core(self, core: int) -> None:
        """As the ring of a core is after its reset; what has not completed is not awaited."""
        oldest, firsts, bases = self._since
        firsts, bases = firsts.copy(), bases.copy()
        firsts[core] = self.submitted
        bases[core] = self._slots_used(self.submitted)[core]
        self._since = oldest, firsts, bases
        self._retire()

    def _slots_used(self, end: int) -> np.ndarray:
        """Slots of each ring that the commands before ticket `end` have used, int64[cores]."""
        return self._slots_after[(end - 1) % TICKETS]

    def _slot(self, ticket: int) -> tuple[int, int]:
        """The core of a command, and the first slot of its ring that it takes."""
        core = int(self._core[ticket % TICKETS])
        return core, int(self._slots_used(ticket)[core] - self._since[2][core]) % RING_ENTRIES

    def _awaited(self) -> np.ndarray:
        """Tickets of commands that have not completed and may, int64[n]."""
        window = np.arange(self.retired, self.submitted)
        places = window % TICKETS
        return window[~self._done[places] & (window >= self._since[1][self._core[places]])]

    def _retire(self) -> None:
        retired, firsts = self.retired, self._since[1]
        while retired < self.submitted:
            place = retired % TICKETS
            if not self._done[place] and retired >= firsts[self._core[place]]:
                break
            retired += 1
        self.retired = retired

    def tail(self, core: int = 0) -> int:
        """The slot of a core's ring that its next command begins in."""
        used = self._slots_used(self.submitted)[core] - self._since[2][core]
        return int(used) % RING_ENTRIES

    @property
    def head(self) -> int:
        """The slot of the completion that is awaited."""
        return self._taken % self.completion_entries

    def room(self, core: int = 0) -> int:
        """Free slots of a core's ring; fewer if another core keeps a ticket for very long."""
        awaited = self._awaited()
        mine = awaited[self._core[awaited % TICKETS] == core]
        oldest = int(mine[0]) if len(mine) else self.submitted
        used = self._slots_used(self.submitted)[core] - self._slots_used(oldest)[core]
        return min(RING_ENTRIES - 1 - int(used), TICKETS - 1 - (self.submitted - self.retired))

    @property
    def idle(self) -> bool:
        """Whether everything that was submitted has completed."""
        return self.retired == self.submitted

    def put(self, slots: np.ndarray, sizes: np.ndarray, core: int = 0) -> range:
        """Writes commands into the ring of a core; their tickets.

        `slots` is uint8[n, 64], of which each command takes as many as `sizes` says; there must be
        `room`. The ids in them are overwritten.
        """
        first, used = self.submitted, self._slots_used(self.submitted)
        tickets = np.arange(first, first + len(sizes))
        ends = np.cumsum(sizes)
        slots = slots.copy()
        slots[ends - sizes, 2:4] = tickets.astype("<u2").view(np.uint8).reshape(-1, 2)
        start = used[core] - self._since[2][core]
        places = (start + np.arange(len(slots))) % RING_ENTRIES
        self._slots[core * RING_ENTRIES + places] = slots
        of_tickets = tickets % TICKETS
        self._slots_after[of_tickets] = used
        self._slots_after[of_tickets, core] += ends
        self._core[of_tickets] = core
        self._done[of_tickets] = False
        self.submitted = first + len(sizes)
        return range(first, self.submitted)

    def take(self) -> np.ndarray:
        """Tickets of commands that have completed since the last call, int64[n]."""
        size, taken = self.completion_entries, self._taken
        while self._phases[taken % size] == 1 - taken // size % 2:
            taken += 1
        if taken == self._taken:
            return np.zeros(0, np.int64)
        tickets = self._file(self._ring[np.arange(self._taken, taken) % size])
        self._taken = taken  # last: an entry that is filed twice changes nothing
        return tickets

    def _file(self, entries: np.ndarray) -> np.ndarray:
        """Notes completions under their tickets; one that no command has is a stray.

        A command of a core that was reset may have completed before.
        """
        newest = self.submitted - 1
        tickets = newest - (newest - entries["id"].astype(np.int64)) % TICKETS
        places = tickets % TICKETS
        known = (tickets >= self._since[0]) & _IS_STATUS[entries["status"]]
        if (again := self._done[places]).any():
            known &= ~again | (self._entries[places] == entries)
        if not known.all():
            odd = entries[int(np.argmin(known))]
            self.stray = f"completion of id {odd['id']}, which no command has"
            tickets, places, entries = tickets[known], places[known], entries[known]
        if (bad := entries["status"] != 0).any():
            for ticket in [old for old in self._failed if old <= newest - TICKETS]:
                del self._failed[ticket]
            for ticket in tickets[bad]:
                self._failed[int(ticket)] = self._descriptor(int(ticket))
        self._entries[places] = entries
        self._done[places] = True
        self._retire()
        return tickets

    def _descriptor(self, ticket: int) -> bytes:
        """The first slot of a command that has not retired."""
        return self._slots[self.place(ticket)].tobytes()

    def place(self, ticket: int) -> int:
        """The first slot of a command that has not retired, among those of all rings."""
        core, slot = self._slot(ticket)
        return core * RING_ENTRIES + slot

    def oldest(self) -> bytes:
        """The descriptor of the oldest command that has not completed."""
        return self._descriptor(self.retired)

    def done(self, tickets: np.ndarray) -> bool:
        """Whether all of them have completed."""
        return bool(self._done[tickets % TICKETS].all())

    def lost(self, tickets: np.ndarray) -> bool:
        """Whether one of them never will: a reset came between."""
        places = tickets % TICKETS
        firsts = self._since[1][self._core[places]]
        return bool((~self._done[places] & (tickets < firsts)).any())

    def entries(self, tickets: np.ndarray) -> np.ndarray:
        """The completions of commands that are done, `ENTRY`[n]."""
        return self._entries[tickets % TICKETS]

    def failed(self, ticket: int) -> bytes:
        """The descriptor of a command that failed."""
        return self._failed[ticket]
