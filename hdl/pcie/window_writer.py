"""Payloads of memory writes, moved from where a packet has them to where memory has them."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import ADDRESS_BITS, CardConfig
from halfdome.hdl.memory.port import write_request
from halfdome.hdl.pcie.dwords import rotated

SPAN = data.StructLayout({"address": ADDRESS_BITS, "dwords": 11, "first_be": 4, "last_be": 4})
"""`dwords` (1 or more) doublewords from `address`, of the first and the last some bytes. Of one
doubleword `first_be` tells which."""


class WindowWriter(wiring.Component):
    """Writes payloads to any doublewords: the enabled bytes, and no other.

    Members
    -------
    i : In(stream of `SPAN`), taken with the last word of its payload
    payload : In(stream of bus words), as many as hold the doublewords of the span
    o : Out(stream of `write_request`), one for each word of memory that the span touches

    Latency 0, one word a cycle.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(SPAN)),
                "payload": In(stream.Signature(config.bus_bytes * 8)),
                "o": Out(stream.Signature(write_request(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word_bits = exact_log2(self._config.bus_bytes)
        lanes = self._config.bus_bytes // 4
        span, word = self.i.p, self.o.p

        skip = span.address[2:word_bits]  # doublewords of the first word before the span
        inside = Signal()
        index = Signal(ADDRESS_BITS - word_bits)
        next_index = Signal.like(index)
        left = Signal(12)  # doublewords from the start of this word to the end of the span
        left_later = Signal.like(left)
        m.d.comb += [
            index.eq(Mux(inside, next_index, span.address[word_bits:])),
            left.eq(Mux(inside, left_later, skip + span.dwords)),
        ]

        # The first word may be of less payload than the others, so the last may need no more.
        needs_payload = Signal()
        last = Signal()
        m.d.comb += [
            needs_payload.eq(left > skip),
            last.eq(left <= lanes),
            self.o.valid.eq(self.i.valid & (self.payload.valid | ~needs_payload)),
            self.payload.ready.eq(self.i.valid & self.o.ready & needs_payload),
            self.i.ready.eq(self.o.valid & self.o.ready & last),
        ]

        current = Signal(self._config.bus_bytes * 8)
        before = Signal.like(current)
        m.d.comb += [
            current.eq(rotated(self.payload.p, (-skip)[: len(skip)])),
            word.address[word_bits:].eq(index),
        ]
        tail = Mux(span.dwords == 1, span.first_be, span.last_be)
        for lane in range(lanes):
            first, final = ~inside & (skip == lane), left == lane + 1
            within = (inside | (skip <= lane)) & (left > lane)
            enables = Mux(first, span.first_be, 0b1111) & Mux(final, tail, 0b1111)
            m.d.comb += [
                word.strobe.word_select(lane, 4).eq(Mux(within, enables, 0)),
                word.data.word_select(lane, 32).eq(
                    Mux((skip > lane) | ~needs_payload, before, current).word_select(lane, 32)
                ),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                inside.eq(~last),
                next_index.eq(index + 1),
                left_later.eq(left - lanes),
                before.eq(current),
            ]
        return m
