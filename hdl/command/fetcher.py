"""Brings descriptors from the submission ring in host memory to the card."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import DESCRIPTOR_BYTES
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.pcie.port import FetchPort

_PAGE_DESCRIPTORS = 4096 // DESCRIPTOR_BYTES

RING = data.StructLayout({"enable": 1, "base": 64, "size": 13, "tail": 12})
"""The submission ring: base address, descriptors, first descriptor not yet valid."""


def ring_slot() -> data.StructLayout:
    """What a slot of the ring holds, and whether it is the first since the ring was restarted."""
    return data.StructLayout({"bits": DESCRIPTOR_BITS, "first": 1})


class CommandFetcher(wiring.Component):
    """Fetches what lies between head and tail, as many descriptors as one PCIe read can hold.

    One read at a time, never across 4 KiB or the end of the ring, and only when all of it has room.
    If a read fails, `failed` pulses and the descriptors it should have brought stay unfetched.

    Members
    -------
    fetch : Out(FetchPort)
    o : Out(stream of `ring_slot`)
    ring : In(`RING`)
    restart : In(1), start at descriptor 0; what an open read brings is dropped
    head : Out(12), first descriptor not yet fetched
    failed : Out(1)
    idle : Out(1), nothing to fetch and nothing held
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "fetch": Out(FetchPort(config)),
                "o": Out(stream.Signature(ring_slot())),
                "ring": In(RING),
                "restart": In(1),
                "head": Out(12),
                "failed": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        batch = config.max_read_request_bytes // DESCRIPTOR_BYTES
        per_word = max(1, config.bus_bytes // DESCRIPTOR_BYTES)

        m.submodules.fifo = fifo = SyncFIFOBuffered(width=ring_slot().size, depth=2 * batch)
        m.d.comb += [
            self.o.p.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        due = Signal()
        m.d.comb += due.eq(self.ring.enable & (self.head != self.ring.tail))

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
        self._unpack(m, fifo, skip, count, store)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [
                    address.eq(self.ring.base + self.head * DESCRIPTOR_BYTES),
                    run.eq(
                        Mux(
                            self.ring.tail > self.head,
                            self.ring.tail - self.head,
                            self.ring.size - self.head,
                        )
                    ),
                    discard.eq(0),
                ]
                with m.If(due & (fifo.level <= batch) & ~self.restart):
                    m.next = "PLAN"
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
                m.d.comb += store.eq(response.valid & ~response.p.failed & ~discard & ~self.restart)
                with m.If(response.valid & response.ready & response.p.last):
                    m.d.comb += self.failed.eq(response.p.failed & ~discard & ~self.restart)
                    m.next = "IDLE"
        m.d.comb += self.idle.eq(fsm.ongoing("IDLE") & ~due & (fifo.level == 0))

        first = Signal(init=1)
        m.d.comb += fifo.w_data[-1].eq(first)
        with m.If(fifo.w_en):
            m.d.sync += [self.head.eq((self.head + 1) & (self.ring.size - 1)), first.eq(0)]
        with m.If(self.restart):
            m.d.sync += [self.head.eq(0), first.eq(1), discard.eq(1)]
        return m

    def _unpack(self, m: Module, fifo, skip: Signal, count: Signal, store: Signal):
        """Turns the words of a response into descriptors, written to `fifo` while `store`."""
        response = self.fetch.response
        bits = fifo.w_data[:DESCRIPTOR_BITS]
        # Words, or descriptors where a word holds several, since the start of the response.
        position = Signal(range(4096 // min(self._config.bus_bytes, DESCRIPTOR_BYTES) + 1))
        if self._config.bus_bytes > DESCRIPTOR_BYTES:
            per_word = self._config.bus_bytes // DESCRIPTOR_BYTES
            slot = position[: (per_word - 1).bit_length()]
            m.d.comb += [
                response.ready.eq((slot == per_word - 1) | response.p.failed),
                bits.eq(response.p.data.word_select(slot, DESCRIPTOR_BITS)),
                fifo.w_en.eq(store & (position >= skip) & (position < skip + count)),
            ]
        else:
            parts = DESCRIPTOR_BYTES // self._config.bus_bytes
            held = Signal(DESCRIPTOR_BITS - len(response.p.data))
            last_part = (position & (parts - 1)) == parts - 1
            m.d.comb += [
                response.ready.eq(1),
                bits.eq(Cat(held, response.p.data)),
                fifo.w_en.eq(store & last_part),
            ]
            with m.If(response.valid):
                m.d.sync += held.eq(Cat(held, response.p.data) >> len(response.p.data))
        with m.If(response.valid):
            m.d.sync += position.eq(position + 1)
            with m.If(response.ready & response.p.last):
                m.d.sync += position.eq(0)
