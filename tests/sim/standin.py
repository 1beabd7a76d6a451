"""A small card with the ports of the real one, for tests of what surrounds it.

BAR2 requests of whole bus words become AXI bursts, one at a time. BAR0 starts transfers:
`ADDRESS_LOW` and `ADDRESS_HIGH` name a bus address; writing a count to `READS` or `WRITES` sends
that many reads of `max_read_request_bytes` or writes of `max_payload_bytes` to consecutive
addresses, and then a word to `MESSAGE` (an address below 4 GiB). Any read of BAR0 returns the
number of completion bytes received so far.
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.memory.axi import BURST_INCR, Axi4
from halfdome.hdl.pcie.tlp import CompletionHeader, RequestHeader, TlpType, rx_beat, tx_beat

ADDRESS_LOW, ADDRESS_HIGH, READS, WRITES, MESSAGE = range(0, 20, 4)


class StandIn(wiring.Component):
    """See the module. It has no cycle count, and does nothing while it waits."""

    idle_period = 1

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "rx": In(stream.Signature(rx_beat(config))),
                "rx_np_ok": Out(1),
                "tx": Out(stream.Signature(tx_beat(config))),
                "axi": Out(Axi4(config, 2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, axi, rx, tx = self.config, self.axi, self.rx, self.tx
        bits = config.bus_bytes * 8
        size = exact_log2(config.bus_bytes)
        request = data.View(RequestHeader, rx.p.data[:128])
        held = Signal(RequestHeader)
        wide = request.type[5]
        address = Signal(64)
        m.d.comb += self.rx_np_ok.eq(1)
        m.d.comb += address.eq(
            Mux(
                wide,
                Cat(request.address_low, request.address_high),
                request.address_high,
            )
        )
        target = Signal(64)
        words = Signal(10)
        base = Signal(64)
        message = Signal(32)
        left = Signal(32)
        in_flight = Signal(10)
        writing = Signal()
        running = Signal()
        tag = Signal(8)
        received = Signal(32)
        parity = Signal(2)
        send = Signal(RequestHeader)
        answer = Signal(CompletionHeader)
        read_step = config.max_read_request_bytes
        write_step = config.max_payload_bytes
        write_words = write_step // config.bus_bytes
        m.d.comb += [
            axi.awsize.eq(size),
            axi.arsize.eq(size),
            axi.awburst.eq(BURST_INCR),
            axi.arburst.eq(BURST_INCR),
            axi.awaddr.eq(target),
            axi.araddr.eq(target),
            axi.awid.eq(parity),
            axi.arid.eq(parity),
            axi.arlen.eq(words - 1),
            axi.wdata.eq(rx.p.data),
            axi.wstrb.eq(~Const(0, config.bus_bytes)),
            axi.wlast.eq(1),
            answer.type.eq(TlpType.COMPLETION_DATA),
            answer.length.eq(held.length),
            answer.byte_count.eq(held.length << 2),
            answer.tag.eq(held.tag),
            answer.requester_id.eq(held.requester_id),
            answer.lower_address.eq(target),
        ]
        is_completion = request.type[:5] == TlpType.COMPLETION & 0x1F
        bytes_in = Signal(13)
        m.d.comb += bytes_in.eq(request.length << 2)
        done = Signal()

        with m.FSM():
            with m.State("IDLE"):
                with m.If(rx.valid):
                    m.d.comb += rx.ready.eq(1)
                    m.d.sync += [held.eq(request), target.eq(address & (config.window_bytes - 1))]
                    m.d.sync += [
                        words.eq((bytes_in + config.bus_bytes - 1) >> size),
                        parity.eq(parity + 1),
                    ]
                    with m.If(is_completion):
                        m.d.sync += received.eq(received + bytes_in)
                        with m.If(request.as_value()[32:44] == bytes_in[:12]):
                            m.d.sync += in_flight.eq(in_flight - 1)
                        m.next = "DROP"
                    with m.Elif(request.type[6]):  # write
                        m.next = "REGISTER"
                        with m.If(rx.p.bar == 2):
                            m.next = "WINDOW_WRITE"
                    with m.Else():
                        m.next = "REGISTER_READ"
                        with m.If(rx.p.bar == 2):
                            m.next = "WINDOW_READ"
                with m.Elif(running & (left != 0) & (writing | (in_flight < config.dma_tags))):
                    m.next = "SEND"
                with m.Elif(running & (left == 0) & (in_flight == 0)):
                    m.next = "MESSAGE"
            with m.State("DROP"):
                m.d.comb += rx.ready.eq(1)
                with m.If(rx.valid & rx.p.last):
                    m.next = "IDLE"
            with m.State("REGISTER"):
                m.d.comb += rx.ready.eq(1)
                with m.If(rx.valid):
                    value = rx.p.data[:32]
                    with m.Switch(target[:16]):
                        with m.Case(ADDRESS_LOW):
                            m.d.sync += base[:32].eq(value)
                        with m.Case(ADDRESS_HIGH):
                            m.d.sync += base[32:].eq(value)
                        with m.Case(MESSAGE):
                            m.d.sync += message.eq(value)
                        with m.Case(READS, WRITES):
                            m.d.sync += [
                                left.eq(value),
                                running.eq(1),
                                writing.eq(target[:16] == WRITES),
                            ]
                    m.next = "IDLE"
            with m.State("WINDOW_WRITE"):
                with m.If(rx.valid):
                    m.d.comb += [axi.awvalid.eq(1), axi.wvalid.eq(~done)]
                    with m.If(axi.wready):
                        m.d.sync += done.eq(1)
                    with m.If(axi.awready & (done | axi.wready)):
                        m.d.sync += done.eq(0)
                        m.next = "ACKNOWLEDGE"
            with m.State("ACKNOWLEDGE"):
                m.d.comb += axi.bready.eq(1)
                with m.If(axi.bvalid):
                    m.d.comb += rx.ready.eq(1)
                    m.d.sync += target.eq(target + config.bus_bytes)
                    m.next = "WINDOW_WRITE"
                    with m.If(rx.p.last):
                        m.next = "IDLE"
            with m.State("REGISTER_READ"):
                m.d.comb += [tx.valid.eq(1), tx.p.data.eq(answer)]
                with m.If(tx.ready):
                    m.next = "REGISTER_DATA"
            with m.State("REGISTER_DATA"):
                m.d.comb += [tx.valid.eq(1), tx.p.data.eq(received), tx.p.last.eq(1)]
                with m.If(tx.ready):
                    m.next = "IDLE"
            with m.State("WINDOW_READ"):
                m.d.comb += axi.arvalid.eq(1)
                with m.If(axi.arready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [tx.valid.eq(1), tx.p.data.eq(answer)]
                with m.If(tx.ready):
                    m.next = "ANSWER_DATA"
            with m.State("ANSWER_DATA"):
                m.d.comb += [
                    tx.valid.eq(axi.rvalid),
                    axi.rready.eq(tx.ready),
                    tx.p.data.eq(axi.rdata),
                    tx.p.last.eq(axi.rlast),
                ]
                with m.If(tx.valid & tx.ready & tx.p.last):
                    m.next = "IDLE"
            with m.State("SEND"):
                m.d.comb += [
                    send.type.eq(Mux(writing, TlpType.MEMORY_WRITE_64, TlpType.MEMORY_READ_64)),
                    send.length.eq(Mux(writing, write_step // 4, read_step // 4)),
                    send.first_be.eq(0xF),
                    send.last_be.eq(0xF),
                    send.tag.eq(tag),
                    send.address_low.eq(base[:32]),
                    send.address_high.eq(base[32:]),
                    tx.valid.eq(1),
                    tx.p.data.eq(send),
                    tx.p.last.eq(~writing),
                ]
                with m.If(tx.ready):
                    m.d.sync += [
                        tag.eq(tag + 1),
                        left.eq(left - 1),
                        base.eq(base + Mux(writing, write_step, read_step)),
                        words.eq(write_words),
                    ]
                    m.next = "SEND_DATA"
                    with m.If(~writing):
                        m.d.sync += in_flight.eq(in_flight + 1)
                        m.next = "IDLE"
            with m.State("SEND_DATA"):
                m.d.comb += [
                    tx.valid.eq(1),
                    tx.p.data.eq(Cat(words, tag).replicate(bits // 18)),
                    tx.p.last.eq(words == 1),
                ]
                with m.If(tx.ready):
                    m.d.sync += words.eq(words - 1)
                    with m.If(words == 1):
                        m.next = "IDLE"
            with m.State("MESSAGE"):
                m.d.comb += [
                    send.type.eq(TlpType.MEMORY_WRITE_32),
                    send.length.eq(1),
                    send.first_be.eq(0xF),
                    send.address_high.eq(message),
                    tx.valid.eq(1),
                    tx.p.data.eq(send),
                ]
                with m.If(tx.ready):
                    m.next = "MESSAGE_DATA"
            with m.State("MESSAGE_DATA"):
                m.d.comb += [tx.valid.eq(1), tx.p.data.eq(0xCAFE), tx.p.last.eq(1)]
                with m.If(tx.ready):
                    m.d.sync += running.eq(0)
                    m.next = "IDLE"
        return m
