"""From a row's tail to the two factors of every lane: weight x scale and weight x bias."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.convert import FloatWiden
from halfdome.hdl.arith.format import FLOAT16, FLOAT32
from halfdome.hdl.arith.mul import FloatMul
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.gather.align import row_tail
from halfdome.hdl.gather.rows import row_tag
from halfdome.hdl.gather.sequencer import FLOAT_ONE
from halfdome.hdl.gather.shape import Factors

MINUS_ZERO = 0x80000000
"""The scale and bias of no row: x + -0 = x for every x, zeros included."""


def row_factors(config: CardConfig) -> data.StructLayout:
    """weight x scale and weight x bias, each rounded to fp32, and the row's tag."""
    contexts = range(config.gather_contexts)
    return data.StructLayout({"scale": 32, "bias": 32, "row": 1, "last": 1, "context": contexts})


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
    o : Out(stream of `row_factors`); factors of a tag without `row` change no accumulator

    Throughput is one row a cycle, or in two where both take turns at one multiplier. Nothing stalls
    inside: a row enters only if the queue behind the multipliers has room for it.
    """

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        self._tail = row_tail(config)
        self._in_turns = config.gather_in_turns
        of_both = 1 if self._in_turns else 2
        self._muls = [FloatMul(FLOAT32, config.gather_float_stages) for _ in range(of_both)]
        #: Cycles from `i` to the queue in front of `o`.
        self.latency = FloatWiden.latency + self._muls[0].latency + self._in_turns
        super().__init__(
            {
                "factors": In(Factors),
                "i": In(stream.Signature(self._tail)),
                "o": Out(stream.Signature(row_factors(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = row_factors(self._config)
        m.submodules.queue = queue = SyncFIFOBuffered(width=layout.size, depth=self._depth)

        free = Signal(range(self._depth + 1), init=self._depth)
        second = Signal()  # the bias has its turn
        taken = Signal()
        m.d.comb += [
            self.i.ready.eq((free != 0) & ~second),
            taken.eq(self.i.valid & self.i.ready),
        ]
        m.d.sync += free.eq(free - taken + (self.o.valid & self.o.ready))

        # A scale is 1 times the weight if the row has none, a bias -0.
        if self._in_turns:
            m.d.sync += second.eq(taken)
            kept = self._tail(register(m, self.i.p, "kept"))
            tail = self._tail(Mux(second, kept.as_value(), self.i.p.as_value()))
            later = register(m, second, "bias_later", cycles=FloatWiden.latency)
            product = self._product(m, tail, (second, later), self._muls[0], "factor")
            products = register(m, product, "scale"), product
            tag = kept.tag
        else:
            products = [
                self._product(m, self.i.p, 2 * (Const(number),), self._muls[number], name)
                for number, name in enumerate(("scale", "bias"))
            ]
            tag = self.i.p.tag
        tag = row_tag(self._config)(
            register(m, tag, "multiplied", cycles=self.latency - self._in_turns)
        )
        arrivals = Signal(self.latency)
        m.d.sync += arrivals.eq(Cat(taken, arrivals))
        factors = Signal(layout)
        scale, bias = products
        m.d.comb += [
            factors.scale.eq(scale),
            factors.bias.eq(bias),
            factors.row.eq(tag.row),
            factors.last.eq(tag.last),
            factors.context.eq(tag.context),
            queue.w_data.eq(factors),
            queue.w_en.eq(arrivals[-1]),
            self.o.p.eq(data.View(layout, queue.r_data)),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        return m

    def _product(
        self, m: Module, tail: data.View, bias: tuple[Value, ...], mul: FloatMul, name: str
    ) -> Value:
        """The scale of a row by its weight; or the bias, as is told now and when it is widened."""
        is_bias, of_bias = bias
        widen = FloatWiden(FLOAT16, FLOAT32)
        m.submodules[f"widen_{name}"] = widen
        m.submodules[f"mul_{name}"] = mul
        m.d.comb += widen.i.eq(Mux(is_bias, tail.raw[48:64], tail.raw[32:48]))
        wait = FloatWiden.latency
        single = register(m, Mux(is_bias, tail.raw[32:], tail.raw[:32]), f"{name}_raw", cycles=wait)
        weight = register(m, tail.tag.weight, f"{name}_weight", cycles=wait)
        row = register(m, tail.tag.row, f"{name}_row", cycles=wait)
        m.d.comb += [mul.a.eq(MINUS_ZERO), mul.b.eq(FLOAT_ONE)]
        with m.If(row):
            m.d.comb += mul.b.eq(weight)
            with m.Switch(self.factors):
                with m.Case(Factors.NONE):
                    m.d.comb += [
                        mul.a.eq(Mux(of_bias, MINUS_ZERO, FLOAT_ONE)),
                        mul.b.eq(Mux(of_bias, FLOAT_ONE, weight)),
                    ]
                with m.Case(Factors.HALF):
                    m.d.comb += mul.a.eq(widen.o)
                with m.Case(Factors.SINGLE):
                    m.d.comb += mul.a.eq(single)
        return mul.o
