"""Requests to the card: register accesses and the window onto card memory."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from halfdome.hdl.config import ADDRESS_BITS, CardConfig
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.pcie.completion_sender import ANSWER
from halfdome.hdl.pcie.decoder import Action, RequestDecoder
from halfdome.hdl.pcie.packet_buffer import packet_beat
from halfdome.hdl.pcie.port import REQUEST_EVENTS, events
from halfdome.hdl.pcie.register_bus import RegisterBus
from halfdome.hdl.pcie.replier import Replier
from halfdome.hdl.pcie.tlp import HEADER_BYTES, CompletionStatus, RequestHeader, tx_beat
from halfdome.hdl.pcie.window_writer import WindowWriter


class Completer(wiring.Component):
    """Serves requests (see `RequestDecoder` for which), writes in order, reads in order.

    Members
    -------
    i : In(stream of `packet_beat`), requests
    o : Out(stream of `tx_beat`), completions
    registers : Out(RegisterBus), BAR 0
    window_read : Out(ReadPort), BAR 2
    window_write : Out(WritePort), BAR 2
    events : Out(of `REQUEST_EVENTS`), pulses
    started : Out(1), a pulse: there is room for one more non-posted request, see `Replier`

    A register write, and any read, waits until every earlier window write can be seen in memory.
    A read then waits in a queue of its own until its answer may go, and writes behind it pass:
    while the queue has room, nothing that `o` refuses keeps `i` waiting.

    `register_read_latency` cycles from a request's beat being taken to the completion's header
    being offered, for one register. Writes of the window take two cycles for the header, then
    one for each word of memory that they touch; reads of the window three cycles, as their answers
    go on by themselves.
    """

    register_read_latency = 4 + Replier.latency

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(packet_beat(config))),
                "o": Out(stream.Signature(tx_beat(config))),
                "registers": Out(RegisterBus()),
                "window_read": Out(ReadPort(config)),
                "window_write": Out(WritePort(config)),
                "events": Out(events(REQUEST_EVENTS)),
                "started": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.decoder = decoder = RequestDecoder(config)
        m.submodules.writer = writer = WindowWriter(config)
        m.submodules.replier = replier = Replier(config)
        connect(m, writer.o, flipped(self.window_write.request))
        connect(m, replier.window_read, flipped(self.window_read))
        connect(m, replier.o, flipped(self.o))

        header = Signal(RequestHeader)
        bar = Signal(3)
        malformed = Signal()
        payload_follows = Signal()
        decision = decoder.decision
        m.d.comb += [
            decoder.header.eq(header),
            decoder.bar.eq(bar),
            decoder.malformed.eq(malformed),
            self.started.eq(replier.started),
        ]

        posted = Signal()
        address = Signal(ADDRESS_BITS)  # BAR offset of the first byte
        answer = Signal(ANSWER)
        registers_read = Signal(64)

        two_registers = header.length[1]
        second = Signal()
        earlier_writes_seen = self.window_write.idle
        m.d.comb += [
            self.registers.address.eq(Mux(second, address[:16] + 4, address[:16])),
            writer.i.p.address.eq(address),
            writer.i.p.dwords.eq(decision.dwords),
            writer.i.p.first_be.eq(header.first_be),
            writer.i.p.last_be.eq(header.last_be),
            writer.payload.p.eq(self.i.p.data),
            replier.i.p.eq(answer),
            replier.i.p.value.eq(Mux(answer.from_window, address, registers_read)),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    header.eq(self.i.p.data[: HEADER_BYTES * 8]),
                    bar.eq(self.i.p.bar),
                    malformed.eq(self.i.p.malformed),
                    payload_follows.eq(~self.i.p.last),
                ]
                with m.If(self.i.valid):
                    m.next = "DECODE"
            with m.State("DECODE"):
                m.d.sync += [
                    posted.eq(decision.posted),
                    address.eq(
                        Cat(
                            decision.lower_address[:2],
                            decoder.address[2 : ceil_log2(config.window_bytes)],
                        )
                    ),
                    answer.from_window.eq(decision.action == Action.WINDOW_READ),
                    answer.status.eq(CompletionStatus.SUCCESSFUL),
                    answer.bytes.eq(decision.bytes),
                    answer.lower_address.eq(decision.lower_address),
                    answer.tag.eq(header.tag),
                    answer.requester_id.eq(header.requester_id),
                    answer.attributes.eq(header.attributes),
                    answer.traffic_class.eq(header.traffic_class),
                    registers_read.eq(0),
                ]
                with m.Switch(decision.action):
                    with m.Case(Action.REGISTER_WRITE):
                        m.next = "REGISTER_WRITE"
                    with m.Case(Action.WINDOW_WRITE):
                        m.next = "WINDOW_WRITE"
                    with m.Case(Action.REGISTER_READ):
                        m.next = "REGISTER_READ"
                    with m.Case(Action.WINDOW_READ, Action.FLUSH):
                        m.next = "ANSWER"
                    with m.Case(Action.NOTHING):
                        m.next = "DISCARD"
                    with m.Default():
                        m.d.comb += [
                            self.events.dropped_request.eq(1),
                            self.events.poisoned_request.eq(decision.poisoned),
                        ]
                        m.d.sync += answer.status.eq(CompletionStatus.UNSUPPORTED_REQUEST)
                        with m.If(payload_follows):
                            m.next = "DISCARD"
                        with m.Elif(decision.posted):
                            m.next = "IDLE"
                        with m.Else():
                            m.next = "ANSWER"
            with m.State("DISCARD"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & self.i.p.last):
                    m.next = "ANSWER"
                    with m.If(posted):
                        m.next = "IDLE"

            with m.State("REGISTER_WRITE"):
                m.d.comb += [
                    self.registers.write.eq(self.i.valid & earlier_writes_seen),
                    self.registers.write_data.eq(self.i.p.data[:32]),
                    self.i.ready.eq(earlier_writes_seen & ~two_registers),
                ]
                with m.If(self.registers.write):
                    m.next = "IDLE"
                    with m.If(two_registers):
                        m.next = "REGISTER_WRITE_SECOND"
            with m.State("REGISTER_WRITE_SECOND"):
                m.d.comb += [
                    second.eq(1),
                    self.registers.write.eq(1),
                    self.registers.write_data.eq(self.i.p.data[32:64]),
                    self.i.ready.eq(1),
                ]
                m.next = "IDLE"
            with m.State("WINDOW_WRITE"):
                m.d.comb += [
                    writer.i.valid.eq(1),
                    writer.payload.valid.eq(self.i.valid),
                    self.i.ready.eq(writer.payload.ready),
                ]
                with m.If(writer.i.ready):
                    m.next = "IDLE"

            with m.State("REGISTER_READ"):
                m.d.comb += self.registers.read.eq(earlier_writes_seen)
                with m.If(earlier_writes_seen):
                    m.next = "REGISTER_DATA"
            with m.State("REGISTER_DATA"):
                m.d.sync += registers_read[:32].eq(self.registers.read_data)
                m.next = "ANSWER"
                with m.If(two_registers):
                    m.d.comb += [second.eq(1), self.registers.read.eq(1)]
                    m.next = "REGISTER_DATA_SECOND"
            with m.State("REGISTER_DATA_SECOND"):
                m.d.sync += registers_read[32:].eq(self.registers.read_data)
                m.next = "ANSWER"
            with m.State("ANSWER"):
                # What it waits for stays once it is there, since writes come through here too.
                m.d.comb += replier.i.valid.eq(earlier_writes_seen)
                with m.If(replier.i.valid & replier.i.ready):
                    m.next = "IDLE"
        return m
