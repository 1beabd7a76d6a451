"""Cuts the channels of an image into memory lines."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import CardConfig


def line_layout(config: CardConfig) -> data.StructLayout:
    """`size` channels, the first of them number `first`; whether they are the last."""
    return data.StructLayout({"first": 16, "size": range(config.line_bytes + 1), "last": 1})


class ChannelLines(wiring.Component):
    """Gives one line of channels after the other.

    Members
    -------
    start : In(1), takes `k`; only while nothing is offered
    k : In(16), channels, 1 or more
    o : Out(stream of `line_layout`), the first in the cycle after `start`; then one a cycle
    """

    def __init__(self, config: CardConfig):
        self._bytes = config.line_bytes
        super().__init__(
            {"start": In(1), "k": In(16), "o": Out(stream.Signature(line_layout(config)))}
        )

    def elaborate(self, platform):
        m = Module()
        left = Signal(16)
        o = self.o.p
        m.d.comb += [
            self.o.valid.eq(left != 0),
            o.last.eq(left <= self._bytes),
            o.size.eq(Mux(o.last, left, self._bytes)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [o.first.eq(o.first + self._bytes), left.eq(left - o.size)]
        with m.If(self.start):
            m.d.sync += [o.first.eq(0), left.eq(self.k)]
        return m
