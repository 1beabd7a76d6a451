"""Brings a card, or one core of it, back to its first state while all else goes on."""

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

    The reset pin clears registers but no memory, so after it the timeline counters are zeroed, too,
    one a cycle. Whoever writes one of them before that is done is not heard.
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
        with m.FSM(init="ZERO"):
            with m.State("RUN"):
                with m.If(self.request):
                    self._begin(m, counter)
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
                with m.If(self.request):
                    self._begin(m, counter)
            with m.State("CLEAR"):
                m.d.comb += self.clear.eq(self.flush)
                m.d.sync += self.flush.eq(0)
                m.next = "RUN"
                with m.If(self.request):
                    self._begin(m, counter)
        return m

    def _begin(self, m: Module, counter: Signal):
        m.d.sync += [self.flush.eq(1), counter.eq(0)]
        m.next = "DRAIN"


class CoreResets(wiring.Component):
    """Throws away what waits of a core and lets what runs end, beside cores that go on.

    Members
    -------
    request : In(cores), pulses
    drained : In(cores), no command of the core is anywhere
    flush : Out(cores), from the cycle after the request until the core is drained: its ring is at
        its start, no new command, no signal, no completion
    """

    def __init__(self, config: CardConfig):
        super().__init__(
            {
                "request": In(config.cores),
                "drained": In(config.cores),
                "flush": Out(config.cores),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.flush.eq((self.flush & ~self.drained) | self.request)
        return m
