"""The engine that sends card memory out over PCIe, to the host or to a peer card."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out, connect, flipped

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.dma.merge import MOVE, RowMerger
from halfdome.hdl.dma.rows import RowReader, words_of
from halfdome.hdl.engine import Activity, engine_members
from halfdome.hdl.memory.port import ReadPort
from halfdome.hdl.pcie.port import PostedWritePort


class StoreEngine(wiring.Component):
    """Runs STORE and SIGNAL, one command at a time.

    STORE posts one write a row, or one in all if the rows touch, and reads ahead across rows.
    SIGNAL posts 4 bytes; posted writes stay in order, so that it follows every earlier STORE. A
    write is asked for only when its first word is here, so that it holds up no other client.

    Members
    -------
    command, result, activity : see `engine_members`
    source : Out(ReadPort)
    posted : Out(PostedWritePort)
    """

    depth = 32
    """Words read ahead: at link rate, far more cycles than the memory latency."""

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            engine_members()
            | {"source": Out(ReadPort(config)), "posted": Out(PostedWritePort(config))}
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.merger = merger = RowMerger(config)
        m.submodules.reader = reader = RowReader(config, self.depth)
        connect(m, reader.port, flipped(self.source))

        move = data.View(MOVE, merger.o.p)
        signal = data.View(layout(fields(Opcode.SIGNAL)), merger.o.p)
        active = Signal()
        m.d.comb += [
            merger.i.p.eq(self.command.p),
            merger.i.valid.eq(self.command.valid & ~active),
            self.command.ready.eq(merger.i.ready & ~active),
            reader.i.p.address.eq(move.source),
            reader.i.p.stride.eq(move.source_stride),
            reader.i.p.rows.eq(move.rows),
            reader.i.p.row_bytes.eq(move.row_bytes),
        ]

        signalling = Signal()
        value = Signal(32)
        stride = Signal(32)
        rows, words, row_words = (
            Signal(config.count_bits, name=name) for name in ("rows", "words", "row_words")
        )
        request, words_out = self.posted.request, self.posted.data
        available = Signal()
        m.d.comb += [
            available.eq(signalling | reader.o.valid),
            words_out.p.eq(Mux(signalling, value, reader.o.p.data)),
        ]
        with m.If(active):
            m.d.comb += self.activity.eq(Activity.BUSY)

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.command.valid & self.command.ready):
                    m.d.sync += active.eq(1)
                m.d.comb += merger.o.ready.eq(1)
                with m.If(merger.o.valid):
                    m.next = "REQUEST"
                    with m.If(move.opcode == Opcode.SIGNAL):
                        m.d.sync += [
                            signalling.eq(1),
                            value.eq(signal.value),
                            request.p.address.eq(signal.address),
                            request.p.bytes.eq(4),
                            rows.eq(1),
                            row_words.eq(1),
                        ]
                    with m.Else():
                        m.d.comb += reader.i.valid.eq(1)
                        m.d.sync += [
                            signalling.eq(0),
                            request.p.address.eq(move.destination),
                            request.p.bytes.eq(move.row_bytes),
                            rows.eq(move.rows),
                            stride.eq(move.destination_stride),
                            row_words.eq(words_of(config, move.row_bytes)),
                        ]
            with m.State("REQUEST"):
                m.d.comb += request.valid.eq(available)
                m.d.sync += words.eq(row_words)
                with m.If(~available):
                    m.d.comb += self.activity.eq(Activity.STARVED)
                with m.Elif(request.ready):
                    m.next = "DATA"
                with m.Else():
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
            with m.State("DATA"):
                m.d.comb += [
                    words_out.valid.eq(available),
                    reader.o.ready.eq(words_out.ready & ~signalling),
                ]
                with m.If(~available):
                    m.d.comb += self.activity.eq(Activity.STARVED)
                with m.Elif(words_out.ready):
                    m.d.sync += words.eq(words - 1)
                    with m.If(words == 1):
                        m.d.sync += [
                            rows.eq(rows - 1),
                            request.p.address.eq(request.p.address + stride),
                        ]
                        m.next = "REQUEST"
                        with m.If(rows == 1):
                            m.next = "DRAIN"
                with m.Else():
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
            with m.State("DRAIN"):
                m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.If(self.posted.idle):
                    m.next = "RESULT"
            with m.State("RESULT"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(self.result.ready):
                    m.d.sync += active.eq(0)
                    m.next = "IDLE"
                with m.Else():
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
        return m
