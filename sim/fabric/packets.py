"""What crossed each direction of each link: packets decoded from the fabric's records."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RECORD = np.dtype(
    [
        ("start_fs", np.int64), ("end_fs", np.int64),
        *((f"header_{i}", np.uint32) for i in range(4)),
        ("payload_bytes", np.uint32), ("wire_bytes", np.uint32),
    ]
)  # fmt: skip
"""`PacketRecord` of sim/fabric/packet_log.hpp."""

_WIDE, _DATA, _COMPLETION = 0x20, 0x40, 0x0A
"""Bits of a packet's type: 64-bit address, payload; what both completions share."""


@dataclass(frozen=True)
class Packet:
    """One packet on the wire.

    `kind` is MRd, MWr, Cpl or CplD, as the PCI Express Base Specification names them. `bytes` is
    the payload, of a read what it asks for. `source` and `destination` are "host" or "card N".
    `address` is None for a completion; `last` says of a completion that its read is complete.
    """

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


@dataclass(frozen=True)
class Link:
    """One direction of a link: of card number `card`, or of the uplink for None.

    `down` is away from the host. `records` is a structured array of `RECORD`, in order of time;
    `left_out` counts the packets after them that did not fit the bound.
    """

    card: int | None
    down: bool
    records: np.ndarray
    left_out: int
    device: Callable[[int], str]
    """Who has a requester ID."""
    owner: Callable[[int], str]
    """Who claims a bus address."""

    @property
    def name(self) -> str:
        """Like "switch to card 2"."""
        if self.card is None:
            return "host to switch" if self.down else "switch to host"
        return f"switch to card {self.card}" if self.down else f"card {self.card} to switch"

    def packets(self) -> Iterator[Packet]:
        """The records, decoded."""
        for start, end, *header, payload, wire in self.records.tolist():
            yield self._packet(start, end, header, payload, wire)

    def _packet(
        self, start: int, end: int, header: Sequence[int], payload: int, wire: int
    ) -> Packet:
        kind, first, second = header[0] >> 24, header[1], header[2]
        if kind & ~_DATA == _COMPLETION:
            requester, remaining = self.device(second >> 16), (first & 0xFFF) or 4096
            return Packet(
                start, end, "CplD" if kind & _DATA else "Cpl", payload, payload, wire,
                source=self.device(first >> 16), destination=requester, address=None,
                requester=requester, tag=second >> 8 & 0xFF,
                last=first >> 13 & 7 != 0 or payload - (second & 3) >= remaining,
            )  # fmt: skip
        address = (second << 32 | header[3]) if kind & _WIDE else second
        address &= ~3
        requester = self.device(first >> 16)
        asked = ((header[0] & 0x3FF) or 1024) * 4
        return Packet(
            start, end, "MWr" if kind & _DATA else "MRd", payload if kind & _DATA else asked,
            payload, wire, source=requester, destination=self.owner(address), address=address,
            requester=requester, tag=first >> 8 & 0xFF, last=False,
        )  # fmt: skip
