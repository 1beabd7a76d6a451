"""Whether a command's output overlaps an input where it must not."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import CardConfig


def extent_layout(config: CardConfig) -> data.StructLayout:
    """Bytes from `start` to before `end`; if `many`, rows of `row_bytes`, `stride` apart.
    `written`: by the command, which may do so `in_place`; of an operand that is read, whether it
    may there."""
    return data.StructLayout(
        {
            "start": config.address_bits,
            "end": config.address_bits,
            "many": 1,
            "stride": 32,
            "row_bytes": config.address_bits,
            "written": 1,
            "in_place": 1,
            "detail": 8,
        }
    )


FINDING = data.StructLayout({"overlaps": 1, "detail": 8})
"""Whether the operand overlaps the one written, and the `detail` that came with it."""


class OverlapChecker(wiring.Component):
    """Compares each operand of a command with the one that is written, which comes first if any.
    Findings mean something if all of them lie in card memory.

    Two operands whose extents meet are apart all the same if their rows have one stride and lie in
    different columns. A command that works `in_place` may write the very rows that it reads
    `in_place`, if they are as long as what it writes.

    Members
    -------
    restart : In(1), a new command: forget what the one before writes
    i : In(stream of `extent_layout`, always ready)
    o : Out(stream of `FINDING`, always ready), in the order of `i`

    One operand a cycle; `latency` cycles from operand to finding.
    """

    latency = 1

    def __init__(self, config: CardConfig):
        super().__init__(
            {
                "restart": In(1),
                "i": In(stream.Signature(extent_layout(config), always_ready=True)),
                "o": Out(stream.Signature(FINDING, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i = self.i.p
        output = Signal(i.shape())
        valid = Signal()
        read = Signal(i.shape())
        with m.If(self.restart):
            m.d.sync += output.eq(0)
        with m.Elif(self.i.valid & i.written):
            m.d.sync += output.eq(i)
        m.d.sync += [valid.eq(self.i.valid), read.eq(i)]

        # All comparisons in the cycle before they are combined.
        meets, same_start, same_stride, long_enough = (
            Signal(name=name) for name in ("meets", "same_start", "same_stride", "long_enough")
        )
        # Of the output's start, in two's complement; no start has the highest bit.
        ahead, behind = (Signal(i.start.shape(), name=name) for name in ("ahead", "behind"))
        m.d.sync += [
            meets.eq((i.start < output.end) & (output.start < i.end)),
            same_start.eq(i.start == output.start),
            same_stride.eq(~i.many | (i.stride == output.stride)),
            long_enough.eq(i.row_bytes >= output.row_bytes),
            ahead.eq(i.start - output.start),
            behind.eq(output.start - i.start),
        ]
        later = ~ahead[-1]
        gap = Mux(later, ahead, behind)
        first = Mux(later, output.row_bytes, read.row_bytes)
        second = Mux(later, read.row_bytes, output.row_bytes)
        apart = read.many & same_stride & (gap >= first) & (gap + second <= output.stride)
        itself = output.in_place & read.in_place & same_start & same_stride & long_enough
        m.d.comb += [
            self.o.valid.eq(valid & ~read.written),
            self.o.p.overlaps.eq(meets & ~apart & ~itself),
            self.o.p.detail.eq(read.detail),
        ]
        return m
