"""Questions from a line that are each done once, whatever is repeated."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from halfdome.hdl.boards.framing import PIECE
from halfdome.hdl.serial import FRAME_BYTES, HELLO, LINE_VERSION


class Exchange(wiring.Component):
    """Passes on each new question, keeps its answer, and repeats that if the question comes again.

    Members
    -------
    i : In(stream of `PIECE`), messages of the host: number, then body
    o : Out(stream of `PIECE`), messages to the host
    question : Out(stream of `PIECE`), bodies
    answer : In(stream of `PIECE`), for each body one, when it has been taken whole
    reset : Out(1), a pulse: what answers is to be as after power-on

    A greeting with a body, or another number without one, is dropped. See `halfdome.hdl.serial`.
    """

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(PIECE)),
                "o": Out(stream.Signature(PIECE)),
                "question": Out(stream.Signature(PIECE)),
                "answer": In(stream.Signature(PIECE)),
                "reset": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=FRAME_BYTES, init=[])
        write, read = memory.write_port(), memory.read_port()
        number = Signal(8, init=HELLO)  # of the answer that is kept
        last = Signal(range(FRAME_BYTES))  # of its bytes
        place = Signal.like(last)
        m.d.comb += [
            write.addr.eq(place),
            read.addr.eq(place),
            self.question.p.eq(self.i.p),
            self.o.p.last.eq(place == last),
        ]
        m.d.comb += self.o.p.byte.eq(Mux(place == 0, number, read.data))
        with m.FSM():
            with m.State("NUMBER"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += place.eq(1)
                with m.If(self.i.valid & (self.i.p.byte == HELLO) & self.i.p.last):
                    m.d.sync += number.eq(HELLO)
                    m.next = "GREET"
                with m.Elif(self.i.valid & ~self.i.p.last):
                    m.d.sync += number.eq(self.i.p.byte)
                    m.next = "PASS"
                    with m.If(self.i.p.byte == HELLO):
                        m.d.sync += number.eq(number)
                        m.next = "DROP"
                    with m.Elif(self.i.p.byte == number):
                        m.next = "REPEAT"
            with m.State("GREET"):
                m.d.comb += [
                    self.reset.eq(1),
                    write.data.eq(LINE_VERSION),
                    write.en.eq(1),
                ]
                m.d.sync += [last.eq(1), place.eq(0)]
                m.next = "FETCH"
            with m.State("DROP"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & self.i.p.last):
                    m.next = "NUMBER"
            with m.State("REPEAT"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & self.i.p.last):
                    m.d.sync += place.eq(0)
                    m.next = "FETCH"
            with m.State("PASS"):
                m.d.comb += [
                    self.question.valid.eq(self.i.valid),
                    self.i.ready.eq(self.question.ready),
                ]
                with m.If(self.i.valid & self.i.ready & self.i.p.last):
                    m.next = "KEEP"
            with m.State("KEEP"):
                m.d.comb += [
                    self.answer.ready.eq(1),
                    write.data.eq(self.answer.p.byte),
                    write.en.eq(self.answer.valid),
                ]
                with m.If(self.answer.valid):
                    m.d.sync += place.eq(place + 1)
                    with m.If(self.answer.p.last):
                        m.d.sync += [last.eq(place), place.eq(0)]
                        m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += place.eq(place + 1)
                    m.next = "FETCH"
                    with m.If(self.o.p.last):
                        m.next = "NUMBER"
        return m
