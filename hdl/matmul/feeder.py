"""The edge of the array: which row enters when, and what of it counts."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.accumulators import Accumulators
from halfdome.hdl.matmul.array import OPERAND_BITS
from halfdome.hdl.matmul.job import job_layout
from halfdome.hdl.matmul.sequencer import feed_layout
from halfdome.hdl.matmul.writer import tile_layout


class Feeder(wiring.Component):
    """Sends the rows of each line through the array, once for each of the line's weight tiles.

    A pass starts only when its outputs have room, a row enters only when its operands are there, so
    that nothing behind the edge of the array ever waits.

    Members
    -------
    job : In(`job_layout`), constant while its lines are fed
    i : In(stream of `feed_layout`)
    row, word, read, release, available, data, outside : the reading side of `ActivationBuffer`
    tile_ready : In(1), the next weight tile is in place
    params_ready : In(1), the parameters of the next tile of outputs are there
    tile_room : In(1), the outputs of a pass have room
    feed : Out(1), a row is on its way: it is in `x` `latency` cycles later
    start : Out(1), with `feed`: it is the first of a pass
    tile, first, last : Out, with `feed`: output tile within the group; the first, the last pass
        along K of its tile
    outputs : Out(`tile_layout`), with `start` and `last`: where the tile's outputs go
    final : Out(1), with `feed`: nothing of the job is left
    missing, blocked : Out(1), a row waits for operands, for room
    x : Out(rows x signed(9)), the row less its zero point; 0 beyond k and outside the image
    valid, swap : Out(1), with `x`: it is a row, the first of its pass

    `latency` = 2. Throughput: one row a cycle, a pass in no less than `pass_cycles`: a row may not
    return to its accumulators sooner.
    """

    latency = 2
    pass_cycles = Accumulators.reuse_cycles

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "job": In(job_layout(config)),
                "i": In(stream.Signature(feed_layout(config))),
                "row": Out(range(config.activation_rows)),
                "word": Out(range(config.burst_words)),
                "read": Out(1),
                "release": Out(1),
                "available": In(1),
                "data": In(config.bus_bytes * 8),
                "outside": In(1),
                "tile_ready": In(1),
                "params_ready": In(1),
                "tile_room": In(1),
                "feed": Out(1),
                "start": Out(1),
                "tile": Out(range(config.group_tiles)),
                "first": Out(1),
                "last": Out(1),
                "outputs": Out(tile_layout(config)),
                "final": Out(1),
                "missing": Out(1),
                "blocked": Out(1),
                "x": Out(data.ArrayLayout(signed(OPERAND_BITS), config.array_rows)),
                "valid": Out(1),
                "swap": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, line = self._config, self.i.p
        depth = Signal(range(config.line_tiles))
        end, last_depth, last_tile = Signal(), Signal(), Signal()
        lane_bits = exact_log2(config.bus_bytes // config.array_rows)
        # Where the pass's channels are within the line; the last may be fewer.
        place, last_place = Signal.like(depth), Signal()
        diagonal = self.job.diagonal
        y_offset = Signal(config.address_bits)
        room = Signal()
        ready = Signal()
        pause = Signal(range(self.pass_cycles))
        m.d.comb += [
            end.eq(self.row == line.rows - 1),
            last_depth.eq(depth == line.depth - 1),
            last_tile.eq(self.tile == line.tiles - 1),
            place.eq(Mux(diagonal, self.tile, depth)),
            last_place.eq(Mux(diagonal, last_tile, last_depth)),
            self.word.eq(place >> lane_bits),
            self.start.eq(self.row == 0),
            self.first.eq(line.first & (depth == 0)),
            self.last.eq(line.last & last_depth),
            self.final.eq(line.final & last_depth & last_tile & end),
            self.outputs.address.eq(line.y_address + y_offset),
            self.outputs.rows.eq(line.rows),
            self.outputs.columns.eq(Mux(last_tile, line.last_columns, config.array_columns)),
            self.outputs.last.eq(last_tile),
            self.outputs.top.eq(line.top),
            self.outputs.left.eq(line.left + (self.tile << exact_log2(config.array_columns))),
            room.eq(~self.last | ~self.start | self.tile_room),
            ready.eq(
                self.i.valid
                & self.available
                & (
                    ~self.start
                    | (self.tile_ready & (pause == 0) & (~self.last | self.params_ready))
                )
            ),
            self.missing.eq(self.i.valid & ~ready),
            self.blocked.eq(ready & ~room),
            self.feed.eq(ready & room),
            self.read.eq(self.feed),
            self.i.ready.eq(self.feed & end & last_depth & last_tile),
            self.release.eq(self.i.ready & ~line.keep),
        ]
        output_bits = Mux(self.job.y_format == ElementFormat.INT32, 2, 0)
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.If(self.feed):
            with m.If(line.rows < self.pass_cycles):
                m.d.sync += pause.eq(self.pass_cycles - line.rows)
            m.d.sync += self.row.eq(Mux(end, 0, self.row + 1))
            with m.If(end):
                m.d.sync += depth.eq(Mux(last_depth, 0, depth + 1))
                with m.If(last_depth):
                    m.d.sync += [
                        self.tile.eq(Mux(last_tile, 0, self.tile + 1)),
                        y_offset.eq(
                            Mux(last_tile, 0, y_offset + (config.array_columns << output_bits))
                        ),
                    ]

        # The word comes in the next cycle; what is known of the row waits for it.
        fed, began, all_rows = Signal(), Signal(), Signal()
        rows = Signal.like(line.last_rows)
        lane = Signal(range(1 << lane_bits))
        m.d.sync += [fed.eq(self.feed), began.eq(self.feed & self.start)]
        with m.If(self.feed):
            m.d.sync += [lane.eq(place), rows.eq(line.last_rows), all_rows.eq(~last_place)]
        m.d.sync += [self.valid.eq(fed), self.swap.eq(began)]
        bytes_of_row = Signal(config.array_rows * 8)
        m.d.comb += bytes_of_row.eq(self.data.word_select(lane, config.array_rows * 8))
        with m.If(fed):
            for r in range(config.array_rows):
                byte = bytes_of_row.word_select(r, 8)
                number = Cat(byte, byte[7] & self.job.x_int8).as_signed()
                counts = ~self.outside & (all_rows | (rows > r))
                m.d.sync += self.x[r].eq(Mux(counts, number - self.job.x_zero_point, 0))
        return m
