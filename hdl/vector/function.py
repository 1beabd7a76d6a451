"""One function of one fp32 a cycle: a parabola from a table, then one fused multiply-add."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.fma import FloatFma
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.commands import Function
from halfdome.hdl.vector import tables
from halfdome.hdl.vector.tables import BASE, DISTANCE_BITS, ONE

ROW = data.StructLayout(
    {"c0": tables.C0_BITS, "c1": signed(tables.C1_BITS), "c2": signed(tables.C2_BITS)}
)
"""A `tables.Row` in hardware."""

INDEX_BITS = (len(tables.ROWS) - 1).bit_length()
POWER_BITS = (len(tables.EXPONENTIALS) - 1).bit_length()
_BIAS = FLOAT32.bias
_EXP_TOP = _BIAS + 6  # exponent of the largest |x| that EXP shifts: 128 and more are out of range


class FunctionTables(wiring.Component):
    """The tables, one read port of each kind a lane.

    Members
    -------
    index, power_index : In(lanes x ...)
    row : Out(lanes x `ROW`), the row at `index`, a cycle later
    power : Out(lanes x 32), fp32 of e**(EXP_LEAST + power_index), a cycle later
    """

    def __init__(self, lanes: int):
        self._lanes = lanes
        super().__init__(
            {
                "index": In(data.ArrayLayout(INDEX_BITS, lanes)),
                "power_index": In(data.ArrayLayout(POWER_BITS, lanes)),
                "row": Out(data.ArrayLayout(ROW, lanes)),
                "power": Out(data.ArrayLayout(32, lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows = [row._asdict() for row in tables.ROWS]
        m.submodules.rows = rows = Memory(shape=ROW, depth=len(rows), init=rows)
        m.submodules.powers = powers = Memory(
            shape=32, depth=len(tables.EXPONENTIALS), init=tables.EXPONENTIALS
        )
        for lane in range(self._lanes):
            for memory, address, out in (
                (rows, self.index[lane], self.row[lane]),
                (powers, self.power_index[lane], self.power[lane]),
            ):
                read = memory.read_port()
                m.d.comb += [read.addr.eq(address), out.eq(read.data)]
        return m


_OPERANDS = {
    "function": In(Function),
    "i": In(32),
    "index": Out(INDEX_BITS),
    "power_index": Out(POWER_BITS),
    "row": In(ROW),
    "power": In(32),
}
"""`function`, one with a table, is constant while anything is inside; `i` is fp32; the others are
the lane's side of `FunctionTables`."""


