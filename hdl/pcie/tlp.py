"""Transaction-layer packets as the card's two TLP streams carry them.

Beat 0 of a packet holds the header in its low 16 bytes (the fourth doubleword of a 3-DW header is
unused); the payload starts in beat 1, byte 0 of the payload in bits 7:0. A payload's first
doubleword is the one the header addresses, whatever its alignment. The hard IP fills in the card's
own requester and completer ID on transmit and says on receive which BAR a request hit.

Source of the header formats: PCI Express Base Specification 3.0, section 2.2.
"""

from amaranth import Const, Mux, Value
from amaranth.hdl import ValueLike
from amaranth.lib import data, enum
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig

HEADER_BYTES = 16
MAX_PAYLOAD_BYTES = 4096
"""Largest payload that a header can express."""
BYTE_COUNT_BITS = exact_log2(MAX_PAYLOAD_BYTES) + 1
"""Width of a number of bytes that one packet carries, or one read asks for."""
READ_COMPLETION_BOUNDARY = 64
"""A completion that does not end its read ends at a multiple of this many bytes."""


class TlpType(enum.IntEnum, shape=8):
    """Fmt and Type of the packets the card knows (fmt in bits 7:5, type in 4:0)."""

    MEMORY_READ_32 = 0b000_00000
    MEMORY_READ_64 = 0b001_00000
    MEMORY_WRITE_32 = 0b010_00000
    MEMORY_WRITE_64 = 0b011_00000
    COMPLETION = 0b000_01010
    COMPLETION_DATA = 0b010_01010


class CompletionStatus(enum.IntEnum, shape=3):
    """Completion status field."""

    SUCCESSFUL = 0
    UNSUPPORTED_REQUEST = 1
    CONFIGURATION_RETRY = 2
    COMPLETER_ABORT = 4


class RequestHeader(data.Struct):
    """Memory read or write. 64-bit requests: `address_high` is DW2 and `address_low` DW3;
    32-bit requests carry the address in DW2, here called `address_high`."""

    # DW0
    length: 10  # doublewords, 0 means 1024
    address_type: 2
    attributes: 2
    poisoned: 1
    digest: 1
    _dw0_a: 4
    traffic_class: 3
    _dw0_b: 1
    type: TlpType
    # DW1
    first_be: 4
    last_be: 4
    tag: 8
    requester_id: 16
    # DW2, DW3
    address_high: 32
    address_low: 32


class CompletionHeader(data.Struct):
    """Completion with or without data; DW3 is unused."""

    # DW0
    length: 10
    address_type: 2
    attributes: 2
    poisoned: 1
    digest: 1
    _dw0_a: 4
    traffic_class: 3
    _dw0_b: 1
    type: TlpType
    # DW1
    byte_count: 12  # remaining bytes of the request, this completion included; 0 means 4096
    byte_count_modified: 1
    status: CompletionStatus
    completer_id: 16
    # DW2
    lower_address: 7
    _dw2: 1
    tag: 8
    requester_id: 16
    _dw3: 32


def is_completion(kind: ValueLike) -> Value:
    """Whether a type byte is that of a completion: types 01010 and 01011, whatever the format."""
    return Value.cast(kind)[1:5] == 0b0101


def is_non_posted(kind: ValueLike) -> Value:
    """Whether a type byte is that of a request that is answered.

    Not so memory writes, messages (type 10xxx) and prefixes, which hide what follows.
    """
    kind = Value.cast(kind)
    memory_write = (kind[:5] == 0) & kind[6]
    return ~(memory_write | (kind[3:5] == 0b10) | kind[7] | is_completion(kind))


def rx_beat(config: CardConfig) -> data.StructLayout:
    """One beat towards the card; `bar` (of beat 0) is the BAR that a request hit."""
    return data.StructLayout({"data": config.bus_bytes * 8, "last": 1, "bar": 3})


def tx_beat(config: CardConfig) -> data.StructLayout:
    """One beat from the card."""
    return data.StructLayout({"data": config.bus_bytes * 8, "last": 1})


def drive_memory_request(
    header: data.View, *, write: bool, address: ValueLike, size: ValueLike, tag: ValueLike
) -> list:
    """Assignments that make `header` (`RequestHeader`) a memory request of `size` bytes.

    `address` is a multiple of 4, `size` (of `BYTE_COUNT_BITS`) is 1 to 4096. The header has three
    doublewords for an address below 4 GiB, as the specification requires, and four above.
    """
    wide = address[32:] != 0
    single = size <= 4
    # Bytes 0 to n-1 of the last doubleword, n = size modulo 4 or 4.
    tail = Mux(size[:2] == 0, 0b1111, (Const(1, 4) << size[:2])[:4] - 1)
    types = (TlpType.MEMORY_WRITE_32, TlpType.MEMORY_WRITE_64)
    if not write:
        types = (TlpType.MEMORY_READ_32, TlpType.MEMORY_READ_64)
    return [
        header.length.eq((size + 3) >> 2),
        header.type.eq(Mux(wide, types[1], types[0])),
        header.first_be.eq(Mux(single, tail, 0b1111)),
        header.last_be.eq(Mux(single, 0, tail)),
        header.tag.eq(tag),
        header.address_high.eq(Mux(wide, address[32:], address[:32])),
        header.address_low.eq(Mux(wide, address[:32], 0)),
    ]
