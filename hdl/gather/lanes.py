"""The accumulate lanes: acc = fma(weight * scale, q, acc + weight * bias), element by element."""

from itertools import pairwise

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.array import count_bits
from halfdome.hdl.gather.lane import Lane
from halfdome.hdl.gather.scale import row_factors
from halfdome.hdl.gather.shape import max_chunks, row_shape
from halfdome.hdl.gather.unpack import ELEMENT_BITS
from halfdome.hdl.once import EnableInserter, Once


def pooled_chunk(config: CardConfig) -> data.StructLayout:
    """A chunk of a pooled row: fp32 of `config.lanes` elements; `last` ends the row.

    `rows` is how many rows the bag has been summed from.
    """
    return data.StructLayout(
        {
            "data": data.ArrayLayout(32, config.lanes),
            "context": range(config.gather_contexts),
            "last": 1,
            "rows": count_bits(config),
        }
    )


class AccumulateLanes(wiring.Component):
    """Adds rows to the accumulators of their bags and hands over each bag after its last row.

    Members
    -------
    restart : In(1), every context starts a new bag
    shape : In(`row_shape`)
    factors : In(stream of `row_factors`), one per row or bag end
    chunks : In(stream of `32 * config.lanes` bits), the chunks of every `factors` with `row` set
    o : Out(stream of `pooled_chunk`), the chunks of every `factors` with `last` set
    working : Out(1), a chunk enters the lanes or waits for the sum it must be added to
    blocked : Out(1), a chunk waits for room at the output
    drained : Out(1), no chunk of a finished bag is inside

    Throughput is one chunk a cycle, or in two where a lane takes turns, and one row of a bag every
    `chain_latency` cycles: a chunk waits while the sum it must be added to is on its way.

    Invariant: what enters has room at the output, so nothing stalls between the two.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._lanes = [
            Lane(config.gather_float_stages, in_turns=config.gather_in_turns)
            for _ in range(config.lanes)
        ]
        #: Cycles from an addition to the next one to the same accumulator.
        self.chain_latency = self._lanes[0].latency + 1
        #: Cycles after a chunk in which none enters: it is multiplied then. 0 for none.
        self.turn = self._lanes[0].turn
        #: Chunks of finished bags for which there is room: what may be inside, and as many more.
        self.output_depth = self.chain_latency if self.turn else 2 * self.chain_latency
        super().__init__(
            {
                "restart": In(1),
                "shape": In(row_shape(config)),
                "factors": In(stream.Signature(row_factors(config))),
                "chunks": In(stream.Signature(ELEMENT_BITS * config.lanes)),
                "o": Out(stream.Signature(pooled_chunk(config))),
                "working": Out(1),
                "blocked": Out(1),
                "drained": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        factors = self.factors.p
        output = pooled_chunk(config)
        m.submodules.queue = queue = SyncFIFOBuffered(width=output.size, depth=self.output_depth)

        # Issue: one chunk a cycle, unless its accumulator or the output is not ready.
        chunk = Signal(range(max_chunks(config)))
        chunk_bits = ceil_log2(max_chunks(config))
        address = Cat(chunk[:chunk_bits], factors.context)
        tag_layout = data.StructLayout(
            {
                "valid": 1,
                "address": len(address),
                "last": 1,  # of the bag
                "last_chunk": 1,
                "rows": count_bits(config),
            }
        )
        tags = [Signal(tag_layout, name=f"tag_{i}") for i in range(self.chain_latency + 1)]
        contexts = config.gather_contexts
        fresh = Signal(contexts, init=-1)  # those whose bag has no row yet
        counts = [
            Signal(count_bits(config), name=f"count_{i}") for i in range(contexts)
        ]  # of others
        count = Signal(count_bits(config))  # with this row
        is_fresh = Signal()
        present = Signal()
        pending = Signal()  # the sum to be added to is on its way
        room = Signal(range(self.output_depth + 1), init=self.output_depth)
        issue = Signal()
        last_chunk = Signal()
        turns = tags[self.turn].valid if self.turn else Const(0)
        m.d.comb += [
            is_fresh.eq(fresh.bit_select(factors.context, 1)),
            present.eq(self.factors.valid & (self.chunks.valid | ~factors.row)),
            pending.eq(
                ~is_fresh
                & Cat(tag.valid & ~tag.last & (tag.address == address) for tag in tags[1:-1]).any()
            ),
            self.blocked.eq(present & ~pending & factors.last & (room == 0)),
            self.working.eq(present & ~self.blocked),
            issue.eq(self.working & ~pending & ~turns),
            last_chunk.eq(chunk == self.shape.last_chunk),
            self.chunks.ready.eq(issue & factors.row),
            self.factors.ready.eq(issue & last_chunk),
            tags[0].valid.eq(issue),
            tags[0].address.eq(address),
            tags[0].last.eq(factors.last),
            tags[0].last_chunk.eq(last_chunk),
            tags[0].rows.eq(count),
        ]
        for earlier, later in pairwise(tags):
            m.d.sync += later.eq(earlier)
        with m.If(issue):
            m.d.sync += chunk.eq(Mux(last_chunk, 0, chunk + 1))
        with m.Switch(factors.context):
            for context, before in enumerate(counts):
                with m.Case(context):
                    m.d.comb += count.eq(Mux(is_fresh, 0, before) + factors.row)
                    with m.If(issue & last_chunk):
                        m.d.sync += before.eq(count)
        with m.If(self.restart):
            m.d.sync += fresh.eq(-1)
        with m.Elif(issue & last_chunk):
            m.d.sync += fresh.bit_select(factors.context, 1).eq(factors.last)

        # Accumulators: read one cycle after issue, written as the sum leaves the lane.
        m.submodules.accumulators = accumulators = Memory(
            shape=data.ArrayLayout(32, config.lanes), depth=contexts << chunk_bits, init=[]
        )
        write = accumulators.write_port()
        read = accumulators.read_port(transparent_for=(write,))
        retired = tags[-1]
        # Something is in the lanes, or may enter: to know whether it does takes too long.
        active = Signal()
        m.d.comb += [
            active.eq(self.factors.valid | Cat(tag.valid for tag in tags[1:-1]).any()),
            read.en.eq(issue),
            read.addr.eq(address),
            write.addr.eq(retired.address),
            write.en.eq(retired.valid & ~retired.last),
        ]
        starts = register(m, is_fresh, "starts")
        scale = register(m, factors.scale, "scale", cycles=1 + self._lanes[0].add_latency)
        bias = register(m, factors.bias, "bias")
        elements = self.chunks.p & factors.row.replicate(ELEMENT_BITS * config.lanes)
        for number, lane in enumerate(self._lanes):
            # Idle lanes hold still: less power, and less work for a simulator.
            m.submodules[f"lane_{number}"] = EnableInserter(active)(Once(lane))
            m.d.comb += [
                lane.width.eq(self.shape.width),
                lane.element.eq(elements.word_select(number, ELEMENT_BITS)),
                lane.accumulator.eq(Mux(starts, 0, read.data[number])),
                lane.bias.eq(bias),
                lane.scale.eq(scale),
                write.data[number].eq(lane.o),
            ]
            if self.turn:
                m.d.comb += lane.multiplies.eq(tags[1 + lane.add_latency].valid)

        # Finished bags.
        pooled = Signal(output)
        leaving = Signal()
        m.d.comb += [
            pooled.data.eq(write.data),
            pooled.context.eq(retired.address[chunk_bits:]),
            pooled.last.eq(retired.last_chunk),
            pooled.rows.eq(retired.rows),
            queue.w_data.eq(pooled),
            queue.w_en.eq(retired.valid & retired.last),
            self.o.p.eq(data.View(output, queue.r_data)),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
            leaving.eq(self.o.valid & self.o.ready),
            self.drained.eq(room == self.output_depth),
        ]
        m.d.sync += room.eq(room - (issue & factors.last) + leaving)
        return m
