"""Assembles the rows of output tiles into lines of memory and writes them."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.job import SIZE_BITS, job_layout
from halfdome.hdl.memory.port import WritePort


def tile_layout(config: CardConfig) -> data.StructLayout:
    """Where a tile of outputs goes.

    address : of the first output
    rows, columns : outputs of a column, of a row
    top, left : number of the first row and column of the tile
    last : the tile that follows does not continue these rows
    """
    return data.StructLayout(
        {
            "address": config.address_bits,
            "rows": range(config.activation_rows + 1),
            "columns": range(config.array_columns + 1),
            "top": SIZE_BITS,
            "left": SIZE_BITS,
            "last": 1,
        }
    )


def span_bytes(config: CardConfig) -> int:
    """Most bytes of a row that are assembled: a line, or as much of one as a group of tiles fills;
    no less than a row of int32."""
    columns = config.array_columns
    return max(4 * columns, min(config.line_bytes, config.group_tiles * columns))


def part_layout(config: CardConfig) -> data.StructLayout:
    """A tile as part of a span.

    address, top, left : of the span's first output
    before, columns : outputs of a row of the span before this tile, and with it
    completes : the span ends with this tile
    """
    return data.StructLayout(
        {
            "address": config.address_bits,
            "top": SIZE_BITS,
            "left": SIZE_BITS,
            "before": range(span_bytes(config)),
            "columns": range(span_bytes(config) + 1),
            "completes": 1,
        }
    )


class RowWriter(wiring.Component):
    """Assembles rows of outputs in a ring of slots and writes each when it is complete.

    DRAM moves whole lines, and a row of a tile may be a quarter of one. So neighbouring tiles make
    a *span*, up to the end of a line. Each of its rows has a slot, to which every tile adds its
    part; the last tile completes them one after the other. A scratchpad takes any part of a word:
    there every tile is a span. Slots are taken when the first tile of a span is announced, so that
    a row on its way never waits.

    Parameters
    ----------
    delay : int
        Cycles from the announcement of a tile to its first row.
    tiles : int
        Tiles announced whose first row has not come.

    Members
    -------
    job : In(`job_layout`), constant while its rows are written
    room : Out(1), a tile may be announced
    announce : In(1), with `room`: rows of `tile` will come, after those of the tiles before
    tile : In(`tile_layout`)
    valid : In(1), a row comes now
    start : In(1), with `valid`: it is row 0 of the next announced tile
    requantised : In(columns x 8), the row, unless the job's format is INT32
    totals : In(columns x 32), the row if it is
    port : Out(WritePort)
    empty : Out(1), every row of the announced tiles was handed to memory

    A row is offered to memory `latency` cycles after its last part came, if none is before it; then
    the words that it touches, one a cycle.
    """

    latency = 3

    def __init__(self, config: CardConfig, delay: int, tiles: int):
        self._config = config
        # One block of rows comes while another is written or, if that is more, on its way.
        block = config.activation_rows
        self.slots = 1 << ceil_log2(block + max(block, delay + self.latency))
        self._tiles = tiles
        columns = config.array_columns
        super().__init__(
            {
                "job": In(job_layout(config)),
                "room": Out(1),
                "announce": In(1),
                "tile": In(tile_layout(config)),
                "valid": In(1),
                "start": In(1),
                "requantised": In(data.ArrayLayout(8, columns)),
                "totals": In(data.ArrayLayout(32, columns)),
                "port": Out(WritePort(config)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.parts = parts = SyncFIFO(width=part_layout(config).size, depth=self._tiles)
        # Each byte of a row stands in its slot where its address modulo the slot's size puts it.
        size = span_bytes(config)
        m.submodules.rows = rows = Memory(
            shape=data.ArrayLayout(8, size), depth=self.slots, init=[]
        )
        extent = data.StructLayout({"address": config.address_bits, "size": range(size + 1)})
        m.submodules.extents = extents = Memory(shape=extent, depth=self.slots, init=[])

        int32, completed, written = Signal(), Signal(), Signal()
        m.d.comb += int32.eq(self.job.y_format == ElementFormat.INT32)
        self._announce(m, parts, int32, written)
        self._assemble(m, parts, int32, rows, extents, completed)
        self._write(m, rows, extents, completed, written)
        return m

    def _announce(self, m, parts, int32, written):
        """Tiles become parts of spans; the first of each takes the slots."""
        config, tile = self._config, self.tile
        part = data.View(part_layout(config), parts.w_data)
        before = Signal.like(part.before)
        address, left = Signal.like(part.address), Signal.like(part.left)
        first = Signal()
        columns = config.array_columns
        size = exact_log2(span_bytes(config))
        line_ends = (tile.address[:size] + Mux(int32, 4 * columns, columns)) >> size
        m.d.comb += [
            first.eq(before == 0),
            part.address.eq(Mux(first, tile.address, address)),
            part.top.eq(tile.top),
            part.left.eq(Mux(first, tile.left, left)),
            part.before.eq(before),
            part.columns.eq(before + tile.columns),
            part.completes.eq(tile.last | line_ends.any() | (self.job.y >= config.scratchpad_base)),
            parts.w_en.eq(self.announce),
        ]
        with m.If(self.announce):
            m.d.sync += before.eq(Mux(part.completes, 0, before + columns))
            with m.If(first):
                m.d.sync += [address.eq(tile.address), left.eq(tile.left)]

        free = Signal(range(self.slots + 1), init=self.slots)
        m.d.comb += [
            self.room.eq(parts.w_rdy & (~first | (free >= config.activation_rows))),
            self.empty.eq(free == self.slots),
        ]
        m.d.sync += free.eq(free + written - Mux(self.announce & first, tile.rows, 0))

    def _assemble(self, m, parts, int32, rows, extents, completed):
        """Each row that comes joins its slot."""
        config = self._config
        columns, size = config.array_columns, span_bytes(config)
        shape = part_layout(config)
        head = data.View(shape, parts.r_data)
        here, part = Signal(shape), Signal(shape)
        m.d.comb += [
            parts.r_en.eq(self.valid & self.start),
            here.eq(Mux(self.start, head.as_value(), part.as_value())),
        ]
        # Every tile of a span begins at the same slot; the last one leaves each behind.
        slot = Signal(range(self.slots))
        first_slot = Signal.like(slot)
        next_slot = Signal.like(slot)
        m.d.comb += slot.eq(Mux(self.start, first_slot, next_slot))
        # Below the diagonal of a triangle lie fewer columns.
        below, count = Signal(SIZE_BITS), Signal.like(here.columns)
        m.d.comb += [below.eq(here.top - here.left), count.eq(here.columns)]
        with m.If(self.job.triangle):
            with m.If(here.top <= here.left):
                m.d.comb += count.eq(0)
            with m.Elif(below < here.columns):
                m.d.comb += count.eq(below)

        rows_write, extents_write = rows.write_port(granularity=1), extents.write_port()
        valid = Signal()
        place = Signal(exact_log2(size))
        values = Signal(4 * columns * 8)
        m.d.sync += [valid.eq(self.valid), completed.eq(self.valid & here.completes)]
        with m.If(self.valid):
            step = Mux(self.job.triangle, here.top, self.job.y_stride)
            m.d.sync += [
                part.eq(here),
                part.address.eq(here.address + step),
                part.top.eq(here.top + 1),
                next_slot.eq(slot + 1),
                rows_write.addr.eq(slot),
                extents_write.addr.eq(slot),
                extents_write.data.address.eq(here.address),
                extents_write.data.size.eq(Mux(int32, count << 2, count)),
                place.eq(here.address + Mux(int32, here.before << 2, here.before)),
                values.eq(Mux(int32, self.totals.as_value(), self.requantised.as_value())),
            ]
            with m.If(here.completes):
                m.d.sync += first_slot.eq(slot + 1)

        # Where a row passes the end of its slot it goes on at the slot's beginning.
        word_bytes = min(config.bus_bytes, 4 * columns)
        in_bytes = _turned(values[: columns * 8], place[: exact_log2(columns)], 8)
        in_words = _turned(values, place[exact_log2(word_bytes) : exact_log2(4 * columns)],
                           8 * word_bytes)  # fmt: skip
        filled = Signal(size)
        m.d.comb += [
            filled.eq(Mux(int32, (1 << 4 * columns) - 1, (1 << columns) - 1)),
            rows_write.data.eq(
                Mux(int32, in_words.replicate(size // columns // 4),
                    in_bytes.replicate(size // columns))
            ),
            rows_write.en.eq(Mux(valid, _turned(filled, place, 1), 0)),
            extents_write.en.eq(completed),
        ]  # fmt: skip

    def _write(self, m, rows, extents, completed, written):
        """Complete rows leave in order, a word at a time."""
        bus_bytes, size = self._config.bus_bytes, span_bytes(self._config)
        rows_read, extents_read = rows.read_port(), extents.read_port()
        waiting = Signal(range(self.slots + 1))
        slot = Signal(range(self.slots))
        load, held = Signal(), Signal()
        m.d.comb += load.eq((waiting != 0) & (~held | written))
        m.d.sync += [
            waiting.eq(waiting + completed - load),
            slot.eq(slot + load),
            held.eq(load | (held & ~written)),
        ]
        for port in (rows_read, extents_read):
            m.d.comb += [port.addr.eq(slot), port.en.eq(load)]

        request, extent = self.port.request, extents_read.data
        lane_bits = exact_log2(bus_bytes)
        first_lane = extent.address[:lane_bits]
        end = Signal(range(bus_bytes + size))
        word = Signal(len(end) - lane_bits)
        last = Signal()
        number = Signal(len(extent.address) - lane_bits)
        m.d.comb += [
            end.eq(first_lane + extent.size - 1),
            last.eq(word == end[lane_bits:]),
            number.eq(extent.address[lane_bits:] + word),
            request.valid.eq(held & (extent.size != 0)),
            request.p.address.eq(number << lane_bits),
            request.p.strobe.eq(
                Cat(
                    ((word != 0) | (first_lane <= lane)) & (~last | (end[:lane_bits] >= lane))
                    for lane in range(bus_bytes)
                )
            ),
            written.eq(held & ((extent.size == 0) | (request.ready & last))),
        ]
        values = rows_read.data.as_value()
        if size > bus_bytes:
            word_of_slot = number[: exact_log2(size // bus_bytes)]
            m.d.comb += request.p.data.eq(values.word_select(word_of_slot, 8 * bus_bytes))
        else:
            m.d.comb += request.p.data.eq(values.replicate(bus_bytes // size))
        with m.If(request.valid & request.ready):
            m.d.sync += word.eq(Mux(last, 0, word + 1))


def _turned(value: Value, distance: Value, unit: int) -> Value:
    """`value` rotated left by `distance` times `unit` bits."""
    for bit, turn in enumerate(distance):
        value = Mux(turn, value.rotate_left(unit << bit), value)
    return value
