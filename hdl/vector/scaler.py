"""From sums over windows to bytes, a few channels at a time."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.params import PARAM_BYTES
from halfdome.hdl.matmul.requantiser import Requantiser
from halfdome.hdl.vector.adder import TOTAL_BITS
from halfdome.hdl.vector.kernel import GROUPS


class TotalScaler(wiring.Component):
    """Requantises words of sums, a group of channels a cycle: as many as a word holds parameters.

    Members
    -------
    zero_point, floor : In(8), of a `Requantiser`; constant while words come
    i : In(bus_bytes x signed(TOTAL_BITS)), a word of sums if `valid`; only into `room`
    place, ends : In, the word's number in its line of channels; it is the last that needs them
    taken : Out(1), a word has made room for another
    done : Out(1), likewise, and the parameters of its line are not needed any more
    read_params, param_place, group : Out, asks for a group of parameters
    params : In(8 * bus_bytes), in the next cycle and until others are asked for
    busy : Out(1), a word waits or is being taken
    o : Out(8 * bus_bytes), with `o_valid`: `latency` cycles after a word that waits for no other

    Holds `room` words; a word takes `GROUPS` cycles.
    """

    def __init__(self, config: CardConfig):
        self._bytes = config.bus_bytes
        self._columns = config.bus_bytes // PARAM_BYTES
        self._requantiser = Requantiser(columns=self._columns)
        self.room = 2 * config.burst_words
        # Through the queue, until the last group is chosen, to its registers.
        self.latency = 1 + (GROUPS - 1) + 1 + self._requantiser.latency
        word, places = 8 * config.bus_bytes, range(config.burst_words)
        super().__init__(
            {
                "zero_point": In(8),
                "floor": In(8),
                "i": In(data.ArrayLayout(signed(TOTAL_BITS), config.bus_bytes)),
                "valid": In(1),
                "place": In(places),
                "ends": In(1),
                "taken": Out(1),
                "done": Out(1),
                "read_params": Out(1),
                "param_place": Out(places),
                "group": Out(range(GROUPS)),
                "params": In(word),
                "busy": Out(1),
                "o": Out(word),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.requantiser = requantiser = self._requantiser
        entry = data.StructLayout(
            {"totals": self.i.shape(), "place": self.place.shape(), "ends": 1}
        )
        m.submodules.queue = queue = SyncFIFO(width=entry.size, depth=self.room)
        new, word = data.View(entry, queue.w_data), data.View(entry, queue.r_data)
        group_ends = self.group == GROUPS - 1
        m.d.comb += [
            new.totals.eq(self.i),
            new.place.eq(self.place),
            new.ends.eq(self.ends),
            queue.w_en.eq(self.valid),
            queue.r_en.eq(group_ends),
            self.busy.eq(queue.r_rdy),
            self.taken.eq(queue.r_rdy & group_ends),
            self.done.eq(self.taken & word.ends),
            self.read_params.eq(queue.r_rdy),
            self.param_place.eq(word.place),
        ]
        with m.If(queue.r_rdy):
            m.d.sync += self.group.eq(self.group + 1)

        # The group's sums and its parameters arrive together.
        columns = self._columns
        totals = word.totals.as_value().word_select(self.group, columns * TOTAL_BITS)
        chosen = register(m, totals, "chosen")
        pairs = [self.params.word_select(column, 8 * PARAM_BYTES) for column in range(columns)]
        for column, pair in enumerate(pairs):
            total = chosen.word_select(column, TOTAL_BITS).as_signed()
            multiplier = register(
                m, pair[32:], f"multiplier_{column}", cycles=requantiser.multiplier_delay
            )
            m.d.comb += [
                requantiser.totals[column].eq(total),
                requantiser.bias[column].eq(pair[:32].as_signed()),
                requantiser.multiplier[column].eq(multiplier),
            ]
        m.d.comb += [
            requantiser.zero_point.eq(self.zero_point),
            requantiser.floor.eq(self.floor),
        ]

        delay = 1 + requantiser.latency
        valid, last = Signal(delay), Signal(delay)
        m.d.sync += [
            valid.eq(Cat(queue.r_rdy, valid)),
            last.eq(Cat(queue.r_rdy & group_ends, last)),
        ]
        made = Signal((GROUPS - 1) * 8 * columns)  # the groups before
        m.d.comb += [
            self.o.eq(Cat(made, requantiser.o.as_value())),
            self.o_valid.eq(last[-1]),
        ]
        with m.If(valid[-1]):
            m.d.sync += made.eq(self.o[8 * columns :])
        return m
