"""Between the packets of a card and AMD's Integrated Block for PCI Express of 7-series FPGAs.

The block moves two doublewords a cycle: the header's three or four, then at once those of the
payload, whose bytes run from the highest to the lowest. Source: AMD PG054, "TLP Format on the AXI4-
Stream Interface" and the port tables of its 64-bit interface.
"""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import CardConfig, ConfigError
from halfdome.hdl.pcie.tlp import HEADER_BYTES, is_non_posted, rx_beat, tx_beat

_DW = 32
_BEAT_WORDS = HEADER_BYTES * 8 // _DW

RX_PAIR = data.StructLayout({"data": 2 * _DW, "keep": 8, "last": 1, "bar_hit": 8})
"""What the block gives: `bar_hit` has a bit for each BAR, two for one of 64 bits."""
TX_PAIR = data.StructLayout({"data": 2 * _DW, "keep": 8, "last": 1})
"""What it takes."""


def _need_beats_of_a_header(config: CardConfig) -> None:
    if config.bus_bytes != HEADER_BYTES:
        raise ConfigError(
            f"bus_bytes={config.bus_bytes}: must be {HEADER_BYTES} beside this PCIe block"
        )


def _has_four(header: ValueLike) -> Value:
    return Value.cast(header)[29]


def _has_payload(header: ValueLike) -> Value:
    return Value.cast(header)[30]


def _swapped(word: Value) -> Value:
    """The four bytes of a doubleword in the other order."""
    return Cat(*(word.word_select(k, 8) for k in reversed(range(4))))


