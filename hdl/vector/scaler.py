"""From sums over windows to bytes, a few channels at a time."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.arith.pipeline import register
from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.params import PARAM_BYTES
from halfdome.hdl.matmul.requantiser import Requantiser
from halfdome.hdl.vector.adder import TOTAL_BITS
from halfdome.hdl.vector.cutter import TotalCutter, join
from halfdome.hdl.vector.kernel import GROUPS
from halfdome.hdl.vector.walker import line_groups


class TotalScaler(wiring.Component):
    """Requantises groups of sums, a part of one a cycle: as many as a word holds parameters, or
    fewer if a group is smaller.

    Members
    -------
    zero_point, floor : In(8), of a `Requantiser`; constant while groups come
    i : In(byte_lanes x signed(TOTAL_BITS)), a group of sums if `valid`; only into `room`
    place, ends : In, the group's number in its line of channels; it is the last that needs them
    taken : Out(1), a group has made room for another
    done : Out(1), likewise, and the parameters of its line are not needed any more
    read_params, param_place, param_group : Out, asks for a group of parameters of a word
    params : In(8 * bus_bytes), in the next cycle and until others are asked for
    busy : Out(1), a group waits or is being taken
    o : Out(8 * byte_lanes), with `o_valid`: `latency` cycles after a group that waits for no other

    Holds `room` groups; each takes `parts` cycles.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._in_word = config.bus_bytes // PARAM_BYTES
        self._columns = min(self._in_word, config.byte_lanes)
        self._requantiser = Requantiser(columns=self._columns)
        places = range(line_groups(config))
        self._cutter = TotalCutter(
            TOTAL_BITS, totals=config.byte_lanes, columns=self._columns,
            room=2 * config.burst_words, tag=data.StructLayout({"place": places, "ends": 1}),
        )  # fmt: skip
        self.room, self.parts = self._cutter.room, self._cutter.parts
        self.latency = self._cutter.latency + self._cutter.parts - 1 + self._requantiser.latency
        super().__init__(
            {
                "zero_point": In(8),
                "floor": In(8),
                "i": In(data.ArrayLayout(signed(TOTAL_BITS), config.byte_lanes)),
                "valid": In(1),
                "place": In(places),
                "ends": In(1),
                "taken": Out(1),
                "done": Out(1),
                "read_params": Out(1),
                "param_place": Out(range(config.burst_words)),
                "param_group": Out(range(GROUPS)),
                "params": In(8 * config.bus_bytes),
                "busy": Out(1),
                "o": Out(8 * config.byte_lanes),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cutter = cutter = self._cutter
        m.submodules.requantiser = requantiser = self._requantiser
        in_word = exact_log2(self._config.byte_word_cycles)
        number = Cat(cutter.part, cutter.head.place[:in_word])  # of the part in its word
        choice = exact_log2(self._in_word // self._columns)  # of parts whose parameters a word has
        m.d.comb += [
            cutter.i.eq(self.i),
            cutter.tag.place.eq(self.place),
            cutter.tag.ends.eq(self.ends),
            cutter.valid.eq(self.valid),
            cutter.ready.eq(1),
            self.busy.eq(cutter.busy),
            self.taken.eq(cutter.taken),
            self.done.eq(cutter.taken & cutter.head.ends),
            self.read_params.eq(cutter.takes),
            self.param_place.eq(cutter.head.place[in_word:]),
            self.param_group.eq(number[choice:]),
        ]

        # The part's sums and its parameters arrive together.
        chosen = Signal(choice)
        with m.If(cutter.takes):
            m.d.sync += chosen.eq(number[:choice])
        params = self.params.word_select(chosen, 8 * PARAM_BYTES * self._columns)
        pairs = [params.word_select(column, 8 * PARAM_BYTES) for column in range(self._columns)]
        for column, pair in enumerate(pairs):
            multiplier = register(
                m, pair[32:], f"multiplier_{column}", cycles=requantiser.multiplier_delay
            )
            m.d.comb += [
                requantiser.totals[column].eq(cutter.o[column]),
                requantiser.bias[column].eq(pair[:32].as_signed()),
                requantiser.multiplier[column].eq(multiplier),
            ]
        m.d.comb += [
            requantiser.zero_point.eq(self.zero_point),
            requantiser.floor.eq(self.floor),
        ]

        delay = 1 + requantiser.latency
        valid, last = Signal(delay), Signal(delay)
        m.d.sync += [valid.eq(Cat(cutter.takes, valid)), last.eq(Cat(cutter.taken, last))]
        m.d.comb += [
            self.o.eq(join(m, requantiser.o.as_value(), valid[-1], cutter.parts)),
            self.o_valid.eq(last[-1]),
        ]
        return m
