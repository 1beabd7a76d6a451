"""The bytes of a DEPTHWISE: weighted sums over the windows of each channel, requantised."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.commands import ElementFormat, Flag, Opcode, fields, layout
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.once import EnableInserter
from halfdome.hdl.vector.adder import WindowAdder
from halfdome.hdl.vector.kernel import KernelLoader
from halfdome.hdl.vector.scaler import TotalScaler
from halfdome.hdl.vector.source import MATRIX
from halfdome.hdl.vector.unit import unit_members
from halfdome.hdl.vector.walker import tap_tag

_MIDDLE = 128
"""int8 is uint8 with its ends moved by so much."""


class WindowSums(wiring.Component):
    """Takes the words of a window's taps, and gives as many as one tap has.

    Weights and parameters are read a line of channels ahead of their use.

    Members
    -------
    descriptor : In(512), a DEPTHWISE
    start : In(1), takes it; nothing of the command before is inside
    matrices : Out(stream of `MATRIX`), weights and parameters to be read
    words : In(stream of bus words), what was read
    tags : In(stream of `tap_tag`), taken with a tap's last word
    *`unit_members()`, of `bus_bytes`; o follows `latency` enabled cycles after a word of the last
    tap, if none waits before it. `valid` only if `tags.valid` and `accepts`
    accepts : Out(1), a word may come
    busy : Out(1), requantises
    bad : Out(1), a multiplier is zero, infinite or NaN
    bad_channel : Out(16), the first such channel

    A word a cycle; a word that is given takes `GROUPS` cycles.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._adder = WindowAdder(config)
        self._scaler = TotalScaler(config)
        self.latency = self._adder.latency + self._scaler.latency
        super().__init__(
            unit_members(config.bus_bytes)
            | {
                "descriptor": In(DESCRIPTOR_BITS),
                "start": In(1),
                "matrices": Out(stream.Signature(MATRIX)),
                "words": In(stream.Signature(8 * config.bus_bytes)),
                "tags": In(stream.Signature(tap_tag(config))),
                "accepts": Out(1),
                "busy": Out(1),
                "bad": Out(1),
                "bad_channel": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        adder, scaler, tag = self._adder, self._scaler, self.tags.p
        m.submodules.kernel = kernel = KernelLoader(self._config)
        m.submodules.adder = EnableInserter(self.enable)(adder)
        m.submodules.scaler = EnableInserter(self.enable)(scaler)
        connect(m, kernel.matrices, flipped(self.matrices))
        connect(m, flipped(self.words), kernel.words)
        command = data.View(layout(fields(Opcode.DEPTHWISE)), self.descriptor)

        def has(flag: Flag):
            return (command.flags & int(flag)).any()

        y_int8 = Signal()
        zero_point = command.y_zero_point ^ Mux(command.y_format == ElementFormat.INT8, _MIDDLE, 0)
        with m.If(self.start):
            m.d.sync += [
                adder.x_int8.eq(has(Flag.X_INT8)),
                adder.w_int8.eq(~has(Flag.W_UINT8)),
                adder.ones.eq(has(Flag.ONES)),
                adder.x_zero_point.eq(command.x_zero_point),
                adder.w_zero_point.eq(command.w_zero_point),
                scaler.zero_point.eq(zero_point),
                scaler.floor.eq(Mux(has(Flag.RELU), zero_point, 0)),
                y_int8.eq(command.y_format == ElementFormat.INT8),
            ]

        line_ends = Signal()
        place, follows, tap_ends = Signal.like(adder.place), Signal(), Signal()
        room = Signal(range(scaler.room + 1), init=scaler.room)
        m.d.comb += [
            tap_ends.eq(place == tag.more),
            self.tags.ready.eq(self.valid & tap_ends),
            self.accepts.eq(kernel.whole & (~tag.last | (room != 0))),
            kernel.descriptor.eq(self.descriptor),
            kernel.start.eq(self.start),
            line_ends.eq(tap_ends & tag.last & tag.ends),
            kernel.next_line.eq(self.valid & line_ends),
            kernel.read_weights.eq(self.valid),
            kernel.tap.eq(tag.tap),
            kernel.place.eq(place),
            adder.valid.eq(self.valid),
            adder.first.eq(~follows),
            adder.last.eq(tag.last),
            adder.place.eq(place),
            adder.ends.eq(line_ends),
            adder.x.eq(self.i),
            adder.w.eq(kernel.weights),
        ]
        m.d.sync += room.eq(room + (scaler.taken & self.enable) - (self.valid & tag.last))
        with m.If(self.valid):
            m.d.sync += place.eq(place + 1)
            with m.If(tap_ends):
                m.d.sync += [place.eq(0), follows.eq(~tag.last)]

        m.d.comb += [
            scaler.i.eq(adder.o),
            scaler.valid.eq(adder.o_valid),
            scaler.place.eq(adder.o_place),
            scaler.ends.eq(adder.o_ends),
            scaler.params.eq(kernel.params),
            kernel.read_params.eq(scaler.read_params & self.enable),
            kernel.param_place.eq(scaler.param_place),
            kernel.group.eq(scaler.group),
            kernel.done.eq(scaler.done & self.enable),
            self.busy.eq(scaler.busy),
            self.o.eq(
                scaler.o ^ Mux(y_int8, int.from_bytes([_MIDDLE] * self._config.bus_bytes), 0)
            ),
            self.o_valid.eq(scaler.o_valid),
            self.bad.eq(kernel.bad),
            self.bad_channel.eq(kernel.bad_channel),
        ]
        return m
