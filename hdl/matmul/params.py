"""Biases and multipliers of the output channels whose rows come out of the array."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.job import SIZE_BITS
from halfdome.hdl.memory.port import read_word

PARAM_BYTES = 8
"""Bytes of one output channel in memory: int32 bias, float32 multiplier."""


class MultiplierCheck(wiring.Component):
    """Finds the first multiplier that is zero, infinite or NaN.

    Parameters
    ----------
    group : int
        Channels that are looked at together.

    Members
    -------
    start : In(1), a command begins: forget what was `bad`
    valid : In(1), a group comes
    pairs : In(group x PARAM_BYTES bytes)
    channel : In(SIZE_BITS), the number of its first channel
    left : In(SIZE_BITS), channels from there on
    bad : Out(1), two cycles later
    bad_channel : Out(SIZE_BITS)
    """

    def __init__(self, group: int):
        self._group = group
        self.group_bits = exact_log2(group)
        super().__init__(
            {
                "start": In(1),
                "valid": In(1),
                "pairs": In(group * PARAM_BYTES * 8),
                "channel": In(SIZE_BITS),
                "left": In(SIZE_BITS),
                "bad": Out(1),
                "bad_channel": Out(SIZE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # One cycle to look at the multipliers of a group, one to note the first bad one.
        odd = Signal(self._group)
        base = Signal(SIZE_BITS)
        with m.If(self.valid):
            for lane in range(self._group):
                bits = self.pairs.word_select(lane, PARAM_BYTES * 8)[32:]
                is_bad = bits[23:31].all() | ~bits[:31].any()
                m.d.sync += odd[lane].eq(is_bad & (self.left > lane))
            m.d.sync += base.eq(self.channel)
        looked = Signal()
        m.d.sync += looked.eq(self.valid)
        with m.If(looked & odd.any() & ~self.bad):
            m.d.sync += self.bad.eq(1)
            for lane in reversed(range(self._group)):
                with m.If(odd[lane]):
                    m.d.sync += self.bad_channel.eq(base + lane)
        with m.If(self.start):
            m.d.sync += self.bad.eq(0)
        return m


class ParamLoader(wiring.Component):
    """Queues the parameters of tiles of output channels, and looks at every multiplier.

    Parameters
    ----------
    depth : int
        Tiles queued.

    Members
    -------
    n : In(SIZE_BITS), output channels in all; constant while a command runs
    start : In(1), a command begins: forget what was `bad`
    i : In(stream of `read_word`), the parameters of channels 0 to n-1, once for each block of rows;
        the last word of a block may be partly used
    ready : Out(1), the parameters of one more tile are here
    claim : In(1), with `ready`: a tile that will take its parameters
    take_bias : In(1), `bias` becomes the next claimed tile's in the next cycle
    take_multiplier : In(1), the same for `multiplier`
    bias : Out(columns x signed(32))
    multiplier : Out(columns x 32), bit patterns of float32
    starved : Out(1), a tile is incomplete and its next word is not there
    bad : Out(1), a multiplier is zero, infinite or NaN
    bad_channel : Out(SIZE_BITS), the first such channel

    A tile takes `tile_cycles` to load. Channels beyond n keep old parameters.
    """

    def __init__(self, config: CardConfig, depth: int):
        self._config = config
        self._depth = depth
        self._pairs_per_word = config.bus_bytes // PARAM_BYTES
        self._group = min(config.array_columns, self._pairs_per_word)
        self.tile_cycles = config.array_columns // self._group
        super().__init__(
            {
                "n": In(SIZE_BITS),
                "start": In(1),
                "i": In(stream.Signature(read_word(config))),
                "ready": Out(1),
                "claim": In(1),
                "take_bias": In(1),
                "take_multiplier": In(1),
                "bias": Out(data.ArrayLayout(signed(32), config.array_columns)),
                "multiplier": Out(data.ArrayLayout(32, config.array_columns)),
                "starved": Out(1),
                "bad": Out(1),
                "bad_channel": Out(SIZE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        group, columns = self._group, self._config.array_columns
        groups_per_word = self._pairs_per_word // group
        m.submodules.biases = biases = SyncFIFO(width=32 * columns, depth=self._depth)
        m.submodules.multipliers = multipliers = SyncFIFO(width=32 * columns, depth=self._depth)

        channels_done = Signal(SIZE_BITS)
        target = Signal(range(self.tile_cycles))
        within_word = Signal(range(groups_per_word))
        full = Signal()
        load = Signal()
        end = Signal()
        push = Signal()
        unclaimed = Signal(range(self._depth + 1))
        m.d.comb += [
            load.eq(self.i.valid & (~full | push)),
            end.eq(self.n - channels_done <= group),
            self.i.ready.eq((~full | push) & (end | (within_word == groups_per_word - 1))),
            self.ready.eq(unclaimed != 0),
            self.starved.eq(~full & ~self.i.valid),
            push.eq(full & biases.w_rdy & multipliers.w_rdy),
            biases.w_en.eq(push),
            multipliers.w_en.eq(push),
            biases.r_en.eq(self.take_bias),
            multipliers.r_en.eq(self.take_multiplier),
        ]
        m.d.sync += unclaimed.eq(unclaimed + push - self.claim)

        pairs = self.i.p.data.word_select(within_word, group * PARAM_BYTES * 8)
        next_biases, next_multipliers = [], []
        for column in range(columns):
            pair = pairs.word_select(column % group, PARAM_BYTES * 8)
            next_bias = Signal(32, name=f"next_bias_{column}", reset_less=True)
            next_multiplier = Signal(32, name=f"next_multiplier_{column}", reset_less=True)
            with m.If(load & (target == column // group)):
                m.d.sync += [next_bias.eq(pair[:32]), next_multiplier.eq(pair[32:])]
            next_biases.append(next_bias)
            next_multipliers.append(next_multiplier)
        m.d.comb += [
            biases.w_data.eq(Cat(next_biases)),
            multipliers.w_data.eq(Cat(next_multipliers)),
        ]
        with m.If(self.take_bias):
            m.d.sync += self.bias.eq(biases.r_data)
        with m.If(self.take_multiplier):
            m.d.sync += self.multiplier.eq(multipliers.r_data)

        with m.If(push):
            m.d.sync += full.eq(0)
        with m.If(load):
            m.d.sync += [
                channels_done.eq(channels_done + group),
                target.eq(target + 1),
                within_word.eq(within_word + 1),
                full.eq(target == self.tile_cycles - 1),
            ]
            with m.If(end):
                m.d.sync += [channels_done.eq(0), target.eq(0), within_word.eq(0), full.eq(1)]
        m.submodules.check = check = MultiplierCheck(group)
        m.d.comb += [
            check.start.eq(self.start),
            check.valid.eq(load),
            check.pairs.eq(pairs),
            check.channel.eq(channels_done),
            check.left.eq(self.n - channels_done),
            self.bad.eq(check.bad),
            self.bad_channel.eq(check.bad_channel),
        ]
        return m
