"""Floating-point multiplication."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FloatFormat
from halfdome.hdl.arith.pipeline import multiply, register
from halfdome.hdl.arith.round import RoundPack


class FloatMul(wiring.Component):
    """o = a * b, rounded to nearest, ties to even. One product a cycle, no flow control.

    IEEE 754 with subnormals and infinities. Every NaN result is `format.quiet_nan`
    (0x7fc00000 in binary32).

    Parameters
    ----------
    format : FloatFormat
        Format of operands and result.
    stages : int
        Cycles of each long step: 1, or 2 for a faster clock.

    Members
    -------
    a, b : In(format.width)
        Operands.
    o : Out(format.width)
        The product, `latency` cycles later.
    """

    latency = 4
    """With one stage; an instance has its own."""

    def __init__(self, format: FloatFormat, stages: int = 1):
        self.latency = 2 + 2 * stages
        self._stages = stages
        self.format = format
        super().__init__({"a": In(format.width), "b": In(format.width), "o": Out(format.width)})

    def elaborate(self, platform):
        m = Module()
        precision = self.format.precision
        m.submodules.round = round = RoundPack(self.format, 2 * precision + 2, self._stages)

        # Stage 1: decode. `scale` is the biased exponent of the product's top bit.
        a, b = self.format.layout(self.a), self.format.layout(self.b)
        scale = Signal(signed(self.format.exponent_bits + 2))
        m.d.comb += scale.eq(a.scale + b.scale - (self.format.bias - 1))
        infinite = a.is_infinite | b.is_infinite
        a_1 = register(m, a.significand, "a_1")
        b_1 = register(m, b.significand, "b_1")
        scale_1 = register(m, scale, "scale_1")
        sign_1 = register(m, a.sign ^ b.sign, "sign_1")
        infinite_1 = register(m, infinite, "infinite_1")
        nan_1 = register(m, a.is_nan | b.is_nan | (infinite & (a.is_zero | b.is_zero)), "nan_1")

        # Stage 2: multiply. Two zeros above the product leave room for a scale of -1; a smaller
        # one moves the product down by `precision` bits, and if even that is not enough the
        # product is below a quarter of the least subnormal, wherever it stands.
        low = Signal()
        headroom = Signal(len(round.headroom))
        down = scale_1 + (precision + 1)
        m.d.comb += [
            low.eq(scale_1 < -1),
            headroom.eq(Mux(low, Mux(down < 0, 0, down), scale_1 + 1)),
        ]
        product = multiply(m, a_1, b_1, "product", cycles=self._stages)
        low_2 = register(m, low, "low_2", cycles=self._stages)
        sign_2 = register(m, sign_1, "sign_2", cycles=self._stages)
        lowered = Cat(product[: precision + 1].any(), product[precision + 1 :])
        m.d.comb += [
            round.window.eq(Mux(low_2, lowered, product)),
            round.headroom.eq(register(m, headroom, "headroom", cycles=self._stages)),
            round.sign.eq(sign_2),
            round.zero_sign.eq(sign_2),
            round.is_infinite.eq(register(m, infinite_1, "is_infinite", cycles=self._stages)),
            round.is_nan.eq(register(m, nan_1, "is_nan", cycles=self._stages)),
            self.o.eq(round.o),
        ]
        return m


class FlushingMul(wiring.Component):
    """o = a * b of normal numbers, rounded to nearest, ties to even. One a cycle, no flow control.

    Subnormal operands and results count as zero. So a product has its leading 1 in one of two
    places, and needs no shifter: half the area of `FloatMul`. Infinities and NaN are those of
    IEEE 754, every NaN result `format.quiet_nan`.

    Parameters
    ----------
    format : FloatFormat
        Format of operands and result.

    Members
    -------
    a, b : In(format.width)
        Operands.
    o : Out(format.width)
        The product, `latency` cycles later.
    """

    latency = FloatMul.latency

    def __init__(self, format: FloatFormat):
        self.format = format
        super().__init__({"a": In(format.width), "b": In(format.width), "o": Out(format.width)})

    def elaborate(self, platform):
        m = Module()
        form = self.format
        a, b = form.layout(self.a), form.layout(self.b)

        # Stage 1: decode. `scale` is the biased exponent of a product that is 2 or more.
        infinite = a.is_infinite | b.is_infinite
        a_zero, b_zero = ~a.exponent.any(), ~b.exponent.any()
        scale = Signal(signed(form.exponent_bits + 2))
        m.d.comb += scale.eq(a.exponent + b.exponent - (form.bias - 1))
        a_1 = register(m, Cat(a.fraction, 1), "a_1")
        b_1 = register(m, Cat(b.fraction, 1), "b_1")
        nan = a.is_nan | b.is_nan | (infinite & (a_zero | b_zero))
        scale_2 = register(m, scale, "scale_2", cycles=2)
        zero = register(m, a_zero | b_zero, "zero", cycles=3)
        infinite = register(m, infinite, "infinite", cycles=3)
        nan = register(m, nan, "nan", cycles=3)
        sign = register(m, a.sign ^ b.sign, "sign", cycles=3)

        # Stages 2 and 3: multiply; bring the leading 1 to the top.
        product = multiply(m, a_1, b_1, "product", cycles=1)
        high = product[-1]
        top = Mux(high, product[form.significand_bits :], product[form.precision - 2 : -1])
        significand, guard = top[1:], top[0]
        below = product[: form.precision - 2].any() | (high & product[form.precision - 2])
        up = register(m, guard & (below | significand[0]), "up")
        fraction = register(m, significand[:-1], "fraction")
        exponent = register(m, (scale_2 - ~high)[: len(scale)], "exponent")

        # Stage 4: round, pack. A carry out of the fraction moves on to the exponent.
        packed = Signal(form.significand_bits + len(exponent))
        rounded = packed[form.significand_bits :].as_signed()
        magnitude = Signal(form.width - 1)
        m.d.comb += packed.eq(Cat(fraction, exponent) + up)
        with m.If(nan):
            m.d.comb += magnitude.eq(form.quiet_nan)
        with m.Elif(infinite | (~zero & (rounded >= (1 << form.exponent_bits) - 1))):
            m.d.comb += magnitude.eq(form.infinity)
        with m.Elif(~zero & (rounded > 0)):
            m.d.comb += magnitude.eq(packed)
        m.d.comb += self.o.eq(register(m, Cat(magnitude, sign & ~nan), "result"))
        return m
