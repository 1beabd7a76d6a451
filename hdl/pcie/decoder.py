"""What a received request asks for, and whether the card serves it."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.tlp import RequestHeader, is_non_posted

REGISTER_BAR = 0
WINDOW_BAR = 2
PAGE_BYTES = 4096


class Action(enum.Enum, shape=3):
    """What to do with a request."""

    #: Discard it; answer "unsupported request" if it is non-posted.
    REFUSE = 0
    #: A zero-length read: answer one doubleword of no meaning, after every earlier write.
    FLUSH = 1
    REGISTER_READ = 2
    REGISTER_WRITE = 3
    WINDOW_READ = 4
    WINDOW_WRITE = 5


class Decision(data.Struct):
    """`bytes` and `lower_address` are those of the first completion of a read (table 2-38 of the
    PCI Express Base Specification 3.0), or the bytes to write. `poisoned` says that it carries
    data which is known to be wrong."""

    action: Action
    posted: 1
    bytes: 13
    lower_address: 7
    poisoned: 1


class RequestDecoder(wiring.Component):
    """Judges a request by its header. Combinational.

    Served are: one or two whole registers of BAR 0; bytes of BAR 2 that start at a bus word, have
    no gap and lie in card memory; reads of length zero. Nothing that crosses 4 KiB.

    Members
    -------
    header : In(`RequestHeader`)
    bar : In(3)
    malformed : In(1), the payload is not what the header says
    address : Out(64), of the first doubleword
    decision : Out(`Decision`)
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "header": In(RequestHeader),
                "bar": In(3),
                "malformed": In(1),
                "address": Out(64),
                "decision": Out(Decision),
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
        dwords = Mux(header.length == 0, 1024, header.length)
        # Disabled bytes before the first and after the last enabled one.
        lead = Signal(2)
        trail = Signal(2)
        tail = Mux(single, header.first_be, header.last_be)
        for count in (1, 2, 3):
            with m.If(~header.first_be[:count].any()):
                m.d.comb += lead.eq(count)
        tail_has_gap = Signal()
        with m.Switch(tail):
            for count, mask in ((3, 0b0001), (2, 0b0011), (1, 0b0111), (0, 0b1111)):
                with m.Case(mask):
                    m.d.comb += trail.eq(count)
            for count, patterns in ((2, ("0010",)), (1, ("01-0", "0101")), (0, ("1---",))):
                with m.Case(*patterns):
                    m.d.comb += [trail.eq(count), tail_has_gap.eq(1)]
            with m.Default():
                m.d.comb += tail_has_gap.eq(1)
        nothing = Signal()
        m.d.comb += [
            nothing.eq(single & (header.first_be == 0) & (header.last_be == 0)),
            decision.bytes.eq((dwords << 2) - lead - trail),
            decision.lower_address.eq(Cat(lead, self.address[2:7])),
        ]
        with m.If(nothing):
            m.d.comb += [decision.bytes.eq(1), decision.lower_address[:2].eq(0)]
        with m.If(~memory):
            m.d.comb += [decision.bytes.eq(4), decision.lower_address.eq(0)]

        contiguous = Signal()
        whole = Signal()
        single_or_full = Mux(single, header.last_be == 0, header.first_be == 0b1111)
        m.d.comb += [
            contiguous.eq(~tail_has_gap & single_or_full),
            whole.eq(contiguous & (tail == 0b1111)),
        ]

        sane = Signal()
        register = Signal()
        window = Signal()
        word_bits = exact_log2(config.bus_bytes)
        offset = self.address[: ceil_log2(config.window_bytes)]
        memory_end = config.scratchpad_address(config.cores)
        m.d.comb += [
            sane.eq(
                memory
                & ~self.malformed
                & ~decision.poisoned
                & (self.address[: exact_log2(PAGE_BYTES)] + (dwords << 2) <= PAGE_BYTES)
            ),
            register.eq((self.bar == REGISTER_BAR) & whole & (single | (header.length == 2))),
            window.eq(
                (self.bar == WINDOW_BAR)
                & contiguous
                & (self.address[:word_bits] == 0)
                & (offset < memory_end)
            ),
        ]
        with m.If(sane):
            with m.If(register):
                m.d.comb += decision.action.eq(Action.REGISTER_READ)
                with m.If(with_data):
                    m.d.comb += decision.action.eq(Action.REGISTER_WRITE)
            with m.Elif(window):
                m.d.comb += decision.action.eq(Action.WINDOW_READ)
                with m.If(with_data):
                    m.d.comb += decision.action.eq(Action.WINDOW_WRITE)
            with m.Elif(
                nothing & ~with_data & ((self.bar == REGISTER_BAR) | (self.bar == WINDOW_BAR))
            ):
                m.d.comb += decision.action.eq(Action.FLUSH)
        return m
