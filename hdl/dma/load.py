"""The engine that fills card memory: from PCIe (LOAD) and from elsewhere on the card (COPY, turned
over TRANSPOSE)."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out, connect, flipped

from halfdome.hdl.commands import Opcode, ReadFailure, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.dma.merge import MOVE, RowMerger
from halfdome.hdl.dma.rows import RowReader, RowWriter
from halfdome.hdl.dma.transpose import Transposer
from halfdome.hdl.engine import Activity, engine_members
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.pcie.port import DmaReadPort


class LoadEngine(wiring.Component):
    """Runs LOAD, COPY and TRANSPOSE, one command at a time.

    LOAD asks for one PCIe read a row, or for one in all if the rows touch. COPY moves one word a
    cycle, small rows included. TRANSPOSE takes the same way, through blocks that are written column
    by column (`transpose.cycles`): moves are beside what the array and the vector engine compute,
    and have readers and writers of rows here already. A LOAD whose read fails ends with
    READ_FAILED.

    Members
    -------
    command, result, activity : see `engine_members`
    dma : Out(DmaReadPort)
    source : Out(ReadPort)
    destination : Out(WritePort)
    """

    copy_depth = 64
    """Words that a COPY or TRANSPOSE prefetches: the memory latency in cycles that it hides."""
    transpose_latency = Transposer.latency
    """Cycles from the last word of a TRANSPOSE's block to the first that is made of it."""

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            engine_members()
            | {
                "dma": Out(DmaReadPort(config)),
                "source": Out(ReadPort(config)),
                "destination": Out(WritePort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.merger = merger = RowMerger(self._config)
        m.submodules.reader = reader = RowReader(self._config, self.copy_depth)
        m.submodules.writer = writer = RowWriter(self._config)
        m.submodules.transposer = transposer = Transposer(self._config)
        connect(m, reader.port, flipped(self.source))
        connect(m, writer.port, flipped(self.destination))

        move = data.View(MOVE, merger.o.p)
        active = Signal()
        m.d.comb += [
            merger.i.p.eq(self.command.p),
            merger.i.valid.eq(self.command.valid & ~active),
            self.command.ready.eq(merger.i.ready & ~active),
            transposer.i.p.eq(merger.o.p),
            transposer.i_words.p.eq(reader.o.p.data),
            writer.i_words.p.eq(reader.o.p.data),
        ]
        for block, side in ((reader.i.p, "source"), (writer.i.p, "destination")):
            m.d.comb += [
                block.address.eq(move[side]),
                block.stride.eq(move[f"{side}_stride"]),
                block.rows.eq(move.rows),
                block.row_bytes.eq(move.row_bytes),
            ]
        transposes = Signal()
        with m.If(transposes):
            m.d.comb += [
                reader.i.p.eq(transposer.source.p),
                reader.i.valid.eq(transposer.source.valid),
                transposer.source.ready.eq(reader.i.ready),
                writer.i.p.eq(transposer.destination.p),
                writer.i.valid.eq(transposer.destination.valid),
                transposer.destination.ready.eq(writer.i.ready),
                transposer.i_words.valid.eq(reader.o.valid),
                reader.o.ready.eq(transposer.i_words.ready),
                writer.i_words.p.eq(transposer.o_words.p),
                writer.i_words.valid.eq(transposer.o_words.valid),
                transposer.o_words.ready.eq(writer.i_words.ready),
            ]
        with m.Else():
            m.d.comb += [
                writer.i_words.valid.eq(reader.o.valid),
                reader.o.ready.eq(writer.i_words.ready),
            ]

        request = self.dma.request
        rows = Signal(self._config.count_bits)
        source_stride = Signal(32)
        destination_stride = Signal(32)
        asked = Signal()
        failure = Signal(ReadFailure)
        with m.If(asked & (failure == ReadFailure.NONE)):
            m.d.sync += failure.eq(self.dma.failure)
        with m.If(active):
            m.d.comb += self.activity.eq(Activity.BUSY)

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.command.valid & self.command.ready):
                    m.d.sync += active.eq(1)
                m.d.sync += [
                    request.p.address.eq(move.source),
                    request.p.destination.eq(move.destination),
                    request.p.bytes.eq(move.row_bytes),
                    rows.eq(move.rows),
                    source_stride.eq(move.source_stride),
                    destination_stride.eq(move.destination_stride),
                    asked.eq(0),
                    failure.eq(ReadFailure.NONE),
                ]
                m.d.comb += merger.o.ready.eq(1)
                with m.If(merger.o.valid):
                    with m.If(move.opcode == Opcode.COPY):
                        m.d.comb += [reader.i.valid.eq(1), writer.i.valid.eq(1)]
                        m.next = "COPY"
                    with m.Elif(move.opcode == Opcode.TRANSPOSE):
                        m.d.comb += transposer.i.valid.eq(1)
                        m.d.sync += transposes.eq(1)
                        m.next = "COPY"
                    with m.Else():
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += request.valid.eq(1)
                with m.If(request.ready):
                    m.d.sync += [
                        request.p.address.eq(request.p.address + source_stride),
                        request.p.destination.eq(request.p.destination + destination_stride),
                        rows.eq(rows - 1),
                        asked.eq(1),
                    ]
                    with m.If(rows == 1):
                        m.next = "RECEIVE"
                with m.Else():
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
            with m.State("RECEIVE"):
                m.d.comb += self.activity.eq(Activity.STARVED)
                with m.If(self.dma.idle):
                    m.next = "RESULT"
            with m.State("COPY"):
                with m.If(~self.destination.request.valid):
                    with m.If(writer.i.ready & transposer.idle):
                        m.d.comb += self.activity.eq(Activity.BLOCKED)
                    with m.Elif(~(transposes & reader.o.valid & reader.o.ready)):
                        m.d.comb += self.activity.eq(Activity.STARVED)
                with m.Elif(~self.destination.request.ready):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.If(writer.done & transposer.idle):
                    m.d.sync += transposes.eq(0)
                    m.next = "RESULT"
            with m.State("RESULT"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(failure != ReadFailure.NONE):
                    m.d.comb += [
                        self.result.p.status.eq(Status.READ_FAILED),
                        self.result.p.detail.eq(failure),
                    ]
                with m.If(self.result.ready):
                    m.d.sync += active.eq(0)
                    m.next = "IDLE"
                with m.Else():
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
        return m
