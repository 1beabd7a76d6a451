"""Rows that touch on both sides are one long row: fewer, larger packets and bursts."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS

MOVE = layout(fields(Opcode.LOAD))
"""LOAD, COPY and STORE share one layout."""


class RowMerger(wiring.Component):
    """Rewrites a LOAD, COPY or STORE to an equal one of a single row, where there is one.

    That is where both strides equal the row and the whole block has less than 4 GiB. Anything else
    passes unchanged, SIGNAL included but for fields that it does not have, and TRANSPOSE.

    Parameters
    ----------
    config : CardConfig, in whose memory one side of the block lies

    Members
    -------
    i : In(stream of 512 bits), a checked descriptor
    o : Out(stream of 512 bits), the descriptor to run

    Takes 2 cycles, and one for each significant bit of `rows` where it multiplies.
    """

    def __init__(self, config: CardConfig):
        self._bits = config.count_bits
        super().__init__(
            {
                "i": In(stream.Signature(DESCRIPTOR_BITS)),
                "o": Out(stream.Signature(DESCRIPTOR_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        raw = Signal(DESCRIPTOR_BITS)
        move = data.View(MOVE, raw)
        m.d.comb += self.o.p.eq(raw)

        # Shift and add; what is too large for a count sets the highest bit, which then stays.
        bits = self._bits
        rows = Signal(bits)
        term = Signal(bits + 1)
        total = Signal(bits + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += raw.eq(self.i.p)
                with m.If(self.i.valid):
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                touching = (move.source_stride == move.row_bytes) & (
                    move.destination_stride == move.row_bytes
                )
                m.d.sync += [rows.eq(move.rows), term.eq(move.row_bytes), total.eq(0)]
                with m.If(touching & (move.rows > 1) & (move.opcode != Opcode.TRANSPOSE)):
                    m.next = "MULTIPLY"
                with m.Else():
                    m.next = "OUTPUT"
            with m.State("MULTIPLY"):
                m.d.sync += [
                    rows.eq(rows >> 1),
                    term[1:bits].eq(term[: bits - 1]),
                    term[0].eq(0),
                    term[bits].eq(term[bits - 1] | term[bits]),
                ]
                with m.If(rows[0]):
                    sum_ = total[:bits] + term[:bits]
                    m.d.sync += [
                        total[:bits].eq(sum_),
                        total[bits].eq(sum_[bits] | term[bits] | total[bits]),
                    ]
                with m.If(rows == 0):
                    with m.If(~total[bits]):
                        m.d.sync += [move.rows.eq(1), move.row_bytes.eq(total)]
                    m.next = "OUTPUT"
            with m.State("OUTPUT"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
