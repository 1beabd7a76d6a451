"""From int32 totals to uint8 outputs, all columns at once."""

from amaranth import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.convert import IntToFloat
from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.arith.quantise import FloatToByte
from halfdome.hdl.once import Once


class Requantiser(wiring.Component):
    """o = max(floor, saturate(round_half_even(float32(total + bias) * multiplier) + zero_point)).

    The sum is int32 and wraps; conversion and product round to nearest even in float32, as ONNX
    Runtime's QLinearMatMul does.

    Members
    -------
    totals : In(columns x signed(32))
    bias : In(columns x signed(32)), with `totals`
    multiplier : In(columns x 32), float32, `multiplier_delay` cycles after `totals`
    zero_point, floor : In(8), constant while a command runs
    o : Out(columns x unsigned(8)), `latency` cycles after `totals`

    Throughput: one row a cycle.
    """

    def __init__(self, *, columns: int):
        self._converters = [IntToFloat(FLOAT32, 32) for _ in range(columns)]
        # An integer is normal or zero, and no subnormal multiplier brings one near a half.
        self._quantisers = [FloatToByte(normal=True) for _ in range(columns)]
        self.multiplier_delay = 1 + self._converters[0].latency
        self.latency = self.multiplier_delay + self._quantisers[0].latency
        super().__init__(
            {
                "totals": In(data.ArrayLayout(signed(32), columns)),
                "bias": In(data.ArrayLayout(signed(32), columns)),
                "multiplier": In(data.ArrayLayout(32, columns)),
                "zero_point": In(8),
                "floor": In(8),
                "o": Out(data.ArrayLayout(8, columns)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for column, (convert, quantise) in enumerate(
            zip(self._converters, self._quantisers, strict=True)
        ):
            m.submodules[f"convert_{column}"] = Once(convert)
            m.submodules[f"quantise_{column}"] = Once(quantise)
            biased = (self.totals[column] + self.bias[column])[:32].as_signed()
            m.d.comb += [
                convert.i.eq(register(m, biased, f"biased_{column}")),
                quantise.i.eq(convert.o),
                quantise.multiplier.eq(self.multiplier[column]),
                quantise.zero_point.eq(self.zero_point),
                quantise.floor.eq(self.floor),
                self.o[column].eq(quantise.o),
            ]
        return m