class PacketsToCard(wiring.Component):
    """Packets of the block as beats of the card.

    Parameters
    ----------
    config : CardConfig, with `bus_bytes` of a header

    Members
    -------
    i : In(stream of `RX_PAIR`)
    o : Out(stream of `rx_beat`)
    non_posted : Out(1), in the cycle in which the header of such a request leaves

    Takes a pair a cycle, and gives a beat for two of them, while `o` is ready; what a packet has
    left over takes a cycle of its own.
    """

    def __init__(self, config: CardConfig):
        _need_beats_of_a_header(config)
        super().__init__(
            {
                "i": In(stream.Signature(RX_PAIR)),
                "o": Out(stream.Signature(rx_beat(config))),
                "non_posted": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        low, high = i.p.data[:_DW], i.p.data[_DW:]
        first = Signal(2 * _DW)
        bar = Signal(3)
        held = Signal((_BEAT_WORDS - 1) * _DW)  # doublewords of a payload
        count = Signal(range(_BEAT_WORDS))
        with m.FSM():
            with m.State("FIRST"):
                m.d.comb += i.ready.eq(1)
                with m.If(i.valid):
                    m.d.sync += [first.eq(i.p.data), bar.eq(0)]
                    for k in reversed(range(8)):
                        with m.If(i.p.bar_hit[k]):
                            m.d.sync += bar.eq(k)
                    m.next = "SECOND"
            with m.State("SECOND"):
                four, begun = _has_four(first), ~_has_four(first) & _has_payload(first)
                m.d.comb += [
                    o.valid.eq(i.valid),
                    i.ready.eq(o.ready),
                    o.p.data.eq(Cat(first, low, Mux(four, high, 0))),
                    o.p.bar.eq(bar),
                    o.p.last.eq(i.p.last & ~begun),
                    self.non_posted.eq(o.valid & o.ready & is_non_posted(first[24:32])),
                ]
                with m.If(o.valid & o.ready):
                    m.d.sync += [held.eq(_swapped(high)), count.eq(begun)]
                    m.next = "PAYLOAD"
                    with m.If(i.p.last):
                        m.next = "FIRST"
                        with m.If(begun):
                            m.next = "REST"
            with m.State("PAYLOAD"):
                words = Cat(_swapped(low), _swapped(high))
                together = Signal((_BEAT_WORDS + 1) * _DW)
                total = Signal(range(_BEAT_WORDS + 2))
                full = Signal()
                with m.Switch(count):
                    for k in range(_BEAT_WORDS):
                        with m.Case(k):
                            m.d.comb += together.eq(Cat(held[: k * _DW], words))
                m.d.comb += [
                    total.eq(count + 1 + i.p.keep[-1]),
                    full.eq((total >= _BEAT_WORDS) | i.p.last),
                    o.valid.eq(i.valid & full),
                    i.ready.eq(o.ready | ~full),
                    o.p.data.eq(together),
                    o.p.last.eq(i.p.last & (total <= _BEAT_WORDS)),
                ]
                with m.If(i.valid & i.ready):
                    m.d.sync += [held.eq(together), count.eq(total)]
                    with m.If(total >= _BEAT_WORDS):
                        m.d.sync += [
                            held.eq(together[_BEAT_WORDS * _DW :]),
                            count.eq(total - _BEAT_WORDS),
                        ]
                    with m.If(i.p.last):
                        m.next = "FIRST"
                        with m.If(total > _BEAT_WORDS):
                            m.next = "REST"
            with m.State("REST"):
                m.d.comb += [o.valid.eq(1), o.p.data.eq(held[:_DW]), o.p.last.eq(1)]
                with m.If(o.ready):
                    m.next = "FIRST"
        return m


class PacketsFromCard(wiring.Component):
    """Beats of the card as packets of the block, with the card's ID in their headers.

    Parameters
    ----------
    config : CardConfig, with `bus_bytes` of a header

    Members
    -------
    i : In(stream of `tx_beat`)
    o : Out(stream of `TX_PAIR`)
    id : In(16), bus, device and function number

    Gives a pair a cycle; a packet with a payload behind three doublewords costs one more.
    """

    def __init__(self, config: CardConfig):
        _need_beats_of_a_header(config)
        super().__init__(
            {
                "i": In(stream.Signature(tx_beat(config))),
                "o": Out(stream.Signature(TX_PAIR)),
                "id": In(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        header = i.p.data
        words = [_swapped(i.p.data.word_select(k, _DW)) for k in range(_BEAT_WORDS)]
        held = Signal(_DW)  # a doubleword that waits for the next
        shifted = Signal()  # one always does
        half = Signal()
        left = Signal(range(1024 + 2))  # doublewords that are not sent
        m.d.comb += o.p.keep.eq(0xFF)
        with m.FSM():
            with m.State("FIRST"):
                # The ID of who asks, and that of who answers, lie in the same place.
                m.d.comb += [
                    o.valid.eq(i.valid),
                    o.p.data.eq(Cat(header[: _DW + 16], self.id)),
                ]
                with m.If(o.valid & o.ready):
                    m.next = "SECOND"
            with m.State("SECOND"):
                four, payload = _has_four(header), _has_payload(header)
                length = Mux(header[:10] == 0, 1024, header[:10])
                m.d.comb += o.p.data.eq(header[2 * _DW :])
                m.d.sync += [half.eq(0), shifted.eq(~four), left.eq(length + ~four)]
                with m.If(~four & payload):
                    m.d.comb += i.ready.eq(1)
                    m.d.sync += held.eq(header[2 * _DW :])
                    m.next = "PAYLOAD"
                with m.Else():
                    m.d.comb += [
                        o.valid.eq(1),
                        o.p.last.eq(~payload),
                        o.p.keep[4:].eq(four.replicate(4)),
                        i.ready.eq(o.ready),
                    ]
                    with m.If(o.ready):
                        m.next = "FIRST"
                        with m.If(payload):
                            m.next = "PAYLOAD"
            with m.State("PAYLOAD"):
                before = Cat(held, words[0], words[1], words[2])
                pairs = Mux(shifted, before, Cat(*words))
                alone = shifted & ~half & (left == 1)  # what is held is all there is
                ends = left <= 2
                m.d.comb += [
                    o.valid.eq(i.valid | alone),
                    o.p.data.eq(pairs.word_select(half, 2 * _DW)),
                    o.p.last.eq(ends),
                    o.p.keep[4:].eq((left != 1).replicate(4)),
                    i.ready.eq(o.ready & (half | ends) & ~alone),
                ]
                with m.If(o.valid & o.ready):
                    m.d.sync += [half.eq(~half), left.eq(left - 2)]
                    with m.If(half):
                        m.d.sync += held.eq(words[3])
                    with m.If(ends):
                        m.next = "FIRST"
        return m
