"""The bytes of a DEPTHWISE: weighted sums over the windows of each channel, requantised."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.commands import ElementFormat, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.once import EnableInserter
from halfdome.hdl.vector.adder import WindowAdder
from halfdome.hdl.vector.kernel import KernelLoader
from halfdome.hdl.vector.scaler import TotalScaler
from halfdome.hdl.vector.source import matrix_layout
from halfdome.hdl.vector.taps import tap_group
from halfdome.hdl.vector.unit import unit_members

_MIDDLE = 128
"""int8 is uint8 with its ends moved by so much."""


class WindowSums(wiring.Component):
    """Takes the groups of a window's taps, and gives as many as one tap has.

    Weights and parameters are read a line of channels ahead of their use.

    Members
    -------
    descriptor : In(512), a DEPTHWISE
    start : In(1), takes it; nothing of the command before is inside
    matrices : Out(stream of `matrix_layout`), weights and parameters to be read
    words : In(stream of bus words), what was read
    *`unit_members()`, of `byte_lanes`; o follows `latency` enabled cycles after a group of the last
    tap, if none waits before it. `valid` only if `accepts`
    group : In(`tap_group`), comes with `i`
    accepts : Out(1), a group may come
    busy : Out(1), requantises
    bad : Out(1), a multiplier is zero, infinite or NaN
    bad_channel : Out(16), the first such channel

    A group a cycle; the groups of a word that are given take `GROUPS` cycles.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._adder = WindowAdder(config)
        self._scaler = TotalScaler(config)
        self.latency = self._adder.latency + self._scaler.latency
        super().__init__(
            unit_members(config.byte_lanes)
            | {
                "descriptor": In(DESCRIPTOR_BITS),
                "start": In(1),
                "matrices": Out(stream.Signature(matrix_layout(config))),
                "words": In(stream.Signature(8 * config.bus_bytes)),
                "group": In(tap_group(config)),
                "accepts": Out(1),
                "busy": Out(1),
                "bad": Out(1),
                "bad_channel": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, adder, scaler, group = self._config, self._adder, self._scaler, self.group
        m.submodules.kernel = kernel = KernelLoader(config)
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

        # Of a word of weights, a part for each group.
        part_bits = exact_log2(config.byte_word_cycles)
        part = Signal(part_bits)
        room = Signal(range(scaler.room + 1), init=scaler.room)
        m.d.comb += [
            self.accepts.eq(kernel.whole & (~group.last | (room != 0))),
            kernel.descriptor.eq(self.descriptor),
            kernel.start.eq(self.start),
            kernel.next_line.eq(self.valid & group.line_ends),
            kernel.read_weights.eq(self.valid),
            kernel.tap.eq(group.tap),
            kernel.place.eq(group.place[part_bits:]),
            adder.valid.eq(self.valid),
            adder.first.eq(group.first),
            adder.last.eq(group.last),
            adder.place.eq(group.place),
            adder.ends.eq(group.line_ends),
            adder.x.eq(self.i),
            adder.w.eq(kernel.weights.word_select(part, 8 * config.byte_lanes)),
        ]
        m.d.sync += room.eq(room + (scaler.taken & self.enable) - (self.valid & group.last))
        with m.If(self.valid):
            m.d.sync += part.eq(group.place)

        m.d.comb += [
            scaler.i.eq(adder.o),
            scaler.valid.eq(adder.o_valid),
            scaler.place.eq(adder.o_place),
            scaler.ends.eq(adder.o_ends),
            scaler.params.eq(kernel.params),
            kernel.read_params.eq(scaler.read_params & self.enable),
            kernel.param_place.eq(scaler.param_place),
            kernel.group.eq(scaler.param_group),
            kernel.done.eq(scaler.done & self.enable),
            self.busy.eq(scaler.busy),
            self.o.eq(scaler.o ^ Mux(y_int8, int.from_bytes([_MIDDLE] * config.byte_lanes), 0)),
            self.o_valid.eq(scaler.o_valid),
            self.bad.eq(kernel.bad),
            self.bad_channel.eq(kernel.bad_channel),
        ]
        return m
