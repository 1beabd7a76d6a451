"""Writes the rows of each output tile to memory."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hdl.commands import ElementFormat
from hdl.config import ADDRESS_BITS, CardConfig
from hdl.matmul.job import JOB, SIZE_BITS
from hdl.memory.port import WritePort


def tile_layout(config: CardConfig) -> data.StructLayout:
    """Where a tile of outputs goes.

    address : of the first output
    columns : outputs of a row
    top, left : number of the first row and column of the tile
    """
    return data.StructLayout(
        {
            "address": ADDRESS_BITS,
            "columns": range(config.array_columns + 1),
            "top": SIZE_BITS,
            "left": SIZE_BITS,
        }
    )


class RowWriter(wiring.Component):
    """Queues rows of outputs for the write port; room is reserved before a row is on its way.

    Parameters
    ----------
    depth, tiles : int
        Rows reserved or queued, tiles announced.

    Members
    -------
    job : In(JOB), constant while its rows are written
    tile_room : Out(1), a tile may be announced
    announce : In(1), with `tile_room`: rows of `tile` will come, after those of the tiles before
    tile : In(`tile_layout`)
    room : Out(1), a row may be reserved
    reserve : In(1), with `room`: a row will come
    valid : In(1), a reserved row comes now
    start : In(1), with `valid`: it is row 0 of the next announced tile
    requantised : In(columns x 8), the row, unless the job's format is INT32
    totals : In(columns x 32), the row if it is
    port : Out(WritePort)
    empty : Out(1), every reserved row was handed to memory

    A row is offered to memory `latency` cycles after it came, if none is before it; then one word
    a cycle. A row of bytes is one word, or two where a triangle's row straddles a word's end; one
    of int32 takes as many words as it fills.
    """

    latency = 3

    def __init__(self, config: CardConfig, depth: int, tiles: int):
        self._config = config
        self._depth = depth
        self._tiles = tiles
        columns = config.array_columns
        super().__init__(
            {
                "job": In(JOB),
                "tile_room": Out(1),
                "announce": In(1),
                "tile": In(tile_layout(config)),
                "room": Out(1),
                "reserve": In(1),
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
        columns, bus_bytes = self._config.array_columns, self._config.bus_bytes
        row_bytes = 4 * columns
        shape = tile_layout(self._config)
        m.submodules.tiles = tiles = SyncFIFO(width=shape.size, depth=self._tiles)
        row_layout = data.StructLayout(
            {"address": ADDRESS_BITS, "strobe": row_bytes + bus_bytes, "data": row_bytes * 8}
        )
        m.submodules.queue = queue = SyncFIFOBuffered(width=row_layout.size, depth=self._depth)

        # Where the row goes and how much of it.
        int32 = Signal()
        head = data.View(shape, tiles.r_data)
        here, tile = Signal(shape), Signal(shape)
        m.d.comb += [
            int32.eq(self.job.y_format == ElementFormat.INT32),
            self.tile_room.eq(tiles.w_rdy),
            tiles.w_data.eq(self.tile),
            tiles.w_en.eq(self.announce),
            tiles.r_en.eq(self.valid & self.start),
            here.eq(Mux(self.start, head.as_value(), tile.as_value())),
        ]
        count = Signal.like(here.columns)
        below = Signal(SIZE_BITS)
        m.d.comb += [
            below.eq(here.top - here.left),
            count.eq(here.columns),
        ]
        with m.If(self.job.triangle):
            with m.If(here.top <= here.left):
                m.d.comb += count.eq(0)
            with m.Elif(below < here.columns):
                m.d.comb += count.eq(below)
        valid = Signal()
        address = Signal(ADDRESS_BITS)
        size = Signal(range(row_bytes + 1))
        values = Signal(row_bytes * 8)
        m.d.sync += valid.eq(self.valid)
        with m.If(self.valid):
            step = Mux(self.job.triangle, here.top, self.job.y_stride)
            m.d.sync += [
                tile.eq(here),
                tile.address.eq(here.address + step),
                tile.top.eq(here.top + 1),
                address.eq(here.address),
                size.eq(Mux(int32, count << 2, count)),
                values.eq(Mux(int32, self.totals.as_value(), self.requantised.as_value())),
            ]

        # Bytes turn until they stand where their address wants them.
        row = Signal(row_layout)
        dropped = Signal()
        bytes_of_row = values[: columns * 8]
        turned = bytes_of_row
        for bit in range(exact_log2(columns)):
            turned = Mux(address[bit], turned.rotate_left(8 << bit), turned)
        within = address[: exact_log2(bus_bytes)]
        m.d.comb += [
            row.address.eq(address),
            row.strobe.eq(Cat(size > byte for byte in range(row_bytes)) << within),
            row.data.eq(Mux(int32, values, turned)),
            queue.w_data.eq(row),
            queue.w_en.eq(valid & (size != 0)),
            dropped.eq(valid & (size == 0)),
        ]

        # Every lane of the bus word carries the row; the strobe picks what counts.
        request = self.port.request
        oldest = data.View(row_layout, queue.r_data)
        words = -(-(row_bytes + bus_bytes) // bus_bytes)
        word = Signal(range(words))
        word_bits = exact_log2(bus_bytes)
        later = Signal(words)
        integers = (
            oldest.data.word_select(word, bus_bytes * 8)
            if row_bytes >= bus_bytes
            else oldest.data.replicate(bus_bytes // row_bytes)
        )
        strobes = [oldest.strobe[n * bus_bytes : (n + 1) * bus_bytes] for n in range(words)]
        lanes = oldest.data[: columns * 8].replicate(bus_bytes // columns)
        handed_over = Signal()
        m.d.comb += [
            later.eq(Cat(Cat(strobes[n + 1 :]).any() for n in range(words - 1))),
            request.valid.eq(queue.r_rdy),
            request.p.address.eq((oldest.address[word_bits:] + word) << word_bits),
            request.p.data.eq(Mux(int32, integers, lanes)),
            handed_over.eq(request.valid & request.ready & ~later.bit_select(word, 1)),
            queue.r_en.eq(handed_over),
        ]
        with m.Switch(word):
            for n, strobe in enumerate(strobes):
                with m.Case(n):
                    m.d.comb += request.p.strobe.eq(strobe)
        with m.If(request.valid & request.ready):
            m.d.sync += word.eq(Mux(handed_over, 0, word + 1))

        free = Signal(range(self._depth + 1), init=self._depth)
        m.d.comb += [self.room.eq(free != 0), self.empty.eq(free == self._depth)]
        m.d.sync += free.eq(free - self.reserve + handed_over + dropped)
        return m
