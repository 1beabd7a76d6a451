"""The groups in which pooled elements go through the output stages."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.array import count_bits
from halfdome.hdl.gather.lanes import pooled_chunk
from halfdome.hdl.gather.shape import row_shape


def group_elements(config: CardConfig) -> int:
    """Elements of a group: what one bus word holds in fp32, at most a chunk."""
    return min(config.lanes, config.bus_bytes // 4)


def pooled_group(config: CardConfig) -> data.StructLayout:
    """Some fp32 elements of a pooled row, the first `count_minus_1 + 1` of them its own.

    `last` ends the row, which was summed from `rows` rows.
    """
    elements = group_elements(config)
    return data.StructLayout(
        {
            "data": data.ArrayLayout(32, elements),
            "count_minus_1": range(elements),
            "context": range(config.gather_contexts),
            "last": 1,
            "rows": count_bits(config),
        }
    )


class ChunkSplitter(wiring.Component):
    """Cuts the chunks of pooled rows into groups and drops what lies beyond the row's end.

    Members
    -------
    shape : In(`row_shape`)
    i : In(stream of `pooled_chunk`)
    o : Out(stream of `pooled_group`)

    Throughput is one group a cycle, without latency.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "shape": In(row_shape(config)),
                "i": In(stream.Signature(pooled_chunk(config))),
                "o": Out(stream.Signature(pooled_group(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        elements = group_elements(self._config)
        parts = self._config.lanes // elements
        bits = exact_log2(elements)
        part = Signal(range(max(2, parts)))
        last_lane = self.shape.last_lane
        last_part = Signal()
        m.d.comb += [
            last_part.eq((part == parts - 1) | (self.i.p.last & (part == last_lane[bits:]))),
            self.o.p.count_minus_1.eq(elements - 1),
            self.o.p.context.eq(self.i.p.context),
            self.o.p.last.eq(self.i.p.last & last_part),
            self.o.p.rows.eq(self.i.p.rows),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & last_part),
        ]
        with m.If(self.o.p.last):
            m.d.comb += self.o.p.count_minus_1.eq(last_lane[:bits])
        with m.Switch(part):
            for number in range(parts):
                with m.Case(number):
                    chosen = [self.i.p.data[number * elements + i] for i in range(elements)]
                    m.d.comb += [self.o.p.data[i].eq(value) for i, value in enumerate(chosen)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += part.eq(part + 1)
            with m.If(last_part):
                m.d.sync += part.eq(0)
        return m
