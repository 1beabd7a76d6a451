"""Transfers of any length cut into pieces that fit one packet."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import ADDRESS_BITS, CardConfig
from halfdome.hdl.pcie.port import dma_read
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS, MAX_PAYLOAD_BYTES


def piece(config: CardConfig) -> data.StructLayout:
    """Part of a transfer, at most 4096 bytes from bus `address`.

    `skip` bytes of its first data word belong to the piece before; `last` ends the transfer.
    """
    return data.StructLayout(
        {
            "address": 64,
            "destination": ADDRESS_BITS,
            "bytes": BYTE_COUNT_BITS,
            "skip": exact_log2(config.bus_bytes),
            "last": 1,
        }
    )


class Splitter(wiring.Component):
    """Cuts a transfer at the multiples of `limit` that it crosses, so never across 4 KiB.

    Parameters
    ----------
    limit : int
        Largest piece in bytes: a power of two from `bus_bytes` to 4096.

    Members
    -------
    i : In(stream of `dma_read`); `destination` advances with `address` and may be left 0
    o : Out(stream of `piece`), none for a transfer of 0 bytes
    idle : Out(1), every piece of every transfer taken is gone

    A piece that starts inside a data word (a transfer that is not word aligned crossed a multiple
    of `limit`) ends with that word. The first piece is offered `latency` cycles after `i` is taken,
    then one a cycle.
    """

    latency = 2

    def __init__(self, config: CardConfig, limit: int):
        if limit & (limit - 1) or not config.bus_bytes <= limit <= MAX_PAYLOAD_BYTES:
            raise ValueError(
                f"limit={limit}: must be a power of two from {config.bus_bytes} to 4096"
            )
        self._config = config
        self._limit = limit
        super().__init__(
            {
                "i": In(stream.Signature(dma_read(config))),
                "o": Out(stream.Signature(piece(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        address = Signal(64)
        destination = Signal(ADDRESS_BITS)
        remaining = Signal(32)
        skip = Signal(exact_log2(self._config.bus_bytes))

        room = Signal(BYTE_COUNT_BITS)
        busy = Signal()
        last = Signal()
        load = Signal()
        m.d.comb += [
            room.eq(self._limit - address[: exact_log2(self._limit)]),
            last.eq(remaining <= room),
            load.eq(busy & (~self.o.valid | self.o.ready)),
            self.i.ready.eq(~busy),
            self.idle.eq(~busy & ~self.o.valid),
        ]
        with m.If(skip != 0):
            m.d.comb += room.eq(self._config.bus_bytes - skip)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(load):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.p.address.eq(address),
                self.o.p.destination.eq(destination),
                self.o.p.bytes.eq(Mux(last, remaining[:BYTE_COUNT_BITS], room)),
                self.o.p.skip.eq(skip),
                self.o.p.last.eq(last),
                # Of no meaning after the last piece, so they need not wait for its size.
                address.eq(address + room),
                destination.eq(destination + room),
                remaining.eq(remaining - room),
                skip.eq(skip + room),
                busy.eq(~last),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                address.eq(self.i.p.address),
                destination.eq(self.i.p.destination),
                remaining.eq(self.i.p.bytes),
                skip.eq(0),
                busy.eq(self.i.p.bytes != 0),
            ]
        return m
