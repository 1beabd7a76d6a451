"""Brings a card back to its first state while the link and the memory go on."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.command.counters import COUNTER_WRITE
from halfdome.hdl.config import CardConfig


class ResetSequence(wiring.Component):
    """Lets what runs end, throws away what waits, then clears registers, counters and tags.

    Members
    -------
    request : In(1), pulse
    idle : In(1), no command is anywhere and no read in flight
    flush : Out(1), from the cycle after the request to the end: no fetch, no new command, no
        completion, no interrupt; reads fail and posted writes are dropped
    counter_write : Out(stream of `COUNTER_WRITE`, always ready), zeroes the timeline counters
    clear : Out(1), pulse in the last cycle: registers and tags are as after power-on
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "request": In(1),
                "idle": In(1),
                "flush": Out(1),
                "counter_write": Out(stream.Signature(COUNTER_WRITE, always_ready=True)),
                "clear": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        counter = Signal(range(self._config.counters))
        with m.FSM():
            with m.State("RUN"):
                m.d.sync += counter.eq(0)
                with m.If(self.request):
                    m.d.sync += self.flush.eq(1)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(self.idle):
                    m.next = "ZERO"
            with m.State("ZERO"):
                m.d.comb += [
                    self.counter_write.valid.eq(1),
                    self.counter_write.p.counter.eq(counter),
                ]
                m.d.sync += counter.eq(counter + 1)
                with m.If(counter == self._config.counters - 1):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += self.clear.eq(1)
                m.d.sync += self.flush.eq(0)
                m.next = "RUN"
        return m
