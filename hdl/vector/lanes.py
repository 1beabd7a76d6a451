"""The arithmetic of the vector engine: from stored elements to stored elements."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.convert import FloatNarrow, FloatWiden, IntToFloat
from halfdome.hdl.arith.fma import FloatFma
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.mul import FloatMul
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.arith.quantise import RoundToByte
from halfdome.hdl.arith.quotient import QuotientToByte
from halfdome.hdl.commands import ElementFormat, Function, Opcode
from halfdome.hdl.once import EnableInserter, Once
from halfdome.hdl.vector.function import FunctionCurve, FunctionLane, FunctionTables
from halfdome.hdl.vector.reduce import RowReducer, above

_ONE = FLOAT32.bias << FLOAT32.significand_bits
_MINUS_ZERO = 1 << 31

SETTINGS = data.StructLayout(
    {
        "opcode": Opcode,
        "function": Function,
        "sum": 1,
        "max": 1,
        "a_format": ElementFormat,
        "a_zero_point": 8,
        "b_format": ElementFormat,
        "b_zero_point": 8,
        "y_format": ElementFormat,
        "y_zero_point": 8,
        "first": 32,
        "second": 32,
        "multiplier": 32,
        "tail": 8,
    }
)
"""What a command does to its elements. `first`: scale, MULTIPLY's shift, low. `second`: AFFINE's
shift, high. `multiplier`: of a QUANTISE the scale. `tail`: elements of a row's last group."""


