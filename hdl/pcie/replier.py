"""Answers to the reads of the card, in order, several at a time."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import ReadPort
from halfdome.hdl.memory.reader import SequentialReader
from halfdome.hdl.pcie.tlp import CompletionHeader, CompletionStatus, TlpType, tx_beat

READ_QUEUE = 32
"""Non-posted requests that wait on the card, so that those behind them can pass."""
READS_IN_FLIGHT = 16
"""Of those, reads whose data may be on its way from card memory."""
PREFETCH_BYTES = 1024
"""Room for card memory data on its way to a completion."""


class Answer(data.Struct):
    """What one non-posted request is answered with.

    `value` is what registers held, or with `from_window` the card address of the first byte;
    `bytes` and `lower_address` are those of the first completion.
    """

    value: 64
    from_window: 1
    status: CompletionStatus
    bytes: 13
    lower_address: 7
    tag: 8
    requester_id: 16
    attributes: 2
    traffic_class: 3


class Replier(wiring.Component):
    """Reads card memory ahead for the answers that wait, and sends completions in their order.

    Members
    -------
    i : In(stream of `Answer`)
    o : Out(stream of `tx_beat`), completions
    window_read : Out(ReadPort), BAR 2
    started : Out(1), a pulse: one more answer has left the queue of `READ_QUEUE`

    Takes an answer a cycle while fewer than `READ_QUEUE` wait, whatever becomes of `o`. Completions
    of card memory end at multiples of `max_payload_bytes`, hence at the read completion boundary.

    `latency` cycles after an answer that needs no card memory is taken, its completion's header is
    offered. A completion costs two cycles and one for each word; reading runs ahead by up to
    `READS_IN_FLIGHT` answers and `PREFETCH_BYTES`.
    """

    latency = 4

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(Answer)),
                "o": Out(stream.Signature(tx_beat(config))),
                "window_read": Out(ReadPort(config)),
                "started": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        bus = config.bus_bytes
        m.submodules.reader = reader = SequentialReader(
            config, depth=max(config.burst_words, PREFETCH_BYTES // bus)
        )
        connect(m, reader.port, flipped(self.window_read))
        width = Answer.as_shape().size
        m.submodules.waiting = waiting = SyncFIFOBuffered(width=width, depth=READ_QUEUE)
        m.submodules.reading = reading = SyncFIFO(width=width, depth=READS_IN_FLIGHT)

        started = Answer(waiting.r_data)
        m.d.comb += [
            waiting.w_data.eq(self.i.p),
            waiting.w_en.eq(self.i.valid),
            self.i.ready.eq(waiting.w_rdy),
            reader.i.p.address.eq(started.value),
            reader.i.p.words.eq((started.bytes + (bus - 1)) >> exact_log2(bus)),
            reader.i.valid.eq(waiting.r_rdy & reading.w_rdy & started.from_window),
            self.started.eq(
                waiting.r_rdy & reading.w_rdy & (reader.i.ready | ~started.from_window)
            ),
            waiting.r_en.eq(self.started),
            reading.w_en.eq(self.started),
            reading.w_data.eq(waiting.r_data),
        ]

        answer = Signal(Answer)  # its `value`, `bytes` and `lower_address` follow what is sent
        chunk = Signal(13)  # bytes of this completion
        left = Signal(13)  # of those, bytes not sent yet
        payload_boundary = Signal(13)
        header = Signal(CompletionHeader)
        good = Signal()
        max_payload = config.max_payload_bytes
        m.d.comb += [
            payload_boundary.eq(max_payload - answer.value[: exact_log2(max_payload)]),
            chunk.eq(answer.bytes),
            good.eq(answer.status == CompletionStatus.SUCCESSFUL),
            header.type.eq(Mux(good, TlpType.COMPLETION_DATA, TlpType.COMPLETION)),
            header.length.eq(Mux(good, (chunk + 3) >> 2, 0)),
            header.attributes.eq(answer.attributes),
            header.traffic_class.eq(answer.traffic_class),
            header.byte_count.eq(answer.bytes),
            header.status.eq(answer.status),
            header.lower_address.eq(answer.lower_address),
            header.tag.eq(answer.tag),
            header.requester_id.eq(answer.requester_id),
        ]
        with m.If(answer.from_window & (answer.bytes > payload_boundary)):
            m.d.comb += chunk.eq(payload_boundary)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += reading.r_en.eq(1)
                m.d.sync += answer.eq(reading.r_data)
                with m.If(reading.r_rdy):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [
                    # A header without its data would keep others from the link.
                    self.o.valid.eq(reader.o.valid | ~answer.from_window),
                    self.o.p.data.eq(header),
                    self.o.p.last.eq(~good),
                ]
                m.d.sync += left.eq(chunk)
                with m.If(self.o.valid & self.o.ready):
                    m.next = "IDLE"
                    with m.If(good):
                        m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [
                    self.o.valid.eq(reader.o.valid | ~answer.from_window),
                    self.o.p.data.eq(Mux(answer.from_window, reader.o.p.data, answer.value)),
                    self.o.p.last.eq(left <= bus),
                    reader.o.ready.eq(self.o.ready & answer.from_window),
                ]
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += left.eq(left - bus)
                    with m.If(self.o.p.last):
                        m.d.sync += [
                            answer.value.eq(answer.value[:12] + chunk),  # its place in a payload
                            answer.bytes.eq(answer.bytes - chunk),
                            answer.lower_address.eq(0),
                        ]
                        m.next = "IDLE"
                        with m.If(answer.bytes != chunk):
                            m.next = "HEADER"
        return m
