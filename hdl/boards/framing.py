"""Messages of bytes on a line that may lose, change or invent bytes.

HDLC-like framing: a flag before and after each frame, flags and escapes inside of it escaped, the
32 bits of a frame check sequence at its end. Source: RFC 1662, sections 4 and C.3. Whatever happens
on the line, the next flag begins anew.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from halfdome.hdl.serial import CHECK_BYTES, ESCAPE, FLAG, FRAME_BYTES, INVERTED

PIECE = data.StructLayout({"byte": 8, "last": 1})
"""A byte of a message; `last` ends it."""


class Unframer(wiring.Component):
    """Messages out of the bytes of a line; what is damaged, too long or too short is dropped.

    Members
    -------
    i : In(stream of 8 bits, always ready)
    o : Out(stream of `PIECE`), whole messages whose check sequence is right

    A message comes out when its last flag has come in, a byte in two cycles. What comes in
    meanwhile is lost.
    """

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(8, always_ready=True)),
                "o": Out(stream.Signature(PIECE)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(8).create()
        m.submodules.memory = memory = Memory(shape=8, depth=FRAME_BYTES, init=[])
        write, read = memory.write_port(), memory.read_port()
        count = Signal(range(FRAME_BYTES + 1))
        place = Signal(range(FRAME_BYTES))
        escaped = Signal()
        byte = Mux(escaped, self.i.p ^ INVERTED, self.i.p)
        m.d.comb += [
            write.addr.eq(count),
            write.data.eq(byte),
            crc.data.eq(byte),
            read.addr.eq(place),
            self.o.p.byte.eq(read.data),
            self.o.p.last.eq(place == count - CHECK_BYTES - 1),
        ]
        with m.FSM():
            with m.State("COLLECT"):
                with m.If(self.i.valid & (self.i.p == FLAG)):
                    m.d.comb += crc.start.eq(1)
                    m.d.sync += [escaped.eq(0), count.eq(0), place.eq(0)]
                    with m.If(crc.match_detected & ~escaped & (count > CHECK_BYTES)):
                        m.d.sync += count.eq(count)
                        m.next = "FETCH"
                with m.Elif(self.i.valid & (self.i.p == ESCAPE)):
                    m.d.sync += escaped.eq(1)
                with m.Elif(self.i.valid & (count != FRAME_BYTES)):
                    m.d.comb += [write.en.eq(1), crc.valid.eq(1)]
                    m.d.sync += [escaped.eq(0), count.eq(count + 1)]
                with m.Elif(self.i.valid):
                    m.next = "SKIP"
            with m.State("SKIP"):  # longer than any
                with m.If(self.i.valid & (self.i.p == FLAG)):
                    m.d.comb += crc.start.eq(1)
                    m.d.sync += [escaped.eq(0), count.eq(0)]
                    m.next = "COLLECT"
            with m.State("FETCH"):
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += place.eq(place + 1)
                    m.next = "FETCH"
                    with m.If(self.o.p.last):
                        m.d.sync += count.eq(0)
                        m.next = "COLLECT"
        return m


class Framer(wiring.Component):
    """Messages as bytes of a line, each between two flags and with its check sequence.

    Members
    -------
    i : In(stream of `PIECE`)
    o : Out(stream of 8 bits)
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(PIECE)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(8).create()
        checks = Signal(range(CHECK_BYTES))
        in_check = Signal()
        escaped = Signal()
        byte = Mux(in_check, crc.crc.word_select(checks, 8), self.i.p.byte)
        special = (byte == FLAG) | (byte == ESCAPE)
        m.d.comb += crc.data.eq(self.i.p.byte)
        with m.FSM():
            with m.State("OPEN"):
                m.d.comb += [self.o.p.eq(FLAG), self.o.valid.eq(self.i.valid)]
                m.d.comb += crc.start.eq(1)
                m.d.sync += [in_check.eq(0), checks.eq(0), escaped.eq(0)]
                with m.If(self.i.valid & self.o.ready):
                    m.next = "BYTES"
            with m.State("BYTES"):
                m.d.comb += self.o.valid.eq(in_check | self.i.valid)
                m.d.comb += self.o.p.eq(Mux(escaped, byte ^ INVERTED, Mux(special, ESCAPE, byte)))
                with m.If(self.o.valid & self.o.ready):
                    with m.If(special & ~escaped):
                        m.d.sync += escaped.eq(1)
                    with m.Else():
                        m.d.sync += escaped.eq(0)
                        with m.If(in_check):
                            m.d.sync += checks.eq(checks + 1)
                            with m.If(checks == CHECK_BYTES - 1):
                                m.next = "CLOSE"
                        with m.Else():
                            m.d.comb += [self.i.ready.eq(1), crc.valid.eq(1)]
                            m.d.sync += in_check.eq(self.i.p.last)
            with m.State("CLOSE"):
                m.d.comb += [self.o.p.eq(FLAG), self.o.valid.eq(1)]
                with m.If(self.o.ready):
                    m.next = "OPEN"
        return m
