"""Words of totals in parts, one after the other through a few columns, and bytes as words again."""

from amaranth import Cat, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.pipeline import register


class TotalCutter(wiring.Component):
    """Keeps words of totals, and gives each in parts of so many columns, a part a cycle.

    Parameters
    ----------
    bits, totals : int
        Of a signed total; totals of a word, which are `parts` times `columns`.
    columns, room : int
        Totals of a part; words that are kept.
    tag : data.StructLayout
        What goes with a word.

    Members
    -------
    i, tag : In, a word of totals if `valid`; only into `room`
    ready : In(1), the next part is taken
    head, part : Out, the tag of the word whose part is taken, and the part's number, if `busy`
    busy : Out(1), a word waits or is being taken
    takes : Out(1), a part is taken
    taken : Out(1), a word's last part is, which makes room for another
    o : Out(columns x signed(bits)), the part, in the cycle after it was taken
    """

    latency = 2
    """From a word to its first part, if none waits before it."""

    def __init__(self, bits: int, *, totals: int, columns: int, room: int, tag: data.StructLayout):
        self._bits, self._columns, self._tag = bits, columns, tag
        self.room, self.parts = room, totals // columns
        super().__init__(
            {
                "i": In(data.ArrayLayout(signed(bits), totals)),
                "tag": In(tag),
                "valid": In(1),
                "ready": In(1),
                "head": Out(tag),
                "part": Out(range(self.parts)),
                "busy": Out(1),
                "takes": Out(1),
                "taken": Out(1),
                "o": Out(data.ArrayLayout(signed(bits), columns)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry = data.StructLayout({"totals": self.i.shape(), "tag": self._tag})
        m.submodules.queue = queue = SyncFIFO(width=entry.size, depth=self.room)
        new, word = data.View(entry, queue.w_data), data.View(entry, queue.r_data)
        m.d.comb += [
            new.totals.eq(self.i),
            new.tag.eq(self.tag),
            queue.w_en.eq(self.valid),
            self.busy.eq(queue.r_rdy),
            self.head.eq(word.tag),
            self.takes.eq(queue.r_rdy & self.ready),
            self.taken.eq(self.takes & (self.part == self.parts - 1)),
            queue.r_en.eq(self.taken),
        ]
        with m.If(self.takes):
            m.d.sync += self.part.eq(self.part + 1)
        chosen = word.totals.as_value().word_select(self.part, self._columns * self._bits)
        m.d.comb += self.o.eq(register(m, chosen, "chosen"))
        return m


def join(m: Module, part: Value, valid: Value, parts: int) -> Value:
    """The word of which `part` is the last, if it is."""
    made = Signal((parts - 1) * len(part))  # the parts before
    word = Cat(made, part)
    with m.If(valid):
        m.d.sync += made.eq(word[len(part) :])
    return word
