"""Received packets, held until they are known to be whole."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.pcie.tlp import HEADER_BYTES, MAX_PAYLOAD_BYTES, RequestHeader, rx_beat


def packet_beat(config: CardConfig) -> data.StructLayout:
    """A beat of a checked packet. `first` marks the header; `bar` and `malformed` go with it.

    A malformed packet, one with more or fewer beats than its header says, is its header alone.
    """
    return data.StructLayout(
        {"data": config.bus_bytes * 8, "first": 1, "last": 1, "bar": 3, "malformed": 1}
    )


class PacketBuffer(wiring.Component):
    """Passes packets on in order once their last beat is here, so that their length can be trusted.

    Members
    -------
    i : In(stream of `rx_beat`)
    o : Out(stream of `packet_beat`)

    `latency` cycles after the last beat of a packet is taken, its header is offered; one beat a
    cycle. Holds two packets of the largest payload, so it refuses only while `o` is refused.
    `i.ready` depends on registers alone.
    """

    latency = 3

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(rx_beat(config))),
                "o": Out(stream.Signature(packet_beat(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self._config.bus_bytes
        depth = 2 * MAX_PAYLOAD_BYTES // bus
        m.submodules.beats = beats = Memory(shape=rx_beat(self._config), depth=depth, init=[])
        # Written in the slot of a packet's header when its end is seen.
        m.submodules.verdicts = verdicts = Memory(shape=1, depth=depth, init=[])
        beat_write, beat_read = beats.write_port(), beats.read_port()
        verdict_write, verdict_read = verdicts.write_port(), verdicts.read_port()

        # Slots before `head` belong to whole packets; from `head` to `tail` one is being received.
        pointer_bits = exact_log2(depth) + 1
        head, tail, consumed = (Signal(pointer_bits, name=n) for n in ("head", "tail", "consumed"))

        header = RequestHeader(self.i.p.data[: HEADER_BYTES * 8])
        expected = Signal(range(MAX_PAYLOAD_BYTES // bus + 2))  # beats, this one included
        expected_later = Signal.like(expected)
        inside = Signal()
        dwords = Signal(11)
        m.d.comb += [
            dwords.eq(header.length),
            expected.eq(expected_later),
        ]
        with m.If(header.length == 0):
            m.d.comb += dwords.eq(1024)
        with m.If(~inside):
            m.d.comb += expected.eq(1)
            with m.If(header.type[6]):  # Fmt: with data
                m.d.comb += expected.eq(1 + ((dwords + (bus // 4 - 1)) >> exact_log2(bus // 4)))

        taken = Signal()
        stored = Signal()
        whole = Signal()
        after_header = Signal(pointer_bits)
        after_beat = Signal(pointer_bits)
        m.d.comb += [
            self.i.ready.eq((tail - consumed)[:pointer_bits] != depth),
            taken.eq(self.i.valid & self.i.ready),
            stored.eq(expected != 0),
            whole.eq(expected == 1),
            after_header.eq(head + 1),
            after_beat.eq(tail + stored),
            beat_write.addr.eq(tail),
            beat_write.data.eq(self.i.p),
            beat_write.en.eq(taken & stored),
            verdict_write.addr.eq(head),
            verdict_write.data.eq(~whole),
            verdict_write.en.eq(taken & self.i.p.last),
        ]
        with m.If(taken):
            m.d.sync += [
                inside.eq(~self.i.p.last),
                expected_later.eq(expected - stored),
                tail.eq(after_beat),
            ]
            with m.If(self.i.p.last):
                m.d.sync += head.eq(after_beat)
                with m.If(~whole):
                    m.d.sync += [head.eq(after_header), tail.eq(after_header)]

        # The memories' outputs are slow, so they go to a register and nowhere else.
        advance = Signal()
        fetched = Signal()
        move = Signal()
        first = Signal(init=1)
        malformed = Signal()
        last = Signal()
        m.d.comb += [
            move.eq(fetched & (~self.o.valid | self.o.ready)),
            advance.eq((consumed != head) & (~fetched | move)),
            beat_read.addr.eq(consumed),
            beat_read.en.eq(advance),
            verdict_read.addr.eq(consumed),
            verdict_read.en.eq(advance),
            malformed.eq(first & verdict_read.data),
            last.eq(beat_read.data.last | malformed),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(move):
            m.d.sync += [
                fetched.eq(0),
                first.eq(last),
                self.o.valid.eq(1),
                self.o.p.data.eq(beat_read.data.data),
                self.o.p.bar.eq(beat_read.data.bar),
                self.o.p.first.eq(first),
                self.o.p.last.eq(last),
                self.o.p.malformed.eq(malformed),
            ]
        with m.If(advance):
            m.d.sync += [fetched.eq(1), consumed.eq(consumed + 1)]
        return m
