"""The largest byte of each channel over the taps of a window."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from halfdome.hdl.config import CardConfig
from halfdome.hdl.vector.taps import tap_group
from halfdome.hdl.vector.unit import unit_members
from halfdome.hdl.vector.walker import line_groups


class WindowMaximum(wiring.Component):
    """Takes the groups of a window's taps, and gives as many as one tap has.

    Members
    -------
    *`unit_members()`, of `byte_lanes`; o follows `latency` enabled cycles after a group of the last
    tap
    group : In(`tap_group`), comes with `i`
    is_signed : In(1), bytes are int8, not uint8

    A group a cycle. After a window's last group nothing of it is left but what is in `o`.
    """

    latency = 1

    def __init__(self, config: CardConfig):
        self._groups = line_groups(config)
        self._bytes = config.byte_lanes
        super().__init__(
            unit_members(self._bytes) | {"group": In(tap_group(config)), "is_signed": In(1)}
        )

    def elaborate(self, platform):
        m = Module()
        group, place = self.group, self.group.place
        width = 8 * self._bytes
        m.submodules.largest = largest = Memory(shape=width, depth=max(2, self._groups), init=[])
        read, write = largest.read_port(domain="comb"), largest.write_port()
        sign, result = Signal(8), Signal(width)
        m.d.comb += [
            sign[-1].eq(self.is_signed),
            read.addr.eq(place),
            write.addr.eq(place),
            write.data.eq(result),
            write.en.eq(self.valid),
        ]
        for k in range(self._bytes):
            new, old = self.i.word_select(k, 8), read.data.word_select(k, 8)
            keep = ~group.first & ((old ^ sign) > (new ^ sign))
            m.d.comb += result.word_select(k, 8).eq(Mux(keep, old, new))
        with m.If(self.enable):
            m.d.sync += self.o_valid.eq(self.valid & group.last)
        with m.If(self.valid):
            m.d.sync += self.o.eq(result)
        return m
