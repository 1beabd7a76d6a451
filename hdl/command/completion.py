"""Tells the host what has finished: completion ring entries, then an interrupt."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.command.queues import FINISHED
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import COMPLETION, COMPLETION_BYTES, layout
from halfdome.hdl.pcie.port import PostedWritePort
from halfdome.hdl.registers import MSIX_VECTORS

MESSAGE_BYTES = 4
"""An MSI-X message: one doubleword."""

RING = data.StructLayout({"base": 64, "size": 13, "head": 12})
"""The completion ring: base address, entries (0: no ring yet), first entry not consumed."""
MESSAGE = data.StructLayout({"address": 64, "data": 32, "masked": 1})
"""One MSI-X vector; `masked` by itself or with all others."""
MESSAGES = data.ArrayLayout(MESSAGE, len(MSIX_VECTORS))
_COMPLETIONS, _ERRORS = range(len(MSIX_VECTORS))


class CompletionWriter(wiring.Component):
    """Writes a 16-byte entry for each finished command, and interrupts after the last one at hand.

    A full ring (one slot always stays free) makes commands wait; none is lost. One interrupt covers
    all entries written since the one before, and no entry stays without: it goes out as soon as
    no command waits or the ring is full. Errors have an interrupt of their own. While masked an
    interrupt is pending.

    Members
    -------
    i : In(stream of `FINISHED`)
    posted : Out(PostedWritePort)
    ring : In(`RING`)
    messages : In(`MESSAGES`)
    error : In(1), pulse: interrupt on vector 1
    restart : In(1), start at entry 0 and phase 1
    flush : In(1), finished commands are forgotten, nobody is interrupted
    tail : Out(12), first entry not yet written
    pending : Out, bit i: vector i waits for its mask to clear
    idle : Out(1), everything taken has left the card
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(FINISHED)),
                "posted": Out(PostedWritePort(config)),
                "ring": In(RING),
                "messages": In(MESSAGES),
                "error": In(1),
                "restart": In(1),
                "flush": In(1),
                "tail": Out(12),
                "pending": Out(len(MSIX_VECTORS)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        phase = Signal(init=1)
        following = Signal(12)
        full = Signal()
        m.d.comb += [
            following.eq((self.tail + 1) & (self.ring.size - 1)),
            full.eq((following == self.ring.head) | (self.ring.size == 0)),
        ]
        entry = Signal(layout(COMPLETION, COMPLETION_BYTES))
        finished = self.i.p
        m.d.comb += [
            entry.id.eq(finished.id),
            entry.status.eq(finished.result.status),
            entry.phase.eq(phase),
            entry.detail.eq(finished.result.detail),
            entry.start_cycle.eq(finished.start_cycle),
            entry.end_cycle.eq(finished.end_cycle),
        ]

        request, word = self.posted.request, Signal(COMPLETION_BYTES * 8)
        m.d.comb += self.posted.data.p.eq(word)
        due = Signal(len(MSIX_VECTORS))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(~self.i.valid & (due == 0) & self.posted.idle)
                with m.If(self.flush):
                    m.d.comb += self.i.ready.eq(1)
                    m.d.sync += [due.eq(0), self.pending.eq(0)]
                with m.Elif(self.i.valid & ~full):
                    m.d.comb += self.i.ready.eq(1)
                    m.d.sync += [
                        request.p.address.eq(self.ring.base + self.tail * COMPLETION_BYTES),
                        request.p.bytes.eq(COMPLETION_BYTES),
                        word.eq(entry),
                        due[_COMPLETIONS].eq(1),
                        self.tail.eq(following),
                        phase.eq(phase ^ (following == 0)),
                    ]
                    m.next = "REQUEST"
                for vector in (_COMPLETIONS, _ERRORS):
                    message = self.messages[vector]
                    with m.Elif(due[vector] & message.masked):
                        m.d.sync += [due[vector].eq(0), self.pending[vector].eq(1)]
                    with m.Elif((due[vector] | self.pending[vector]) & ~message.masked):
                        m.d.sync += [
                            request.p.address.eq(message.address),
                            request.p.bytes.eq(MESSAGE_BYTES),
                            word.eq(message.data),
                            due[vector].eq(0),
                            self.pending[vector].eq(0),
                        ]
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += request.valid.eq(1)
                with m.If(request.ready):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += self.posted.data.valid.eq(1)
                with m.If(self.posted.data.ready):
                    m.next = "IDLE"
        with m.If(self.error & ~self.flush):
            m.d.sync += due[_ERRORS].eq(1)
        with m.If(self.restart):
            m.d.sync += [self.tail.eq(0), phase.eq(1)]
        return m
