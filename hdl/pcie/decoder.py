"""What a received request asks for, and whether the card serves it."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS, RequestHeader, is_non_posted

REGISTER_BAR = 0
WINDOW_BAR = 2
PAGE_BYTES = 4096


class Action(enum.Enum, shape=3):
    """What to do with a request."""

    #: Discard it; answer "unsupported request" if it is non-posted.
    REFUSE = 0
    #: A read of no bytes: answer one doubleword of no meaning, after every earlier write.
    FLUSH = 1
    REGISTER_READ = 2
    REGISTER_WRITE = 3
    WINDOW_READ = 4
    WINDOW_WRITE = 5
    #: A write of no bytes: discard it.
    NOTHING = 6


DECISION = data.StructLayout(
    {
        "action": Action,
        "posted": 1,
        "dwords": 11,
        "bytes": BYTE_COUNT_BITS,
        "lower_address": 7,
        "poisoned": 1,
    }
)
"""`bytes` and `lower_address` are those of the first completion of a read (table 2-38 of the PCI
Express Base Specification 3.0). `poisoned` says that the request carries data which is known to be
wrong."""


class RequestDecoder(wiring.Component):
    """Judges a request by its header. Combinational.

    Served are: one or two whole registers of BAR 0; any bytes of BAR 2 that lie in card memory, as
    its byte enables say; requests of no bytes. Nothing that crosses 4 KiB.

    Members
    -------
    header : In(`RequestHeader`)
    bar : In(3)
    malformed : In(1), the payload is not what the header says
    address : Out(64), of the first doubleword
    decision : Out(`DECISION`)
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "header": In(RequestHeader),
                "bar": In(3),
                "malformed": In(1),
                "address": Out(64),
                "decision": Out(DECISION),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        header, decision = self.header, self.decision

        kind = header.type[:5]
        with_data = header.type[6]
        memory, prefix = Signal(), header.type[7]
        m.d.comb += [
            memory.eq((kind == 0) & ~prefix),
            decision.poisoned.eq(with_data & header.poisoned & ~prefix),
            decision.posted.eq(~is_non_posted(header.type)),
        ]
        with m.If(header.type[5]):
            m.d.comb += self.address.eq(
                Cat(Const(0, 2), header.address_low[2:], header.address_high)
            )
        with m.Else():
            m.d.comb += self.address.eq(Cat(Const(0, 2), header.address_high[2:]))

        single = header.length == 1
        m.d.comb += decision.dwords.eq(Mux(header.length == 0, 1024, header.length))
        # Disabled bytes before the first and after the last enabled one.
        lead = Signal(2)
        trail = Signal(2)
        tail = Mux(single, header.first_be, header.last_be)
        for count in (1, 2, 3):
            with m.If(~header.first_be[:count].any()):
                m.d.comb += lead.eq(count)
            with m.If(~tail[4 - count :].any()):
                m.d.comb += trail.eq(count)
        nothing = Signal()
        m.d.comb += [
            nothing.eq(single & (header.first_be == 0) & (header.last_be == 0)),
            decision.bytes.eq((decision.dwords << 2) - lead - trail),
            decision.lower_address.eq(Cat(lead, self.address[2:7])),
        ]
        with m.If(nothing):
            m.d.comb += [decision.bytes.eq(1), decision.lower_address[:2].eq(0)]
        with m.If(~memory):
            m.d.comb += [decision.bytes.eq(4), decision.lower_address.eq(0)]

        # Of several doublewords the first and the last have an enabled byte.
        legal = Signal()
        whole = Signal()
        m.d.comb += [
            legal.eq(
                Mux(single, header.last_be == 0, header.first_be.any() & header.last_be.any())
            ),
            whole.eq(legal & (header.first_be == 0b1111) & (tail == 0b1111)),
        ]

        sane = Signal()
        known = Signal()
        register = Signal()
        window = Signal()
        offset = self.address[: ceil_log2(config.window_bytes)]
        memory_end = config.scratchpad_address(config.cores)
        page_offset = self.address[: exact_log2(PAGE_BYTES)]
        m.d.comb += [
            sane.eq(
                memory
                & ~self.malformed
                & ~decision.poisoned
                & (page_offset + (decision.dwords << 2) <= PAGE_BYTES)
            ),
            known.eq((self.bar == REGISTER_BAR) | (self.bar == WINDOW_BAR)),
            register.eq((self.bar == REGISTER_BAR) & whole & (single | (header.length == 2))),
            window.eq((self.bar == WINDOW_BAR) & legal & (offset < memory_end)),
        ]
        with m.If(sane & known & nothing):
            m.d.comb += decision.action.eq(Mux(with_data, Action.NOTHING, Action.FLUSH))
        with m.Elif(sane & register):
            m.d.comb += decision.action.eq(
                Mux(with_data, Action.REGISTER_WRITE, Action.REGISTER_READ)
            )
        with m.Elif(sane & window):
            m.d.comb += decision.action.eq(Mux(with_data, Action.WINDOW_WRITE, Action.WINDOW_READ))
        return m
