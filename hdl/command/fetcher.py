"""Brings descriptors from the submission rings in host memory to the card."""

from amaranth import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import DESCRIPTOR_BYTES, HEADER, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.memory.arbiter import UrgentFirst, index_bits
from halfdome.hdl.pcie.port import FetchPort

_PAGE_DESCRIPTORS = 4096 // DESCRIPTOR_BYTES

RING = data.StructLayout({"base": 64, "size": 13, "tail": 12})
"""A submission ring: base address, descriptors, first descriptor not yet valid."""


def is_extended(bits: Value) -> Value:
    """Whether the first slot of a command says that there is a second."""
    return data.View(layout(HEADER), bits).extension == 1


class CommandFetcher(wiring.Component):
    """Fetches what lies between head and tail of each core's ring, ring after ring.

    One read at a time, as many descriptors as it can hold, never across 4 KiB or the end of the
    ring, and only when all of it has room in what is kept of that ring: one that is not emptied
    stops nobody else. If a read fails, `failed` pulses and the descriptors it should have brought
    stay unfetched.

    Members
    -------
    fetch : Out(FetchPort)
    o : Out(stream of DESCRIPTOR_BITS).array(cores), the slots of each ring
    ring : In(`RING`).array(cores)
    enable : In(cores), rings to be fetched
    urgent : In(cores), rings that are read before others, see `UrgentFirst`
    restart : In(cores), start at descriptor 0; what was fetched, or an open read brings, is dropped
    head : Out(12).array(cores), first descriptor not yet fetched
    failed : Out(cores)
    idle : Out(cores), nothing to fetch and nothing held, or one half of a command

    A command of two slots is offered when both are there: the second follows in the cycle after
    the first, or the ring was restarted. A restart takes back what is offered.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        cores = config.cores
        super().__init__(
            {
                "fetch": Out(FetchPort(config)),
                "o": Out(stream.Signature(DESCRIPTOR_BITS)).array(cores),
                "ring": In(RING).array(cores),
                "enable": In(cores),
                "urgent": In(cores),
                "restart": In(cores),
                "head": Out(12).array(cores),
                "failed": Out(cores),
                "idle": Out(cores),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        cores = config.cores
        batch = config.max_read_request_bytes // DESCRIPTOR_BYTES
        per_word = max(1, config.bus_bytes // DESCRIPTOR_BYTES)

        # Of the ring whose turn it is.
        core = Signal(index_bits(cores), init=cores - 1)
        ring = Signal(RING)
        head = Signal(12)
        due = Signal()
        restarted = Signal()
        wanted = Signal(cores)
        pass_on = Signal()
        m.submodules.turn = turn = UrgentFirst(cores)
        m.d.comb += [
            turn.requests.eq(wanted),
            turn.urgent.eq(self.urgent),
            turn.advance.eq(pass_on),
        ]

        brought = Signal()
        bits = Signal(DESCRIPTOR_BITS)
        reading = Signal()
        for number in range(cores):
            fifo = SyncFIFOBuffered(width=DESCRIPTOR_BITS, depth=2 * batch)
            m.submodules[f"fifo{number}"] = ResetInserter(self.restart[number])(fifo)
            ahead = Signal(name=f"ahead{number}")
            m.d.comb += [
                fifo.w_data.eq(bits),
                ahead.eq(self.enable[number] & (self.head[number] != self.ring[number].tail)),
                wanted[number].eq(ahead & (fifo.level <= batch)),
            ]
            with m.If(core == number):
                m.d.comb += [
                    ring.eq(self.ring[number]),
                    head.eq(self.head[number]),
                    due.eq(wanted[number]),
                    restarted.eq(self.restart[number]),
                    fifo.w_en.eq(brought),
                ]
                with m.If(brought):
                    m.d.sync += self.head[number].eq((head + 1) & (ring.size - 1))
            with m.If(self.restart[number]):
                m.d.sync += self.head[number].eq(0)
            half = self._offer(m, number, fifo)
            m.d.comb += self.idle[number].eq(
                ~(reading & (core == number)) & ~ahead & ((fifo.level == 0) | half)
            )

        # Reads are whole bus words; where one holds two descriptors, the first may be an old one.
        address = Signal(64)
        run = Signal(13)
        count = Signal(range(batch + 1))
        page_index = address[6:12]
        skip = Signal(range(per_word))
        m.d.comb += skip.eq(page_index & (per_word - 1))
        m.d.comb += self.fetch.request.p.address.eq(address & ~(config.bus_bytes - 1))
        units = (skip + count + per_word - 1) >> exact_log2(per_word)
        unit_bytes = max(config.bus_bytes, DESCRIPTOR_BYTES)
        m.d.comb += self.fetch.request.p.bytes.eq(units << exact_log2(unit_bytes))

        response = self.fetch.response
        store = Signal()
        discard = Signal()
        with m.If(pass_on & wanted.any()):
            m.d.sync += core.eq(turn.index)
        self._unpack(m, bits, brought, skip, count, store)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [
                    address.eq(ring.base + head * DESCRIPTOR_BYTES),
                    run.eq(Mux(ring.tail > head, ring.tail - head, ring.size - head)),
                    discard.eq(0),
                ]
                with m.If(due & ~restarted):
                    m.next = "PLAN"
                with m.Else():
                    m.d.comb += pass_on.eq(1)
            with m.State("PLAN"):
                in_page = Signal(range(_PAGE_DESCRIPTORS + 1))
                in_read = Signal(range(batch + 1))
                limit = Signal(range(batch + 1))
                m.d.comb += [
                    in_page.eq(_PAGE_DESCRIPTORS - page_index),
                    in_read.eq(batch - skip),
                    limit.eq(Mux(in_page < in_read, in_page, in_read)),
                ]
                m.d.sync += count.eq(Mux(run < limit, run, limit))
                m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.fetch.request.valid.eq(1)
                with m.If(self.fetch.request.ready):
                    m.next = "RESPONSE"
            with m.State("RESPONSE"):
                good = ~discard & ~restarted
                m.d.comb += store.eq(response.valid & ~response.p.failed & good)
                with m.If(response.valid & response.ready & response.p.last):
                    with m.If(response.p.failed & good):
                        m.d.comb += self.failed.eq(1 << core)
                    m.d.comb += pass_on.eq(1)
                    m.next = "IDLE"
        m.d.comb += reading.eq(~fsm.ongoing("IDLE"))
        with m.If(restarted):
            m.d.sync += discard.eq(1)
        return m

    def _offer(self, m: Module, number: int, fifo: SyncFIFOBuffered) -> Signal:
        """Offers whole commands of a ring; whether there is one half alone."""
        o, second = self.o[number], Signal(name=f"second{number}")
        half = Signal(name=f"half{number}")
        extended = is_extended(fifo.r_data)
        m.d.comb += [
            half.eq(fifo.r_rdy & (fifo.level == 1) & extended & ~second),
            o.p.eq(fifo.r_data),
            o.valid.eq(fifo.r_rdy & ~half & ~self.restart[number]),
            fifo.r_en.eq(o.valid & o.ready),
        ]
        with m.If(fifo.r_en):
            m.d.sync += second.eq(extended & ~second)
        with m.If(self.restart[number]):
            m.d.sync += second.eq(0)
        return half

    def _unpack(
        self, m: Module, bits: Signal, brought: Signal, skip: Signal, count: Signal, store: Signal
    ):
        """Turns the words of a response into descriptors, written while `store`."""
        response = self.fetch.response
        # Words, or descriptors where a word holds several, since the start of the response.
        position = Signal(range(4096 // min(self._config.bus_bytes, DESCRIPTOR_BYTES) + 1))
        if self._config.bus_bytes > DESCRIPTOR_BYTES:
            per_word = self._config.bus_bytes // DESCRIPTOR_BYTES
            slot = position[: (per_word - 1).bit_length()]
            m.d.comb += [
                response.ready.eq((slot == per_word - 1) | response.p.failed),
                bits.eq(response.p.data.word_select(slot, DESCRIPTOR_BITS)),
                brought.eq(store & (position >= skip) & (position < skip + count)),
            ]
        else:
            parts = DESCRIPTOR_BYTES // self._config.bus_bytes
            held = Signal(DESCRIPTOR_BITS - len(response.p.data))
            last_part = (position & (parts - 1)) == parts - 1
            m.d.comb += [
                response.ready.eq(1),
                bits.eq(Cat(held, response.p.data)),
                brought.eq(store & last_part),
            ]
            with m.If(response.valid):
                m.d.sync += held.eq(Cat(held, response.p.data) >> len(response.p.data))
        with m.If(response.valid):
            m.d.sync += position.eq(position + 1)
            with m.If(response.ready & response.p.last):
                m.d.sync += position.eq(0)
