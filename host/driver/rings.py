"""The two rings through which a card is told what to do and tells what it did.

Every command has a ticket, its number since the card was opened; a descriptor carries the low 16
bits of it as its id. What is known changes in steps of one assignment each, so that an exception
anywhere leaves the rings as they were before or as they are after.
"""

import numpy as np

from halfdome.hdl.commands import COMPLETION, COMPLETION_BYTES, DESCRIPTOR_BYTES, Status
from halfdome.host.driver.bus import Bus

RING_ENTRIES = 1024
TICKETS = 1 << 16
"""How many commands later a completion that nobody asked for is forgotten."""

ENTRY = np.dtype([(field.name, f"<u{field.bits // 8}") for field in COMPLETION])
"""A completion as numpy sees it. Cycles count the card's clock, modulo 2**32."""


_STATUSES = np.array([int(status) for status in Status])


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
    """Submission and completion ring of one card, in host memory.

    Attributes
    ----------
    submitted : int, the ticket of the next command
    retired : int, of the oldest command whose slots of the ring are not free again
    stray : str, says of a completion that belongs to no command; empty if there was none
    """

    def __init__(self, bus: Bus):
        submission = bus.map(RING_ENTRIES * DESCRIPTOR_BYTES)
        completion = bus.map(RING_ENTRIES * COMPLETION_BYTES)
        self.submission_address = submission.address
        self.completion_address = completion.address
        self._slots = submission.array[: RING_ENTRIES * DESCRIPTOR_BYTES].reshape(RING_ENTRIES, -1)
        self._ring = completion.array[: RING_ENTRIES * COMPLETION_BYTES].view(ENTRY)
        self._entries = np.zeros(TICKETS, ENTRY)
        self._done = np.zeros(TICKETS, bool)
        self._slots_after = np.zeros(TICKETS, np.int64)  # used up to and with a command
        self._failed: dict[int, bytes] = {}
        self.submitted = 0
        self.restart()

    def restart(self) -> None:
        """As the card's rings are after a reset; what has not completed never will."""
        self._ring["phase"] = 0
        self._taken = 0
        self.stray = ""
        self._first = self.retired = self.submitted

    def _slots_used(self, end: int) -> int:
        """Slots used since `restart` by the commands before ticket `end`."""
        return int(self._slots_after[(end - 1) % TICKETS]) if end > self._first else 0

    @property
    def tail(self) -> int:
        """The slot that the next command begins in."""
        return self._slots_used(self.submitted) % RING_ENTRIES

    @property
    def head(self) -> int:
        """The slot of the completion that is awaited."""
        return self._taken % RING_ENTRIES

    @property
    def room(self) -> int:
        """Free slots."""
        return RING_ENTRIES - 1 - self._slots_used(self.submitted) + self._slots_used(self.retired)

    @property
    def idle(self) -> bool:
        """Whether everything that was submitted has completed."""
        return self.retired == self.submitted

    def put(self, slots: np.ndarray, sizes: np.ndarray) -> range:
        """Writes commands into the ring; their tickets.

        `slots` is uint8[n, 64], of which each command takes as many as `sizes` says; there must be
        `room`. The ids in them are overwritten.
        """
        first, used = self.submitted, self._slots_used(self.submitted)
        tickets = np.arange(first, first + len(sizes))
        ends = np.cumsum(sizes)
        slots = slots.copy()
        slots[ends - sizes, 2:4] = (tickets % TICKETS).astype("<u2").view(np.uint8).reshape(-1, 2)
        self._slots[(used + np.arange(len(slots))) % RING_ENTRIES] = slots
        self._slots_after[tickets % TICKETS] = used + ends
        self._done[tickets % TICKETS] = False
        self.submitted = first + len(sizes)
        return range(first, self.submitted)

    def take(self) -> np.ndarray:
        """Tickets of commands that have completed since the last call, int64[n]."""
        taken, found = self._taken, [self._ring[:0]]
        while True:
            start, phase = taken % RING_ENTRIES, 1 - taken // RING_ENTRIES % 2
            old = np.flatnonzero(self._ring["phase"][start:] != phase)
            count = int(old[0]) if len(old) else RING_ENTRIES - start
            found.append(self._ring[start : start + count])
            taken += count
            if start + count < RING_ENTRIES:
                break
        tickets = self._file(np.concatenate(found))
        self._taken = taken  # last: an entry that is filed twice changes nothing
        return tickets

    def _file(self, entries: np.ndarray) -> np.ndarray:
        """Notes completions under their tickets; one that no command has is a stray."""
        newest = self.submitted - 1
        tickets = newest - (newest - entries["id"].astype(np.int64)) % TICKETS
        places = tickets % TICKETS
        known = (tickets >= self._first) & np.isin(entries["status"], _STATUSES)
        known &= ~(self._done[places] & (self._entries[places] != entries))
        if not known.all():
            odd = entries[int(np.argmin(known))]
            self.stray = f"completion of id {odd['id']}, which no command has"
        tickets, places, entries = tickets[known], places[known], entries[known]
        for ticket in tickets[entries["status"] != 0]:
            self._failed[int(ticket)] = self._descriptor(int(ticket))
        for ticket in [old for old in self._failed if old <= newest - TICKETS]:
            del self._failed[ticket]
        self._entries[places] = entries
        self._done[places] = True
        window = np.arange(self.retired, self.submitted)
        waiting = np.flatnonzero(~self._done[window % TICKETS])
        self.retired = int(window[waiting[0]]) if len(waiting) else self.submitted
        return tickets

    def _descriptor(self, ticket: int) -> bytes:
        """The first slot of a command that has not retired."""
        return self._slots[self._slots_used(ticket) % RING_ENTRIES].tobytes()

    def oldest(self) -> bytes:
        """The descriptor of the oldest command that has not completed."""
        return self._descriptor(self.retired)

    def done(self, tickets: np.ndarray) -> bool:
        """Whether all of them have completed."""
        return bool(self._done[tickets % TICKETS].all())

    def lost(self, tickets: np.ndarray) -> bool:
        """Whether one of them never will: a reset came between."""
        return bool((~self._done[tickets % TICKETS] & (tickets < self._first)).any())

    def entries(self, tickets: np.ndarray) -> np.ndarray:
        """The completions of commands that are done, `ENTRY`[n]."""
        return self._entries[tickets % TICKETS]

    def failed(self, ticket: int) -> bytes:
        """The descriptor of a command that failed."""
        return self._failed[ticket]