class FunctionCurve(wiring.Component):
    """f(i) = value * factor + addend, exactly as `halfdome.sim.golden.functions`.

    Members
    -------
    *`_OPERANDS`
    value, factor, addend : Out(32), for a `FloatFma`, `latency` cycles later
    """

    latency = 9

    def __init__(self):
        super().__init__(_OPERANDS | {name: Out(32) for name in ("value", "factor", "addend")})

    def elaborate(self, platform):
        m = Module()
        i = FLOAT32.layout(self.i)

        # Cycles 1 and 2: |x| as an integer with 24 fraction bits, then x with 22 of them.
        far = Signal()
        shift = Signal(5)
        distance_to_top = _EXP_TOP - i.exponent
        m.d.comb += [
            far.eq(i.exponent > _EXP_TOP),
            shift.eq(Mux(distance_to_top > 31, 31, distance_to_top)),
        ]
        placed = Cat(Const(0, 7), i.significand)
        magnitude = register(m, (placed >> shift)[:31], "magnitude")
        far_1 = register(m, far, "far_1")
        x_1 = FLOAT32.layout(register(m, self.i, "x_1"))
        signed_fixed = Signal(signed(33))
        m.d.comb += signed_fixed.eq(Mux(x_1.sign, -magnitude, magnitude) + 2)
        fixed = register(m, signed_fixed[2:], "fixed")
        far_2 = register(m, far_1, "far_2")
        x = FLOAT32.layout(register(m, x_1, "x_2"))

        # Cycle 3: where to look, and what to make of the value found there.
        distance = Signal(DISTANCE_BITS)
        factor = Signal(FLOAT32.layout)
        addend = Signal(FLOAT32.layout)
        m.d.comb += [addend.eq(1 << 31), self.index.eq(ONE)]
        with m.Switch(self.function):
            with m.Case(Function.TANH):
                self._tanh(m, x, 0, distance, factor)
            with m.Case(Function.SIGMOID):
                self._tanh(m, x, 1, distance, factor)
                m.d.comb += addend.eq(_BIAS - 1 << 23)
            with m.Case(Function.GELU):
                self._gelu(m, x, distance, factor, addend)
            with m.Case(Function.EXP):
                segment = fixed[DISTANCE_BITS : DISTANCE_BITS + 5]
                m.d.comb += [
                    self.index.eq(BASE[Function.EXP] + segment),
                    distance.eq(fixed[:DISTANCE_BITS]),
                ]
            with m.Case(Function.RECIPROCAL):
                m.d.comb += [
                    self.index.eq(BASE[Function.RECIPROCAL] + x.fraction[DISTANCE_BITS:]),
                    distance.eq(x.fraction[:DISTANCE_BITS]),
                    factor.sign.eq(x.sign),
                    factor.exponent.eq(2 * _BIAS - x.exponent),
                    factor.fraction.eq(Mux(x.exponent == 2 * _BIAS, 1 << 22, 0)),
                ]
                self._ends(m, x, factor)
            with m.Case(Function.RSQRT):
                m.d.comb += [
                    self.index.eq(
                        BASE[Function.RSQRT] + Cat(x.fraction[DISTANCE_BITS + 1 :], ~x.exponent[0])
                    ),
                    distance.eq(x.fraction[1 : DISTANCE_BITS + 1]),
                    factor.exponent.eq(_BIAS + 64 - ((x.exponent + 1) >> 1)),
                ]
                self._ends(m, x, factor)
                with m.If(x.sign & x.exponent.any()):
                    m.d.comb += factor.eq(FLOAT32.quiet_nan)
        with m.If(x.is_nan):
            m.d.comb += factor.eq(FLOAT32.quiet_nan)

        # Cycle 4: the table answers; only now is the factor of EXP known.
        whole = Signal(signed(9))
        m.d.comb += [
            whole.eq(Mux(far_2, Cat((~x.sign).replicate(7), x.sign, x.sign), fixed[22:])),
            self.power_index.eq((whole - tables.EXP_LEAST)[:POWER_BITS]),
        ]
        zero = register(m, whole < tables.EXP_LEAST, "zero")
        infinite = register(m, whole > tables.EXP_MOST, "infinite")
        is_exp = register(m, (self.function == Function.EXP) & ~x.is_nan, "is_exp")
        factor_1 = register(m, factor, "factor_1")
        power = Mux(infinite, FLOAT32.infinity, Mux(zero, 0, self.power))
        factor_2 = register(m, Mux(is_exp, power, factor_1), "factor_2")

        # Cycles 5 to 9: c0 + distance * (c1 + distance * c2), then to fp32.
        row = ROW(register(m, self.row, "row"))
        near = register(m, distance, "near", cycles=2)
        slope = register(m, row.c2 * near, "slope")
        c1 = ROW(register(m, row, "row_1")).c1
        steepness = Signal(signed(tables.C1_BITS + 1))
        m.d.comb += steepness.eq(c1 + (slope >> DISTANCE_BITS))
        inner = register(m, steepness, "inner")
        rise = register(m, inner * register(m, near, "near_1", cycles=2), "rise")
        c0 = register(m, row.c0, "c0", cycles=3)
        total = Signal(tables.C0_BITS)
        m.d.comb += total.eq(c0 + (rise >> DISTANCE_BITS))
        value = register(m, total, "value")
        # The leading 1 adds 1 to the exponent; rounding may carry into it.
        top = Signal(24)
        exponent = Signal(8)
        half = Signal()
        with m.If(value[-1]):
            m.d.comb += [top.eq(value[4:]), half.eq(value[3]), exponent.eq(_BIAS)]
        with m.Elif(value[-2]):
            m.d.comb += [top.eq(value[3:]), half.eq(value[2]), exponent.eq(_BIAS - 1)]
        with m.Else():
            m.d.comb += [top.eq(value[2:]), half.eq(value[1]), exponent.eq(_BIAS - 2)]
        packed = register(m, (Cat(Const(0, 23), exponent) + top + half)[:32], "packed")

        m.d.comb += [
            self.value.eq(packed),
            self.factor.eq(register(m, factor_2, "factor", cycles=self.latency - 4)),
            self.addend.eq(register(m, addend, "addend", cycles=self.latency - 2)),
        ]
        return m

    def _tanh(self, m, x, halvings, distance, factor):
        """TANH of x / 2**halvings; the factor is divided likewise."""
        least = _BIAS + halvings + tables.TANH_LEAST
        octave = Signal(4)
        unit = _BIAS - halvings
        m.d.comb += [
            octave.eq(x.exponent - least),
            distance.eq(x.fraction[1 : DISTANCE_BITS + 1]),
            factor.sign.eq(x.sign),
        ]
        with m.If(x.exponent < least):
            shrunk = x.exponent - 2 * halvings
            m.d.comb += factor.exponent.eq(Mux(x.exponent > 2 * halvings, shrunk, 0))
            m.d.comb += factor.fraction.eq(x.fraction)
            if halvings:
                with m.If(x.exponent <= 2 * halvings):
                    m.d.comb += factor.eq(0)
        with m.Else():
            lowered = x.exponent - 2 * halvings
            m.d.comb += factor.exponent.eq(Mux(lowered < unit, lowered, unit))
            with m.If(x.exponent < _BIAS + halvings + tables.TANH_TOP):
                m.d.comb += self.index.eq(
                    BASE[Function.TANH] + Cat(x.fraction[DISTANCE_BITS + 1 :], octave)
                )

    def _gelu(self, m, x, distance, factor, addend):
        octave = Signal(4)
        scale = Signal(signed(10))
        least = _BIAS + tables.GELU_LEAST
        m.d.comb += [
            octave.eq(Mux(x.exponent < least, 0, x.exponent - least)),
            distance.eq(x.fraction[1 : DISTANCE_BITS + 1]),
            scale.eq(x.exponent - 1 + Mux(x.exponent < _BIAS, x.exponent - _BIAS, 0)),
        ]
        with m.If(x.exponent < _BIAS + tables.GELU_TOP):
            m.d.comb += self.index.eq(
                BASE[Function.GELU] + Cat(x.fraction[DISTANCE_BITS + 1 :], octave)
            )
            with m.If(scale > 0):
                m.d.comb += [factor.exponent.eq(scale), factor.fraction.eq(x.fraction)]
            m.d.comb += addend.eq(
                Mux(x.exponent > 1, Cat(x.fraction, (x.exponent - 1)[:8], x.sign), 0)
            )
        with m.Else():
            m.d.comb += addend.eq(Mux(x.sign, 0, x))

    def _ends(self, m, x, factor):
        """RECIPROCAL and RSQRT of zeros, subnormals and infinities."""
        with m.If(~x.exponent.any() | x.exponent.all()):
            m.d.comb += [
                self.index.eq(ONE),
                factor.eq(Cat(Const(0, 23), (~x.exponent[0]).replicate(8), x.sign)),
            ]


class FunctionLane(wiring.Component):
    """o = f(i), exactly as `halfdome.sim.golden.functions`.

    Members
    -------
    *`_OPERANDS`
    o : Out(32), `latency` cycles later
    """

    latency = FunctionCurve.latency + FloatFma.latency

    def __init__(self):
        super().__init__(_OPERANDS | {"o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.curve = curve = FunctionCurve()
        m.submodules.fma = fma = FloatFma(FLOAT32)
        m.d.comb += [
            *(getattr(curve, n).eq(getattr(self, n)) for n in ("function", "i", "row", "power")),
            *(getattr(self, n).eq(getattr(curve, n)) for n in ("index", "power_index")),
            fma.a.eq(curve.value),
            fma.b.eq(curve.factor),
            fma.c.eq(curve.addend),
            self.o.eq(fma.o),
        ]
        return m
