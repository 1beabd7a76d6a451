"""Conversions between integers and floating-point numbers, and between formats."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FLOAT16, FLOAT32, FloatFormat
from halfdome.hdl.arith.pipeline import align, register
from halfdome.hdl.arith.round import RoundPack


class IntToFloat(wiring.Component):
    """o = i, rounded to nearest, ties to even. One number a cycle, no flow control.

    Parameters
    ----------
    format : FloatFormat
        Format of the result.
    width : int
        Bits of the integer.

    Members
    -------
    i : In(signed(width))
        The integer.
    o : Out(format.width)
        The number, `latency` cycles later. 0 gives +0.
    """

    latency = 1 + RoundPack.latency

    def __init__(self, format: FloatFormat, width: int = 32):
        if type(width) is not int or width < 2:
            raise ValueError(f"width={width!r}: must be an integer of at least 2")
        self.format = format
        self.width = width
        super().__init__({"i": In(signed(width)), "o": Out(format.width)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.round = round = RoundPack(self.format, self.width)
        magnitude = Signal(self.width)
        m.d.comb += [
            magnitude.eq(Mux(self.i < 0, -self.i, self.i)),
            round.window.eq(register(m, magnitude, "magnitude")),
            round.headroom.eq(self.format.bias + self.width - 2),
            round.sign.eq(register(m, self.i < 0, "sign")),
            self.o.eq(round.o),
        ]
        return m


class FloatToInt(wiring.Component):
    """o = i, rounded to nearest, ties to even, saturated. One number a cycle, no flow control.

    NaN gives 0. Infinities and numbers outside the integer's range give its nearest end.

    Parameters
    ----------
    format : FloatFormat
        Format of the operand.
    width : int
        Bits of the integer.

    Members
    -------
    i : In(format.width)
        The number.
    o : Out(signed(width))
        The integer, `latency` cycles later.
    """

    latency = 2

    def __init__(self, format: FloatFormat, width: int):
        if type(width) is not int or width < 2:
            raise ValueError(f"width={width!r}: must be an integer of at least 2")
        self.format = format
        self.width = width
        super().__init__({"i": In(format.width), "o": Out(signed(width))})

    def elaborate(self, platform):
        m = Module()
        i = self.format.layout(self.i)

        # Stage 1: align to a window with `width - 1` integer bits on top, then a bit to round by
        # and one for all that is below. No more of the significand is needed, either.
        integer_bits = self.width - 1
        window_bits = integer_bits + 2
        low = max(0, self.format.precision - (window_bits - 1))
        significand = Cat(i.significand[:low].any(), i.significand[low:])
        top_scale = self.format.bias + integer_bits - 1
        depth = Signal(signed(max(self.format.exponent_bits, top_scale.bit_length()) + 2))
        m.d.comb += depth.eq(top_scale - i.scale)
        aligned = align(m, significand, depth[:-1], window_bits, "window")
        window = register(m, aligned, "window")
        over = register(m, (depth < 0) | i.is_infinite, "over")
        is_nan = register(m, i.is_nan, "is_nan")
        sign = register(m, i.sign, "sign")

        # Stage 2: round, negate, saturate.
        whole = window[2:]
        up = window[1] & (whole[0] | window[0])
        magnitude = Signal(self.width)
        result = Signal(self.width)
        m.d.comb += magnitude.eq(whole + up)
        with m.If(is_nan):
            m.d.comb += result.eq(0)
        with m.Elif(over | (magnitude[-1] & ~sign)):
            m.d.comb += result.eq(Cat((~sign).replicate(integer_bits), sign))
        with m.Else():
            m.d.comb += result.eq(Mux(sign, -magnitude, magnitude))
        m.d.comb += self.o.eq(register(m, result, "result"))
        return m


class FloatWiden(wiring.Component):
    """o = i in a wider format, exactly. One number a cycle, no flow control.

    Subnormal operands become normal numbers. NaN becomes `target.quiet_nan`.

    Parameters
    ----------
    source, target : FloatFormat
        Formats of operand and result. Every number of `source` must be a normal number, zero,
        infinity or NaN of `target`.

    Members
    -------
    i : In(source.width)
        The number.
    o : Out(target.width)
        The same number, `latency` cycles later.
    """

    latency = 1

    def __init__(self, source: FloatFormat = FLOAT16, target: FloatFormat = FLOAT32):
        rebias = target.bias - source.bias
        if target.significand_bits < source.significand_bits or rebias < source.significand_bits:
            raise ValueError(f"target={target}: does not hold every number of {source} as normal")
        self.source = source
        self.target = target
        super().__init__({"i": In(source.width), "o": Out(target.width)})

    def elaborate(self, platform):
        m = Module()
        i = self.source.layout(self.i)
        rebias = self.target.bias - self.source.bias
        fraction_bits = self.source.significand_bits

        # How far the leading 1 of a subnormal fraction is below the implied bit.
        zeros = Signal(range(fraction_bits + 1))
        first = fraction_bits
        for k in reversed(range(fraction_bits - 1)):
            first = Mux(i.fraction[fraction_bits - 1 - k], k + 1, first)
        m.d.comb += zeros.eq(Mux(i.exponent.any(), 0, first))
        normal = i.fraction
        for k in reversed(range(len(zeros))):
            distance = min(1 << k, fraction_bits)
            normal = Mux(zeros[k], Cat(Const(0, distance), normal[:-distance]), normal)

        o = Signal(self.target.layout)
        padding = Const(0, self.target.significand_bits - fraction_bits)
        m.d.comb += [
            o.sign.eq(i.sign),
            o.exponent.eq(i.scale + rebias - zeros),
            o.fraction.eq(Cat(padding, normal[:fraction_bits])),
        ]
        with m.If(i.is_nan):
            m.d.comb += o.eq(self.target.quiet_nan)
        with m.Elif(i.is_infinite | i.is_zero):
            m.d.comb += o.exponent.eq(i.exponent[0].replicate(self.target.exponent_bits))
        m.d.comb += self.o.eq(register(m, o, "result"))
        return m


class FloatNarrow(wiring.Component):
    """o = i in a narrower format, rounded to nearest, ties to even. One a cycle, no flow control.

    Numbers below the target's normal ones become subnormal, numbers beyond it infinite. NaN becomes
    `target.quiet_nan`.

    Parameters
    ----------
    source, target : FloatFormat
        Formats of operand and result; `target` has fewer bits in both fields.

    Members
    -------
    i : In(source.width)
        The number.
    o : Out(target.width)
        The nearest number, `latency` cycles later.
    """

    latency = 1 + RoundPack.latency

    def __init__(self, source: FloatFormat = FLOAT32, target: FloatFormat = FLOAT16):
        if (
            target.significand_bits >= source.significand_bits
            or target.exponent_bits >= source.exponent_bits
        ):
            raise ValueError(f"target={target}: must have fewer bits than {source} in both fields")
        self.source = source
        self.target = target
        super().__init__({"i": In(source.width), "o": Out(target.width)})

    def elaborate(self, platform):
        m = Module()
        window_bits = self.source.precision
        m.submodules.round = round = RoundPack(self.target, window_bits)
        i = self.source.layout(self.i)
        # Exponent of the target's least normal number, and one that is infinite there.
        least = self.source.bias - self.target.bias + 1
        most = 1 << self.target.exponent_bits

        depth = Signal(signed(self.source.exponent_bits + 1))
        shift = Signal(self.source.exponent_bits)
        headroom = Signal(range(most + 1))
        m.d.comb += depth.eq(least - i.scale)
        with m.If(depth > 0):
            m.d.comb += shift.eq(depth)
        with m.Else():
            m.d.comb += headroom.eq(Mux(-depth > most, most, -depth))
        aligned = align(m, i.significand, shift, window_bits, "window")
        m.d.comb += [
            round.window.eq(register(m, aligned, "window")),
            round.headroom.eq(register(m, headroom, "headroom")),
            round.sign.eq(register(m, i.sign, "sign")),
            round.zero_sign.eq(round.sign),
            round.is_infinite.eq(register(m, i.is_infinite, "is_infinite")),
            round.is_nan.eq(register(m, i.is_nan, "is_nan")),
            self.o.eq(round.o),
        ]
        return m
