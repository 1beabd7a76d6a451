"""Transaction-layer packets in plain Python, from the figures of the specification.

Source: PCI Express Base Specification 3.0, section 2.2: figures 2-4 (first doubleword), 2-13 and
2-14 (memory requests), 2-27 (completions), tables 2-37 to 2-39 (byte count, lower address).
Headers are bytes in the order they are sent; nothing here knows the layouts in `hdl`.
"""

import itertools
from dataclasses import dataclass, replace

MRD32, MRD64, MWR32, MWR64, CPL, CPLD = 0x00, 0x20, 0x40, 0x60, 0x0A, 0x4A
SC, UR, CRS, CA = 0, 1, 2, 4
PAGE = 4096


@dataclass(frozen=True)
class Tlp:
    """One packet. `length` is the length field in doublewords (1 to 1024)."""

    kind: int
    length: int = 0
    tag: int = 0
    requester: int = 0
    address: int = 0
    first_be: int = 0
    last_be: int = 0
    status: int = SC
    byte_count: int = 0
    lower_address: int = 0
    completer: int = 0
    poisoned: bool = False
    attributes: int = 0
    traffic_class: int = 0
    payload: bytes = b""

    @property
    def is_completion(self) -> bool:
        return self.kind & 0x1E == 0x0A

    @property
    def non_posted(self) -> bool:
        """A request that is answered: not a memory write, a message, or what a prefix hides."""
        memory_write = self.kind & 0x5F == 0x40
        return not (
            self.is_completion or memory_write or self.kind & 0x18 == 0x10 or self.kind & 0x80
        )

    def header(self) -> bytes:
        """12 or 16 bytes, byte 0 first."""
        length = self.length % 1024
        first = bytes(
            [
                self.kind,
                self.traffic_class << 4,
                self.poisoned << 6 | self.attributes << 4 | length >> 8,
                length & 0xFF,
            ]
        )
        if self.is_completion:
            count = self.byte_count % 4096
            return (
                first
                + self.completer.to_bytes(2, "big")
                + bytes([self.status << 5 | count >> 8, count & 0xFF])
                + self.requester.to_bytes(2, "big")
                + bytes([self.tag, self.lower_address])
            )
        return (
            first
            + self.requester.to_bytes(2, "big")
            + bytes([self.tag, self.last_be << 4 | self.first_be])
            + self.address.to_bytes(8 if self.kind & 0x20 else 4, "big")
        )

    @classmethod
    def parse(cls, header: bytes, payload: bytes) -> "Tlp":
        """The inverse of `header`; `payload` may be longer than the length field says."""
        kind = header[0]
        length = (header[2] & 3) << 8 | header[3]
        common = {
            "kind": kind,
            "poisoned": bool(header[2] & 0x40),
            "attributes": header[2] >> 4 & 3,
            "traffic_class": header[1] >> 4,
        }
        if kind & 0x1E == 0x0A:
            length = (length or 1024) if kind & 0x40 else 0
            count = (header[6] & 0xF) << 8 | header[7]
            common |= {
                "completer": int.from_bytes(header[4:6], "big"),
                "status": header[6] >> 5,
                "byte_count": count or 4096,
                "requester": int.from_bytes(header[8:10], "big"),
                "tag": header[10],
                "lower_address": header[11] & 0x7F,
            }
        else:
            length = length or 1024
            common |= {
                "requester": int.from_bytes(header[4:6], "big"),
                "tag": header[6],
                "last_be": header[7] >> 4,
                "first_be": header[7] & 0xF,
                "address": int.from_bytes(header[8:16] if kind & 0x20 else header[8:12], "big"),
            }
        data = payload[: 4 * length] if kind & 0x40 else b""
        return cls(length=length, payload=data, **common)

    def beats(self, bus_bytes: int, bar: int = 0) -> list[dict[str, int]]:
        """The packet as the card's receive stream carries it."""
        header = self.header()
        word = sum(
            int.from_bytes(header[4 * i : 4 * i + 4], "big") << 32 * i
            for i in range(len(header) // 4)
        )
        words = [word] + [
            int.from_bytes(self.payload[i : i + bus_bytes], "little")
            for i in range(0, len(self.payload), bus_bytes)
        ]
        return [
            {"data": word, "last": int(i == len(words) - 1), "bar": 0 if i else bar}
            for i, word in enumerate(words)
        ]

    @classmethod
    def from_words(cls, words: list[int], bus_bytes: int) -> "Tlp":
        """The packet whose beats are `words`. Fails unless the beats match the length field."""
        header = b"".join((words[0] >> 32 * i & 0xFFFFFFFF).to_bytes(4, "big") for i in range(4))
        payload = b"".join(word.to_bytes(bus_bytes, "little") for word in words[1:])
        tlp = cls.parse(header, payload)
        size = 4 * tlp.length if tlp.kind & 0x40 else 0
        assert len(words) - 1 == -(-size // bus_bytes), f"{len(words)} beats for {tlp}"
        return tlp

    def written(self) -> dict[int, int]:
        """Byte address -> value for each byte that a memory write enables."""
        enables = byte_enables(self)
        return {self.address + i: self.payload[i] for i in range(len(enables)) if enables[i]}


def byte_enables(request: Tlp) -> list[bool]:
    """For each byte of a memory request, whether it is enabled."""
    bits = [True] * (4 * request.length)
    bits[:4] = [bool(request.first_be >> i & 1) for i in range(4)]
    if request.length > 1:
        bits[-4:] = [bool(request.last_be >> i & 1) for i in range(4)]
    return bits


def memory_request(address: int, size: int, *, data: bytes | None = None, **fields) -> Tlp:
    """A read of, or with `data` a write to, the bytes from `address`; any alignment."""
    start = address % 4
    length = -(-(start + size) // 4)
    enables = [start <= i < start + size for i in range(4 * length)]
    nibbles = [sum(enables[4 * i + b] << b for b in range(4)) for i in range(length)]
    kind = (MRD32 if data is None else MWR32) | (0x20 if address >> 32 else 0)
    payload = b"" if data is None else bytes(start) + data + bytes(4 * length - start - size)
    return Tlp(
        kind=kind,
        length=length,
        address=address - start,
        first_be=nibbles[0],
        last_be=nibbles[-1] if length > 1 else 0,
        payload=payload,
        **fields,
    )


def check_request(request: Tlp, limit: int) -> None:
    """Asserts the rules of section 2.2.5 and 2.2.7 for a request the card sends."""
    size = 4 * request.length
    assert size <= limit, f"{size} bytes exceed {limit}"
    assert request.address % 4 == 0
    assert request.address // PAGE == (request.address + size - 1) // PAGE, "crosses 4 KiB"
    assert bool(request.kind & 0x20) == bool(request.address >> 32), "wrong header size"
    assert request.first_be
    assert bool(request.last_be) == (request.length > 1)
    # Neither relaxed nor ID-based ordering, no "no snoop", the only traffic class.
    assert request.attributes == request.traffic_class == 0
    assert not request.poisoned


def completions(
    request: Tlp, data: bytes, cuts: list[int] = (), *, completer: int = 0
) -> list[Tlp]:
    """Successful completions of a read whose doublewords hold `data`, cut at address `cuts`."""
    enables = byte_enables(request)
    end = request.address + 4 * request.length
    enabled = [i for i, bit in enumerate(enables) if bit]
    first, after = (enabled[0], enabled[-1] + 1) if enabled else (0, 1)
    edges = [request.address, *sorted(set(cuts) - {request.address, end}), end]
    packets = []
    for low, high in itertools.pairwise(edges):
        skipped = max(request.address + first, low)
        packets.append(
            Tlp(
                kind=CPLD,
                length=(high - low) // 4,
                tag=request.tag,
                requester=request.requester,
                completer=completer,
                byte_count=request.address + after - skipped,
                lower_address=skipped & 0x7F,
                attributes=request.attributes,
                traffic_class=request.traffic_class,
                payload=data[low - request.address : high - request.address],
            )
        )
    return packets


def refusal(request: Tlp, status: int = UR) -> Tlp:
    """The completion without data that answers a read with an error."""
    whole = completions(request, bytes(4 * request.length))[0]
    return replace(whole, kind=CPL, length=0, status=status, payload=b"")
