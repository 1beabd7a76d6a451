"""The bytes of an AVERAGE: means over the windows of each channel, each step rounded to float32."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.once import EnableInserter
from halfdome.hdl.vector.fixed import TERM_BITS
from halfdome.hdl.vector.inverse import Inverse
from halfdome.hdl.vector.mean import COUNT_BITS, EXPONENT_BITS, MeanScaler
from halfdome.hdl.vector.mean_adder import MeanAdder
from halfdome.hdl.vector.pairs import BytePairs
from halfdome.hdl.vector.taps import tap_group
from halfdome.hdl.vector.unit import unit_members


class WindowAverages(wiring.Component):
    """Takes the groups of a window's taps, and gives as many as one tap has.

    Exact as `halfdome.sim.golden.pool.average_pool`, without a float: a sum of rounded terms is a
    whole number of units of the last place of x's scale, so that rounding it is clearing the bits
    below its 24 highest.

    Members
    -------
    descriptor : In(512), an AVERAGE
    start : In(1), takes it; nothing of the command before is inside
    *`unit_members()`, of `byte_lanes`; o follows `latency` enabled cycles after a group of the last
        tap, if none waits before it. `valid` only if `accepts`
    group : In(`tap_group`), comes with `i`
    terms : In(byte_lanes x signed(TERM_BITS)), of a `BytePairs` that takes the same groups
    accepts : Out(1), a group may come: none of its place came in the enabled cycle before
    busy : Out(1), adds to a sum that is needed next, or scales

    A group a cycle, one of a tap of a single group every other; the groups of a word that are given
    take `GROUPS` cycles. The first is given no sooner than `Inverse.latency` cycles after `start`.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._adder = MeanAdder(config, BytePairs.term_latency)
        self._scaler = MeanScaler(config)
        self.latency = self._adder.latency + self._scaler.latency
        super().__init__(
            unit_members(config.byte_lanes)
            | {
                "descriptor": In(DESCRIPTOR_BITS),
                "start": In(1),
                "group": In(tap_group(config)),
                "terms": In(data.ArrayLayout(signed(TERM_BITS), config.byte_lanes)),
                "accepts": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        adder, scaler, group = self._adder, self._scaler, self.group
        m.submodules.inverse = inverse = Inverse()
        m.submodules.adder = EnableInserter(self.enable)(adder)
        m.submodules.scaler = EnableInserter(self.enable)(scaler)
        command = data.View(layout(fields(Opcode.AVERAGE)), self.descriptor)
        x_scale, y_scale = (FLOAT32.layout(scale) for scale in (command.x_scale, command.y_scale))
        is_int8 = command.y_format == ElementFormat.INT8
        difference = Signal(signed(EXPONENT_BITS))  # of the scales' exponents
        whole_window, taps_in_it = Signal(), Signal(COUNT_BITS)
        with m.If(self.start):
            m.d.sync += [
                difference.eq(x_scale.exponent - y_scale.exponent),
                scaler.is_int8.eq(is_int8),
                scaler.zero_point.eq(
                    Mux(is_int8, command.y_zero_point.as_signed(), command.y_zero_point)
                ),
                whole_window.eq((command.flags & int(Flag.OUTSIDE)).any()),
                taps_in_it.eq(command.kernel_height * command.kernel_width),
            ]
        m.d.comb += [
            inverse.start.eq(self.start),
            inverse.divisor.eq(y_scale.significand),
            scaler.y_inverse.eq(inverse.o),
            scaler.exponent.eq(difference - FLOAT32.precision + inverse.is_power),
            scaler.ready.eq(inverse.known),
        ]

        # A sum is back two cycles after it was read.
        count, taps = Signal(COUNT_BITS), Signal(COUNT_BITS)
        room = Signal(range(scaler.room + 1), init=scaler.room)
        came, place = Signal(), Signal.like(group.place)
        returns = came & (group.place == place)
        m.d.comb += [
            self.accepts.eq(~returns & (~group.last | (room != 0))),
            count.eq(Mux(group.first, 1, taps + 1)),
            adder.valid.eq(self.valid),
            adder.place.eq(group.place),
            adder.first.eq(group.first),
            adder.last.eq(group.last),
            adder.count.eq(Mux(whole_window, taps_in_it, count)),
            adder.terms.eq(self.terms),
        ]
        m.d.sync += room.eq(room + (scaler.taken & self.enable) - (self.valid & group.last))
        with m.If(self.enable):
            m.d.sync += [came.eq(self.valid), place.eq(group.place)]
        with m.If(self.start):
            m.d.sync += came.eq(0)
        with m.If(self.valid & group.tap_ends):
            m.d.sync += taps.eq(count)
        m.d.comb += [
            scaler.i.eq(adder.o),
            scaler.count.eq(adder.o_count),
            scaler.valid.eq(adder.o_valid),
            self.busy.eq(scaler.busy | returns),
            self.o.eq(scaler.o),
            self.o_valid.eq(scaler.o_valid),
        ]
        return m
