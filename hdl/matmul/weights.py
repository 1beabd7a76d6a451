"""Moves packed weight tiles from memory into the shadow registers of the array."""

from amaranth import Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.config import CardConfig
from hdl.matmul.accumulators import Accumulators
from hdl.memory.port import read_word


class TileLoader(wiring.Component):
    """Cuts words into tile rows and writes them to the array, one tile ahead of the passes.

    Members
    -------
    i : In(stream of `read_word`), packed weight tiles
    w, w_row, w_valid : Out, to the members of `SystolicArray` of the same name
    ready : Out(1), a swap in this cycle finds the tile in the shadows when it gets there
    swap : In(1), a pass starts; only while `ready`
    starved : Out(1), the tile is incomplete and its next word is not there

    Throughput: a tile in `tile_cycles`, one cycle a row but no less than `Accumulators` need
    between two uses of a row, and the array between a tile's first row and its swap.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self.tile_cycles = max(config.array_rows, Accumulators.reuse_cycles)
        super().__init__(
            {
                "i": In(stream.Signature(read_word(config))),
                "w": Out(data.ArrayLayout(signed(8), config.array_columns)),
                "w_row": Out(range(config.array_rows)),
                "w_valid": Out(1),
                "ready": Out(1),
                "swap": In(1),
                "starved": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, columns = self._config.array_rows, self._config.array_columns
        rows_per_word = min(rows, self._config.bus_bytes // columns)

        row = Signal(range(rows))
        full = Signal()
        last_row = Signal()
        within_word = Signal(range(rows_per_word))
        m.d.comb += [
            last_row.eq(row == rows - 1),
            within_word.eq(row),
            self.w.as_value().eq(self.i.p.data.word_select(within_word, columns * 8)),
            self.w_row.eq(row),
            self.w_valid.eq(self.i.valid & ~full),
            self.i.ready.eq(~full & (within_word == rows_per_word - 1)),
            self.starved.eq(~full & ~self.i.valid),
            # Unless it would come too soon, the swap may enter together with the last row.
            self.ready.eq(full | (last_row & self.i.valid & (rows == self.tile_cycles))),
        ]
        with m.If(self.swap):
            m.d.sync += full.eq(0)
        with m.If(self.w_valid):
            m.d.sync += [row.eq(row + 1), full.eq(last_row & ~self.swap)]
        return m
