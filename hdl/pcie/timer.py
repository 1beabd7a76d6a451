"""Which of the card's reads have waited too long for their completions."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

_TIME_BITS = 33
"""Above the width of the limit, so that no read can pass it unseen within a round."""


class CompletionTimer(wiring.Component):
    """Names, one at a time, the tags watched for `limit` cycles since their request was sent.

    Parameters
    ----------
    tags : int
        Number of tags.

    Members
    -------
    sent : In(stream of tags, always ready), the request leaves the card in this cycle
    watched : In(tags), reads that are waited for: not before they are sent, and at least 4 cycles
        pass between the end of one read of a tag and the start of its next
    limit : In(32), cycles; 0 watches nothing
    expired : Out(1), `tag` has waited too long; falls when it is no longer watched
    tag : Out

    A tag is looked at every `tags` cycles, so that it is named up to `tags + slack` cycles after
    the limit if no other one is. Rests while nothing is watched.
    """

    slack = 3

    def __init__(self, tags: int):
        self._tags = tags
        tag = range(tags)
        super().__init__(
            {
                "sent": In(stream.Signature(tag, always_ready=True)),
                "watched": In(tags),
                "limit": In(32),
                "expired": Out(1),
                "tag": Out(tag),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tags = self._tags
        m.submodules.times = times = Memory(shape=_TIME_BITS, depth=1 << ceil_log2(tags), init=[])
        write = times.write_port()
        read = times.read_port(transparent_for=[write])

        now = Signal(_TIME_BITS)
        running = Signal()
        slot = Signal(range(tags))
        looked_at = Signal(range(tags))
        waited = Signal(_TIME_BITS)
        over = Signal()
        m.d.comb += [
            running.eq(self.watched.any() & (self.limit != 0)),
            write.addr.eq(self.sent.p),
            write.data.eq(now),
            write.en.eq(self.sent.valid),
            read.addr.eq(slot),
            waited.eq(now - read.data),
            self.expired.eq(over & self.watched.bit_select(self.tag, 1)),
        ]
        with m.If(running):
            m.d.sync += now.eq(now + 1)
        # While a tag is named, the next one is read again and again, lest its time grow old.
        m.d.sync += looked_at.eq(slot)
        with m.If(~self.expired):
            m.d.sync += [
                self.tag.eq(looked_at),
                over.eq(running & self.watched.bit_select(looked_at, 1) & (waited >= self.limit)),
            ]
            with m.If(running):
                m.d.sync += slot.eq(slot + 1)
                with m.If(slot == tags - 1):
                    m.d.sync += slot.eq(0)
        return m
