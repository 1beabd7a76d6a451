"""Whether an operand lies in DRAM or in the scratchpad of its core."""

from itertools import product

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl.config import CardConfig

TAIL_BITS = 41
"""Of the longest that follows the steps of an operand: a whole matrix of a TRANSPOSE."""
_FACTOR_BITS, _WORD_BITS = 32, 16
"""Of `steps` and `stride`, and of the words that they are multiplied in."""


def operand_layout(config: CardConfig) -> data.StructLayout:
    """`steps * stride + tail` bytes, 1 or more if `needed`, from card address `base`."""
    return data.StructLayout(
        {
            "base": 64,
            "steps": _FACTOR_BITS,
            "stride": _FACTOR_BITS,
            "tail": TAIL_BITS,
            "needed": 1,
            "detail": 8,
            "core": max(1, ceil_log2(config.cores)),
        }
    )


def verdict_layout(config: CardConfig) -> data.StructLayout:
    """Whether the operand leaves its region, the address after its last byte if it does not, and
    the `detail` that came with it."""
    return data.StructLayout({"outside": 1, "end": config.address_bits, "detail": 8})


class RangeChecker(wiring.Component):
    """Compares an operand's whole extent with the regions of card memory.

    Exactly, but no wider than the memory is large: of each summand the bits beyond are looked at,
    not added.

    Members
    -------
    i : In(stream of `operand_layout`, always ready)
    o : Out(stream of `verdict_layout`, always ready), in the order of `i`

    One operand a cycle; `latency` cycles from operand to verdict. An operand that is not needed is
    never outside.
    """

    latency = 5

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(operand_layout(config), always_ready=True)),
                "o": Out(stream.Signature(verdict_layout(config), always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        dram_bits = max(0, config.dram_bytes.bit_length() - 1)
        scratchpad_bits = exact_log2(config.scratchpad_bytes)
        bits = max(dram_bits, scratchpad_bits) + 1  # of the room from a base to its region's end

        def delayed(value, cycles):
            """`value` some cycles later."""
            for _ in range(cycles):
                late = Signal(value.shape())
                m.d.sync += late.eq(value)
                value = late
            return value

        i = self.i.p
        # Cycle 1: products of words, each with its place; where the base lies.
        words = range(0, min(bits, _FACTOR_BITS), _WORD_BITS)
        products = []
        for a, b in product(words, words):
            left, right = i.steps[:bits][a : a + _WORD_BITS], i.stride[:bits][b : b + _WORD_BITS]
            products.append((a + b, delayed(left * right, 1)))
        tail = delayed(i.tail[:bits], 1)
        long = Signal()
        m.d.sync += long.eq(
            (i.steps[bits:].any() & i.stride.any())
            | (i.stride[bits:].any() & i.steps.any())
            | i.tail[bits:].any()
        )
        base = delayed(i.base[: config.address_bits], 1)
        far = delayed(i.base[config.address_bits :].any(), 1)
        above_dram = Signal(config.address_bits)
        m.d.sync += above_dram.eq(i.base - config.scratchpad_base)
        core = delayed(i.core, 1)

        # Cycle 2: sums of equal weight; the region and the offset within it.
        def placed(weight):
            return sum((part << place)[:bits] for place, part in products if place == weight)

        beyond = Cat(part[max(0, bits - place) :].any() for place, part in products).any()
        low, middle = Signal(bits + 1), Signal(bits + 1)
        high = delayed(Value.cast(placed(2 * _WORD_BITS)), 1)
        longer = Signal()
        offset = Signal(bits)
        in_dram, in_region = Signal(), Signal()
        m.d.comb += in_dram.eq(~base[dram_bits:].any() if config.dram_bytes else 0)
        m.d.sync += [
            low.eq(placed(0) + tail),
            middle.eq(placed(_WORD_BITS)),
            longer.eq(long | beyond),
            offset.eq(Mux(in_dram, base[:dram_bits], above_dram[:scratchpad_bits])),
            in_region.eq(~far & (in_dram | (above_dram[scratchpad_bits:] == core))),
        ]
        size = Signal(bits)
        m.d.sync += size.eq(Mux(in_dram, config.dram_bytes, config.scratchpad_bytes))

        # Cycles 3 and 4: the extent; the room from the base to the region's end.
        low_sum, extent, room = Signal(bits + 2), Signal(bits + 2), Signal(bits)
        m.d.sync += [
            low_sum.eq(low + middle),
            extent.eq(low_sum + delayed(high, 1)),
            room.eq(size - offset),
        ]

        # Cycle 5: the verdict.
        needed, bad = delayed(i.needed, 4), delayed(~in_region | longer, 2)
        m.d.sync += [
            self.o.p.outside.eq(needed & (bad | (extent > delayed(room, 1)))),
            self.o.p.end.eq(delayed(base, 3) + extent),
        ]
        m.d.comb += [
            self.o.p.detail.eq(delayed(i.detail, self.latency)),
            self.o.valid.eq(delayed(self.i.valid, self.latency)),
        ]
        return m
