"""The systolic array: weights stay, activations run right, partial sums run down."""

from amaranth import Const, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hdl.arith.pipeline import register


class SystolicArray(wiring.Component):
    """Multiplies rows of uint8 by a resident tile of int8 weights, one row a cycle.

    There is no flow control inside: a row offered in cycle `t` gives its sums in cycle
    `t + latency`, whatever lies around it. Cycles whose row means nothing give sums that mean
    nothing; whoever feeds the array remembers which is which.

    Each processing element holds an active weight and a shadow. Tile rows are written to the
    shadows; a row of activations that comes with `swap` and all rows after it are multiplied by
    what the shadows held. A swap in cycle `s` takes tile row `r` as offered in the cycles up to
    `s + r - load_lead`; row `r` of the tile after it may be offered from the cycle
    `s + r - load_lead + 1` on. One tile row a cycle, in order from row 0, the first in the cycle
    after a swap, therefore lets a tile follow each `max(rows, 3)` cycles.

    Parameters
    ----------
    rows, columns : int
        Processing elements along K and N.

    Members
    -------
    x : In(rows x unsigned(8)), activations
    swap : In(1), `x` is the first row for the weights in the shadows
    w : In(columns x signed(8)), one row of the next tile
    w_row : In(row number of `w`)
    w_valid : In(1), write `w` to the shadows of `w_row`
    y : Out(columns x signed(sum_bits)), sums over the rows, exact

    `latency` = rows + columns + 1. Throughput: one row and one tile row a cycle.
    """

    load_lead = 2

    def __init__(self, *, rows: int, columns: int):
        if rows < 2 or columns < 1:
            raise ValueError(f"rows={rows}, columns={columns}: at least 2 rows and 1 column")
        self.rows = rows
        self.columns = columns
        self.latency = rows + columns + 1
        # A product lies in -128*255..127*255, inside 16 bits.
        self.sum_bits = 16 + ceil_log2(rows)
        super().__init__(
            {
                "x": In(data.ArrayLayout(8, rows)),
                "swap": In(1),
                "w": In(data.ArrayLayout(signed(8), columns)),
                "w_row": In(range(rows)),
                "w_valid": In(1),
                "y": Out(data.ArrayLayout(signed(self.sum_bits), columns)),
            }
        )

    def elaborate(self, platform):
        m = Module()

        # swap[d] reaches the elements of diagonal r + c = d, one cycle ahead of the activation.
        swap = [self.swap]
        for diagonal in range(1, self.rows + self.columns - 1):
            swap.append(register(m, swap[-1], f"swap_{diagonal}"))

        # A tile row travels right along the columns; in each it is offered to every element.
        write = Signal(self.rows)
        m.d.comb += write.eq(self.w_valid << self.w_row)
        writes = []
        for column in range(self.columns):
            write = register(m, write, f"write_{column}")
            writes.append(write)
        weights = [register(m, self.w[c], f"weight_{c}", cycles=c + 1) for c in range(self.columns)]

        sums: list[Value] = [Const(0)] * self.columns
        for r in range(self.rows):
            activation = register(m, self.x[r], f"x_{r}", cycles=r + 1)
            for c in range(self.columns):
                shadow = Signal(signed(8), name=f"shadow_{r}_{c}", reset_less=True)
                active = Signal(signed(8), name=f"active_{r}_{c}", reset_less=True)
                with m.If(writes[c][r]):
                    m.d.sync += shadow.eq(weights[c])
                with m.If(swap[r + c]):
                    m.d.sync += active.eq(shadow)
                product = register(m, activation * active, f"product_{r}_{c}")
                partial = Signal(
                    signed(16 + ceil_log2(r + 1)), name=f"sum_{r}_{c}", reset_less=True
                )
                m.d.sync += partial.eq(sums[c] + product)
                sums[c] = partial
                if c + 1 < self.columns:
                    activation = register(m, activation, f"activation_{r}_{c}")

        m.d.comb += [
            self.y[c].eq(register(m, sums[c], f"y_{c}", cycles=self.columns - 1 - c))
            for c in range(self.columns)
        ]
        return m
