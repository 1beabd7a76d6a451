"""Fused multiply-add."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FloatFormat
from halfdome.hdl.arith.pipeline import align, multiply, register
from halfdome.hdl.arith.round import RoundPack


class FloatFma(wiring.Component):
    """o = a * b + c with a single rounding to nearest, ties to even. One a cycle, no flow control.

    IEEE 754 with subnormals and infinities. Every NaN result is `format.quiet_nan`
    (0x7fc00000 in binary32), 0 * inf + NaN included. An exact zero is +0 unless product and
    addend are both negative.

    The addend is aligned to the product while that is being multiplied. To keep the sum narrow
    (2 * precision + 4 bits, one machine word in binary32), the product has two places: at the top
    of the window where it leads, and `precision` bits further down where the addend exceeds it by
    two bits or more, so that at most one bit can cancel.

    Parameters
    ----------
    format : FloatFormat
        Format of operands and result.
    stages : int
        Cycles of each long step: 1, or 2 for a faster clock.

    Members
    -------
    a, b, c : In(format.width)
        Operands.
    o : Out(format.width)
        The result, `latency` cycles later.
    """

    latency = 5
    """With one stage; an instance has its own."""

    def __init__(self, format: FloatFormat, stages: int = 1):
        self.latency = 2 + 3 * stages
        self._stages = stages
        self.format = format
        super().__init__(
            {
                "a": In(format.width),
                "b": In(format.width),
                "c": In(format.width),
                "o": Out(format.width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        precision = self.format.precision
        window_bits = 2 * precision + 4
        m.submodules.round = round = RoundPack(self.format, window_bits, self._stages)
        a, b, c = (self.format.layout(x) for x in (self.a, self.b, self.c))

        # Stage 1: decode; by how much the addend is shifted down from the top of the window.
        # `scale` and `lead` are exponents of top bits: the product's, and the addend's above it.
        scale = Signal(signed(self.format.exponent_bits + 2))
        lead = Signal(signed(self.format.exponent_bits + 3))
        shift = Signal(len(lead))
        headroom = Signal(len(round.headroom))
        no_product = a.is_zero | b.is_zero
        m.d.comb += [
            scale.eq(a.scale + b.scale - (self.format.bias - 1)),
            lead.eq(c.scale - scale),
        ]

        # Here `stages` of 2 cut the way.
        cut = self._stages - 1
        product_scale = register(m, scale, "product_scale", cycles=cut)
        c_scale = register(m, c.scale, "c_scale", cycles=cut)
        lead = register(m, lead, "lead", cycles=cut)
        no_product = register(m, no_product, "no_product", cycles=cut)
        behind = no_product | (lead >= 2)
        with m.If(no_product | (lead >= precision + 2)):
            m.d.comb += [shift.eq(0), headroom.eq(c_scale - 1)]
        with m.Elif(lead >= 2):
            m.d.comb += [
                shift.eq(precision + 2 - lead),
                headroom.eq(product_scale + (precision + 1)),
            ]
        with m.Else():
            m.d.comb += [
                shift.eq(2 - lead),
                headroom.eq(product_scale + 1),
            ]
        infinite = a.is_infinite | b.is_infinite
        product_sign = a.sign ^ b.sign
        a_1 = register(m, a.significand, "a_1", cycles=self._stages)
        b_1 = register(m, b.significand, "b_1", cycles=self._stages)
        c_1 = register(m, c.significand, "c_1", cycles=self._stages)
        shift_1 = register(m, shift, "shift_1")
        behind_1 = register(m, behind, "behind_1")
        headroom_1 = register(m, headroom, "headroom_1")
        # An infinity imposes its sign on both, so that nothing is subtracted from it.
        sign, c_sign = Mux(c.is_infinite, c.sign, product_sign), Mux(infinite, product_sign, c.sign)
        sign_1 = register(m, sign, "sign_1", cycles=self._stages)
        c_sign_1 = register(m, c_sign, "c_sign_1", cycles=self._stages)
        infinite_1 = register(m, infinite | c.is_infinite, "infinite_1", cycles=self._stages)
        nan_1 = register(
            m,
            a.is_nan | b.is_nan | c.is_nan | (infinite & (a.is_zero | b.is_zero))
            | (infinite & c.is_infinite & (product_sign ^ c.sign)),
            "nan_1", cycles=self._stages,
        )  # fmt: skip

        # Stage 2: multiply, and align the addend meanwhile.
        product_2 = multiply(m, a_1, b_1, "product_2", cycles=self._stages)
        addend = align(m, c_1, shift_1, window_bits, "addend")
        addend_2 = register(m, addend, "addend_2", cycles=self._stages)
        behind_2 = register(m, behind_1, "behind_2", cycles=self._stages)
        sign_2 = register(m, sign_1, "sign_2", cycles=self._stages)
        c_sign_2 = register(m, c_sign_1, "c_sign_2", cycles=self._stages)

        # Stage 3: add, or take the difference that is not negative.
        ahead = Cat(Const(0, 2), product_2)
        lowered = Cat(product_2[: precision - 1].any(), product_2[precision - 1 :])
        product = Signal(2 * precision + 2)
        rest = Signal(window_bits + 1)
        total = Signal(window_bits)
        subtract = Signal()
        m.d.comb += [
            subtract.eq(sign_2 ^ c_sign_2),
            product.eq(Mux(behind_2, lowered, ahead)),
            rest.eq(addend_2 - product),
        ]
        negative = rest[-1]
        with m.If(~subtract):
            m.d.comb += total.eq(addend_2 + product)
        with m.Elif(negative):
            m.d.comb += total.eq(product - addend_2)
        with m.Else():
            m.d.comb += total.eq(rest)
        m.d.comb += [
            round.window.eq(register(m, total, "total")),
            round.headroom.eq(register(m, headroom_1, "headroom_3", cycles=1 + self._stages)),
            round.sign.eq(register(m, Mux(negative, sign_2, c_sign_2), "sign_3")),
            round.zero_sign.eq(register(m, sign_2 & c_sign_2, "zero_sign")),
            round.is_infinite.eq(register(m, infinite_1, "is_infinite", cycles=1 + self._stages)),
            round.is_nan.eq(register(m, nan_1, "is_nan", cycles=1 + self._stages)),
            self.o.eq(round.o),
        ]
        return m
