"""The gather engine: SparseLengthsSum over any number of bags."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out, connect, flipped

from hdl.commands import Flag, Opcode, fields, layout
from hdl.config import CardConfig
from hdl.engine import Activity, Result, engine_members
from hdl.gather.align import RowAligner
from hdl.gather.array import ArrayReader
from hdl.gather.interleave import BagInterleaver
from hdl.gather.lanes import AccumulateLanes
from hdl.gather.output import BagWriter
from hdl.gather.rows import RowFetcher
from hdl.gather.scale import RowScaler
from hdl.gather.sequencer import BagSequencer
from hdl.gather.shape import max_chunks, row_shape, shape_of
from hdl.gather.unpack import RowUnpacker
from hdl.memory.port import ReadPort, WritePort

BUFFERED_ROWS = 16
"""Rows between aligner and lanes, if their chunks fit."""


class GatherEngine(wiring.Component):
    """Pools embedding rows into bags: `commands.Opcode.GATHER`, one command at a time.

    Members
    -------
    the members of `engine_members`
    lengths, indices, weights, rows : Out(ReadPort)
    output : Out(WritePort)

    In steady state a row takes the largest of: its chunks (`ceil(dim / config.lanes)`), the bus
    words it touches, what memory takes for its bursts, and `AccumulateLanes.chain_latency` divided
    by the bags in flight (up to `interleave.CONTEXTS`).

    A command that fails has written every bag before the one that its result names, or before the
    one that holds the index its result names, and nothing else.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            engine_members()
            | {name: Out(ReadPort(config)) for name in ("lengths", "indices", "weights", "rows")}
            | {"output": Out(WritePort(config))}
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.lengths = lengths = ArrayReader(config)
        m.submodules.indices = indices = ArrayReader(config)
        m.submodules.weights = weights = ArrayReader(config)
        m.submodules.sequencer = sequencer = BagSequencer()
        m.submodules.interleaver = interleaver = BagInterleaver(AccumulateLanes.chain_latency)
        m.submodules.fetcher = fetcher = RowFetcher(config)
        m.submodules.aligner = aligner = RowAligner(config)
        m.submodules.unpacker = unpacker = RowUnpacker(config)
        m.submodules.scaler = scaler = RowScaler(config, depth=BUFFERED_ROWS)
        m.submodules.lanes = lanes = AccumulateLanes(config)
        m.submodules.writer = writer = BagWriter(config)
        # Scale and bias come last in a row: its chunks wait for them, and the next row's with it.
        m.submodules.chunks = chunks = SyncFIFOBuffered(
            width=8 * config.lanes, depth=2 * max_chunks(config)
        )

        connect(m, lengths.port, flipped(self.lengths))
        connect(m, indices.port, flipped(self.indices))
        connect(m, weights.port, flipped(self.weights))
        connect(m, fetcher.port, flipped(self.rows))
        connect(m, lengths.o, sequencer.lengths)
        connect(m, indices.o, sequencer.indices)
        connect(m, weights.o, sequencer.weights)
        connect(m, sequencer.o, interleaver.i)
        connect(m, interleaver.o, fetcher.i)
        connect(m, fetcher.tags, aligner.tags)
        connect(m, fetcher.words, aligner.words)
        connect(m, aligner.o, unpacker.i)
        connect(m, aligner.tail, scaler.i)
        connect(m, scaler.o, lanes.factors)
        connect(m, lanes.o, writer.i)
        connect(m, writer.o, flipped(self.output.request))
        m.d.comb += [
            chunks.w_data.eq(unpacker.o.p),
            chunks.w_en.eq(unpacker.o.valid),
            unpacker.o.ready.eq(chunks.w_rdy),
            lanes.chunks.p.eq(chunks.r_data),
            lanes.chunks.valid.eq(chunks.r_rdy),
            chunks.r_en.eq(lanes.chunks.ready),
        ]

        # The command in progress.
        command = Signal(layout(fields(Opcode.GATHER)))
        shape = Signal(row_shape(config))
        weighted = Signal()
        start = Signal()
        m.d.comb += [
            weighted.eq((command.flags & Flag.WEIGHTED.value) != 0),
            lengths.i.p.address.eq(command.lengths),
            lengths.i.p.count.eq(command.bags),
            indices.i.p.address.eq(command.indices),
            indices.i.p.count.eq(command.index_count),
            weights.i.p.address.eq(command.weights),
            weights.i.p.count.eq(Mux(weighted, command.index_count, 0)),
            sequencer.i.p.bags.eq(command.bags),
            sequencer.i.p.rows.eq(command.rows),
            sequencer.i.p.index_count.eq(command.index_count),
            sequencer.i.p.mode.eq(command.mode),
            sequencer.i.p.weighted.eq(weighted),
            fetcher.table.eq(command.table),
            fetcher.row_stride.eq(command.row_stride),
            writer.output.eq(command.output),
            writer.output_stride.eq(command.output_stride),
            interleaver.restart.eq(start),
            lanes.restart.eq(start),
            writer.restart.eq(start),
            scaler.int4.eq(shape.int4),
        ]
        for reader in (lengths, indices, weights):
            m.d.comb += reader.i.valid.eq(start)
        m.d.comb += sequencer.i.valid.eq(start)
        for unit in (fetcher, aligner, unpacker, lanes, writer):
            m.d.comb += unit.shape.eq(shape)

        # Lookups between sequencer and lanes; far fewer than 2**16 fit.
        in_flight = Signal(16)
        enters = sequencer.o.valid & sequencer.o.ready
        leaves = lanes.factors.valid & lanes.factors.ready
        m.d.sync += in_flight.eq(in_flight + enters - leaves)

        readers_idle = lengths.idle & indices.idle & weights.idle
        rows_done = in_flight == 0
        written = lanes.drained & ~writer.o.valid & self.output.idle
        result = Signal(Result)
        working = Signal(Activity)
        with m.If(lanes.blocked):
            m.d.comb += working.eq(Activity.BLOCKED)
        with m.Elif(lanes.working):
            m.d.comb += working.eq(Activity.BUSY)
        with m.Else():
            m.d.comb += working.eq(Activity.STARVED)

        m.d.comb += self.result.p.eq(result)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.command.ready.eq(1), self.activity.eq(Activity.IDLE)]
                m.d.sync += command.eq(self.command.p)
                with m.If(self.command.valid):
                    m.next = "PREPARE"

            with m.State("PREPARE"):
                m.d.comb += self.activity.eq(Activity.BUSY)
                for name, value in shape_of(config, command.dim, command.format).items():
                    m.d.sync += shape[name].eq(value)
                m.next = "START"

            with m.State("START"):
                m.d.comb += [self.activity.eq(Activity.BUSY), start.eq(1)]
                m.next = "RUN"

            with m.State("RUN"):
                m.d.comb += [self.activity.eq(working), sequencer.result.ready.eq(1)]
                m.d.sync += result.eq(sequencer.result.p)
                with m.If(sequencer.result.valid):
                    m.next = "DRAIN"

            with m.State("DRAIN"):
                # Nothing is left to read of a good command; of a failed one it is thrown away.
                for reader in (lengths, indices, weights):
                    m.d.comb += reader.stop.eq(1)
                m.d.comb += self.activity.eq(
                    Mux(rows_done & readers_idle, Activity.BLOCKED, working)
                )
                with m.If(rows_done & readers_idle & written):
                    m.next = "REPORT"

            with m.State("REPORT"):
                m.d.comb += [self.result.valid.eq(1), self.activity.eq(Activity.BLOCKED)]
                with m.If(self.result.ready):
                    m.next = "IDLE"
        return m