class ElementDecoder(wiring.Component):
    """A stored element as fp32, exactly as `halfdome.sim.golden.vector.decode`.

    Members
    -------
    format : In(ElementFormat), zero_point : In(8), constant while anything is inside
    i : In(32), the element in the low bits
    o : Out(32), `latency` cycles later
    """

    latency = 2 + IntToFloat.latency

    def __init__(self):
        super().__init__(
            {"format": In(ElementFormat), "zero_point": In(8), "i": In(32), "o": Out(32)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.from_int = from_int = IntToFloat(FLOAT32)
        m.submodules.from_half = from_half = FloatWiden()
        # Flipping their top bits makes unsigned bytes of two signed ones of the same distance.
        flip = (self.format == ElementFormat.INT8) << 7
        difference = Signal(32)
        m.d.comb += difference.eq((self.i[:8] ^ flip) - (self.zero_point ^ flip))
        integer = Mux(self.format == ElementFormat.INT32, self.i, difference)
        stored = register(m, self.i, "stored")
        later = IntToFloat.latency - FloatWiden.latency
        m.d.comb += [
            from_int.i.eq(register(m, integer, "integer")),
            from_half.i.eq(stored[:16]),
        ]
        half = register(m, from_half.o, "half", cycles=later)
        single = register(m, stored, "single", cycles=IntToFloat.latency)
        number = Signal(32)
        with m.Switch(self.format):
            with m.Case(ElementFormat.FLOAT32):
                m.d.comb += number.eq(single)
            with m.Case(ElementFormat.FLOAT16):
                m.d.comb += number.eq(half)
            with m.Default():
                m.d.comb += number.eq(from_int.o)
        m.d.comb += self.o.eq(register(m, number, "number"))
        return m


class ElementEncoder(wiring.Component):
    """i * multiplier in a stored format, exactly as `halfdome.sim.golden.vector.encode`.

    Members
    -------
    format : In(ElementFormat), zero_point : In(8), constant while anything is inside
    multiplier : In(32), likewise
    i : In(32)
    o : Out(32), the element in the low bits, `latency` cycles later
    """

    latency = FloatMul.latency + RoundToByte.latency

    def __init__(self):
        super().__init__(
            {
                "format": In(ElementFormat),
                "zero_point": In(8),
                "multiplier": In(32),
                "i": In(32),
                "o": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.mul = mul = FloatMul(FLOAT32)
        m.submodules.to_byte = to_byte = RoundToByte()
        m.submodules.to_half = to_half = FloatNarrow()
        flip = (self.format == ElementFormat.INT8) << 7
        m.d.comb += [
            mul.a.eq(self.i),
            mul.b.eq(self.multiplier),
            to_byte.i.eq(mul.o),
            to_byte.zero_point.eq(self.zero_point ^ flip),
            to_byte.floor.eq(0),
            to_half.i.eq(mul.o),
        ]
        single = register(m, mul.o, "single", cycles=RoundToByte.latency)
        with m.Switch(self.format):
            with m.Case(ElementFormat.FLOAT32):
                m.d.comb += self.o.eq(single)
            with m.Case(ElementFormat.FLOAT16):
                m.d.comb += self.o.eq(to_half.o)
            with m.Default():
                m.d.comb += self.o.eq(to_byte.o ^ flip)
        return m


class VectorLanes(wiring.Component):
    """One group of elements a cycle through decode, combine, function, reduce and encode; those of
    a QUANTISE through decode and a division beside all that.

    Members
    -------
    settings : In(`SETTINGS`), constant while anything is inside
    last : In(1), the group ends a row
    accepts : Out(1), a group may come, if it is `last` or not as said
    valid : In(1), one comes, only if `accepts`
    a, b : In(lanes x 32), stored elements in the low bits
    o : Out(lanes x 32), stored elements, with `o_valid`; one in lane 0 if rows are reduced

    A group comes out `latency` cycles later, `table_latency` more if the function has a table,
    `reduce_latency` more after a row's last group if rows are reduced. Wrap it in `EnableInserter`
    to stall.

    Parameters
    ----------
    lanes : int
    in_turns : bool
        A lane has one multiply-add for what combines elements and for functions with a table, one
        stage of a division, and one adder ends rows: no group may come `table_turn` cycles after
        one whose function has a table, `quotient_turns` after one of a QUANTISE, or `reduce_turns`
        after the last of a row that is reduced; nor may the next cycle end one. Otherwise, a group
        a cycle.
    """

    latency = ElementDecoder.latency + 1 + FloatFma.latency + 1 + ElementEncoder.latency
    table_latency = FunctionLane.latency
    quotient_turns = range(1, QuotientToByte(in_turns=True).interval)
    table_turn = FloatFma.latency + FunctionCurve.latency

    def __init__(self, lanes: int, *, in_turns: bool = False):
        self._lanes = lanes
        self._in_turns = in_turns
        self._reducer = RowReducer(lanes, in_turns=in_turns)
        self.reduce_latency, self.reduce_turns = self._reducer.latency, self._reducer.turns
        elements = data.ArrayLayout(32, lanes)
        super().__init__(
            {
                "settings": In(SETTINGS),
                "valid": In(1),
                "a": In(elements),
                "b": In(elements),
                "last": In(1),
                "accepts": Out(1),
                "o": Out(elements),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        settings, lanes = self.settings, self._lanes
        uses_table = Signal()
        reduces = Signal()
        quantises = Signal()
        m.d.comb += [
            quantises.eq(settings.opcode == Opcode.QUANTISE),
            uses_table.eq(settings.function > Function.RELU),
            reduces.eq(settings.sum | settings.max),
        ]
        reducer = self._reducer
        tables = FunctionTables(lanes)
        m.submodules.reducer = EnableInserter(reduces)(reducer)
        m.submodules.tables = EnableInserter(uses_table)(tables)

        combined_after = ElementDecoder.latency + 1 + FloatFma.latency
        tags = [Cat(self.valid, self.valid & self.last)]
        for cycle in range(combined_after + self.table_latency):
            tag = Signal(2, name=f"tag_{cycle}")
            m.d.sync += tag.eq(tags[-1])
            if cycle == combined_after:  # without a table the way ends here
                m.d.sync += tag.eq(Mux(uses_table, tags[-1], 0))
            tags.append(tag)
        chosen = Signal(2)
        m.d.sync += chosen.eq(Mux(uses_table, tags[-1], tags[combined_after]))
        m.d.comb += [
            reducer.largest.eq(settings.max),
            reducer.valid.eq(chosen[0]),
            reducer.last.eq(chosen[1]),
            reducer.present.eq(Cat(~chosen[1] | (settings.tail > k) for k in range(lanes))),
        ]
        leaves = Mux(reduces, reducer.o_valid, chosen[0])
        for cycle in range(ElementEncoder.latency):
            late = Signal(name=f"leaves_{cycle}")
            m.d.sync += late.eq(leaves)
            leaves = late
        m.d.comb += self.o_valid.eq(leaves)

        blocked: Value = Const(0)
        if self._in_turns:
            ended = Cat(tags[turn][1] for turn in self.reduce_turns).any()
            divides = Cat(tags[turn][0] for turn in self.quotient_turns).any()
            blocked = (
                (reduces & (ended | (tags[1][1] & self.last)))
                | (uses_table & tags[self.table_turn][0])
                | (quantises & divides)
            )
        m.d.comb += self.accepts.eq(~blocked)

        for lane in range(lanes):
            combine, decoded = self._combine(m, lane)
            fma = FloatFma(FLOAT32)
            m.submodules[f"fma_{lane}"] = Once(fma)
            function = FunctionCurve() if self._in_turns else FunctionLane()
            m.submodules[f"function_{lane}"] = EnableInserter(uses_table)(Once(function))
            encode = ElementEncoder()
            m.submodules[f"encode_{lane}"] = Once(encode)
            operands = Cat(fma.a, fma.b, fma.c)
            m.d.comb += operands.eq(combine)
            if isinstance(function, FunctionCurve):
                curved = fma.o
                with m.If(tags[combined_after + FunctionCurve.latency][0]):
                    m.d.comb += operands.eq(Cat(function.value, function.factor, function.addend))
            else:
                curved = function.o
            x = Signal(32, name=f"combined_{lane}")
            m.d.comb += x.eq(fma.o)
            value = Signal(32, name=f"value_{lane}")
            with m.If(uses_table):
                m.d.comb += value.eq(curved)
            with m.Elif(~((settings.function == Function.RELU) & x[-1])):
                m.d.comb += value.eq(x)
            result = register(m, value, f"result_{lane}")
            divide = QuotientToByte(in_turns=self._in_turns)
            m.submodules[f"divide_{lane}"] = Once(divide)
            if self._in_turns:
                m.d.comb += divide.start.eq(tags[ElementDecoder.latency][0])
            m.d.comb += [
                function.function.eq(settings.function),
                function.i.eq(x),
                tables.index[lane].eq(function.index),
                tables.power_index[lane].eq(function.power_index),
                function.row.eq(tables.row[lane]),
                function.power.eq(tables.power[lane]),
                reducer.i[lane].eq(result),
                encode.format.eq(settings.y_format),
                encode.zero_point.eq(settings.y_zero_point),
                encode.multiplier.eq(settings.multiplier),
                encode.i.eq(Mux(reduces, reducer.o, result) if lane == 0 else result),
                self.o[lane].eq(Mux(quantises, self._quotient(m, divide, lane, decoded), encode.o)),
            ]
        return m

    def _quotient(self, m: Module, divide: QuotientToByte, lane: int, x: Value) -> Value:
        """A decoded element by the scale, when encoded ones leave."""
        settings = self.settings
        flip = (settings.y_format == ElementFormat.INT8) << 7
        m.d.comb += [
            divide.i.eq(x),
            divide.scale.eq(settings.multiplier),
            divide.zero_point.eq(settings.y_zero_point ^ flip),
        ]
        wait = self.latency - ElementDecoder.latency - QuotientToByte.latency
        return register(m, divide.o, f"quotient_{lane}", cycles=wait) ^ flip

    def _combine(self, m: Module, lane: int) -> tuple[Value, Value]:
        """Decodes the elements of a lane: what a multiply-add combines them from as the opcode
        says, and a alone."""
        settings = self.settings
        a, b = ElementDecoder(), ElementDecoder()
        m.submodules[f"a_{lane}"] = Once(a)
        m.submodules[f"b_{lane}"] = Once(b)
        m.d.comb += [
            a.format.eq(settings.a_format),
            a.zero_point.eq(settings.a_zero_point),
            a.i.eq(self.a[lane]),
            b.format.eq(settings.b_format),
            b.zero_point.eq(settings.b_zero_point),
            b.i.eq(self.b[lane]),
        ]
        # Low is not above high, so that both bounds can be looked at together.
        clamped = Signal(32, name=f"clamped_{lane}")
        m.d.comb += clamped.eq(a.o)
        with m.If(FLOAT32.layout(a.o).is_nan):
            m.d.comb += clamped.eq(FLOAT32.quiet_nan)
        with m.Elif(above(settings.first, a.o)):
            m.d.comb += clamped.eq(settings.first)
        with m.Elif(above(a.o, settings.second)):
            m.d.comb += clamped.eq(settings.second)
        factors = [Signal(32, name=f"{name}_{lane}") for name in ("left", "right", "addend")]
        chosen = {
            Opcode.ADD: (b.o, settings.first, a.o),
            Opcode.MULTIPLY: (a.o, b.o, settings.first),
            Opcode.CLAMP: (clamped, _ONE, _MINUS_ZERO),
        }
        with m.Switch(settings.opcode):
            for opcode, values in chosen.items():
                with m.Case(opcode):
                    m.d.sync += [f.eq(v) for f, v in zip(factors, values, strict=True)]
            with m.Default():
                affine = (a.o, settings.first, settings.second)
                m.d.sync += [f.eq(v) for f, v in zip(factors, affine, strict=True)]
        return Cat(factors), a.o
