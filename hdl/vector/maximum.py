"""The largest byte of each channel over the taps of a window."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
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
        largest = Array(Signal(8 * self._bytes, name=f"largest_{n}") for n in range(self._groups))
        o_place = Signal.like(place)
        m.d.comb += self.o.eq(largest[o_place])
        sign = Signal(8)
        before, result = Signal(8 * self._bytes), Signal(8 * self._bytes)
        m.d.comb += [sign[-1].eq(self.is_signed), before.eq(largest[place])]
        for k in range(self._bytes):
            new, old = self.i.word_select(k, 8), before.word_select(k, 8)
            keep = ~group.first & ((old ^ sign) > (new ^ sign))
            m.d.comb += result.word_select(k, 8).eq(Mux(keep, old, new))
        with m.If(self.enable):
            m.d.sync += self.o_valid.eq(self.valid & group.last)
        with m.If(self.valid):
            m.d.sync += [largest[place].eq(result), o_place.eq(place)]
        return m
