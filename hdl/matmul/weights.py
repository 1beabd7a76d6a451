"""The second operand on its way into the shadow registers of the array."""

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.array import OPERAND_BITS
from halfdome.hdl.matmul.job import Weights, job_layout
from halfdome.hdl.matmul.sequencer import weights_layout
from halfdome.hdl.memory.port import ReadPort, read_word
from halfdome.hdl.memory.reader import ReadBuffer


class WeightFetcher(wiring.Component):
    """Reads the words of each line's weight tiles in the order in which they are used.

    Parameters
    ----------
    depth : int
        Words in flight or buffered; must cover the memory's latency for full throughput.

    Members
    -------
    job : In(`job_layout`), constant while its lines are fetched
    i : In(stream of `weights_layout`)
    o : Out(stream of `read_word`): PACKED, all words of a tile; ROWS, for each row of a tile the
        word that holds it; COLUMNS, for each used column of a tile the word that holds it
    port : Out(ReadPort)

    The first request leaves in the cycle after `i` is taken; then one a cycle. Rows beyond the
    last of an operand repeat it: nothing outside is read.
    """

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "job": In(job_layout(config)),
                "i": In(stream.Signature(weights_layout(config))),
                "o": Out(stream.Signature(read_word(config))),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.job
        m.submodules.buffer = buffer = ReadBuffer(config, self._depth)
        connect(m, buffer.port, flipped(self.port))
        connect(m, buffer.o, flipped(self.o))

        rows, columns = config.array_rows, config.array_columns
        line = Signal(weights_layout(config))
        walking = Signal()
        asked = Signal()
        done = Signal()
        m.d.comb += [
            asked.eq(buffer.i.valid & buffer.i.ready),
            buffer.i.valid.eq(walking),
            self.i.ready.eq(~walking | (asked & done)),
        ]

        # PACKED: what is left of the line in words, from where the last line ended.
        tile_words = config.weight_tile_bytes // config.bus_bytes
        packed_address = Signal(config.address_bits)
        line_words = tile_words * config.line_tiles * config.group_tiles
        words_left = Signal(range(line_words + 1))
        count = Signal(range(config.burst_words + 1))
        to_line_end = Signal.like(count)
        word_index = packed_address[exact_log2(config.bus_bytes) :]
        m.d.comb += [
            to_line_end.eq(config.burst_words - (word_index & (config.burst_words - 1))),
            count.eq(Mux(words_left < to_line_end, words_left, to_line_end)),
        ]

        # ROWS and COLUMNS: tiles along N, tiles along K, rows or columns of the tile.
        tile = Signal(range(config.group_tiles))
        depth = Signal(range(config.line_tiles))
        step = Signal(range(max(rows, columns)))
        address, depth_address, tile_address = (
            Signal(config.address_bits, name=name)
            for name in ("address", "depth_address", "tile_address")
        )
        by_columns = Signal()
        last_step, last_used, last_depth, last_tile = (
            Signal(name=name) for name in ("last_step", "last_used", "last_depth", "last_tile")
        )
        used_rows = Mux(last_depth, line.last_rows, rows)
        used_columns = Mux(last_tile, line.last_columns, columns)
        m.d.comb += [
            by_columns.eq(job.weights == Weights.COLUMNS),
            last_depth.eq(depth == line.depth - 1),
            last_tile.eq(tile == line.tiles - 1),
            last_used.eq(step + 1 >= Mux(by_columns, used_columns, used_rows)),
            last_step.eq(Mux(by_columns, last_used, step == rows - 1)),
        ]
        next_depth, next_tile = Signal(config.address_bits), Signal(config.address_bits)
        row_bits, column_bits = exact_log2(rows), exact_log2(columns)
        m.d.comb += [
            next_depth.eq(depth_address + Mux(by_columns, rows, job.w_stride << row_bits)),
            next_tile.eq(tile_address + Mux(by_columns, job.w_stride << column_bits, columns)),
        ]

        word_address = Signal(config.address_bits)
        with m.If(job.weights == Weights.PACKED):
            m.d.comb += [
                word_address.eq(packed_address),
                buffer.i.p.count_minus_1.eq(count - 1),
                done.eq(words_left == count),
            ]
        with m.Else():
            m.d.comb += [
                word_address.eq(address),
                done.eq(last_step & last_depth & last_tile),
            ]
        m.d.comb += buffer.i.p.address.eq(
            word_address[exact_log2(config.bus_bytes) :] << exact_log2(config.bus_bytes)
        )
        with m.If(asked):
            m.d.sync += [
                packed_address.eq(packed_address + count * config.bus_bytes),
                words_left.eq(words_left - count),
                step.eq(step + 1),
                walking.eq(~done),
            ]
            with m.If(~last_used):
                m.d.sync += address.eq(address + job.w_stride)
            with m.If(last_step):
                m.d.sync += [
                    step.eq(0),
                    depth.eq(depth + 1),
                    address.eq(next_depth),
                    depth_address.eq(next_depth),
                ]
                with m.If(last_depth):
                    m.d.sync += [
                        depth.eq(0),
                        tile.eq(tile + 1),
                        address.eq(next_tile),
                        depth_address.eq(next_tile),
                        tile_address.eq(next_tile),
                    ]
        with m.If(self.i.valid & self.i.ready):
            i = self.i.p
            m.d.sync += [
                line.eq(i),
                walking.eq(1),
                words_left.eq((i.tiles * i.depth) << exact_log2(tile_words)),
                *(s.eq(0) for s in (tile, depth, step)),
                *(s.eq(i.address) for s in (address, depth_address, tile_address)),
            ]
            with m.If(i.restart):
                m.d.sync += packed_address.eq(job.w)
        return m


