"""Commands with dependencies: what to wait for, in terms of timeline counters.

Every engine of core 0 owns the counter with its number and counts its commands there; card `i`
tells this card of its progress through counter `len(Engine) + i`. An event is "that counter has
reached that value".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from halfdome.hdl.commands import Engine, Opcode, pack
from halfdome.host.driver.completion import Completion
from halfdome.host.driver.device import Device


@dataclass(frozen=True)
class Event:
    """Counter `counter` of card `card` has reached `value`."""

    card: int
    counter: int
    value: int


class Timeline:
    """Issues commands to one card so that each starts when its events have happened.

    Parameters
    ----------
    device : Device, core 0 of which is used
    """

    def __init__(self, device: Device):
        self._device = device
        self._values: dict[tuple[int, int], int] = {}
        self._pending: list[tuple[bytes, str]] = []

    @property
    def card(self) -> int:
        """The card's number."""
        return self._device.index

    def _advance(self, card: int, counter: int) -> Event:
        value = self._values.get((card, counter), 0) + 1
        self._values[card, counter] = value
        return Event(card, counter, value & 0xFFFF_FFFF)

    def issue(
        self, opcode: Opcode, *, after: Sequence[Event] = (), label: str = "", **fields: int
    ) -> Event:
        """Queues a command that starts after every event of `after`; see `flush`.

        Events must be of this card's counters: its own engines, or peers that `notify` it. Order
        within one engine needs no event.
        """
        engine = opcode.engine
        waits: dict[int, int] = {}
        for event in after:
            if event.card != self.card:
                raise ValueError(
                    f"event of card {event.card} given to card {self.card}: use notify"
                )
            if event.counter != engine:
                waits[event.counter] = max(event.value, waits.get(event.counter, 0))
        fence = Opcode((engine << 4) | 0xF)
        awaited = list(waits.items())
        for counter, value in awaited[:-1]:
            wait = {"wait_counter": counter, "wait_value": value}
            self._pending.append((pack(fence, **wait), label))
        if awaited:
            fields |= {"wait_counter": awaited[-1][0], "wait_value": awaited[-1][1]}
        event = self._advance(self.card, engine)
        fields |= {"signal_counter": event.counter, "signal_value": event.value}
        self._pending.append((pack(opcode, **fields), label))
        return event

    def notify(self, peer: Device, *, label: str = "") -> Event:
        """Tells `peer` that every STORE issued here so far has arrived; the event is the peer's."""
        event = self._advance(peer.index, len(Engine) + self.card)
        address = peer.counter_address(event.counter)
        self.issue(Opcode.SIGNAL, address=address, value=event.value, label=label)
        return event

    def promised(self, peer: int) -> int:
        """What counter `len(Engine) + card` of a peer will reach once all `notify`s are done."""
        return self._values.get((peer, len(Engine) + self.card), 0)

    def drop(self) -> None:
        """Forgets what was issued and not flushed; its events never happen."""
        self._pending = []

    def flush(self, as_list: bool = True) -> list[int]:
        """Submits what was issued with one doorbell, or one each; returns the commands' ids."""
        pending, self._pending = self._pending, []
        lists = [pending] if as_list else [[command] for command in pending]
        return [
            identifier
            for commands in lists
            for identifier in self._device.submit(
                [raw for raw, _ in commands], [label for _, label in commands]
            )
        ]

    def wait(self, identifiers: Sequence[int]) -> list[Completion]:
        """Sleeps until the commands are done. Raises `CommandError` for the first that failed."""
        return self._device.check(identifiers)
