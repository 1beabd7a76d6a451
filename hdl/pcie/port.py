"""How the card's blocks reach PCIe: reads into card memory, fetched words, posted writes."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.config import ADDRESS_BITS, CardConfig


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
    failed : In(1), a read failed since `idle` was last left; no byte of the refused completions was
        written, other parts of the read may have been
    """

    def __init__(self, config: CardConfig):
        super().__init__(
            {
                "request": Out(stream.Signature(dma_read(config))),
                "idle": In(1),
                "failed": In(1),
            }
        )


def fetch_request() -> data.StructLayout:
    """Fetch `bytes` bytes from bus `address`."""
    return data.StructLayout({"address": 64, "bytes": 13})


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
