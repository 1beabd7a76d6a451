"""Answers to the reads of the card, in order, several at a time."""

from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import ReadPort
from halfdome.hdl.memory.reader import SequentialReader
from halfdome.hdl.pcie.completion_sender import ANSWER, CompletionSender
from halfdome.hdl.pcie.tlp import tx_beat

READ_QUEUE = 32
"""Non-posted requests that wait on the card, so that those behind them can pass."""
READS_IN_FLIGHT = 16
"""Of those, reads whose data may be on its way from card memory."""
PREFETCH_BYTES = 1024
"""Room for card memory data on its way to a completion."""


class Replier(wiring.Component):
    """Reads card memory ahead for the answers that wait, and sends completions in their order.

    Members
    -------
    i : In(stream of `ANSWER`)
    o : Out(stream of `tx_beat`), completions
    window_read : Out(ReadPort), BAR 2
    started : Out(1), a pulse: one more answer has left the queue of `READ_QUEUE`

    Takes an answer a cycle while fewer than `READ_QUEUE` wait, whatever becomes of `o`. `latency`
    cycles after an answer that needs no card memory is taken, its completion's header is offered.
    Reading runs ahead by up to `READS_IN_FLIGHT` answers and `PREFETCH_BYTES`.
    """

    latency = 2 + CompletionSender.latency

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(ANSWER)),
                "o": Out(stream.Signature(tx_beat(config))),
                "window_read": Out(ReadPort(config)),
                "started": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        bus = config.bus_bytes
        word_bits = exact_log2(bus)
        m.submodules.reader = reader = SequentialReader(
            config, depth=max(config.burst_words, PREFETCH_BYTES // bus)
        )
        m.submodules.sender = sender = CompletionSender(config)
        connect(m, reader.port, flipped(self.window_read))
        connect(m, reader.o, sender.words)
        connect(m, sender.o, flipped(self.o))
        width = ANSWER.size
        m.submodules.waiting = waiting = SyncFIFOBuffered(width=width, depth=READ_QUEUE)
        m.submodules.reading = reading = SyncFIFO(width=width, depth=READS_IN_FLIGHT)

        started = data.View(ANSWER, waiting.r_data)
        m.d.comb += [
            waiting.w_data.eq(self.i.p),
            waiting.w_en.eq(self.i.valid),
            self.i.ready.eq(waiting.w_rdy),
            reader.i.p.address[word_bits:].eq(started.value[word_bits:]),
            reader.i.p.words.eq(
                (started.value[:word_bits] + started.bytes + (bus - 1)) >> word_bits
            ),
            reader.i.valid.eq(waiting.r_rdy & reading.w_rdy & started.from_window),
            self.started.eq(
                waiting.r_rdy & reading.w_rdy & (reader.i.ready | ~started.from_window)
            ),
            waiting.r_en.eq(self.started),
            reading.w_en.eq(self.started),
            reading.w_data.eq(waiting.r_data),
            sender.i.p.eq(reading.r_data),
            sender.i.valid.eq(reading.r_rdy),
            reading.r_en.eq(sender.i.ready),
        ]
        return m
