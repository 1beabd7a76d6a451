"""Whether an operand lies in DRAM or in the scratchpad of its core."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl.config import ADDRESS_BITS, CardConfig

TAIL_BITS = 41
"""Of the longest that follows the steps of an operand: a whole matrix of a TRANSPOSE."""
_PRODUCT_BITS = 64
_EXTENT_BITS = _PRODUCT_BITS + 1


def operand_layout(config: CardConfig) -> data.StructLayout:
    """`steps * stride + tail` bytes, 1 or more if `needed`, from card address `base`."""
    return data.StructLayout(
        {
            "base": 64,
            "steps": 32,
            "stride": 32,
            "tail": TAIL_BITS,
            "needed": 1,
            "detail": 8,
            "core": max(1, ceil_log2(config.cores)),
        }
    )


VERDICT = data.StructLayout({"outside": 1, "end": ADDRESS_BITS + 1, "detail": 8})
"""Whether the operand leaves its region, the address after its last byte if it does not, and the
`detail` that came with it."""


class RangeChecker(wiring.Component):
    """Compares an operand's whole extent with the regions of card memory, in exact arithmetic.

    Members
    -------
    i : In(stream of `operand_layout`, always ready)
    o : Out(stream of `VERDICT`, always ready), in the order of `i`

    One operand a cycle; `latency` cycles from operand to verdict. An operand that is not needed is
    never outside.
    """

    latency = 5

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(operand_layout(config), always_ready=True)),
                "o": Out(stream.Signature(VERDICT, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        dram_bits = max(0, config.dram_bytes.bit_length() - 1)
        scratchpad_bits = exact_log2(config.scratchpad_bytes)
        room_bits = max(dram_bits, scratchpad_bits) + 1

        def delayed(signal, cycles):
            """`signal` some cycles later."""
            for _ in range(cycles):
                late = Signal.like(signal, init=0)
                m.d.sync += late.eq(signal)
                signal = late
            return signal

        i = self.i.p
        # Cycle 1: 16 x 16 bit products; where the base lies in relation to the scratchpads.
        products = {}
        for a in (0, 1):
            for b in (0, 1):
                products[a, b] = Signal(32, name=f"product_{a}{b}")
                m.d.sync += products[a, b].eq(
                    i.steps.word_select(a, 16) * i.stride.word_select(b, 16)
                )
        tail = delayed(i.tail, 1)
        base = delayed(i.base[:ADDRESS_BITS], 1)
        far = delayed(i.base[ADDRESS_BITS:].any(), 1)
        above_dram = Signal(ADDRESS_BITS)
        m.d.sync += above_dram.eq(i.base[:ADDRESS_BITS] - config.scratchpad_base)
        core = delayed(i.core, 1)

        # Cycle 2: sums of equal weight; the region and the offset within it.
        middle, low = Signal(33), Signal(TAIL_BITS + 1)
        high = delayed(products[1, 1], 1)
        offset = Signal(room_bits)
        in_dram, in_region = Signal(), Signal()
        m.d.comb += in_dram.eq(~base[dram_bits:].any() if config.dram_bytes else 0)
        m.d.sync += [
            middle.eq(products[0, 1] + products[1, 0]),
            low.eq(products[0, 0] + tail),
            offset.eq(Mux(in_dram, base[:dram_bits], above_dram[:scratchpad_bits])),
            in_region.eq(~far & (in_dram | (above_dram[scratchpad_bits:] == core))),
        ]
        size = Signal(room_bits)
        m.d.sync += size.eq(Mux(in_dram, config.dram_bytes, config.scratchpad_bytes))

        # Cycles 3 and 4: the extent, low part first; the room from the base to the region's end.
        low_sum, room = Signal(50), Signal(room_bits)
        m.d.sync += [low_sum.eq(low + (middle << 16)), room.eq(size - offset)]
        extent = Signal(_EXTENT_BITS)
        m.d.sync += [
            extent[:32].eq(low_sum[:32]),
            extent[32:].eq(low_sum[32:] + delayed(high, 1)),
        ]

        # Cycle 5: the verdict.
        needed, inside = delayed(i.needed, 4), delayed(in_region, 2)
        m.d.sync += [
            self.o.p.outside.eq(needed & (~inside | (extent > delayed(room, 1)))),
            self.o.p.end.eq(delayed(base, 3) + extent[: ADDRESS_BITS + 1]),
        ]
        m.d.comb += [
            self.o.p.detail.eq(delayed(i.detail, self.latency)),
            self.o.valid.eq(delayed(self.i.valid, self.latency)),
        ]
        return m
