"""One client's posted writes, as packets."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.port import PostedWritePort
from halfdome.hdl.pcie.splitter import Splitter
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS, RequestHeader, drive_memory_request, tx_beat


class PostedWriter(wiring.Component):
    """Turns a client's writes into memory-write packets, in order.

    Members
    -------
    port : In(PostedWritePort)
    o : Out(stream of `tx_beat`)
    enable : In(1), packets may start; what is offered stays
    discard : In(1), without `enable`: packets that would start are dropped
    leaving : In(1), a beat of this writer waits behind `o`; holds `port.idle` down
    sent_bytes : Out(BYTE_COUNT_BITS), payload bytes of the packet whose header is taken in this
        cycle, else 0

    A packet costs one beat for its header, then a beat a cycle. Where a write that is not word
    aligned crosses a packet boundary, the rest of that word goes in a packet of its own, after one
    cycle for every doubleword by which it is shifted: such writes are rare and short.
    A header is offered when the first word of its data is; the rest of the data must follow
    without waiting for anything else on PCIe, since the packet occupies the link.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "port": In(PostedWritePort(config)),
                "o": Out(stream.Signature(tx_beat(config))),
                "enable": In(1),
                "discard": In(1),
                "leaving": In(1),
                "sent_bytes": Out(BYTE_COUNT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self._config.bus_bytes
        limit = self._config.max_payload_bytes
        m.submodules.splitter = splitter = Splitter(self._config, limit)
        m.d.comb += [
            splitter.i.p.address.eq(self.port.request.p.address),
            splitter.i.p.bytes.eq(self.port.request.p.bytes),
            splitter.i.valid.eq(self.port.request.valid),
            self.port.request.ready.eq(splitter.i.ready),
            self.port.idle.eq(splitter.idle & ~self.leaving),
        ]
        piece = splitter.o.p
        header = Signal(RequestHeader)
        m.d.comb += drive_memory_request(
            header, write=True, address=piece.address, size=piece.bytes, tag=0
        )

        left = Signal(BYTE_COUNT_BITS)
        shifted = Signal(bus * 8)  # the word that is shared with the piece before
        shifts = Signal(range(bus // 4))
        end = Signal(range(2 * bus))
        word_done = Signal()
        m.d.comb += [
            end.eq(piece.skip + piece.bytes[: exact_log2(bus)]),
            word_done.eq(piece.last | (end[: exact_log2(bus)] == 0)),
        ]
        offered = Signal()
        silent = Signal()
        taken = Signal()
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += [
                    self.o.p.data.eq(header),
                    self.o.valid.eq(
                        splitter.o.valid & self.port.data.valid & (self.enable | offered)
                    ),
                ]
                m.d.sync += [offered.eq(self.o.valid & ~self.o.ready), silent.eq(0)]
                m.d.sync += [
                    left.eq(piece.bytes),
                    shifted.eq(self.port.data.p),
                    shifts.eq(piece.skip >> 2),
                ]
                with m.If(self.o.valid & self.o.ready):
                    m.d.comb += self.sent_bytes.eq(piece.bytes)
                    m.next = "DATA"
                    with m.If(piece.skip != 0):
                        m.next = "SHIFT"
                with m.Elif(splitter.o.valid & self.port.data.valid & ~self.o.valid & self.discard):
                    m.d.sync += silent.eq(1)
                    m.next = "DATA"
            with m.State("SHIFT"):
                m.d.sync += [shifted.eq(shifted >> 32), shifts.eq(shifts - 1)]
                with m.If(shifts == 1):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [
                    self.o.p.data.eq(Mux(piece.skip != 0, shifted, self.port.data.p)),
                    self.o.p.last.eq(left <= bus),
                    self.o.valid.eq(self.port.data.valid & ~silent),
                    taken.eq(self.port.data.valid & (self.o.ready | silent)),
                    self.port.data.ready.eq((self.o.ready | silent) & (~self.o.p.last | word_done)),
                ]
                with m.If(taken):
                    m.d.sync += left.eq(left - bus)
                    with m.If(self.o.p.last):
                        m.d.comb += splitter.o.ready.eq(1)
                        m.next = "HEADER"
        return m
