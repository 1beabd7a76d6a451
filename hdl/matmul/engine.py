"""The matmul engine: quantised matrix multiplication of any size on a systolic array."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out, connect, flipped
from amaranth.utils import exact_log2

from hdl.commands import Flag, Opcode, Status, fields, layout
from hdl.config import CardConfig
from hdl.engine import Activity, engine_members
from hdl.matmul.accumulators import Accumulators
from hdl.matmul.array import SystolicArray
from hdl.matmul.fetch import BlockReader, RowFetcher
from hdl.matmul.params import PARAM_BYTES, ParamLoader
from hdl.matmul.requantiser import Requantiser
from hdl.matmul.sequencer import SIZE_BITS, PassSequencer, pass_layout
from hdl.matmul.weights import TileLoader
from hdl.matmul.writer import RowWriter
from hdl.memory.port import ReadPort, WritePort

ROW_WORDS = 32
"""Words of x in flight or buffered: covers a memory latency of about as many cycles."""
PASSES_AHEAD = 8
"""Passes whose rows may be requested before they are fed."""


class MatmulEngine(wiring.Component):
    """y = max(relu ? zp : 0, saturate(round_half_even(float32(x @ w + bias) * multiplier) + zp)).

    Weight stationary: for each block of `accumulator_rows` rows of x, for each tile of output
    channels, for each tile along K, the rows of the block pass through the array. Totals stay in
    the accumulators; in the last pass along K they leave as bytes. Weight tiles and parameters
    of what comes next load meanwhile. A row enters only if its output has room, so nothing
    behind the edge of the array ever waits.

    Members
    -------
    command, result, activity : `engine_members()`; descriptor `Opcode.MATMUL`
    x, w, params : Out(ReadPort), activations, packed weight tiles, biases and multipliers
    y : Out(WritePort), one word for each row and tile of output channels

    Throughput: a pass takes max(rows of the block, `tile_cycles`), passes follow without a gap
    while memory gives one word a cycle on each port; tiles of output channels start at least
    `channel_turnaround` apart. `cycles()` sums this up. A row of the last pass along K is handed
    to `y` `latency` cycles after it enters.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._array = SystolicArray(rows=config.array_rows, columns=config.array_columns)
        self._loader = TileLoader(config)
        self._params = ParamLoader(config)
        self._tile_words = config.weight_tile_bytes // config.bus_bytes
        self._requantiser = Requantiser(columns=config.array_columns)
        self._totals_delay = self._array.latency + Accumulators.latency
        self._output_delay = self._totals_delay + self._requantiser.latency
        self._multiplier_delay = self._totals_delay + self._requantiser.multiplier_delay
        self.latency = self._output_delay + RowWriter.latency
        self.tile_cycles = self._loader.tile_cycles
        self.channel_turnaround = 1 + max(
            self._output_delay, self._multiplier_delay - 1 + self._params.tile_cycles
        )
        super().__init__(
            engine_members()
            | {
                "x": Out(ReadPort(config)),
                "w": Out(ReadPort(config)),
                "params": Out(ReadPort(config)),
                "y": Out(WritePort(config)),
            }
        )

    def cycles(self, m: int, k: int, n: int) -> int:
        """Cycles of the array for a command: no memory stalls, start-up and drain left out."""
        config = self._config
        k_tiles = -(-k // config.array_rows)
        n_tiles = -(-n // config.array_columns)
        total = 0
        for start in range(0, m, config.accumulator_rows):
            rows = min(config.accumulator_rows, m - start)
            passes = k_tiles * max(rows, self.tile_cycles)
            total += n_tiles * max(passes, self.channel_turnaround)
        return total

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.array = array = self._array
        m.submodules.loader = loader = self._loader
        m.submodules.params_loader = params = self._params
        m.submodules.requantiser = requantiser = self._requantiser
        m.submodules.accumulators = accumulators = Accumulators(config)
        m.submodules.sequencer = sequencer = PassSequencer(config)
        m.submodules.fetcher = fetcher = RowFetcher(config, ROW_WORDS)
        m.submodules.w_reader = w_reader = BlockReader(
            config, max(2 * self._tile_words, config.burst_words, 16)
        )
        m.submodules.params_reader = params_reader = BlockReader(
            config, max(2 * params.tile_cycles, config.burst_words, 4)
        )
        # Room for every row on its way, two in the queue, and two whose room is just returned.
        m.submodules.writer = writer = RowWriter(config, self._output_delay + 4)
        connect(m, fetcher.port, flipped(self.x))
        connect(m, w_reader.port, flipped(self.w))
        connect(m, params_reader.port, flipped(self.params))
        connect(m, writer.port, flipped(self.y))
        connect(m, w_reader.o, loader.i)
        connect(m, params_reader.o, params.i)

        command = Signal(layout(fields(Opcode.MATMUL)))
        begin = Signal()
        m.d.comb += [
            sequencer.command.eq(command),
            sequencer.start.eq(begin),
            fetcher.stride.eq(command.x_stride),
            writer.stride.eq(command.y_stride),
            params.n.eq(command.n),
            requantiser.zero_point.eq(command.y_zero_point),
            requantiser.floor.eq(Mux(command.flags & Flag.RELU, command.y_zero_point, 0)),
        ]

        # Weights and parameters are contiguous: one run for each block of rows.
        k_tiles = Signal(SIZE_BITS)
        n_tiles = Signal(SIZE_BITS)
        w_words = Signal(32)
        params_words = Signal(SIZE_BITS)
        m.d.comb += [
            k_tiles.eq((command.k + config.array_rows - 1) >> exact_log2(config.array_rows)),
            n_tiles.eq((command.n + config.array_columns - 1) >> exact_log2(config.array_columns)),
        ]
        m.d.sync += [
            w_words.eq((k_tiles * n_tiles) << exact_log2(self._tile_words)),
            params_words.eq(
                (command.n * PARAM_BYTES + config.bus_bytes - 1) >> exact_log2(config.bus_bytes)
            ),
        ]
        for reader, address, words in (
            (w_reader, command.w, w_words),
            (params_reader, command.params, params_words),
        ):
            m.d.comb += [
                reader.start.eq(begin),
                reader.m.eq(command.m),
                reader.address.eq(address),
                reader.words.eq(words),
            ]

        # Each pass goes to the fetcher and, remembered, to the edge of the array.
        layout_of_pass = pass_layout(config)
        m.submodules.passes = passes = SyncFIFOBuffered(
            width=layout_of_pass.size, depth=PASSES_AHEAD
        )
        m.d.comb += [
            fetcher.i.p.eq(sequencer.o.p),
            fetcher.i.valid.eq(sequencer.o.valid & passes.w_rdy),
            passes.w_data.eq(sequencer.o.p),
            passes.w_en.eq(sequencer.o.valid & fetcher.i.ready),
            sequencer.o.ready.eq(fetcher.i.ready & passes.w_rdy),
        ]

        # The edge of the array: what enters here comes out, whatever happens behind it.
        current = data.View(layout_of_pass, passes.r_data)
        row = Signal(range(config.accumulator_rows))
        start = Signal()
        end = Signal()
        feed = Signal()
        missing = Signal()
        ended = Signal()
        too_soon = Signal()
        take = Signal()
        taking = Signal()
        taken = Signal()
        x_slice = current.x_address[exact_log2(config.array_rows) : exact_log2(config.bus_bytes)]
        m.d.comb += [
            start.eq(row == 0),
            end.eq(row == current.rows - 1),
            missing.eq(
                ~fetcher.o.valid
                | (start & loader.starved)
                | (start & current.last & params.starved)
            ),
            feed.eq(
                passes.r_rdy
                & fetcher.o.valid
                & (~start | (loader.ready & ~too_soon))
                & (~current.last | writer.room)
                & (~(start & current.last) | (params.ready & ~taking))
            ),
            # Passes start far enough apart for their first rows; the second of two rows may have
            # been late, and needs a cycle more to come back to its accumulators.
            too_soon.eq(ended & (current.rows == Accumulators.reuse_cycles - 1)),
            take.eq(feed & start & current.last),
            fetcher.o.ready.eq(feed),
            passes.r_en.eq(feed & end),
            loader.swap.eq(feed & start),
            writer.reserve.eq(feed & current.last),
            array.x.as_value().eq(fetcher.o.p.data.word_select(x_slice, config.array_rows * 8)),
            array.swap.eq(loader.swap),
            array.w.eq(loader.w),
            array.w_row.eq(loader.w_row),
            array.w_valid.eq(loader.w_valid),
        ]
        m.d.sync += ended.eq(feed & end)
        with m.If(feed):
            m.d.sync += row.eq(Mux(end, 0, row + 1))

        # The next tile of output channels: from `take` on its way through the array, until the
        # first of its rows is `taken` by the writer.
        with m.If(take):
            m.d.sync += [
                taking.eq(1),
                writer.next_address.eq(current.y_address),
                writer.next_columns.eq(current.columns),
            ]
        with m.Elif(taken):
            m.d.sync += taking.eq(0)

        def later(flag, cycles, name):
            """A flag that follows its row through the pipeline: its value a given delay ago."""
            line = Signal(cycles, name=f"{name}_line")
            m.d.sync += line.eq(Cat(flag, line))
            return lambda delay: line[delay - 1]

        announced = array.latency - 1
        row_later = later(feed, announced, "row")
        start_later = later(start, announced, "start")
        first_later = later(current.first, announced, "first")
        output_later = later(writer.reserve, self._output_delay, "output")
        take_later = later(take, self._output_delay, "take")
        m.d.comb += [
            accumulators.row.eq(row_later(announced)),
            accumulators.start.eq(start_later(announced)),
            accumulators.first.eq(first_later(announced)),
            accumulators.keep.eq(~output_later(announced)),
            accumulators.sums.eq(array.y),
            requantiser.totals.eq(accumulators.totals),
            requantiser.bias.eq(params.bias),
            requantiser.multiplier.eq(params.multiplier),
            params.take_bias.eq(take_later(self._totals_delay - 1)),
            params.take_multiplier.eq(take_later(self._multiplier_delay - 1)),
            taken.eq(take_later(self._output_delay)),
            writer.valid.eq(output_later(self._output_delay)),
            writer.start.eq(taken),
            writer.i.eq(requantiser.o),
        ]

        fed = Signal()
        with m.If(feed & end & current.final):
            m.d.sync += fed.eq(1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.command.ready.eq(1), self.activity.eq(Activity.IDLE)]
                m.d.sync += [command.eq(self.command.p), fed.eq(0)]
                with m.If(self.command.valid):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += [begin.eq(1), self.activity.eq(Activity.BUSY)]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.activity.eq(Activity.BUSY)
                with m.If(fed & self.y.request.valid & ~self.y.request.ready):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.Elif(passes.r_rdy & missing):
                    m.d.comb += self.activity.eq(Activity.STARVED)
                with m.Elif(passes.r_rdy & current.last & ~writer.room):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.If(fed & writer.empty & self.y.idle):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += [
                    self.result.valid.eq(1),
                    self.result.p.status.eq(Status.OK),
                    self.activity.eq(Mux(self.result.ready, Activity.BUSY, Activity.BLOCKED)),
                ]
                with m.If(self.result.ready):
                    m.next = "IDLE"
        return m
