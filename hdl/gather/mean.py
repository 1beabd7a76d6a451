"""Divides pooled elements by the number of rows they were summed from."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.convert import FloatNarrow, FloatWiden, IntToFloat
from halfdome.hdl.arith.div import FloatDiv
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.group import group_elements, pooled_group
from halfdome.hdl.once import Once

LANES_PER_DIVIDER = 8
"""Accumulate lanes that share a divider, which so keeps pace with bags of as many rows."""


class _HalfRounder(wiring.Component):
    """o = i in fp32, rounded to fp16 first if `half`. One a cycle, no flow control."""

    latency = FloatNarrow.latency + FloatWiden.latency

    def __init__(self):
        super().__init__({"half": In(1), "i": In(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.narrow = narrow = FloatNarrow()
        m.submodules.widen = widen = FloatWiden()
        m.d.comb += [
            narrow.i.eq(self.i),
            widen.i.eq(narrow.o),
            self.o.eq(Mux(self.half, widen.o, register(m, self.i, "i", cycles=self.latency))),
        ]
        return m


class BagMean(wiring.Component):
    """Turns sums into means, or passes them on.

    Members
    -------
    mean : In(1), divide
    half : In(1), round sum and number of rows to fp16 first: the output is fp16
    i : In(stream of `pooled_group`)
    o : Out(stream of `pooled_group`), in order
    empty : Out(1), nothing is inside

    A bag of no rows is divided by 1. Without `mean` there is no latency. With it, throughput is
    `dividers` elements a cycle, or one element in as many cycles as a division takes where the
    steps of one take turns, and a group enters only if there is room behind the dividers.
    """

    def __init__(self, config: CardConfig):
        self._elements = group_elements(config)
        self._group = pooled_group(config)
        self.dividers = min(self._elements, max(1, config.lanes // LANES_PER_DIVIDER))
        self._in_turns = config.gather_in_turns
        self._dividers = [
            FloatDiv(
                FLOAT32,
                config.gather_float_stages,
                normal_divisor=True,  # a number of rows
                in_turns=self._in_turns,
            )
            for _ in range(self.dividers)
        ]
        #: Cycles of a group at the dividers, and from its last until it is in the queue.
        self.steps = self._elements // self.dividers * self._dividers[0].interval
        self.latency = IntToFloat.latency + _HalfRounder.latency + self._dividers[0].latency
        #: Groups for which there is room behind the dividers.
        self.depth = 2 + self.latency // self.steps
        super().__init__(
            {
                "mean": In(1),
                "half": In(1),
                "i": In(stream.Signature(self._group)),
                "o": Out(stream.Signature(self._group)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        steps, latency, depth = self.steps, self.latency, self.depth
        m.submodules.queue = queue = SyncFIFOBuffered(width=self._group.size, depth=depth)

        # A group is fed to the dividers in steps, its first elements first.
        group = Signal(self._group)
        busy = Signal()
        step = Signal(range(max(2, steps)))
        room = Signal(range(depth + 1), init=depth)
        takes, leaves, last_step = Signal(), Signal(), Signal()
        m.d.comb += [
            last_step.eq(step == steps - 1),
            takes.eq(self.mean & self.i.valid & (room != 0) & (~busy | last_step)),
            leaves.eq(queue.r_rdy & queue.r_en),
            self.empty.eq(room == depth),
        ]
        m.d.sync += room.eq(room - takes + leaves)
        with m.If(takes):
            m.d.sync += [group.eq(self.i.p), busy.eq(1), step.eq(0)]
            # A divisor of 0 becomes 1.
            m.d.sync += group.rows.eq(
                Cat(self.i.p.rows[0] | ~self.i.p.rows.any(), self.i.p.rows[1:])
            )
        with m.Elif(busy):
            m.d.sync += [step.eq(step + 1), busy.eq(~last_step)]
            if self._elements > self.dividers:
                m.d.sync += Cat(*group.data).eq(Cat(*group.data) >> 32 * self.dividers)
        ends = Signal(latency)
        m.d.sync += ends.eq(Cat(busy & last_step, ends))

        m.submodules.count = count = IntToFloat(FLOAT32, width=len(group.rows) + 1)
        m.submodules.count_rounder = count_rounder = _HalfRounder()
        m.d.comb += [count.i.eq(group.rows), count_rounder.half.eq(self.half)]
        elements = [
            register(m, group.data[number], f"element_{number}", cycles=IntToFloat.latency)
            for number in range(self.dividers)
        ]
        if self._in_turns:
            self._divide_in_turns(m, count_rounder, count.o, elements[0], ends)
        else:
            m.d.comb += count_rounder.i.eq(count.o)
            self._divide(m, count_rounder.o, elements)
        quotients = [divider.o for divider in self._dividers]

        # Quotients come back in the same steps.
        result = Signal(self._group)
        earlier = Signal(32 * (self._elements - self.dividers))
        values = Cat(earlier, *quotients)
        if self._elements > self.dividers:
            m.d.sync += earlier.eq(values[32 * self.dividers :])
        about = ("count_minus_1", "context", "last")
        later = register(m, Cat(group[name] for name in about), "about", cycles=latency)
        m.d.comb += [
            Cat(result[name] for name in about).eq(later),
            Cat(*result.data).eq(values),
            queue.w_data.eq(result),
            queue.w_en.eq(ends[-1]),
        ]

        with m.If(self.mean):
            m.d.comb += [
                self.i.ready.eq(takes),
                self.o.p.eq(data.View(self._group, queue.r_data)),
                self.o.valid.eq(queue.r_rdy),
                queue.r_en.eq(self.o.ready),
            ]
        with m.Else():
            m.d.comb += [
                self.i.ready.eq(self.o.ready),
                self.o.p.eq(self.i.p),
                self.o.valid.eq(self.i.valid),
            ]
        return m

    def _divide(self, m, count: Value, elements: list[Value]) -> None:
        """Gives every divider an element."""
        for number, (divider, element) in enumerate(zip(self._dividers, elements, strict=True)):
            m.submodules[f"divider_{number}"] = Once(divider)
            rounder = _HalfRounder()
            m.submodules[f"rounder_{number}"] = Once(rounder)
            m.d.comb += [
                rounder.half.eq(self.half),
                rounder.i.eq(element),
                divider.a.eq(rounder.o),
                divider.b.eq(count),
            ]

    def _divide_in_turns(self, m, rounder, count: Value, element: Value, ends: Value) -> None:
        """Gives the divider the element in the last step; in those before, the number of rows
        passes the same rounder."""
        (divider,) = self._dividers
        m.submodules.divider = divider
        m.d.comb += [
            rounder.i.eq(Mux(ends[IntToFloat.latency - 1], element, count)),
            divider.a.eq(rounder.o),
            divider.b.eq(register(m, rounder.o, "divisor")),
            divider.start.eq(ends[-divider.latency - 1]),
        ]
