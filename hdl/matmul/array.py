"""The systolic array: weights stay, activations run right, partial sums run down."""

from amaranth import Const, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

OPERAND_BITS = 9
"""Bits of a signed operand: an 8-bit number of either sign less its zero point."""


class SystolicArray(wiring.Component):
    """Multiplies rows of activations by a resident tile of weights, one row a cycle.

    There is no flow control inside: a row offered in cycle `t` gives its sums in cycle
    `t + latency`, whatever lies around it. Only rows offered with `valid` move anything, so that
    an idle array costs no switching, in hardware as in simulation; the sums of other cycles mean
    nothing.

    A stage is `rows_per_stage` rows whose products are added in one step; a row of activations
    passes one stage a cycle. Each processing element holds an active weight and a shadow. The
    tile's rows are written to the shadows, one stage a cycle; a row of activations that comes with
    `swap` and all rows after it are multiplied by what the shadows held. A swap in cycle `s` takes
    stage `i` as offered in the cycles up to `s + i - load_lead`; stage `i` of the tile after it may
    be offered from the cycle `s + i - load_lead + 1` on. In order from stage 0, the first in the
    cycle after a swap, a tile may therefore follow each `max(stages, 3)` cycles.

    Parameters
    ----------
    rows, columns : int
        Processing elements along K and N.
    rows_per_stage : int
        Rows whose products are added in one step; divides `rows`.

    Members
    -------
    x : In(rows x signed(9)), activations
    valid : In(1), `x` is a row
    swap : In(1), with `valid`: it is the first row for the weights in the shadows
    w : In(rows_per_stage x columns x signed(9)), one stage of the next tile
    w_stage : In(stage number of `w`)
    w_valid : In(1), write `w` to the shadows of `w_stage`
    y : Out(columns x signed(sum_bits)), sums over the rows, exact

    `latency` = stages + columns + 1. Throughput: one row and one stage of weights a cycle.
    """

    load_lead = 2

    def __init__(self, *, rows: int, columns: int, rows_per_stage: int = 1):
        if rows < 2 or columns < 1:
            raise ValueError(f"rows={rows}, columns={columns}: at least 2 rows and 1 column")
        if rows % rows_per_stage:
            raise ValueError(f"rows_per_stage={rows_per_stage}: must divide rows={rows}")
        self.rows = rows
        self.columns = columns
        self.rows_per_stage = rows_per_stage
        self.stages = rows // rows_per_stage
        self.latency = self.stages + columns + 1
        # A number less its zero point lies in -255..255, so a product is inside 17 bits.
        self._product_bits = 2 * OPERAND_BITS - 1
        self.sum_bits = self._product_bits + ceil_log2(rows)
        operand = signed(OPERAND_BITS)
        super().__init__(
            {
                "x": In(data.ArrayLayout(operand, rows)),
                "valid": In(1),
                "swap": In(1),
                "w": In(data.ArrayLayout(data.ArrayLayout(operand, columns), rows_per_stage)),
                "w_stage": In(range(self.stages)),
                "w_valid": In(1),
                "y": Out(data.ArrayLayout(signed(self.sum_bits), columns)),
            }
        )

    def elaborate(self, platform):
        m = Module()

        def chain(value: Value, name: str, length: int) -> list[Value]:
            """`value` now and in each of the next `length` cycles."""
            taps = [value]
            for i in range(length):
                tap = Signal(value.shape(), name=f"{name}_{i + 1}")
                m.d.sync += tap.eq(taps[-1])
                taps.append(tap)
            return taps

        def follow(value: Value, enables: list[Value], name: str) -> Value:
            """`value` after one register for each of `enables`, which lets it pass."""
            for i, enable in enumerate(enables):
                stage = Signal(value.shape(), name=f"{name}_{i}", reset_less=True)
                with m.If(enable):
                    m.d.sync += stage.eq(value)
                value = stage
            return value

        # valid[d] and swap[d] reach the elements of diagonal stage + column = d one cycle ahead of
        # the activation.
        valid = chain(self.valid, "valid", self.latency - 1)
        swap = chain(self.valid & self.swap, "swap", self.stages + self.columns - 2)

        # Weights travel right along the columns; in each they are offered to every stage.
        write = Signal(self.stages)
        m.d.comb += write.eq(self.w_valid << self.w_stage)
        loads = chain(self.w_valid, "load", self.columns)
        writes = chain(write, "write", self.columns)

        sums: list[Value] = [Const(0)] * self.columns
        shadows = [
            [
                follow(self.w[p][c], loads[: c + 1], f"weight_{p}_{c}")
                for p in range(self.rows_per_stage)
            ]
            for c in range(self.columns)
        ]
        for i in range(self.stages):
            lanes = range(self.rows_per_stage)
            activations = []
            for p in lanes:
                r = i * self.rows_per_stage + p
                activations.append(follow(self.x[r], valid[: i + 1], f"x_{r}"))
            for c in range(self.columns):
                products = []
                for p in lanes:
                    place = f"{i * self.rows_per_stage + p}_{c}"
                    shadow = Signal(signed(OPERAND_BITS), name=f"shadow_{place}", reset_less=True)
                    active = Signal(signed(OPERAND_BITS), name=f"active_{place}", reset_less=True)
                    with m.If(writes[c + 1][i]):
                        m.d.sync += shadow.eq(shadows[c][p])
                    with m.If(swap[i + c]):
                        m.d.sync += active.eq(shadow)
                    product = Signal(
                        signed(self._product_bits), name=f"product_{place}", reset_less=True
                    )
                    with m.If(valid[i + c + 1]):
                        m.d.sync += product.eq(activations[p] * active)
                        if c + 1 < self.columns:
                            following = Signal(
                                signed(OPERAND_BITS), name=f"activation_{place}", reset_less=True
                            )
                            m.d.sync += following.eq(activations[p])
                            activations[p] = following
                    products.append(product)
                rows_so_far = (i + 1) * self.rows_per_stage
                partial = Signal(
                    signed(self._product_bits + ceil_log2(rows_so_far)),
                    name=f"sum_{i}_{c}",
                    reset_less=True,
                )
                with m.If(valid[i + c + 2]):
                    m.d.sync += partial.eq(sum(products, start=sums[c]))
                sums[c] = partial

        for c in range(self.columns):
            enables = valid[self.stages + c + 2 : self.latency]
            m.d.comb += self.y[c].eq(follow(sums[c], enables, f"y_{c}"))
        return m
