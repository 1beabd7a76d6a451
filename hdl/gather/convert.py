"""Converts pooled elements to the format of the output."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.convert import FloatNarrow
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.arith.quantise import FloatToByte
from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.group import group_elements, pooled_group
from halfdome.hdl.once import Once

SIGN = 0x80
"""What 8-bit numbers are moved by to be signed: the same bits as adding or subtracting 128."""


def byte_group(config: CardConfig) -> data.StructLayout:
    """The first `count` bytes of `data` are the next of a pooled row; `last` ends the row."""
    most = 4 * group_elements(config)
    return data.StructLayout(
        {
            "data": 8 * most,
            "count": range(most + 1),
            "context": range(config.gather_contexts),
            "last": 1,
        }
    )


class PooledConverter(wiring.Component):
    """fp32 as it is, rounded to fp16, or quantised: saturate(round(x * multiplier) + zero_point).

    Members
    -------
    output_format : In(ElementFormat), any but INT32
    multiplier : In(32), fp32; zero_point : In(8), of 8-bit formats
    i : In(stream of `pooled_group`)
    o : Out(stream of `byte_group`)
    empty : Out(1), nothing is inside

    Throughput is one group a cycle. Nothing stalls inside: a group enters only if the queue behind
    the converters has room for it.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._quantisers = [
            FloatToByte(config.gather_float_stages) for _ in range(group_elements(config))
        ]
        #: Cycles from `i` to the queue in front of `o`, of 8-bit formats; others are faster.
        self.latency = self._quantisers[0].latency
        #: Groups for which there is room.
        self.depth = self.latency + 3
        super().__init__(
            {
                "output_format": In(ElementFormat),
                "multiplier": In(32),
                "zero_point": In(8),
                "i": In(stream.Signature(pooled_group(config))),
                "o": Out(stream.Signature(byte_group(config))),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = byte_group(self._config)
        depth = self.depth
        m.submodules.queue = queue = SyncFIFOBuffered(width=layout.size, depth=depth)
        room = Signal(range(depth + 1), init=depth)
        enters, leaves = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(room != 0),
            enters.eq(self.i.valid & self.i.ready),
            leaves.eq(self.o.valid & self.o.ready),
            self.empty.eq(room == depth),
        ]
        m.d.sync += room.eq(room - enters + leaves)

        signed = self.output_format == ElementFormat.INT8
        halves, bytes_ = [], []
        for number, quantise in enumerate(self._quantisers):
            narrow = FloatNarrow()
            m.submodules[f"narrow_{number}"] = Once(narrow)
            m.submodules[f"quantise_{number}"] = Once(quantise)
            flip = signed.replicate(8) & SIGN
            m.d.comb += [
                narrow.i.eq(self.i.p.data[number]),
                quantise.i.eq(self.i.p.data[number]),
                quantise.multiplier.eq(self.multiplier),
                quantise.zero_point.eq(self.zero_point ^ flip),
                quantise.floor.eq(0),
            ]
            halves.append(narrow.o)
            bytes_.append(quantise.o ^ flip)

        # What each format puts out, after how many cycles.
        count = self.i.p.count_minus_1 + 1
        group = Signal(layout)
        arrives = Signal()
        m.d.comb += [queue.w_data.eq(group), queue.w_en.eq(arrives)]
        for formats, values, delay in (
            ((ElementFormat.FLOAT32,), list(self.i.p.data), 0),
            ((ElementFormat.FLOAT16,), halves, FloatNarrow.latency),
            ((ElementFormat.UINT8, ElementFormat.INT8), bytes_, self.latency),
        ):
            size = formats[0].nbytes
            about = Cat(enters, self.i.p.last, self.i.p.context, (count * size)[: len(group.count)])
            with m.Switch(self.output_format):
                with m.Case(*formats):
                    m.d.comb += [
                        Cat(arrives, group.last, group.context, group.count).eq(
                            register(m, about, f"about_{size}", cycles=delay)
                        ),
                        group.data.eq(Cat(*values)),
                    ]
        m.d.comb += [
            self.o.p.eq(data.View(layout, queue.r_data)),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        return m
