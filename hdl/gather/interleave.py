"""Keeps several bags in flight, so that a bag's chain of additions does not set the pace."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hdl.gather.sequencer import Lookup

CONTEXTS = 4
"""Bags in flight. Four rows of four chunks cover the latency of an addition and an fma."""
LOOKUPS = 64
"""Lookups that wait in each context: bags up to this length overlap fully."""

ContextLookup = data.StructLayout({"lookup": Lookup, "context": range(CONTEXTS)})
"""A lookup and the context its bag belongs to."""


class BagInterleaver(wiring.Component):
    """Deals bags to contexts in turn and takes one lookup of each context in turn.

    Members
    -------
    restart : In(1), the next bag goes to context 0; only while no lookup waits
    i : In(stream of `Lookup`), bag after bag
    o : Out(stream of `ContextLookup`)

    Bag `b` belongs to context `b % CONTEXTS`; within a context, order is kept. Throughput is one
    lookup a cycle.
    """

    def __init__(self):
        super().__init__(
            {
                "restart": In(1),
                "i": In(stream.Signature(Lookup)),
                "o": Out(stream.Signature(ContextLookup)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        queues = [SyncFIFOBuffered(width=Lookup.size, depth=LOOKUPS) for _ in range(CONTEXTS)]
        deal = Signal(range(CONTEXTS))
        for context, queue in enumerate(queues):
            m.submodules[f"queue_{context}"] = queue
            m.d.comb += queue.w_data.eq(self.i.p)
            with m.If(deal == context):
                m.d.comb += [queue.w_en.eq(self.i.valid), self.i.ready.eq(queue.w_rdy)]
        with m.If(self.restart):
            m.d.sync += [deal.eq(0), self.o.p.context.eq(CONTEXTS - 1)]
        with m.Elif(self.i.valid & self.i.ready & self.i.p.last):
            m.d.sync += deal.eq(deal + 1)

        latest = self.o.p.context
        with m.If((~self.o.valid | self.o.ready) & ~self.restart):
            m.d.sync += self.o.valid.eq(0)
            with m.Switch(latest):
                for turn in range(CONTEXTS):
                    with m.Case(turn):
                        order = [(turn + 1 + i) % CONTEXTS for i in range(CONTEXTS)]
                        self._take_first(m, queues, order)
        return m

    def _take_first(self, m: Module, queues: list[SyncFIFOBuffered], order: list[int]) -> None:
        """Moves the head of the first queue of `order` that has one to the output."""
        for rank, context in enumerate(order):
            queue = queues[context]
            with m.If(queue.r_rdy) if rank == 0 else m.Elif(queue.r_rdy):
                m.d.comb += queue.r_en.eq(1)
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.p.lookup.eq(data.View(Lookup, queue.r_data)),
                    self.o.p.context.eq(context),
                ]
