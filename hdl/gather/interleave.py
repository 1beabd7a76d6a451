"""Keeps several bags in flight, so that a bag's chain of additions does not set the pace."""

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.sequencer import lookup
from halfdome.hdl.memory.arbiter import RoundRobin
from halfdome.hdl.once import ResetInserter

LOOKUPS = 128
"""Lookups that wait in each context: bags up to this length overlap fully."""


def context_lookup(config: CardConfig) -> data.StructLayout:
    """A lookup and the context its bag belongs to."""
    return data.StructLayout({"lookup": lookup(config), "context": range(config.gather_contexts)})


class BagInterleaver(wiring.Component):
    """Deals bags to contexts in turn and takes one lookup of each context in turn.

    Parameters
    ----------
    config : CardConfig
    spacing : int
        Cycles, at least, from a lookup of a bag to the next of the same: what adding a row takes.
        Rows that come faster would hold up those of the bags that follow.

    Members
    -------
    restart : In(1), the next bag goes to context 0; only while no lookup waits
    i : In(stream of `lookup`), bag after bag
    o : Out(stream of `context_lookup`)

    Of `n = config.gather_contexts`, bag `b` belongs to context `b % n`; within a context, order is
    kept. Throughput is one lookup a cycle, but `n` in `spacing` cycles; a lookup is offered
    `latency` cycles after it was taken, or later.
    """

    latency = 2

    def __init__(self, config: CardConfig, spacing: int):
        self._config = config
        self._spacing = spacing
        super().__init__(
            {
                "restart": In(1),
                "i": In(stream.Signature(lookup(config))),
                "o": Out(stream.Signature(context_lookup(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        contexts, layout = self._config.gather_contexts, lookup(self._config)
        place_bits = exact_log2(LOOKUPS)
        m.submodules.memory = memory = Memory(shape=layout, depth=contexts * LOOKUPS, init=[])
        write, read = memory.write_port(), memory.read_port()
        turn = RoundRobin(contexts)
        m.submodules.turn = ResetInserter(self.restart)(turn)

        enters, leaves = Signal(), Signal()
        # Contexts of the latest cycles, newest first.
        recent = Signal(data.ArrayLayout(contexts, self._spacing - 1))
        busy = Signal(contexts)
        m.d.sync += recent.eq(Cat(turn.grant & leaves.replicate(contexts), recent))
        m.d.comb += busy.eq(reduce(or_, recent))

        # One ring of lookups per context, all in one memory.
        deal = Signal(range(contexts))
        m.d.comb += [
            enters.eq(self.i.valid & self.i.ready),
            leaves.eq((~self.o.valid | self.o.ready) & turn.requests.any()),
            turn.advance.eq(leaves),
            write.data.eq(self.i.p),
            write.en.eq(enters),
            read.en.eq(leaves),
            self.o.p.lookup.eq(read.data),
        ]
        for context in range(contexts):
            level = Signal(range(LOOKUPS + 1), name=f"level_{context}")
            first = Signal(place_bits, name=f"first_{context}")
            free = Signal(place_bits, name=f"free_{context}")
            here, chosen = deal == context, turn.grant[context]
            m.d.comb += turn.requests[context].eq((level != 0) & ~busy[context])
            with m.If(here):
                m.d.comb += [
                    self.i.ready.eq(level != LOOKUPS),
                    write.addr.eq(Cat(free, deal)),
                ]
            with m.If(chosen):
                m.d.comb += read.addr.eq(Cat(first, turn.index))
            m.d.sync += [
                level.eq(level + (enters & here) - (leaves & chosen)),
                free.eq(free + (enters & here)),
                first.eq(first + (leaves & chosen)),
            ]
        with m.If(self.restart):
            m.d.sync += deal.eq(0)
        with m.Elif(enters & self.i.p.last):
            m.d.sync += deal.eq(deal + 1)

        with m.If(leaves):
            m.d.sync += [self.o.valid.eq(1), self.o.p.context.eq(turn.index)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
