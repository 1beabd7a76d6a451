"""Payloads of completions, put where they belong in card memory."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import ADDRESS_BITS, CardConfig
from halfdome.hdl.memory.port import write_request
from halfdome.hdl.pcie.tlp import BYTE_COUNT_BITS, READ_COMPLETION_BOUNDARY


class PayloadWriter(wiring.Component):
    """Writes a payload to consecutive words of memory, or drops it.

    Members
    -------
    start : In(1), the next words are those of a new payload, of which the following tell
    good : In(1), it is written; else dropped
    destination : In(ADDRESS_BITS), where its first byte goes: a multiple of the size of a word, or
        of the read completion boundary if that is smaller
    bytes : In(BYTE_COUNT_BITS), how many are written
    i : In(stream of words), the payload from its first byte on
    o : Out(stream of `write_request`), in the same cycle

    A word a cycle. Where a word is wider than the read completion boundary, a payload may start in
    the upper half of a word of memory: then each of its words is two writes, but for a last one
    that fits in half a word.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "good": In(1),
                "destination": In(ADDRESS_BITS),
                "bytes": In(BYTE_COUNT_BITS),
                "i": In(stream.Signature(config.bus_bytes * 8)),
                "o": Out(stream.Signature(write_request(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self._config.bus_bytes
        word_bits = exact_log2(bus)
        writing = Signal()
        address = Signal(ADDRESS_BITS)
        left = Signal(BYTE_COUNT_BITS)
        word_done = Signal()
        strobe = Cat(left > byte for byte in range(bus))
        write = self.o.p
        m.d.comb += [
            write.address.eq(address[word_bits:] << word_bits),
            write.data.eq(self.i.p),
            write.strobe.eq(strobe),
            word_done.eq(1),
            self.o.valid.eq(self.i.valid & writing),
            self.i.ready.eq(~writing | (self.o.ready & word_done)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [address.eq(address + bus), left.eq(left - bus)]
        with m.If(self.start):
            m.d.sync += [
                writing.eq(self.good),
                address.eq(self.destination),
                left.eq(self.bytes),
            ]

        if bus > READ_COMPLETION_BOUNDARY:
            half = bus // 2
            upper = Signal()  # payload starts in the upper half of a word
            second_half = Signal()
            with m.If(self.start):
                m.d.sync += upper.eq(self.destination[exact_log2(half)])
            with m.If(upper):
                m.d.comb += [
                    write.data.eq(Cat(self.i.p[half * 8 :], self.i.p[: half * 8])),
                    write.strobe.eq(strobe[:half] << half),
                    word_done.eq(~strobe[half]),
                ]
                with m.If(second_half):
                    m.d.comb += [
                        write.address.eq((address[word_bits:] + 1) << word_bits),
                        write.strobe.eq(strobe[half:]),
                        word_done.eq(1),
                    ]
            with m.If(self.o.valid & self.o.ready):
                m.d.sync += second_half.eq(~word_done)
        return m
