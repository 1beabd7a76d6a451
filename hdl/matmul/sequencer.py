"""The tile loops of a matrix multiplication: which pass comes next, and where its operands are."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hdl.commands import MATMUL_LIMIT, Opcode, fields, layout
from hdl.config import ADDRESS_BITS, CardConfig

SIZE_BITS = MATMUL_LIMIT.bit_length()
"""Width of m, k and n."""


def pass_layout(config: CardConfig) -> data.StructLayout:
    """One pass: a block of rows of x against one weight tile.

    x_address, y_address : of the tile's first byte in row 0 of the block; any byte of a word
    rows : rows of the block
    columns : output channels of the tile
    first, last : the pass is the first, the last along K
    final : the pass is the last of the command
    """
    return data.StructLayout(
        {
            "x_address": ADDRESS_BITS,
            "y_address": ADDRESS_BITS,
            "rows": range(config.accumulator_rows + 1),
            "columns": range(config.array_columns + 1),
            "first": 1,
            "last": 1,
            "final": 1,
        }
    )


class PassSequencer(wiring.Component):
    """Walks `for m_block: for n_tile: for k_tile` and gives one pass for each step.

    Members
    -------
    command : In(MATMUL descriptor), held from `start` until the final pass is taken
    start : In(1), begin; only while `o` is not valid
    o : Out(stream of `pass_layout`)

    The first pass is offered in the cycle after `start`; then one a cycle.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "command": In(layout(fields(Opcode.MATMUL))),
                "start": In(1),
                "o": Out(stream.Signature(pass_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        block_shift = exact_log2(config.accumulator_rows)

        m_left = Signal(SIZE_BITS)
        n_left = Signal(SIZE_BITS)
        k_left = Signal(SIZE_BITS)
        first = Signal()
        x_block = Signal(ADDRESS_BITS)
        y_block = Signal(ADDRESS_BITS)
        x_tile = Signal(ADDRESS_BITS)
        y_tile = Signal(ADDRESS_BITS)

        last_m = Signal()
        last_n = Signal()
        last_k = Signal()
        m.d.comb += [
            last_m.eq(m_left <= config.accumulator_rows),
            last_n.eq(n_left <= config.array_columns),
            last_k.eq(k_left <= config.array_rows),
            self.o.p.x_address.eq(x_tile),
            self.o.p.y_address.eq(y_tile),
            self.o.p.rows.eq(Mux(last_m, m_left, config.accumulator_rows)),
            self.o.p.columns.eq(Mux(last_n, n_left, config.array_columns)),
            self.o.p.first.eq(first),
            self.o.p.last.eq(last_k),
            self.o.p.final.eq(last_k & last_n & last_m),
        ]

        next_x_block = Signal(ADDRESS_BITS)
        next_y_block = Signal(ADDRESS_BITS)
        m.d.comb += [
            next_x_block.eq(x_block + (self.command.x_stride << block_shift)),
            next_y_block.eq(y_block + (self.command.y_stride << block_shift)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                first.eq(last_k),
                k_left.eq(k_left - config.array_rows),
                x_tile.eq(x_tile + config.array_rows),
            ]
            with m.If(last_k):
                m.d.sync += [
                    k_left.eq(self.command.k),
                    x_tile.eq(x_block),
                    n_left.eq(n_left - config.array_columns),
                    y_tile.eq(y_tile + config.array_columns),
                ]
                with m.If(last_n):
                    m.d.sync += [
                        n_left.eq(self.command.n),
                        m_left.eq(m_left - config.accumulator_rows),
                        x_block.eq(next_x_block),
                        x_tile.eq(next_x_block),
                        y_block.eq(next_y_block),
                        y_tile.eq(next_y_block),
                        self.o.valid.eq(~last_m),
                    ]
        with m.If(self.start):
            m.d.sync += [
                m_left.eq(self.command.m),
                n_left.eq(self.command.n),
                k_left.eq(self.command.k),
                first.eq(1),
                x_block.eq(self.command.x),
                x_tile.eq(self.command.x),
                y_block.eq(self.command.y),
                y_tile.eq(self.command.y),
                self.o.valid.eq(1),
            ]
        return m
