"""int32 accumulators: a row for each row of the block, for each output tile of the group."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.array import OPERAND_BITS


class Accumulators(wiring.Component):
    """Adds the sums of each pass to those of the passes before it, modulo 2**32.

    Members
    -------
    row : In(1), the array gives a row of sums in the next cycle
    start : In(1), with `row`: it is row 0 of the block; rows follow in order
    tile : In, with `start`: output tile within the group
    first : In(1), with `row`: nothing was accumulated before
    keep : In(1), with `row`: store the totals for the next pass
    sums : In(columns x signed), the row announced in the cycle before
    totals : Out(columns x signed(32))

    `latency` = 1 from `sums` to `totals`. Throughput: one row a cycle. A row of a tile may return
    `reuse_cycles` after it was announced, no sooner.
    """

    latency = 1
    reuse_cycles = 3

    def __init__(self, config: CardConfig):
        self._config = config
        columns = config.array_columns
        sum_bits = 2 * OPERAND_BITS - 1 + ceil_log2(config.array_rows)
        super().__init__(
            {
                "row": In(1),
                "start": In(1),
                "tile": In(range(config.group_tiles)),
                "first": In(1),
                "keep": In(1),
                "sums": In(data.ArrayLayout(signed(sum_bits), columns)),
                "totals": Out(data.ArrayLayout(signed(32), columns)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        columns, depth = self._config.array_columns, self._config.accumulator_rows
        m.submodules.memory = memory = Memory(
            shape=data.ArrayLayout(signed(32), columns), depth=depth, init=[]
        )
        read, write = memory.read_port(), memory.write_port()

        # Cycle 0: announced, address out. 1: sums and stored row meet. 2: totals out, written.
        following = Signal(range(depth))
        read_address = Signal(range(depth))
        block = self.tile << exact_log2(self._config.activation_rows)
        m.d.comb += [
            read_address.eq(Mux(self.start, block, following)),
            read.addr.eq(read_address),
            read.en.eq(self.row & ~self.first),
        ]
        with m.If(self.row):
            m.d.sync += following.eq(read_address + 1)

        row = Signal()
        first = Signal()
        keep = Signal()
        add_address = Signal(range(depth))
        m.d.sync += [
            row.eq(self.row),
            first.eq(self.first),
            keep.eq(self.row & self.keep),
            add_address.eq(read_address),
            write.en.eq(keep),
            write.addr.eq(add_address),
        ]
        with m.If(row):
            for column in range(columns):
                stored = Mux(first, 0, read.data[column])
                m.d.sync += self.totals[column].eq(stored + self.sums[column])
        m.d.comb += write.data.eq(self.totals)
        return m
