"""fp32 to uint8, the last step of every quantised layer."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.convert import FloatToInt
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.mul import FloatMul, FlushingMul
from halfdome.hdl.arith.pipeline import register

# The rounded product saturates to -256..255: a zero point of 0..255 brings what is beyond back to
# an end of 0..255 or further out, so the saturated sum is the same as without this first bound.
_ROUNDED_BITS = 9


class RoundToByte(wiring.Component):
    """o = max(floor, saturate(round(i) + zero_point)). One a cycle, no flow control.

    Rounds to nearest, ties to even; the sum saturates to 0..255. NaN counts as 0.

    Members
    -------
    i : In(32)
        The number, fp32.
    zero_point : In(8)
        The output that stands for zero.
    floor : In(8)
        The smallest output: the zero point for a ReLU, else 0.
    o : Out(8)
        The result, `latency` cycles later.
    """

    latency = FloatToInt.latency + 1

    def __init__(self):
        super().__init__({"i": In(FLOAT32.width), "zero_point": In(8), "floor": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.to_int = to_int = FloatToInt(FLOAT32, _ROUNDED_BITS)
        zero_point = register(m, self.zero_point, "zero_point", cycles=FloatToInt.latency)
        floor = register(m, self.floor, "floor", cycles=FloatToInt.latency)
        total = Signal(signed(_ROUNDED_BITS + 1))
        raised = Signal(8)
        m.d.comb += [
            to_int.i.eq(self.i),
            total.eq(to_int.o + zero_point),
            raised.eq(Mux(total < floor, floor, Mux(total > 255, 255, total))),
            self.o.eq(register(m, raised, "result")),
        ]
        return m


class FloatToByte(wiring.Component):
    """o = max(floor, saturate(round(i * multiplier) + zero_point)). One a cycle, no flow control.

    The product is rounded to fp32, then to an integer, both to nearest, ties to even; the sum
    saturates to 0..255. NaN counts as 0.

    Parameters
    ----------
    stages : int
        The `stages` of `FloatMul`.
    normal : bool
        Only normal numbers come as `i`, or a subnormal one that the multiplier leaves below a half,
        and likewise the other way round: `FlushingMul` is then enough, and `stages` are 1.

    Members
    -------
    i : In(32)
        The number, fp32.
    multiplier : In(32)
        What to multiply it by, fp32.
    zero_point : In(8)
        The output that stands for zero.
    floor : In(8)
        The smallest output: the zero point for a ReLU, else 0.
    o : Out(8)
        The result, `latency` cycles later.
    """

    latency = FloatMul.latency + RoundToByte.latency
    """With one stage; an instance has its own."""

    def __init__(self, stages: int = 1, *, normal: bool = False):
        self._mul = FlushingMul(FLOAT32) if normal else FloatMul(FLOAT32, stages)
        self.latency = self._mul.latency + RoundToByte.latency
        super().__init__(
            {
                "i": In(FLOAT32.width),
                "multiplier": In(FLOAT32.width),
                "zero_point": In(8),
                "floor": In(8),
                "o": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.mul = mul = self._mul
        m.submodules.round = round = RoundToByte()
        m.d.comb += [
            mul.a.eq(self.i),
            mul.b.eq(self.multiplier),
            round.i.eq(mul.o),
            round.zero_point.eq(register(m, self.zero_point, "zero_point", cycles=mul.latency)),
            round.floor.eq(register(m, self.floor, "floor", cycles=mul.latency)),
            self.o.eq(round.o),
        ]
        return m
