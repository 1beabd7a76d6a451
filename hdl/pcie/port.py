"""How the card's blocks reach PCIe: reads into card memory, fetched words, posted writes."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.commands import ReadFailure
from halfdome.hdl.config import ADDRESS_BITS, CardConfig
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS

REQUEST_EVENTS = ("dropped_request", "poisoned_request")
"""What may befall a request to the card: it was refused; of those, it carried poison."""
READ_EVENTS = (
    "unexpected_completion", "late_completion", "malformed_completion", "unsuccessful_completion",
    "poisoned_completion", "completion_timeout",
)  # fmt: skip
"""What may go wrong with the card's reads. A bad completion is one of these, the first that fits:
no read was open under its tag, its read had already failed, it is not what its header says or not
what its read needs next, its status is an error, it is poisoned. A timeout is none."""


def events(names: tuple[str, ...]) -> data.StructLayout:
    """One pulse for each."""
    return data.StructLayout(dict.fromkeys(names, 1))


class PcieControl(wiring.Signature):
    """What the host sets and sees of the card's side of PCIe, seen from the registers.

    Members
    -------
    completion_timeout : Out(32), cycles from a read's request to its failure; 0 for never
    bus_master : Out(1), requests may leave the card
    discard : Out(1), without `bus_master`: posted writes are dropped instead of held
    reset : Out(1), with no read in flight: every tag is free again
    events : In(of `REQUEST_EVENTS` and `READ_EVENTS`), pulses
    outstanding_reads : In(9), tags in flight
    quarantined_tags : In(9), tags whose read failed and whose completions may still come
    """

    def __init__(self):
        super().__init__(
            {
                "completion_timeout": Out(32),
                "bus_master": Out(1),
                "discard": Out(1),
                "reset": Out(1),
                "events": In(events(REQUEST_EVENTS + READ_EVENTS)),
                "outstanding_reads": In(9),
                "quarantined_tags": In(9),
            }
        )


def dma_read(config: CardConfig) -> data.StructLayout:
    """Bring `bytes` (1 or more) bytes from bus `address` to card address `destination`.

    Both are multiples of `bus_bytes`. Any length: the requester splits at `max_read_request_bytes`
    and 4 KiB.
    """
    return data.StructLayout({"address": 64, "destination": ADDRESS_BITS, "bytes": 32})


class DmaReadPort(wiring.Signature):
    """PCIe reads whose data goes straight to card memory, seen from the client.

    Members
    -------
    request : Out(stream of `dma_read`)
    idle : In(1), the data of every accepted read can be seen in card memory, or the read failed
    failure : In(ReadFailure), why the first of the reads since `idle` was last left failed; no byte
        of a refused completion was written, other parts may have been, and what was not yet asked
        for then never is
    """

    def __init__(self, config: CardConfig):
        super().__init__(
            {
                "request": Out(stream.Signature(dma_read(config))),
                "idle": In(1),
                "failure": In(ReadFailure),
            }
        )


def fetch_request() -> data.StructLayout:
    """Fetch `bytes` bytes from bus `address`."""
    return data.StructLayout({"address": 64, "bytes": BYTE_COUNT_BITS})


def fetch_response(config: CardConfig) -> data.StructLayout:
    """One bus word of a fetch; `failed` comes with `last` and no valid data."""
    return data.StructLayout({"data": config.bus_bytes * 8, "last": 1, "failed": 1})


class FetchPort(wiring.Signature):
    """PCIe reads answered as a stream of bus words, seen from the client. One at a time.

    Members
    -------
    request : Out(stream of `fetch_request`), `bytes` one or more whole bus words, within one read
        request and 4 KiB; `address` a multiple of `bus_bytes`
    response : In(stream of `fetch_response`)
    """

    def __init__(self, config: CardConfig):
        super().__init__(
            {
                "request": Out(stream.Signature(fetch_request())),
                "response": In(stream.Signature(fetch_response(config))),
            }
        )


class PostedWritePort(wiring.Signature):
    """Posted PCIe writes, seen from the client.

    Members
    -------
    request : Out(stream of {address, bytes}), `address` a multiple of 4, `bytes` 1 or more;
        split at `max_payload_bytes` and 4 KiB by the requester
    data : Out(stream of bus words), ceil(bytes / bus_bytes) of them per request, byte 0 of the
        transfer in bits 7:0 of the first; must not wait for anything else on PCIe
    idle : In(1), every accepted request has left the card whole
    """

    def __init__(self, config: CardConfig):
        request = data.StructLayout({"address": 64, "bytes": 32})
        super().__init__(
            {
                "request": Out(stream.Signature(request)),
                "data": Out(stream.Signature(config.bus_bytes * 8)),
                "idle": In(1),
            }
        )
