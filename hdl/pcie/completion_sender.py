"""Completions of the reads of the card, made of what was read."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import read_word
from halfdome.hdl.pcie.dwords import rotated
from halfdome.hdl.pcie.tlp import (
    BYTE_COUNT_BITS,
    CompletionHeader,
    CompletionStatus,
    TlpType,
    tx_beat,
)

ANSWER = data.StructLayout(
    {
        "value": 64,
        "from_window": 1,
        "status": CompletionStatus,
        "bytes": BYTE_COUNT_BITS,
        "lower_address": 7,
        "tag": 8,
        "requester_id": 16,
        "attributes": 2,
        "traffic_class": 3,
    }
)
"""What one non-posted request is answered with.

`value` is what registers held, or with `from_window` the card address of the first byte; `bytes`
and `lower_address` are those of the first completion.
"""


class CompletionSender(wiring.Component):
    """Sends the completions of one answer after the other, of card memory one for each payload.

    Members
    -------
    i : In(stream of `ANSWER`)
    words : In(stream of `read_word`), the words of card memory that answers touch, in their order
    o : Out(stream of `tx_beat`)

    Completions of card memory end at multiples of `max_payload_bytes`, hence at the read completion
    boundary. A header leaves when there is a word for it.

    `latency` cycles after an answer is taken, its header is offered. A completion costs one cycle
    more, and one for each word of payload.
    """

    latency = 2

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(ANSWER)),
                "words": In(stream.Signature(read_word(config))),
                "o": Out(stream.Signature(tx_beat(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self._config.bus_bytes
        max_payload = self._config.max_payload_bytes

        answer = Signal(ANSWER)  # its `value`, `bytes` and `lower_address` follow what is sent
        chunk = Signal(BYTE_COUNT_BITS)  # bytes of this completion
        size = Signal(BYTE_COUNT_BITS)  # of its payload, from the first doubleword on
        left = Signal(BYTE_COUNT_BITS)  # of those, bytes not sent yet
        payload_boundary = Signal(BYTE_COUNT_BITS)
        header = Signal(CompletionHeader)
        good = Signal()
        m.d.comb += [
            payload_boundary.eq(max_payload - answer.value[: exact_log2(max_payload)]),
            chunk.eq(answer.bytes),
            size.eq(answer.lower_address[:2] + chunk),
            good.eq(answer.status == CompletionStatus.SUCCESSFUL),
            header.type.eq(Mux(good, TlpType.COMPLETION_DATA, TlpType.COMPLETION)),
            header.length.eq(Mux(good, (size + 3) >> 2, 0)),
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

        # A payload that starts inside a word of memory takes parts of two words in each beat.
        skip = answer.value[2 : exact_log2(bus)]
        word = Signal(bus * 8)
        before = Signal.like(word)
        payload = Signal.like(word)
        needs_word = Signal()
        m.d.comb += [
            word.eq(rotated(self.words.p.data, skip)),
            needs_word.eq((skip == 0) | (left + (skip << 2) > bus)),
        ]
        for lane in range(bus // 4):
            new = needs_word & ((skip == 0) | (skip + lane >= bus // 4))
            m.d.comb += payload.word_select(lane, 32).eq(
                Mux(new, word, before).word_select(lane, 32)
            )
        with m.If(self.words.valid & self.words.ready):
            m.d.sync += before.eq(word)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += answer.eq(self.i.p)
                with m.If(self.i.valid):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [
                    # A header without its data would keep others from the link.
                    self.o.valid.eq(self.words.valid | ~answer.from_window),
                    self.o.p.data.eq(header),
                    self.o.p.last.eq(~good),
                    self.words.ready.eq(self.o.ready & answer.from_window & (skip != 0)),
                ]
                m.d.sync += left.eq(size)
                with m.If(self.o.valid & self.o.ready):
                    m.next = "IDLE"
                    with m.If(good):
                        m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [
                    self.o.valid.eq(self.words.valid | ~answer.from_window | ~needs_word),
                    self.o.p.data.eq(Mux(answer.from_window, payload, answer.value)),
                    self.o.p.last.eq(left <= bus),
                    self.words.ready.eq(self.o.ready & answer.from_window & needs_word),
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
