"""How every block of the card reaches card memory: one read port, one write port.

Addresses are card addresses of whole bus words. A requester asks only for what it has room for, so
read data cannot be refused: `ReadBuffer` keeps that promise for clients that need back-pressure.
"""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from halfdome.hdl.config import CardConfig


def read_request(config: CardConfig) -> data.StructLayout:
    """A burst of `count_minus_1 + 1` words from `address`; it never crosses a 64-byte line."""
    return data.StructLayout(
        {"address": config.address_bits, "count_minus_1": max(1, ceil_log2(config.burst_words))}
    )


def read_word(config: CardConfig) -> data.StructLayout:
    """One word of a burst; `last` ends the burst."""
    return data.StructLayout({"data": config.bus_bytes * 8, "last": 1})


def write_request(config: CardConfig) -> data.StructLayout:
    """One word; only bytes whose `strobe` bit is set are written."""
    return data.StructLayout(
        {"address": config.address_bits, "data": config.bus_bytes * 8, "strobe": config.bus_bytes}
    )


class ReadPort(wiring.Signature):
    """Memory reads, seen from the requester. Responses come in request order.

    Members
    -------
    request : Out(stream of `read_request`)
    response : In(stream of `read_word`, always ready)
    """

    def __init__(self, config: CardConfig):
        super().__init__(
            {
                "request": Out(stream.Signature(read_request(config))),
                "response": In(stream.Signature(read_word(config), always_ready=True)),
            }
        )


class WritePort(wiring.Signature):
    """Memory writes, seen from the requester.

    Members
    -------
    request : Out(stream of `write_request`)
    idle : In(1), every accepted write can be seen by any later read
    """

    def __init__(self, config: CardConfig):
        super().__init__({"request": Out(stream.Signature(write_request(config))), "idle": In(1)})
