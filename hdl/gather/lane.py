"""One accumulate lane: from an element as it is stored to the sum that it changes."""

from amaranth import Cat, Const, Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.add import FloatAdd
from halfdome.hdl.arith.convert import FloatWiden
from halfdome.hdl.arith.fma import FloatFma
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.gather.sequencer import FLOAT_ONE
from halfdome.hdl.gather.shape import ElementWidth
from halfdome.hdl.gather.unpack import ELEMENT_BITS


def byte_to_float(q: Value) -> Value:
    """The fp32 bits of an unsigned byte, which every fp32 holds exactly."""
    zeros = []
    for distance in (4, 2, 1):
        empty = ~q[8 - distance :].any()
        zeros.append(empty)
        q = Mux(empty, Cat(Const(0, distance), q[: 8 - distance]), q)
    exponent = 127 + 7 - Cat(reversed(zeros))
    return Mux(q[7], Cat(Const(0, 16), q[:7], exponent[:8], Const(0, 1)), 0)


class Lane(wiring.Component):
    """o = fma(scale, element, accumulator + bias) in fp32. One a cycle, no flow control.

    Parameters
    ----------
    stages : int
        Cycles of each long step, of the addition and of the fused product: 1, or 2. With 2 there
        is a register in front of the addition, too: what it adds comes from a memory.
    in_turns : bool
        The fused product adds, too: nothing may enter `turn` cycles after something else.

    Members
    -------
    multiplies : In(1), only `in_turns`: what entered `add_latency` cycles ago is multiplied
    width : In(ElementWidth), of the elements: up to 8 bits unsigned integers, else floats
    accumulator, bias : In(32), fp32
    scale : In(32), fp32, `add_latency` cycles after them
    element : In(32), a cycle before them
    o : Out(32), fp32, `latency` cycles after `accumulator`
    """

    element_lead = 1
    """Cycles from an element to the accumulator it is for."""

    def __init__(self, stages: int = 1, *, in_turns: bool = False):
        self._in_turns = in_turns
        self._fma = FloatFma(FLOAT32, stages)
        self._add = self._fma if in_turns else FloatAdd(FLOAT32, stages)
        self._entry = stages - 1
        #: Cycles from accumulator to sum.
        self.add_latency = self._entry + self._add.latency
        #: Cycles from accumulator to result.
        self.latency = self.add_latency + self._fma.latency
        #: Cycles after which what was added is multiplied instead of something new added; or 0.
        self.turn = self._fma.latency if in_turns else 0
        super().__init__(
            ({"multiplies": In(1)} if in_turns else {})
            | {
                "width": In(ElementWidth),
                "accumulator": In(32),
                "bias": In(32),
                "scale": In(32),
                "element": In(ELEMENT_BITS),
                "o": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fma = fma = self._fma
        m.submodules.widen = widen = FloatWiden()

        # The element waits for the sum, and becomes a float in the last two cycles of that.
        wait = self.element_lead + self.add_latency - FloatWiden.latency - 1
        element = register(m, self.element, "element", cycles=wait)
        integer = register(m, byte_to_float(element[:8]), "integer", cycles=FloatWiden.latency)
        single = register(m, element, "single", cycles=FloatWiden.latency)
        small = self.width <= ElementWidth.BYTE
        value = Mux(small, integer, Mux(self.width == ElementWidth.HALF, widen.o, single))
        value = register(m, value, "value")
        accumulator = register(m, self.accumulator, "accumulator_in", cycles=self._entry)
        bias = register(m, self.bias, "bias_in", cycles=self._entry)
        m.d.comb += [widen.i.eq(element[:16]), self.o.eq(fma.o)]
        operands = Cat(fma.a, fma.b, fma.c)
        if self._in_turns:
            with m.If(self.multiplies):
                m.d.comb += operands.eq(Cat(self.scale, value, fma.o))
            with m.Else():
                m.d.comb += operands.eq(Cat(Const(FLOAT_ONE, 32), bias, accumulator))
        else:
            m.submodules.add = add = self._add
            m.d.comb += [
                add.a.eq(accumulator), add.b.eq(bias),
                operands.eq(Cat(self.scale, value, add.o)),
            ]  # fmt: skip
        return m
