"""The gather engine: SparseLengthsSum over any number of bags."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out, connect, flipped

from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.engine import Activity, Result, engine_members
from halfdome.hdl.gather.align import RowAligner, row_word
from halfdome.hdl.gather.array import ArrayReader
from halfdome.hdl.gather.convert import PooledConverter
from halfdome.hdl.gather.group import ChunkSplitter
from halfdome.hdl.gather.interleave import BagInterleaver
from halfdome.hdl.gather.lanes import AccumulateLanes
from halfdome.hdl.gather.lengths import BagLengths
from halfdome.hdl.gather.mean import BagMean
from halfdome.hdl.gather.output import BagWriter
from halfdome.hdl.gather.rows import RowFetcher
from halfdome.hdl.gather.scale import RowScaler
from halfdome.hdl.gather.sequencer import BagSequencer
from halfdome.hdl.gather.shape import max_factored_words, row_shape, shape_of
from halfdome.hdl.gather.unpack import RowUnpacker
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.registers import GATHER_WAITS

BUFFERED_ROWS = 16
"""Rows between aligner and lanes, if their chunks fit."""


def _flag(command: data.View, flag: Flag) -> Value:
    """Whether a command has a flag."""
    return (command.flags & flag.value).any()


class GatherEngine(wiring.Component):
    """Pools embedding rows into bags: `commands.Opcode.GATHER`, one command at a time.

    Members
    -------
    the members of `engine_members`
    lengths, indices, weights, rows : Out(ReadPort)
    output : Out(WritePort)
    waits : Out(4), for which of `registers.GATHER_WAITS` this cycle of a command was spent: rows
        that memory has not delivered, lanes that add or wait for a sum, indices and lengths, or
        room at the output and the last writes; none without a command

    In steady state a row takes the largest of: its chunks (`ceil(dim / config.lanes)`), the bus
    words it touches, what memory takes for its bursts, and `AccumulateLanes.chain_latency` divided
    by the bags in flight (up to `CardConfig.gather_contexts`).

    A command that fails has written every bag before the one that its result names, or before the
    one that holds the index its result names, and nothing else.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            engine_members()
            | {name: Out(ReadPort(config)) for name in ("lengths", "indices", "weights", "rows")}
            | {"output": Out(WritePort(config)), "waits": Out(len(GATHER_WAITS))}
        )

    def elaborate(self, platform):
        m = Module()
        # The command in progress.
        command = Signal(layout(fields(Opcode.GATHER)))
        shape = Signal(row_shape(self._config))
        start = Signal()
        readers, sequencer = self._look_up(m, command, start)
        fetcher, lanes = self._pool(m, command, shape, start, sequencer)
        written = self._write(m, command, shape, start, lanes)

        # Lookups between sequencer and lanes; far fewer than 2**16 fit.
        in_flight = Signal(16)
        enters = sequencer.o.valid & sequencer.o.ready
        leaves = lanes.factors.valid & lanes.factors.ready
        m.d.sync += in_flight.eq(in_flight + enters - leaves)
        rows_done = in_flight == 0

        working = self._account(m, lanes, fetcher, rows_done)
        readers_idle = Cat(reader.idle for reader in readers).all()
        result = Signal(Result)
        m.d.comb += self.result.p.eq(result)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.command.ready.eq(1), self.activity.eq(Activity.IDLE)]
                m.d.sync += command.eq(self.command.p)
                with m.If(self.command.valid):
                    m.next = "PREPARE"

            with m.State("PREPARE"):
                m.d.comb += self.activity.eq(Activity.BUSY)
                for name, value in shape_of(self._config, command.dim, command.format).items():
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
                for reader in readers:
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

    def _look_up(self, m, command, start):
        """What the command names, read and checked: lookups, bag by bag."""
        config = self._config
        m.submodules.lengths = lengths = ArrayReader(config)
        m.submodules.indices = indices = ArrayReader(config)
        m.submodules.weights = weights = ArrayReader(config)
        m.submodules.bag_lengths = bag_lengths = BagLengths(config)
        m.submodules.sequencer = sequencer = BagSequencer(config)
        connect(m, lengths.port, flipped(self.lengths))
        connect(m, indices.port, flipped(self.indices))
        connect(m, weights.port, flipped(self.weights))
        connect(m, lengths.o, bag_lengths.i)
        connect(m, bag_lengths.o, sequencer.lengths)
        connect(m, indices.o, sequencer.indices)
        wide, weighted = _flag(command, Flag.WIDE), _flag(command, Flag.WEIGHTED)
        m.d.comb += [
            weights.o.ready.eq(sequencer.weights.ready),
            sequencer.weights.valid.eq(weights.o.valid),
            sequencer.weights.p.eq(weights.o.p[:32]),
            lengths.i.p.address.eq(command.lengths),
            lengths.i.p.count.eq(command.bags),
            lengths.i.p.wide.eq(wide),
            indices.i.p.address.eq(command.indices),
            indices.i.p.count.eq(command.index_count),
            indices.i.p.wide.eq(wide),
            weights.i.p.address.eq(command.weights),
            weights.i.p.count.eq(Mux(weighted, command.index_count, 0)),
            bag_lengths.offsets.eq(_flag(command, Flag.OFFSETS)),
            bag_lengths.bags.eq(command.bags),
            bag_lengths.end.eq(command.index_count),
            bag_lengths.restart.eq(start),
            sequencer.i.p.bags.eq(command.bags),
            sequencer.i.p.rows.eq(command.rows),
            sequencer.i.p.index_count.eq(command.index_count),
            sequencer.i.p.mode.eq(Cat(_flag(command, Flag.WARN), _flag(command, Flag.IGNORE))),
            sequencer.i.p.weighted.eq(weighted),
            sequencer.i.p.pruned.eq(_flag(command, Flag.PRUNED)),
        ]
        readers = (lengths, indices, weights)
        for unit in (*readers, sequencer):
            m.d.comb += unit.i.valid.eq(start)
        return readers, sequencer

    def _pool(self, m, command, shape, start, sequencer):
        """Lookups become rows, rows become sums."""
        config = self._config
        m.submodules.lanes = lanes = AccumulateLanes(config)
        m.submodules.interleaver = interleaver = BagInterleaver(config, lanes.chain_latency)
        m.submodules.fetcher = fetcher = RowFetcher(config)
        m.submodules.aligner = aligner = RowAligner(config)
        m.submodules.unpacker = unpacker = RowUnpacker(config)
        m.submodules.scaler = scaler = RowScaler(config, depth=BUFFERED_ROWS)
        # Scale and bias come last in a row: its words wait for them, and the next row's with it.
        m.submodules.row_words = row_words = SyncFIFOBuffered(
            width=row_word(config).size, depth=2 * max_factored_words(config)
        )
        connect(m, sequencer.o, interleaver.i)
        connect(m, interleaver.o, fetcher.i)
        connect(m, fetcher.port, flipped(self.rows))
        connect(m, fetcher.tags, aligner.tags)
        connect(m, fetcher.words, aligner.words)
        connect(m, aligner.tail, scaler.i)
        connect(m, unpacker.o, lanes.chunks)
        connect(m, scaler.o, lanes.factors)
        m.d.comb += [
            row_words.w_data.eq(aligner.o.p),
            row_words.w_en.eq(aligner.o.valid),
            aligner.o.ready.eq(row_words.w_rdy),
            unpacker.i.p.eq(data.View(row_word(config), row_words.r_data)),
            unpacker.i.valid.eq(row_words.r_rdy),
            row_words.r_en.eq(unpacker.i.ready),
            fetcher.table.eq(command.table),
            fetcher.row_stride.eq(command.row_stride),
            scaler.factors.eq(shape.factors),
            interleaver.restart.eq(start),
            lanes.restart.eq(start),
        ]
        for unit in (fetcher, aligner, unpacker, lanes):
            m.d.comb += unit.shape.eq(shape)
        return fetcher, lanes

    def _write(self, m, command, shape, start, lanes):
        """Sums become bags in memory; returns whether every one is there."""
        config = self._config
        m.submodules.splitter = splitter = ChunkSplitter(config)
        m.submodules.mean = mean = BagMean(config)
        m.submodules.converter = converter = PooledConverter(config)
        m.submodules.writer = writer = BagWriter(config)
        connect(m, lanes.o, splitter.i)
        connect(m, splitter.o, mean.i)
        connect(m, mean.o, converter.i)
        connect(m, converter.o, writer.i)
        connect(m, writer.o, flipped(self.output.request))
        m.d.comb += [
            splitter.shape.eq(shape),
            mean.mean.eq(_flag(command, Flag.MEAN)),
            mean.half.eq(command.output_format == ElementFormat.FLOAT16),
            converter.output_format.eq(command.output_format),
            converter.multiplier.eq(command.multiplier),
            converter.zero_point.eq(command.zero_point),
            writer.output.eq(command.output),
            writer.output_stride.eq(command.output_stride),
            writer.restart.eq(start),
        ]
        return lanes.drained & mean.empty & converter.empty & writer.idle & self.output.idle

    def _account(self, m, lanes, fetcher, rows_done):
        """What each cycle is spent on; returns the activity while rows are pooled."""
        working = Signal(Activity)
        wait = {name: self.waits[number] for number, name in enumerate(GATHER_WAITS)}
        with m.If(lanes.blocked):
            m.d.comb += working.eq(Activity.BLOCKED)
        with m.Elif(lanes.working):
            m.d.comb += working.eq(Activity.BUSY)
        with m.Else():
            m.d.comb += working.eq(Activity.STARVED)
        with m.If(self.activity == Activity.BLOCKED):
            m.d.comb += wait["output"].eq(1)
        with m.Elif(lanes.working):
            m.d.comb += wait["lanes"].eq(1)
        with m.Elif(fetcher.waiting):
            m.d.comb += wait["memory"].eq(1)
        with m.Elif(~rows_done):
            m.d.comb += wait["lanes"].eq(1)
        with m.Elif(self.activity != Activity.IDLE):
            m.d.comb += wait["indices"].eq(1)
        return working