class TileLoader(wiring.Component):
    """Makes tiles of words and writes them to the array, one tile ahead of the passes.

    Members
    -------
    job : In(`job_layout`), constant while its tiles are loaded
    i : In(stream of `read_word`), from a `WeightFetcher`
    tiles : In(stream of `weights_layout`), the lines whose tiles come
    w, w_stage, w_valid : Out, to the members of `SystolicArray` of the same name
    ready : Out(1), the tile is in the shadows in time for a swap that enters the array
        `swap_delay` cycles from now
    swap : In(1), a pass starts; only while `ready`
    starved : Out(1), the tile is incomplete and its next word is not there

    Throughput: a tile in `tile_cycles`, one cycle a stage. A tile of an operand in ROWS takes a
    cycle a row; in COLUMNS, a cycle a used column and then one a stage.
    """

    swap_delay = 2
    """Cycles from `swap` to the array: `w` is registered on its way, and one cycle is to spare."""

    def __init__(self, config: CardConfig):
        self._config = config
        self._lanes = config.rows_per_stage
        self._stages = config.tile_load_cycles
        self.tile_cycles = self._stages + (self._stages == 1)
        operand = signed(OPERAND_BITS)
        w = data.ArrayLayout(data.ArrayLayout(operand, config.array_columns), self._lanes)
        super().__init__(
            {
                "job": In(job_layout(config)),
                "i": In(stream.Signature(read_word(config))),
                "tiles": In(stream.Signature(weights_layout(config))),
                "w": Out(w),
                "w_stage": Out(range(self._stages)),
                "w_valid": Out(1),
                "ready": Out(1),
                "swap": In(1),
                "starved": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.job
        rows, columns = config.array_rows, config.array_columns
        lanes, stages = self._lanes, self._stages
        rows_per_word = min(rows, config.bus_bytes // columns)

        # Which tile of its line this is: only an operand that is not packed needs to know.
        line = self.tiles.p
        tile = Signal(range(config.group_tiles))
        depth = Signal(range(config.line_tiles))
        last_depth, last_tile, loaded = Signal(), Signal(), Signal()
        m.d.comb += [
            last_depth.eq(depth == line.depth - 1),
            last_tile.eq(tile == line.tiles - 1),
            self.tiles.ready.eq(loaded & last_depth & last_tile),
        ]
        with m.If(loaded):
            m.d.sync += depth.eq(Mux(last_depth, 0, depth + 1))
            with m.If(last_depth):
                m.d.sync += tile.eq(Mux(last_tile, 0, tile + 1))

        stage = Signal(range(stages))
        full = Signal()
        last_stage = Signal()
        valid = Signal()
        stage_bytes = Signal(lanes * columns * 8)
        word = self.i.p.data
        m.d.comb += [
            last_stage.eq(stage == stages - 1),
            loaded.eq(valid & last_stage),
            self.starved.eq(~full & ~valid & ~self.i.valid),
        ]
        # With more than one stage the last may be completed as the swap enters.
        m.d.comb += self.ready.eq(full | (loaded if stages > 1 else 0))
        with m.If(self.swap):
            m.d.sync += full.eq(0)
        with m.If(valid):
            m.d.sync += [stage.eq(Mux(last_stage, 0, stage + 1)), full.eq(last_stage & ~self.swap)]

        with m.Switch(job.weights):
            with m.Case(Weights.PACKED):
                within = Signal(range(max(1, rows_per_word // lanes)))
                m.d.comb += [
                    within.eq(stage),
                    stage_bytes.eq(word.word_select(within, len(stage_bytes))),
                    valid.eq(self.i.valid & ~full),
                    self.i.ready.eq(~full & (within == rows_per_word // lanes - 1)),
                ]
            with m.Case(Weights.ROWS):
                self._by_rows(m, tile, full, valid, stage_bytes)
            with m.Case(Weights.COLUMNS):
                used = Signal(range(columns + 1))
                m.d.comb += used.eq(Mux(last_tile, line.last_columns, columns))
                self._by_columns(m, depth, used, stage, last_stage, full, valid, stage_bytes)

        m.d.sync += self.w_valid.eq(valid)
        with m.If(valid):
            m.d.sync += self.w_stage.eq(stage)
            for lane in range(lanes):
                for column in range(columns):
                    byte = stage_bytes.word_select(lane * columns + column, 8)
                    number = Cat(byte, byte[7] & job.w_int8).as_signed()
                    m.d.sync += self.w[lane][column].eq(number - job.w_zero_point)
        return m

    def _by_rows(self, m, tile, full, valid, stage_bytes):
        """A word holds one row of the tile, beside those of its neighbours along N."""
        columns = self._config.array_columns
        lane = Signal(range(self._lanes))
        place = Signal(range(max(1, self._config.bus_bytes // columns)))
        # The address of a group is not always that of a word.
        first = self.tiles.p.address[exact_log2(columns) :]
        row_bytes = Signal(columns * 8)
        earlier = Signal((self._lanes - 1) * columns * 8)
        m.d.comb += [
            place.eq(first + tile),
            row_bytes.eq(self.i.p.data.word_select(place, columns * 8)),
            stage_bytes.eq(Cat(earlier, row_bytes)),
            self.i.ready.eq(~full),
            valid.eq(self.i.valid & ~full & (lane == self._lanes - 1)),
        ]
        with m.If(self.i.valid & ~full):
            m.d.sync += [lane.eq(Mux(lane == self._lanes - 1, 0, lane + 1)), earlier.eq(row_bytes)]

    def _by_columns(self, m, depth, used, stage, last_stage, full, valid, stage_bytes):
        """A word holds one column of the tile: all are collected before the first row is known."""
        config = self._config
        rows, columns = config.array_rows, config.array_columns
        collected = Array(
            Signal(rows * 8, name=f"column_{c}", reset_less=True) for c in range(columns)
        )
        count = Signal(range(columns))
        turned = Signal()
        place = Signal(range(max(1, config.bus_bytes // rows)))
        m.d.comb += [
            place.eq(depth),
            self.i.ready.eq(~turned),
            valid.eq(turned & ~full),
        ]
        with m.If(self.i.valid & ~turned):
            m.d.sync += [
                collected[count].eq(self.i.p.data.word_select(place, rows * 8)),
                count.eq(count + 1),
            ]
            with m.If(count == used - 1):
                m.d.sync += [count.eq(0), turned.eq(1)]
        with m.If(valid & last_stage):
            m.d.sync += turned.eq(0)
        for lane in range(self._lanes):
            for c, column in enumerate(collected):
                byte = column.word_select(stage, self._lanes * 8).word_select(lane, 8)
                m.d.comb += stage_bytes.word_select(lane * columns + c, 8).eq(byte)
