"""What timeline counters will reach, and commands that wait for them.

Every engine owns the counter with the number of its queue and counts its commands there, core by
core; card `i` tells this card of its progress through the `i`th counter after those. An event is
"that counter has reached that value". The host counts without end; cards compare modulo 2**32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halfdome.hdl.commands import Engine, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import pack
from halfdome.host.driver.device import Device
from halfdome.host.driver.kernels import queue_of

COUNTER_MASK = 0xFFFF_FFFF
_FENCE = 0xF


@dataclass(frozen=True)
class Event:
    """Counter `counter` of card `card` has reached `value`."""

    card: int
    counter: int
    value: int


def peer_counter(config: CardConfig, card: int) -> int:
    """The counter through which card number `card` tells others of its progress."""
    return config.cores * len(Engine) + card


class Timeline:
    """Issues commands to one card so that each starts when its events have happened.

    Parameters
    ----------
    device : Device

    Attributes
    ----------
    issued : int64[queues], the commands that each engine of each core was given so far
    told : int64[peers], how often this card was asked to tell each card of its progress
    """

    def __init__(self, device: Device):
        self._device = device
        config = device.config
        self.issued = np.zeros(config.cores * len(Engine), np.int64)
        self.told = np.zeros(config.counters - len(self.issued), np.int64)
        self._pending: list[tuple[bytes, str]] = []

    @property
    def card(self) -> int:
        """The card's number."""
        return self._device.index

    def issue(
        self, opcode: Opcode, *, after: Sequence[Event] = (), label: str = "", core: int = 0,
        **fields: int,
    ) -> Event:  # fmt: skip
        """Queues a command of a core that starts after every event of `after`; see `flush`.

        Events must be of this card's counters: its own engines, or peers that `notify` it. Order
        within one engine needs no event.
        """
        queue = queue_of(core, opcode.engine)
        waits: dict[int, int] = {}
        for event in after:
            if event.card != self.card:
                raise ValueError(
                    f"event of card {event.card} given to card {self.card}: use notify"
                )
            if event.counter != queue:
                waits[event.counter] = max(event.value, waits.get(event.counter, 0))
        awaited = [
            {"wait_counter": counter, "wait_value": value & COUNTER_MASK}
            for counter, value in waits.items()
        ]
        for wait in awaited[:-1]:
            fence = Opcode(opcode.engine << 4 | _FENCE)
            self._pending.append((pack(fence, core=core, **wait), label))
        value = int(self.issued[queue]) + 1
        signal = {"signal_counter": queue, "signal_value": value & COUNTER_MASK}
        raw = pack(opcode, core=core, **(awaited[-1] if awaited else {}), **signal, **fields)
        self._pending.append((raw, label))
        self.issued[queue] = value
        return Event(self.card, queue, value)

    def notify(self, peer: Device, *, label: str = "") -> Event:
        """Tells `peer` that every STORE issued here so far has arrived; the event is the peer's."""
        value = int(self.told[peer.index]) + 1
        event = Event(peer.index, peer_counter(peer.config, self.card), value)
        self.issue(
            Opcode.SIGNAL, address=peer.counter_address(event.counter),
            value=value & COUNTER_MASK, label=label,
        )  # fmt: skip
        self.told[peer.index] = value
        return event

    def restore(self, peers: Sequence["Timeline"]) -> None:
        """Sets the counters of a card that was reset: whatever was issued counts as done."""
        for core in range(self._device.config.cores):
            self.restore_core(core)
        self.catch_up(peers)

    def restore_core(self, core: int) -> None:
        """Sets the counters of a core that was reset."""
        for engine in Engine:
            queue = queue_of(core, engine)
            self._device.set_counter(queue, int(self.issued[queue]))

    def catch_up(self, peers: Sequence["Timeline"]) -> None:
        """Sets what peers will have told this card, so that nothing waits for them."""
        for peer in peers:
            if peer is not self:
                counter = peer_counter(self._device.config, peer.card)
                self._device.set_counter(counter, int(peer.told[self.card]))

    def drop(self) -> None:
        """Forgets what was issued and not flushed; its events never happen."""
        self._pending = []

    def flush(self) -> Sequence[int]:
        """Submits what was issued with one doorbell; returns the commands' tickets."""
        pending, self._pending = self._pending, []
        return self._device.submit([raw for raw, _ in pending], [label for _, label in pending])
