"""Requests to the card: register accesses and the window onto card memory."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from hdl.config import ADDRESS_BITS, CardConfig
from hdl.memory.port import ReadPort, WritePort
from hdl.memory.reader import SequentialReader
from hdl.pcie.decoder import Action, RequestDecoder
from hdl.pcie.packet_buffer import packet_beat
from hdl.pcie.port import REQUEST_EVENTS, events
from hdl.pcie.register_bus import RegisterBus
from hdl.pcie.tlp import (
    HEADER_BYTES,
    CompletionHeader,
    CompletionStatus,
    RequestHeader,
    TlpType,
    tx_beat,
)

PREFETCH_BYTES = 512
"""Room for card memory data on its way to a completion."""


class Completer(wiring.Component):
    """Serves requests one at a time, in order (see `RequestDecoder` for which it serves).

    Members
    -------
    i : In(stream of `packet_beat`), requests
    o : Out(stream of `tx_beat`), completions
    registers : Out(RegisterBus), BAR 0
    window_read : Out(ReadPort), BAR 2
    window_write : Out(WritePort), BAR 2
    events : Out(of `REQUEST_EVENTS`), pulses

    A register write, and any read, waits until every earlier window write can be seen in memory.
    Reads of BAR 2 are answered in completions that end at multiples of `max_payload_bytes`, hence
    at the read completion boundary.

    `register_read_latency` cycles from a request's beat being taken to the completion's header
    being offered, for one register. Writes of the window take two cycles for the header, then
    one word a cycle. While a read waits for `o`, later requests wait behind it.
    """

    register_read_latency = 4

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
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        bus = config.bus_bytes
        m.submodules.decoder = decoder = RequestDecoder(config)
        m.submodules.reader = reader = SequentialReader(
            config, depth=max(config.burst_words, PREFETCH_BYTES // bus)
        )
        connect(m, reader.port, flipped(self.window_read))

        header = Signal(RequestHeader)
        bar = Signal(3)
        malformed = Signal()
        payload_follows = Signal()
        decision = decoder.decision
        m.d.comb += [
            decoder.header.eq(header),
            decoder.bar.eq(bar),
            decoder.malformed.eq(malformed),
        ]

        posted = Signal()
        address = Signal(ADDRESS_BITS)  # BAR offset of the next byte to move
        remaining = Signal(13)  # bytes still to write, or to answer
        lower_address = Signal(7)
        status = Signal(CompletionStatus)
        from_window = Signal()
        registers_read = Signal(64)

        two_registers = remaining[3]
        second = Signal()
        earlier_writes_seen = self.window_write.idle
        m.d.comb += self.registers.address.eq(Mux(second, address[:16] + 4, address[:16]))

        m.d.comb += [
            self.window_write.request.p.address.eq(address),
            self.window_write.request.p.data.eq(self.i.p.data),
            self.window_write.request.p.strobe.eq(Cat(remaining > byte for byte in range(bus))),
            reader.i.p.address.eq(address),
            reader.i.p.words.eq((remaining + (bus - 1)) >> exact_log2(bus)),
        ]

        chunk = Signal(13)  # bytes of this completion
        left = Signal(13)  # of those, bytes not sent yet
        payload_boundary = Signal(13)
        completion = Signal(CompletionHeader)
        max_payload = config.max_payload_bytes
        m.d.comb += [
            payload_boundary.eq(max_payload - address[: exact_log2(max_payload)]),
            chunk.eq(remaining),
            completion.type.eq(Mux(status == 0, TlpType.COMPLETION_DATA, TlpType.COMPLETION)),
            completion.length.eq(Mux(status == 0, (chunk + 3) >> 2, 0)),
            completion.attributes.eq(header.attributes),
            completion.traffic_class.eq(header.traffic_class),
            completion.byte_count.eq(remaining),
            completion.status.eq(status),
            completion.lower_address.eq(lower_address),
            completion.tag.eq(header.tag),
            completion.requester_id.eq(header.requester_id),
        ]
        with m.If(from_window & (remaining > payload_boundary)):
            m.d.comb += chunk.eq(payload_boundary)

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
                    address.eq(decoder.address[: ceil_log2(config.window_bytes)]),
                    remaining.eq(decision.bytes),
                    lower_address.eq(decision.lower_address),
                    status.eq(CompletionStatus.SUCCESSFUL),
                    from_window.eq(decision.action == Action.WINDOW_READ),
                ]
                with m.Switch(decision.action):
                    with m.Case(Action.REGISTER_WRITE):
                        m.next = "REGISTER_WRITE"
                    with m.Case(Action.WINDOW_WRITE):
                        m.next = "WINDOW_WRITE"
                    with m.Case(Action.REGISTER_READ):
                        m.next = "REGISTER_READ"
                    with m.Case(Action.WINDOW_READ):
                        m.next = "WINDOW_READ"
                    with m.Case(Action.FLUSH):
                        m.next = "FLUSH"
                    with m.Default():
                        m.d.comb += [
                            self.events.dropped_request.eq(1),
                            self.events.poisoned_request.eq(decision.poisoned),
                        ]
                        m.d.sync += status.eq(CompletionStatus.UNSUPPORTED_REQUEST)
                        with m.If(payload_follows):
                            m.next = "DISCARD"
                        with m.Elif(decision.posted):
                            m.next = "IDLE"
                        with m.Else():
                            m.next = "REPLY"
            with m.State("DISCARD"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & self.i.p.last):
                    m.next = "REPLY"
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
                    self.window_write.request.valid.eq(self.i.valid),
                    self.i.ready.eq(self.window_write.request.ready),
                ]
                with m.If(self.i.valid & self.i.ready):
                    m.d.sync += [address.eq(address + bus), remaining.eq(remaining - bus)]
                    with m.If(self.i.p.last):
                        m.next = "IDLE"

            with m.State("REGISTER_READ"):
                m.d.comb += self.registers.read.eq(earlier_writes_seen)
                with m.If(earlier_writes_seen):
                    m.next = "REGISTER_DATA"
            with m.State("REGISTER_DATA"):
                m.d.sync += registers_read[:32].eq(self.registers.read_data)
                m.next = "REPLY"
                with m.If(two_registers):
                    m.d.comb += [second.eq(1), self.registers.read.eq(1)]
                    m.next = "REGISTER_DATA_SECOND"
            with m.State("REGISTER_DATA_SECOND"):
                m.d.sync += registers_read[32:].eq(self.registers.read_data)
                m.next = "REPLY"
            with m.State("WINDOW_READ"):
                m.d.comb += reader.i.valid.eq(earlier_writes_seen)
                with m.If(reader.i.valid & reader.i.ready):
                    m.next = "REPLY"
            with m.State("FLUSH"):
                m.d.sync += registers_read.eq(0)
                with m.If(earlier_writes_seen):
                    m.next = "REPLY"

            with m.State("REPLY"):
                m.d.comb += [
                    self.o.valid.eq(1),
                    self.o.p.data.eq(completion),
                    self.o.p.last.eq(status != 0),
                ]
                m.d.sync += left.eq(chunk)
                with m.If(self.o.ready):
                    m.next = "IDLE"
                    with m.If(status == 0):
                        m.next = "REPLY_DATA"
            with m.State("REPLY_DATA"):
                m.d.comb += [
                    self.o.valid.eq(reader.o.valid | ~from_window),
                    self.o.p.data.eq(Mux(from_window, reader.o.p.data, registers_read)),
                    self.o.p.last.eq(left <= bus),
                    reader.o.ready.eq(self.o.ready & from_window),
                ]
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += left.eq(left - bus)
                    with m.If(self.o.p.last):
                        m.d.sync += [
                            address.eq(address + chunk),
                            remaining.eq(remaining - chunk),
                            lower_address.eq(0),
                        ]
                        m.next = "IDLE"
                        with m.If(remaining != chunk):
                            m.next = "REPLY"
        return m
