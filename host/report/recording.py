"""What is known of a stretch of a run: every command, every packet, every interrupt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from halfdome.hdl.config import CardConfig
from halfdome.host.driver.device import Submitted


class Packet(Protocol):
    """One packet on a link; times in femtoseconds, `last` of a completion that ends its read."""

    start_fs: int
    end_fs: int
    kind: str
    bytes: int
    payload_bytes: int
    wire_bytes: int
    source: str
    destination: str
    address: int | None
    requester: str
    tag: int
    last: bool


class Link(Protocol):
    """One direction of the link of card `card`, of the uplink for None."""

    card: int | None
    down: bool
    records: np.ndarray
    """A structured array with `start_fs`, `end_fs`, `wire_bytes`; one record for each packet."""
    left_out: int
    """Packets after them that were not kept."""
    name: str

    def packets(self) -> Iterator[Packet]: ...


class Interrupt(Protocol):
    """A message that reached the host."""

    time_ns: float
    data: int


@dataclass(frozen=True)
class CardRecord:
    """One card: where its BARs and its submission ring are on the bus, and its commands."""

    bar0: int
    bar2: int
    ring: int
    commands: Sequence[Submitted]


@dataclass(frozen=True)
class Recording:
    """What happened from cycle `start` to cycle `stop`."""

    config: CardConfig
    start: int
    stop: int
    cards: Sequence[CardRecord]
    links: Sequence[Link]
    interrupts: Sequence[Interrupt]
