"""Groups of bytes of a window's taps: to which of the output each belongs."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.commands import MOST_TAPS
from halfdome.hdl.config import CardConfig
from halfdome.hdl.vector.walker import line_groups, tap_tag


def tap_group(config: CardConfig) -> data.StructLayout:
    """What is to be known of a group.

    place : its number in its tap
    tap : the tap's number in the kernel, modulo `MOST_TAPS`
    first, last : the tap is the first of its window; the last
    tap_ends : it is the last group of its tap
    line_ends : it is the last of its line of channels
    """
    return data.StructLayout(
        {
            "place": range(line_groups(config)),
            "tap": range(MOST_TAPS),
            "first": 1,
            "last": 1,
            "tap_ends": 1,
            "line_ends": 1,
        }
    )


class TapGroups(wiring.Component):
    """Counts the groups of taps.

    Members
    -------
    tags : In(stream of `tap_tag`), taken with a tap's last group
    valid : In(1), a group comes; only if `tags.valid`
    o : Out(`tap_group`), what it is, or the next will be
    """

    def __init__(self, config: CardConfig):
        super().__init__(
            {
                "tags": In(stream.Signature(tap_tag(config))),
                "valid": In(1),
                "o": Out(tap_group(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tag, o = self.tags.p, self.o
        place, follows = Signal.like(o.place), Signal()  # another tap of the window came before
        m.d.comb += [
            o.place.eq(place),
            o.tap.eq(tag.tap),
            o.first.eq(~follows),
            o.last.eq(tag.last),
            o.tap_ends.eq(place == tag.more),
            o.line_ends.eq(o.tap_ends & tag.last & tag.ends),
            self.tags.ready.eq(self.valid & o.tap_ends),
        ]
        with m.If(self.valid):
            m.d.sync += place.eq(place + 1)
            with m.If(o.tap_ends):
                m.d.sync += [place.eq(0), follows.eq(~tag.last)]
        return m
