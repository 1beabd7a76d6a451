"""The largest byte of each channel over the taps of a window."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from halfdome.hdl.config import CardConfig
from halfdome.hdl.vector.unit import unit_members
from halfdome.hdl.vector.walker import tap_tag


class WindowMaximum(wiring.Component):
    """Takes the words of a window's taps, and gives as many as one tap has.

    Members
    -------
    *`unit_members()`, of `bus_bytes`; o follows `latency` enabled cycles after a word of the last
    tap. `valid` only if `tags.valid`
    is_signed : In(1), bytes are int8, not uint8
    tags : In(stream of `tap_tag`), taken with a tap's last word

    A word a cycle. After a window's last word nothing of it is left but what is in `o`.
    """

    latency = 1

    def __init__(self, config: CardConfig):
        self._words = config.burst_words
        self._bytes = config.bus_bytes
        super().__init__(
            unit_members(self._bytes)
            | {"is_signed": In(1), "tags": In(stream.Signature(tap_tag(config)))}
        )

    def elaborate(self, platform):
        m = Module()
        tag = self.tags.p
        largest = Array(Signal(8 * self._bytes, name=f"largest_{n}") for n in range(self._words))
        place, o_place = Signal(range(self._words)), Signal(range(self._words))
        follows, tap_ends = Signal(), Signal()  # another tap of the window came before
        m.d.comb += [
            tap_ends.eq(place == tag.more),
            self.tags.ready.eq(self.valid & tap_ends),
            self.o.eq(largest[o_place]),
        ]
        sign = Signal(8)
        before, result = Signal(8 * self._bytes), Signal(8 * self._bytes)
        m.d.comb += [sign[-1].eq(self.is_signed), before.eq(largest[place])]
        for k in range(self._bytes):
            new, old = self.i.word_select(k, 8), before.word_select(k, 8)
            keep = follows & ((old ^ sign) > (new ^ sign))
            m.d.comb += result.word_select(k, 8).eq(Mux(keep, old, new))
        with m.If(self.enable):
            m.d.sync += self.o_valid.eq(self.valid & tag.last)
        with m.If(self.valid):
            m.d.sync += [largest[place].eq(result), place.eq(place + 1), o_place.eq(place)]
            with m.If(tap_ends):
                m.d.sync += [place.eq(0), follows.eq(~tag.last)]
        return m
