"""Who passes its command to the descriptor checker next."""

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.command.fetcher import is_extended
from halfdome.hdl.commands import Engine
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import HEADER, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.memory.arbiter import NextTurn, index_bits


def ring_slot(config: CardConfig) -> data.StructLayout:
    """What a slot of a ring holds, and whose ring it is."""
    return data.StructLayout({"bits": DESCRIPTOR_BITS, "core": index_bits(config.cores)})


def queue_of(bits: Value) -> Value:
    """The engine whose queue a command joins, by its first slot: LOAD if it names none."""
    number = data.View(layout(HEADER), bits).opcode[4:]
    return Mux(number < len(Engine), number, Engine.LOAD)


class RingTurns(wiring.Component):
    """Passes whole commands of the rings on, in turn.

    A command passes when the queue that it is for has room: whatever takes it can pass it on to
    there, and a core whose queue is full stops its own ring alone. The one ring of a card of one
    core has nobody to stop, so its commands pass at once.

    Members
    -------
    i : In(stream of DESCRIPTOR_BITS).array(cores), see `CommandFetcher`
    room : In(len(Engine)).array(cores), bit i: queue i of the core has room for one more; true
        when `o` is ready, for all that has passed
    o : Out(stream of `ring_slot`), offered only when it is taken

    A command that may pass sees at most one of every other core pass before it.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(DESCRIPTOR_BITS)).array(config.cores),
                "room": In(len(Engine)).array(config.cores),
                "o": Out(stream.Signature(ring_slot(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cores = self._config.cores
        core = Signal(index_bits(cores))
        fits = Signal(cores)
        fitting = Signal()
        extended = Signal()
        second = Signal()
        m.submodules.turn = turn = NextTurn(cores)
        m.d.comb += [turn.requests.eq(fits), turn.last.eq(core), self.o.p.core.eq(core)]
        for number, i in enumerate(self.i):
            has_room = self.room[number].bit_select(queue_of(i.p), 1) if cores > 1 else 1
            m.d.comb += fits[number].eq(i.valid & (second | has_room))
            # Nothing chooses among the slots of an only core.
            with m.If(core == number if cores > 1 else Const(1)):
                m.d.comb += [
                    fitting.eq(fits[number]),
                    i.ready.eq(self.o.ready & fits[number]),
                    self.o.p.bits.eq(i.p),
                ]
        m.d.comb += [
            self.o.valid.eq(self.o.ready & fitting),
            extended.eq(is_extended(self.o.p.bits) & ~second),
        ]
        # The second half comes at once, or never.
        m.d.sync += second.eq(self.o.valid & extended)
        passed_on = self.o.valid & ~extended
        with m.If((passed_on | (~fitting & ~second)) & fits.any()):
            m.d.sync += core.eq(turn.index)
        return m
