"""The constants of an ADD_QUANTISED, MULTIPLY_QUANTISED or AVERAGE, once a command, in fixed point.

What these commands add are a byte times a float32, or a product of two, and a float32. The checker
keeps the floats within bounds, so that all sums fit a window of `WINDOW_BITS`: bit 0 stands for
whatever lies below the others, and bit `FRACTION_BITS` is worth 1. Nothing in it was rounded:

- a ratio is an integer times 2**-39, the least of those has 24 bits above that;
- an offset with bits below 2**-41 is less than 2**-17, so that the sum of it and the product of a
  byte, 2**-16 and more, still has a bit below the 24 to which it is rounded: it matters alone
  whether there is something below. Added to nothing, it is not rounded, and it matters no more
  when the other product, a multiple of 2**-39, is added.
"""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import align
from halfdome.hdl.commands import OFFSET_LIMIT, RATIO_EXPONENTS, ElementFormat, Flag, Opcode
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS

_RATIO_BITS = FLOAT32.significand_bits - RATIO_EXPONENTS.start
"""Fraction bits of a product."""
BELOW_RATIO = 3
"""Two bits to round by, and the one for the rest."""
FRACTION_BITS = _RATIO_BITS + BELOW_RATIO
WINDOW_BITS = FRACTION_BITS + OFFSET_LIMIT.bit_length() + 1
"""The sum of two products and an offset, and its sign."""
COARSE = len(RATIO_EXPONENTS) // 2
"""Bits by which a product is moved up if its factor is `high`."""
FACTOR_BITS = FLOAT32.precision + COARSE
"""Of a significand that was moved up by less than `COARSE` bits, and its sign."""

TERM_BITS = 1 + 8 + FLOAT32.precision
"""A byte less its zero point, times a significand."""

FACTOR = data.StructLayout({"value": signed(FACTOR_BITS), "high": 1})
"""What a product is multiplied by: `value << (COARSE if high else 0)` times 2**-39."""

CONSTANTS = data.StructLayout(
    {
        "multiplies": 1,
        "inner_a": 1,
        "broadcast": 1,
        "a_int8": 1,
        "b_int8": 1,
        "y_int8": 1,
        "a_zero_point": 8,
        "b_zero_point": 8,
        "y_zero_point": 8,
        "inner": FACTOR,
        "outer": FACTOR,
        "offset": signed(WINDOW_BITS),
    }
)
"""`inner`: of the byte to whose product the offset is added. `outer`: of the other, or of a product
of bytes. Zero points are 0 where the command has none."""


class FixedConstants(wiring.Component):
    """The constants of a command, constant from the third cycle after its `start` to the next. One
    shifter makes both factors.

    Members
    -------
    descriptor : In(512), an ADD_QUANTISED, MULTIPLY_QUANTISED or AVERAGE
    start : In(1), takes it
    o : Out(`CONSTANTS`)
    """

    def __init__(self):
        super().__init__({"descriptor": In(DESCRIPTOR_BITS), "start": In(1), "o": Out(CONSTANTS)})

    def elaborate(self, platform):
        m = Module()
        o = self.o
        add = data.View(layout(fields(Opcode.ADD_QUANTISED)), self.descriptor)
        multiply = data.View(layout(fields(Opcode.MULTIPLY_QUANTISED)), self.descriptor)
        average = data.View(layout(fields(Opcode.AVERAGE)), self.descriptor)
        multiplies = add.opcode == Opcode.MULTIPLY_QUANTISED
        swaps = (add.flags & int(Flag.INNER_A)).any()
        scale = FLOAT32.layout(average.x_scale)
        inner, outer, offset = (Signal(32, name=name) for name in ("inner", "outer", "offset"))
        with m.If(self.start):
            m.d.sync += [
                o.multiplies.eq(multiplies),
                o.inner_a.eq(swaps),
                o.broadcast.eq((add.flags & int(Flag.BROADCAST)).any()),
                *(
                    o[f"{name}_int8"].eq(add[f"{name}_format"] == ElementFormat.INT8)
                    for name in "aby"
                ),
                *(
                    o[f"{name}_zero_point"].eq(Mux(multiplies, multiply[f"{name}_zero_point"], 0))
                    for name in "aby"
                ),
                inner.eq(Mux(swaps, add.a_ratio, add.b_ratio)),
                outer.eq(
                    Mux(multiplies, multiply.multiplier, Mux(swaps, add.b_ratio, add.a_ratio))
                ),
                offset.eq(add.offset),
            ]
            with m.If(average.opcode == Opcode.AVERAGE):
                m.d.sync += [
                    o.inner_a.eq(1),
                    o.a_int8.eq((average.flags & int(Flag.X_INT8)).any()),
                    o.a_zero_point.eq(average.x_zero_point),
                    inner.eq(Cat(scale.fraction, Const(FLOAT32.bias + RATIO_EXPONENTS.start, 9))),
                    offset.eq(0),
                ]
        first, second = Signal(), Signal()
        m.d.sync += [first.eq(self.start), second.eq(first), o.offset.eq(self._offset(m, offset))]
        factor = self._factor(m, Mux(first, inner, outer))
        for turn, target in ((first, o.inner), (second, o.outer)):
            with m.If(turn):
                m.d.sync += target.eq(factor)
        return m

    def _factor(self, m, number) -> data.View:
        number = FLOAT32.layout(number)
        steps, fine = Signal(range(2 * COARSE)), Signal(range(COARSE))
        high = steps >= COARSE
        magnitude = Signal(FACTOR_BITS - 1)
        factor = Signal(FACTOR)
        m.d.comb += [
            steps.eq(number.exponent - (FLOAT32.bias + RATIO_EXPONENTS.start)),
            fine.eq(steps - Mux(high, COARSE, 0)),
            magnitude.eq(number.significand << fine),
            factor.value.eq(Mux(number.sign, -magnitude, magnitude)),
            factor.high.eq(high),
        ]
        return factor

    def _offset(self, m, number):
        """The offset, shifted down from just below the limit."""
        number = FLOAT32.layout(number)
        width = WINDOW_BITS - 2
        distance = FLOAT32.bias + OFFSET_LIMIT.bit_length() - 2 - number.scale
        amount, magnitude = Signal(FLOAT32.exponent_bits), Signal(width)
        m.d.comb += [
            amount.eq(distance),
            magnitude.eq(align(m, number.significand, amount, width, "offset")),
        ]
        return Mux(number.sign, -magnitude, magnitude)
