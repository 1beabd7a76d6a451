"""Biases and multipliers of the resident output channels."""

from amaranth import Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.config import CardConfig
from hdl.matmul.sequencer import SIZE_BITS
from hdl.memory.port import read_word

PARAM_BYTES = 8
"""Bytes of one output channel in memory: int32 bias, float32 multiplier."""


class ParamLoader(wiring.Component):
    """Holds the parameters of one tile of output channels and prefetches those of the next.

    Members
    -------
    n : In(SIZE_BITS), output channels in all; constant while a command runs
    i : In(stream of `read_word`), the parameters of channels 0 to n-1, once for each block of rows;
        the last word of a block may be partly used
    ready : Out(1), the next tile's parameters are in the shadow registers
    take_bias : In(1), `bias` becomes the next tile's in the next cycle
    take_multiplier : In(1), the same for `multiplier`; not before `take_bias`; empties the shadow
    bias : Out(columns x signed(32))
    multiplier : Out(columns x 32), bit patterns of float32
    starved : Out(1), the shadow is incomplete and its next word is not there

    A tile takes `tile_cycles` to load. Channels beyond n keep old parameters.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._pairs_per_word = config.bus_bytes // PARAM_BYTES
        self._group = min(config.array_columns, self._pairs_per_word)
        self.tile_cycles = config.array_columns // self._group
        super().__init__(
            {
                "n": In(SIZE_BITS),
                "i": In(stream.Signature(read_word(config))),
                "ready": Out(1),
                "take_bias": In(1),
                "take_multiplier": In(1),
                "bias": Out(data.ArrayLayout(signed(32), config.array_columns)),
                "multiplier": Out(data.ArrayLayout(32, config.array_columns)),
                "starved": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        group, columns = self._group, self._config.array_columns
        groups_per_word = self._pairs_per_word // group

        channels_done = Signal(SIZE_BITS)
        target = Signal(range(self.tile_cycles))
        within_word = Signal(range(groups_per_word))
        full = Signal()
        load = Signal()
        end = Signal()
        m.d.comb += [
            load.eq(self.i.valid & ~full),
            end.eq(self.n - channels_done <= group),
            self.i.ready.eq(~full & (end | (within_word == groups_per_word - 1))),
            self.ready.eq(full),
            self.starved.eq(~full & ~self.i.valid),
        ]

        pairs = self.i.p.data.word_select(within_word, group * PARAM_BYTES * 8)
        for column in range(columns):
            pair = pairs.word_select(column % group, PARAM_BYTES * 8)
            next_bias = Signal(32, name=f"next_bias_{column}", reset_less=True)
            next_multiplier = Signal(32, name=f"next_multiplier_{column}", reset_less=True)
            with m.If(load & (target == column // group)):
                m.d.sync += [next_bias.eq(pair[:32]), next_multiplier.eq(pair[32:])]
            with m.If(self.take_bias):
                m.d.sync += self.bias[column].eq(next_bias)
            with m.If(self.take_multiplier):
                m.d.sync += self.multiplier[column].eq(next_multiplier)

        with m.If(load):
            m.d.sync += [
                channels_done.eq(channels_done + group),
                target.eq(target + 1),
                within_word.eq(within_word + 1),
                full.eq(target == self.tile_cycles - 1),
            ]
            with m.If(end):
                m.d.sync += [channels_done.eq(0), target.eq(0), within_word.eq(0), full.eq(1)]
        with m.If(self.take_multiplier):
            m.d.sync += full.eq(0)
        return m
