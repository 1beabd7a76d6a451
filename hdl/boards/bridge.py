"""From questions on a serial line to accesses of a bus."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.boards.framing import PIECE
from halfdome.hdl.pico import WORD_BYTES, Wishbone
from halfdome.hdl.serial import DONE, HEADER_BYTES, MOST_WORDS, REFUSED, WRITE


class WishboneBridge(wiring.Component):
    """Does what a body asks for, see `halfdome.hdl.serial`, a word at a time.

    Parameters
    ----------
    address_bits : int, of the bus

    Members
    -------
    question : In(stream of `PIECE`)
    answer : Out(stream of `PIECE`)
    bus : Out(Wishbone)

    Refused are addresses that are no multiple of 4 or beyond the bus, no words or too many. What
    has fewer words than it says is refused when those were written; further bytes are dropped.
    """

    def __init__(self, address_bits: int):
        self._address_bits = address_bits
        super().__init__(
            {
                "question": In(stream.Signature(PIECE)),
                "answer": Out(stream.Signature(PIECE)),
                "bus": Out(Wishbone(address_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus, question, answer = self.bus, self.question, self.answer
        header = Signal(8 * HEADER_BYTES)
        word = Signal(8 * WORD_BYTES)
        taken = Signal(range(HEADER_BYTES))
        left = Signal(8)
        ended, refused = Signal(), Signal()
        writes = header[7]
        words = Signal(8)
        address = header[8:]
        index = Signal(self._address_bits)  # of the word
        m.d.comb += [
            words.eq(header[:8] & ~WRITE),
            bus.stb.eq(bus.cyc),
            bus.we.eq(writes),
            bus.adr.eq(index),
            bus.sel.eq(0b1111),
            bus.dat_w.eq(word),
        ]
        beyond = (
            (words == 0)
            | (words > MOST_WORDS)
            | address[:2].any()
            | ((address >> 2) + words > 1 << self._address_bits)
        )
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += question.ready.eq(1)
                with m.If(question.valid):
                    m.d.sync += [
                        header.eq(Cat(header[8:], question.p.byte)),
                        ended.eq(question.p.last),
                        taken.eq(taken + 1),
                    ]
                    with m.If(taken == HEADER_BYTES - 1):
                        m.d.sync += taken.eq(0)
                        m.next = "JUDGE"
                    with m.Elif(question.p.last):
                        m.d.sync += [taken.eq(0), refused.eq(1)]
                        m.next = "ANSWER"
            with m.State("JUDGE"):
                bad = beyond | (writes == ended)  # words to write follow, nothing else does
                m.d.sync += [index.eq(address >> 2), left.eq(words), refused.eq(bad)]
                m.next = "ANSWER"
                with m.If(~ended):
                    m.next = "DROP"
                    with m.If(~bad):
                        m.next = "COLLECT"
            with m.State("COLLECT"):
                m.d.comb += question.ready.eq(1)
                with m.If(question.valid):
                    m.d.sync += [
                        word.eq(Cat(word[8:], question.p.byte)),
                        ended.eq(question.p.last),
                        taken.eq(taken + 1),
                    ]
                    with m.If(taken == WORD_BYTES - 1):
                        m.d.sync += taken.eq(0)
                        m.next = "WRITE"
                    with m.Elif(question.p.last):
                        m.d.sync += [taken.eq(0), refused.eq(1)]
                        m.next = "ANSWER"
            with m.State("WRITE"):
                m.d.comb += bus.cyc.eq(1)
                with m.If(bus.ack):
                    m.d.sync += [index.eq(index + 1), left.eq(left - 1)]
                    m.next = "COLLECT"
                    with m.If(ended):
                        m.d.sync += refused.eq(left != 1)
                        m.next = "ANSWER"
                    with m.Elif(left == 1):
                        m.d.sync += refused.eq(1)
                        m.next = "DROP"
            with m.State("DROP"):
                m.d.comb += question.ready.eq(1)
                with m.If(question.valid & question.p.last):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                reads = ~refused & ~writes
                m.d.comb += [
                    answer.valid.eq(1),
                    answer.p.byte.eq(Mux(refused, REFUSED, DONE)),
                    answer.p.last.eq(~reads),
                ]
                with m.If(answer.ready):
                    m.next = "HEADER"
                    with m.If(reads):
                        m.next = "READ"
            with m.State("READ"):
                m.d.comb += bus.cyc.eq(1)
                m.d.sync += word.eq(bus.dat_r)
                with m.If(bus.ack):
                    m.d.sync += [index.eq(index + 1), left.eq(left - 1)]
                    m.next = "SHIFT"
            with m.State("SHIFT"):
                m.d.comb += [
                    answer.valid.eq(1),
                    answer.p.byte.eq(word[:8]),
                    answer.p.last.eq((left == 0) & (taken == WORD_BYTES - 1)),
                ]
                with m.If(answer.ready):
                    m.d.sync += [word.eq(word >> 8), taken.eq(taken + 1)]
                    with m.If(taken == WORD_BYTES - 1):
                        m.d.sync += taken.eq(0)
                        m.next = "READ"
                        with m.If(left == 0):
                            m.next = "HEADER"
        return m
