"""Writes pooled rows to memory."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.config import ADDRESS_BITS, CardConfig
from hdl.gather.interleave import CONTEXTS
from hdl.gather.lanes import pooled_chunk
from hdl.gather.shape import row_shape
from hdl.memory.port import write_request


class BagWriter(wiring.Component):
    """Writes the chunks of pooled rows as bus words, strobing only the row's own bytes.

    Members
    -------
    restart : In(1), the next row of context `c` is that of bag `c`
    output, output_stride : In, of the command in progress
    shape : In(`row_shape`)
    i : In(stream of `pooled_chunk`), row after row
    o : Out(stream of `write_request`)

    Bag `b` of context `b % CONTEXTS` goes to `output + b * output_stride`. Throughput is one word
    or one chunk a cycle, whichever is smaller.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "restart": In(1),
                "output": In(ADDRESS_BITS),
                "output_stride": In(16),
                "shape": In(row_shape(config)),
                "i": In(stream.Signature(pooled_chunk(config))),
                "o": Out(stream.Signature(write_request(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        chunk_bytes = 4 * config.lanes
        word_bytes = config.bus_bytes
        free = Signal()
        row_done = Signal()
        strobe = Signal(chunk_bytes)
        lane_on = Mux(self.i.p.last, self.shape.last_mask, -1)
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            strobe.eq(Cat(lane_on[lane].replicate(4) for lane in range(config.lanes))),
        ]

        # One address per context, a stride of CONTEXTS bags apart.
        addresses = [Signal(ADDRESS_BITS, name=f"address_{c}") for c in range(CONTEXTS)]
        row_offset = Signal(range(4 * config.max_dim + 1))
        base = Signal(ADDRESS_BITS)
        with m.Switch(self.i.p.context):
            for context, address in enumerate(addresses):
                with m.Case(context):
                    m.d.comb += base.eq(address)
                    with m.If(row_done):
                        m.d.sync += address.eq(address + (self.output_stride * CONTEXTS))
        with m.If(self.restart):
            for context, address in enumerate(addresses):
                m.d.sync += address.eq(self.output + self.output_stride * context)

        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        send = Signal()
        with m.If(send):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.p.address.eq(base + row_offset),
                row_offset.eq(Mux(row_done, 0, row_offset + word_bytes)),
            ]

        if chunk_bytes >= word_bytes:
            # A chunk is one word or more; those beyond the row's end are not sent.
            parts = chunk_bytes // word_bytes
            part = Signal(range(parts)) if parts > 1 else Signal(1)
            rest = strobe.word_select(part + 1, word_bytes) if parts > 1 else 0
            chunk_done = Signal()
            m.d.comb += [
                chunk_done.eq((part == parts - 1) | (rest == 0)),
                send.eq(self.i.valid & free),
                self.i.ready.eq(free & chunk_done),
                row_done.eq(send & chunk_done & self.i.p.last),
            ]
            with m.If(send):
                m.d.sync += [
                    part.eq(Mux(chunk_done, 0, part + 1)),
                    self.o.p.data.eq(self.i.p.data.word_select(part, 8 * word_bytes)),
                    self.o.p.strobe.eq(strobe.word_select(part, word_bytes)),
                ]
        else:
            # Several chunks make a word.
            parts = word_bytes // chunk_bytes
            part = Signal(range(parts))
            m.d.comb += [
                self.i.ready.eq(free),
                row_done.eq(self.i.valid & free & self.i.p.last),
                send.eq(self.i.valid & free & ((part == parts - 1) | self.i.p.last)),
            ]
            with m.If(self.i.valid & free):
                with m.If(part == 0):
                    m.d.sync += self.o.p.strobe.eq(0)
                m.d.sync += [
                    part.eq(Mux(send, 0, part + 1)),
                    self.o.p.data.word_select(part, 8 * chunk_bytes).eq(self.i.p.data),
                    self.o.p.strobe.word_select(part, chunk_bytes).eq(strobe),
                ]
        return m
