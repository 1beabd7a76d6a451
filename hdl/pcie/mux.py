"""Several packet streams onto one."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2


class PacketMux(wiring.Component):
    """Takes whole packets from its inputs in turn (round robin among those that offer one).

    Parameters
    ----------
    layout : StructLayout
        A beat; its member `last` ends a packet.
    count : int
        Inputs.

    Members
    -------
    i : In(stream of `layout`), array of `count`
    o : Out(stream of `layout`)
    source : Out, the input from which the beat on `o` came
    held : Out(count), bit k: the beat on `o` came from input k and has not been taken

    Latency one cycle, one beat a cycle. An input that stops inside a packet stops the others.
    """

    latency = 1

    def __init__(self, layout: data.StructLayout, count: int):
        self._count = count
        super().__init__(
            {
                "i": In(stream.Signature(layout)).array(count),
                "o": Out(stream.Signature(layout)),
                "source": Out(max(1, ceil_log2(count))),
                "held": Out(count),
            }
        )

    def elaborate(self, platform):
        m = Module()
        count = self._count
        inside = Signal()
        choice = Signal.like(self.source)
        m.d.comb += choice.eq(self.source)
        with m.If(~inside):
            with m.Switch(self.source):
                for last in range(count):
                    with m.Case(last):
                        # The latest assignment wins: the input after the last one served.
                        for distance in reversed(range(1, count + 1)):
                            candidate = (last + distance) % count
                            with m.If(self.i[candidate].valid):
                                m.d.comb += choice.eq(candidate)

        load = Signal()
        m.d.comb += load.eq(~self.o.valid | self.o.ready)
        with m.If(load):
            m.d.sync += self.o.valid.eq(0)
            with m.Switch(choice):
                for index in range(count):
                    with m.Case(index):
                        m.d.comb += self.i[index].ready.eq(1)
                        with m.If(self.i[index].valid):
                            m.d.sync += [
                                self.o.valid.eq(1),
                                self.o.p.eq(self.i[index].p),
                                self.source.eq(index),
                                inside.eq(~self.i[index].p.last),
                            ]
        m.d.comb += [
            self.held[index].eq(self.o.valid & (self.source == index)) for index in range(count)
        ]
        return m
