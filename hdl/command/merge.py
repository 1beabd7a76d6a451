"""Several streams into one, fairly."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.memory.arbiter import NextTurn, index_bits


class RoundRobinMerge(wiring.Component):
    """Passes the payloads of some streams on, one a cycle; none waits longer than one round.

    Parameters
    ----------
    shape : ShapeLike
        Shape of a payload.
    inputs : int
        Number of streams, 1 or more.

    Members
    -------
    i : In(stream of `shape`).array(inputs)
    o : Out(stream of `shape`), registered: latency 1
    """

    latency = 1

    def __init__(self, shape, inputs: int):
        super().__init__(
            {
                "i": In(stream.Signature(shape)).array(inputs),
                "o": Out(stream.Signature(shape)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        inputs = len(self.i)
        served = Signal(index_bits(inputs))
        free = Signal()
        m.submodules.turn = turn = NextTurn(inputs)
        m.d.comb += [
            turn.requests.eq(Cat(i.valid for i in self.i)),
            turn.last.eq(served),
            free.eq(~self.o.valid | self.o.ready),
        ]
        with m.If(free):
            m.d.sync += self.o.valid.eq(turn.requests.any())
        with m.If(free & turn.requests.any()):
            m.d.sync += served.eq(turn.index)
            with m.Switch(turn.index):
                for number, i in enumerate(self.i):
                    with m.Case(number):
                        m.d.comb += i.ready.eq(1)
                        m.d.sync += self.o.p.eq(i.p)
        return m
