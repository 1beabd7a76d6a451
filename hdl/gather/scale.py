"""From a row's tail to the two factors of every lane: weight x scale and weight x bias."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.convert import FloatWiden
from halfdome.hdl.arith.format import FLOAT16, FLOAT32
from halfdome.hdl.arith.mul import FloatMul
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.align import row_tail
from halfdome.hdl.gather.interleave import CONTEXTS
from halfdome.hdl.gather.rows import row_tag
from halfdome.hdl.gather.sequencer import FLOAT_ONE
from halfdome.hdl.gather.shape import Factors

MINUS_ZERO = 0x80000000
"""The scale and bias of no row: x + -0 = x for every x, zeros included."""

RowFactors = data.StructLayout(
    {"scale": 32, "bias": 32, "row": 1, "last": 1, "context": range(CONTEXTS)}
)
"""weight x scale and weight x bias, each rounded to fp32, and the row's tag."""


class RowScaler(wiring.Component):
    """Widens a row's scale and bias to fp32 and multiplies both by the row's weight.

    Parameters
    ----------
    depth : int
        Rows that fit between `i` and `o`.

    Members
    -------
    factors : In(Factors), what scale and bias are; of rows that have neither, 1 and -0
    i : In(stream of `row_tail`)
    o : Out(stream of `RowFactors`); factors of a tag without `row` change no accumulator

    Throughput is one row a cycle. Nothing stalls inside: a row enters only if the queue behind the
    multipliers has room for it.
    """

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        self._tail = row_tail(config)
        self._mul_scale, self._mul_bias = (
            FloatMul(FLOAT32, config.gather_float_stages) for _ in range(2)
        )
        #: Cycles from `i` to the queue in front of `o`.
        self.latency = FloatWiden.latency + self._mul_scale.latency
        super().__init__(
            {
                "factors": In(Factors),
                "i": In(stream.Signature(self._tail)),
                "o": Out(stream.Signature(RowFactors)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.widen_scale = widen_scale = FloatWiden(FLOAT16, FLOAT32)
        m.submodules.widen_bias = widen_bias = FloatWiden(FLOAT16, FLOAT32)
        m.submodules.mul_scale = mul_scale = self._mul_scale
        m.submodules.mul_bias = mul_bias = self._mul_bias
        m.submodules.queue = queue = SyncFIFOBuffered(width=RowFactors.size, depth=self._depth)

        free = Signal(range(self._depth + 1), init=self._depth)
        taken = Signal()
        m.d.comb += [
            self.i.ready.eq(free != 0),
            taken.eq(self.i.valid & self.i.ready),
        ]
        m.d.sync += free.eq(free - taken + (self.o.valid & self.o.ready))

        raw = self.i.p.raw
        m.d.comb += [widen_scale.i.eq(raw[32:48]), widen_bias.i.eq(raw[48:64])]
        widened = self._tail(register(m, self.i.p, "widened", cycles=FloatWiden.latency))
        m.d.comb += [
            mul_scale.a.eq(MINUS_ZERO),
            mul_bias.a.eq(MINUS_ZERO),
            mul_scale.b.eq(FLOAT_ONE),
            mul_bias.b.eq(mul_scale.b),
        ]
        with m.If(widened.tag.row):
            m.d.comb += mul_scale.b.eq(widened.tag.weight)
            with m.Switch(self.factors):
                with m.Case(Factors.NONE):
                    m.d.comb += [mul_scale.a.eq(FLOAT_ONE), mul_bias.b.eq(FLOAT_ONE)]
                with m.Case(Factors.HALF):
                    m.d.comb += [mul_scale.a.eq(widen_scale.o), mul_bias.a.eq(widen_bias.o)]
                with m.Case(Factors.SINGLE):
                    m.d.comb += [mul_scale.a.eq(widened.raw[:32]), mul_bias.a.eq(widened.raw[32:])]
        tag = row_tag(self._config)(
            register(m, widened.tag, "multiplied", cycles=mul_scale.latency)
        )
        arrivals = Signal(self.latency)
        m.d.sync += arrivals.eq(Cat(taken, arrivals))
        factors = Signal(RowFactors)
        m.d.comb += [
            factors.scale.eq(mul_scale.o),
            factors.bias.eq(mul_bias.o),
            factors.row.eq(tag.row),
            factors.last.eq(tag.last),
            factors.context.eq(tag.context),
            queue.w_data.eq(factors),
            queue.w_en.eq(arrivals[-1]),
            self.o.p.eq(data.View(RowFactors, queue.r_data)),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        return m
