"""Floating-point addition."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FloatFormat
from halfdome.hdl.arith.pipeline import align, register
from halfdome.hdl.arith.round import RoundPack

_GUARD_BITS = 3  # Guard, round and sticky: enough once the larger operand stays in place.


class FloatAdd(wiring.Component):
    """o = a + b, rounded to nearest, ties to even. One sum a cycle, no flow control.

    IEEE 754 with subnormals and infinities. Every NaN result is `format.quiet_nan`
    (0x7fc00000 in binary32). x - x is +0; -0 + -0 is -0.

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
        The sum, `latency` cycles later.
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
        window_bits = self.format.precision + _GUARD_BITS
        m.submodules.round = round = RoundPack(self.format, window_bits + 1, self._stages)

        # Stage 1: order the operands by magnitude.
        large = Signal(self.format.layout)
        small = Signal(self.format.layout)
        a, b = self.format.layout(self.a), self.format.layout(self.b)
        swap = Signal()
        distance = Signal(self.format.exponent_bits)
        m.d.comb += [
            swap.eq(b.magnitude > a.magnitude),
            large.eq(Mux(swap, self.b, self.a)),
            small.eq(Mux(swap, self.a, self.b)),
            distance.eq(large.scale - small.scale),
        ]
        large_1 = register(m, large.significand, "large_1")
        small_1 = register(m, small.significand, "small_1")
        distance_1 = register(m, distance, "distance_1")
        scale_1 = register(m, large.scale, "scale_1")
        sign_1 = register(m, large.sign, "sign_1")
        subtract_1 = register(m, a.sign ^ b.sign, "subtract_1")
        special_1 = register(m, large.exponent.all(), "special_1")
        # NaN is the largest of magnitudes, so only two infinities need a look at the smaller one.
        nan_1 = register(m, large.is_nan | (small.is_infinite & (a.sign ^ b.sign)), "nan_1")

        # Stage 2: align and add; here `stages` of 2 cut the way.
        cut = self._stages - 1
        aligned = align(m, small_1, distance_1, window_bits, "small")
        aligned = register(m, aligned, "aligned", cycles=cut)
        placed = Cat(Const(0, _GUARD_BITS), register(m, large_1, "placed", cycles=cut))
        subtract = register(m, subtract_1, "subtract", cycles=cut)
        total = Signal(window_bits + 1)
        m.d.comb += total.eq(Mux(subtract, placed - aligned, placed + aligned))
        m.d.comb += [
            round.window.eq(register(m, total, "total")),
            round.headroom.eq(register(m, scale_1, "scale_2", cycles=self._stages)),
            round.sign.eq(register(m, sign_1, "sign_2", cycles=self._stages)),
            round.zero_sign.eq(register(m, sign_1 & ~subtract_1, "zero_sign", cycles=self._stages)),
            round.is_infinite.eq(register(m, special_1, "is_infinite", cycles=self._stages)),
            round.is_nan.eq(register(m, nan_1, "is_nan", cycles=self._stages)),
            self.o.eq(round.o),
        ]
        return m
