"""Several streams into one, fairly."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


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
        last = Signal(range(inputs))
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(~self.o.valid | self.o.ready):
            with m.Switch(last):
                for served in range(inputs):
                    order = [(served + 1 + step) % inputs for step in range(inputs)]
                    with m.Case(served):
                        self._grant_first(m, order, last)
        return m

    def _grant_first(self, m: Module, order: list[int], last: Signal):
        """Takes from the first stream of `order` that has something."""
        for place, number in enumerate(order):
            with m.If(self.i[number].valid) if place == 0 else m.Elif(self.i[number].valid):
                m.d.comb += self.i[number].ready.eq(1)
                m.d.sync += [
                    self.o.p.eq(self.i[number].p),
                    self.o.valid.eq(1),
                    last.eq(number),
                ]
