"""The matmul engine: matrix products and convolutions of any size on a systolic array."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.commands import ElementFormat, Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import DESCRIPTOR_BITS, Activity, engine_members
from halfdome.hdl.matmul.accumulators import Accumulators
from halfdome.hdl.matmul.activations import ActivationBuffer
from halfdome.hdl.matmul.array import SystolicArray
from halfdome.hdl.matmul.feeder import Feeder
from halfdome.hdl.matmul.job import JobDecoder
from halfdome.hdl.matmul.params import PARAM_BYTES, ParamLoader
from halfdome.hdl.matmul.requantiser import Requantiser
from halfdome.hdl.matmul.sequencer import LineSequencer, feed_layout, weights_layout
from halfdome.hdl.matmul.weights import TileLoader, WeightFetcher
from halfdome.hdl.matmul.writer import RowWriter
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.memory.reader import SequentialReader

WEIGHT_WORDS = 64
"""Words of weights in flight or buffered: covers a memory latency of about as many cycles."""
PARAM_WORDS = 16
"""The same for parameters."""
LINES_AHEAD = 3
"""Lines whose operands may be requested before they are fed."""


class MatmulEngine(wiring.Component):
    """y = max(relu ? zp : low, saturate(round_half_even(float32(x @ w + bias) * multiplier) + zp)).

    Weight stationary: for each block of `activation_rows` rows of x, for each group of
    `group_tiles` tiles of output channels, for each line along K, the line's activations pass
    through the array once for each of its weight tiles. The activations of the line that follows,
    weights and parameters load meanwhile. Totals stay in the accumulators; in the last pass along
    K they leave, requantised to bytes or as they are. A row enters only if its output has room, so
    nothing behind the edge of the array ever waits.

    A convolution is a product whose rows are output pixels and whose lines walk the kernel's taps:
    the fetch of activations knows where they lie. In a batch the second operand is no packed
    tiles but a matrix of activations.

    Members
    -------
    command, result, activity : `engine_members()`; descriptors MATMUL, BATCH_MATMUL, CONV2D
    x, w, params : Out(ReadPort), activations, weights, biases and multipliers
    y : Out(WritePort)

    Throughput: a pass takes max(rows of the block, `tile_cycles`), passes follow without a gap
    while memory gives what it is asked for. `cycles()` sums this up. A row of the last pass along K
    is handed to `y` `latency` cycles after it enters.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._array = SystolicArray(
            rows=config.array_rows,
            columns=config.array_columns,
            rows_per_stage=config.rows_per_stage,
        )
        self._loader = TileLoader(config)
        self._requantiser = Requantiser(columns=config.array_columns)
        self.tile_cycles = max(self._loader.tile_cycles, Feeder.pass_cycles)
        # Cycles from `feed` to the totals, to the bytes made of them.
        self.totals_delay = Feeder.latency + self._array.latency + Accumulators.latency
        self.output_delay = self.totals_delay + self._requantiser.latency
        self.latency = self.output_delay + RowWriter.latency
        # Tiles between the edge of the array and the writer, and one that waits for its turn.
        self.tiles = -(-self.output_delay // self.tile_cycles) + 1
        super().__init__(
            engine_members()
            | {
                "x": Out(ReadPort(config)),
                "w": Out(ReadPort(config)),
                "params": Out(ReadPort(config)),
                "y": Out(WritePort(config)),
            }
        )

    def cycles(self, m: int, k: int, n: int, *, batches: int = 1, taps: int = 1) -> int:
        """Cycles of the array for `batches` products of packed weights, memory stalls, start-up
        and drain left out. A convolution has m output pixels and k channels for each of its taps.
        """
        config = self._config
        passes = taps * -(-k // config.array_rows) * -(-n // config.array_columns)
        whole, rest = divmod(m, config.activation_rows)
        rows = whole * max(config.activation_rows, self.tile_cycles)
        if rest:
            rows += max(rest, self.tile_cycles)
        return batches * passes * rows

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.decoder = decoder = JobDecoder(config)
        m.submodules.sequencer = sequencer = LineSequencer(config)
        m.submodules.activations = activations = ActivationBuffer(config)
        m.submodules.weights = weights = WeightFetcher(config, WEIGHT_WORDS)
        m.submodules.loader = loader = self._loader
        m.submodules.params_reader = params_reader = SequentialReader(config, PARAM_WORDS)
        m.submodules.params_loader = params = ParamLoader(config, self.tiles)
        m.submodules.feeder = feeder = Feeder(config)
        m.submodules.array = self._array
        m.submodules.accumulators = accumulators = Accumulators(config)
        m.submodules.requantiser = requantiser = self._requantiser
        m.submodules.writer = writer = RowWriter(config, self.output_delay, self.tiles)
        connect(m, activations.port, flipped(self.x))
        connect(m, weights.port, flipped(self.w))
        connect(m, params_reader.port, flipped(self.params))
        connect(m, writer.port, flipped(self.y))
        connect(m, weights.o, loader.i)
        connect(m, params_reader.o, params.i)

        job = decoder.job
        begin = Signal()
        int32 = Signal()
        m.d.comb += [
            int32.eq(job.y_format == ElementFormat.INT32),
            sequencer.start.eq(begin),
            activations.start.eq(begin),
            params.start.eq(begin),
            params.n.eq(job.n),
            *(
                unit.job.eq(job)
                for unit in (sequencer, activations, weights, loader, feeder, writer)
            ),
        ]
        self._share_lines(m, sequencer, activations, weights, loader, feeder)
        self._read_params(m, sequencer, params_reader, int32)
        self._pass(m, activations, loader, feeder, writer, params, int32)
        self._collect(m, feeder, accumulators, writer, params, int32)

        # int8 is uint8 with its ends moved by 128.
        middle = Mux(job.y_format == ElementFormat.INT8, 0x80, 0)
        zero_point = Signal(8)
        m.d.comb += zero_point.eq(job.y_zero_point ^ middle)
        m.d.sync += [
            requantiser.zero_point.eq(zero_point),
            requantiser.floor.eq(Mux(job.relu, zero_point, 0)),
        ]
        m.d.comb += [
            requantiser.totals.eq(accumulators.totals),
            requantiser.bias.eq(params.bias),
            requantiser.multiplier.eq(params.multiplier),
            writer.totals.as_value().eq(accumulators.totals.as_value()),
            *(writer.requantised[c].eq(o ^ middle) for c, o in enumerate(requantiser.o)),
        ]
        self._control(m, decoder, begin, feeder, params, writer)
        return m

    def _share_lines(self, m, sequencer, activations, weights, loader, feeder):
        """Each line goes to whoever fetches for it, and to the edge of the array."""
        line = sequencer.o.p
        queues = []
        for name, part, layout, taker in (
            ("weights", line.weights, weights_layout(self._config), weights.i),
            ("tiles", line.weights, weights_layout(self._config), loader.tiles),
            ("feeds", line.feed, feed_layout(self._config), feeder.i),
        ):
            m.submodules[f"{name}_queue"] = queue = SyncFIFOBuffered(
                width=layout.size, depth=LINES_AHEAD
            )
            m.d.comb += [
                queue.w_data.eq(part),
                taker.p.eq(queue.r_data),
                taker.valid.eq(queue.r_rdy),
                queue.r_en.eq(taker.ready),
            ]
            queues.append(queue)
        taken = Signal()
        m.d.comb += [
            sequencer.o.ready.eq(
                (activations.i.ready | ~line.fetch) & Cat(q.w_rdy for q in queues).all()
            ),
            taken.eq(sequencer.o.valid & sequencer.o.ready),
            activations.i.p.eq(line.fill),
            activations.i.valid.eq(taken & line.fetch),
            *(queue.w_en.eq(taken) for queue in queues),
        ]

    def _read_params(self, m, sequencer, reader, int32):
        """The parameters are contiguous: one run for each block of rows."""
        job = sequencer.job
        blocks = Signal(3)
        bus_bytes = self._config.bus_bytes
        begun, asked = Signal(), Signal()
        m.d.comb += [
            begun.eq(sequencer.o.valid & sequencer.o.ready & sequencer.o.p.block_first & ~int32),
            asked.eq(reader.i.valid & reader.i.ready),
            reader.i.valid.eq(blocks != 0),
            reader.i.p.address.eq(job.params),
            reader.i.p.words.eq((job.n * PARAM_BYTES + bus_bytes - 1) >> exact_log2(bus_bytes)),
        ]
        m.d.sync += blocks.eq(blocks + begun - asked)

    def _pass(self, m, activations, loader, feeder, writer, params, int32):
        """What enters the array comes out, whatever happens behind it."""
        array = self._array
        m.d.comb += [
            activations.row.eq(feeder.row),
            activations.word.eq(feeder.word),
            activations.read.eq(feeder.read),
            activations.release.eq(feeder.release),
            feeder.available.eq(activations.available),
            feeder.data.eq(activations.data),
            feeder.outside.eq(activations.outside),
            feeder.tile_ready.eq(loader.ready),
            feeder.params_ready.eq(params.ready | int32),
            feeder.tile_room.eq(writer.room),
            loader.swap.eq(feeder.feed & feeder.start),
            array.x.eq(feeder.x),
            array.valid.eq(feeder.valid),
            array.swap.eq(feeder.swap),
            array.w.eq(loader.w),
            array.w_stage.eq(loader.w_stage),
            array.w_valid.eq(loader.w_valid),
        ]

    def _collect(self, m, feeder, accumulators, writer, params, int32):
        """Follows each row through the pipeline and tells whoever it reaches."""
        array = self._array
        output, take = Signal(), Signal()
        m.d.comb += [
            output.eq(feeder.feed & feeder.last),
            take.eq(output & feeder.start),
            writer.announce.eq(take),
            writer.tile.eq(feeder.outputs),
            params.claim.eq(take & ~int32),
        ]

        def later(value, cycles, name):
            """What `value` was a given number of cycles ago, 1 to `cycles`."""
            width = len(value)
            line = Signal(width * cycles, name=f"{name}_line")
            m.d.sync += line.eq(Cat(value, line))
            return lambda delay: line.word_select(delay - 1, width)

        announced = Feeder.latency + array.latency - 1
        row_later = later(feeder.feed, announced, "row")
        start_later = later(feeder.start, announced, "start")
        tile_later = later(feeder.tile, announced, "tile")
        first_later = later(feeder.first, announced, "first")
        output_later = later(output, self.totals_delay, "output")
        take_later = later(take, self.totals_delay, "take")
        # Sums that leave as they are do not enter the requantiser.
        rows, tiles = Signal(), Signal()
        m.d.comb += [
            rows.eq(output_later(self.totals_delay)),
            tiles.eq(take_later(self.totals_delay)),
        ]
        row_in = later(rows & ~int32, self._requantiser.latency, "requantised")
        tile_in = later(tiles & ~int32, self._requantiser.latency, "requantised_tile")
        m.d.comb += [
            accumulators.row.eq(row_later(announced)),
            accumulators.start.eq(start_later(announced)),
            accumulators.tile.eq(tile_later(announced)),
            accumulators.first.eq(first_later(announced)),
            accumulators.keep.eq(~output_later(announced)),
            accumulators.sums.eq(array.y),
            params.take_bias.eq(take_later(self.totals_delay - 1) & ~int32),
            params.take_multiplier.eq(tile_in(self._requantiser.multiplier_delay - 1)),
            writer.valid.eq(Mux(int32, rows, row_in(self._requantiser.latency))),
            writer.start.eq(Mux(int32, tiles, tile_in(self._requantiser.latency))),
        ]

    def _control(self, m, decoder, begin, feeder, params, writer):
        descriptor = Signal(DESCRIPTOR_BITS)
        fed = Signal()
        m.d.comb += decoder.descriptor.eq(descriptor)
        with m.If(feeder.feed & feeder.final):
            m.d.sync += fed.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.command.ready.eq(1), self.activity.eq(Activity.IDLE)]
                m.d.sync += [descriptor.eq(self.command.p), fed.eq(0)]
                with m.If(self.command.valid):
                    m.next = "DECODE"
            with m.State("DECODE"):
                m.d.comb += [decoder.start.eq(1), self.activity.eq(Activity.BUSY)]
                m.next = "START"
            with m.State("START"):
                m.d.comb += [begin.eq(decoder.valid), self.activity.eq(Activity.BUSY)]
                with m.If(decoder.valid):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.activity.eq(Activity.BUSY)
                with m.If(fed & self.y.request.valid & ~self.y.request.ready):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.Elif(feeder.missing):
                    m.d.comb += self.activity.eq(Activity.STARVED)
                with m.Elif(feeder.blocked):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.If(fed & writer.empty & self.y.idle):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += [
                    self.result.valid.eq(1),
                    self.result.p.status.eq(
                        Mux(params.bad, Status.BAD_MULTIPLIER.value, Status.OK.value)
                    ),
                    self.result.p.detail.eq(Mux(params.bad, params.bad_channel, 0)),
                    self.activity.eq(Mux(self.result.ready, Activity.BUSY, Activity.BLOCKED)),
                ]
                with m.If(self.result.ready):
                    m.next = "IDLE"
