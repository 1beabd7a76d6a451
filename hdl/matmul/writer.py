"""Writes the rows of each output tile to memory."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hdl.config import ADDRESS_BITS, CardConfig
from hdl.memory.port import WritePort


class RowWriter(wiring.Component):
    """Queues rows of bytes for the write port; room is reserved before a row is on its way.

    Parameters
    ----------
    depth : int
        Rows reserved or queued.

    Members
    -------
    room : Out(1), a row may be reserved
    reserve : In(1), a row will come; only with `room`
    valid : In(1), a reserved row comes now
    start : In(1), with `valid`: it is row 0 of the tile described by `next_address`, `next_columns`
    i : In(columns x unsigned(8)), the row
    next_address : In(40), of the first byte of the tile's row 0; any tile of a word
    next_columns : In, how many bytes of a row to write, from the first on
    stride : In(32), bytes from one row to the next; constant while a tile is written
    port : Out(WritePort)
    empty : Out(1), every reserved row was handed to memory

    A row is offered to memory 2 cycles after it came, if none is before it; then one a cycle.
    """

    latency = 2

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "room": Out(1),
                "reserve": In(1),
                "valid": In(1),
                "start": In(1),
                "i": In(data.ArrayLayout(8, config.array_columns)),
                "next_address": In(ADDRESS_BITS),
                "next_columns": In(range(config.array_columns + 1)),
                "stride": In(32),
                "port": Out(WritePort(config)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        columns = self._config.array_columns
        tile_bits = exact_log2(columns)
        word_bits = exact_log2(self._config.bus_bytes)
        row_layout = data.StructLayout(
            {"address": ADDRESS_BITS, "strobe": columns, "data": columns * 8}
        )
        m.submodules.queue = queue = SyncFIFOBuffered(width=row_layout.size, depth=self._depth)

        following = Signal(ADDRESS_BITS)
        strobe = Signal(columns)
        row = Signal(row_layout)
        m.d.comb += [
            row.address.eq(Mux(self.start, self.next_address, following)),
            row.strobe.eq(Mux(self.start, (1 << self.next_columns) - 1, strobe)),
            row.data.eq(self.i),
            queue.w_data.eq(row),
            queue.w_en.eq(self.valid),
        ]
        with m.If(self.valid):
            m.d.sync += [following.eq(row.address + self.stride), strobe.eq(row.strobe)]

        # Every lane of the bus word carries the row; the strobe picks the tile's.
        head = data.View(row_layout, queue.r_data)
        lane = head.address[tile_bits:word_bits]
        request = self.port.request
        m.d.comb += [
            request.valid.eq(queue.r_rdy),
            request.p.address.eq(head.address[word_bits:] << word_bits),
            request.p.data.eq(head.data.replicate(self._config.bus_bytes // columns)),
            request.p.strobe.word_select(lane, columns).eq(head.strobe),
            queue.r_en.eq(request.ready),
        ]

        free = Signal(range(self._depth + 1), init=self._depth)
        handed_over = Signal()
        m.d.comb += [
            handed_over.eq(request.valid & request.ready),
            self.room.eq(free != 0),
            self.empty.eq(free == self._depth),
        ]
        m.d.sync += free.eq(free - self.reserve + handed_over)
        return m
