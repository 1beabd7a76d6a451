"""Weights and parameters of a DEPTHWISE, a line of channels ahead of their use."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import MOST_TAPS, Flag, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.matmul.params import PARAM_BYTES, MultiplierCheck
from halfdome.hdl.vector.channels import ChannelLines
from halfdome.hdl.vector.source import matrix_layout
from halfdome.hdl.vector.unit import word_size

GROUPS = PARAM_BYTES
"""Bus words of parameters for the channels of a bus word."""


class KernelLoader(wiring.Component):
    """Holds two lines of channels: one in use while the next is read.

    Members
    -------
    descriptor : In(512), a DEPTHWISE
    start : In(1), takes it; every line of the command before is `done`
    matrices : Out(stream of `matrix_layout`), what is to be read
    words : In(stream of bus words), what was read
    whole : Out(1), there is a line whose weights are in use
    next_line : In(1), with `whole`: from now on the weights of the line after it are
    done : In(1), from now on the parameters of the next line are in use; before, those of its
        weights were
    read_weights, tap, place : In, asks for the weights of a tap, word number `place` of the line
    weights : Out(8 * bus_bytes), in the next cycle and until others are asked for
    read_params, param_place, group : In, asks for a group of parameters of a word of the line
    params : Out(8 * bus_bytes), likewise
    bad : Out(1), a multiplier is zero, infinite or NaN
    bad_channel : Out(16), the first such channel

    A word a cycle while memory keeps up: of a line of `n` words `n` for each tap, and `GROUPS * n`.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        word = 8 * config.bus_bytes
        places = range(config.burst_words)
        super().__init__(
            {
                "descriptor": In(DESCRIPTOR_BITS),
                "start": In(1),
                "matrices": Out(stream.Signature(matrix_layout(config))),
                "words": In(stream.Signature(word)),
                "whole": Out(1),
                "next_line": In(1),
                "done": In(1),
                "read_weights": In(1),
                "tap": In(range(MOST_TAPS)),
                "place": In(places),
                "weights": Out(word),
                "read_params": In(1),
                "param_place": In(places),
                "group": In(range(GROUPS)),
                "params": Out(word),
                "bad": Out(1),
                "bad_channel": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        word, places = 8 * config.bus_bytes, config.burst_words
        m.submodules.lines = lines = ChannelLines(config)
        m.submodules.weights = weights = Memory(shape=word, depth=2 * MOST_TAPS * places, init=[])
        m.submodules.params = params = Memory(shape=word, depth=2 * GROUPS * places, init=[])
        m.submodules.check = check = MultiplierCheck(config.bus_bytes // PARAM_BYTES)

        command = data.View(layout(fields(Opcode.DEPTHWISE)), self.descriptor)
        w, address = (Signal(config.address_bits, name=n) for n in ("w", "address"))
        w_row = Signal(17)
        taps, ones = Signal(range(MOST_TAPS + 1)), Signal()
        word_bits, group_bits = exact_log2(config.bus_bytes), check.group_bits
        line = lines.o.p
        line_words = Signal(range(places + 1))
        param_words = Signal(range(GROUPS * places + 1))
        m.d.comb += [
            lines.start.eq(self.start),
            lines.k.eq(command.k),
            line_words.eq((line.size + (config.bus_bytes - 1)) >> word_bits),
            param_words.eq((line.size + ((1 << group_bits) - 1)) >> group_bits),
        ]
        with m.If(self.start):
            m.d.sync += [
                w.eq(command.w),
                w_row.eq(((command.k + (config.bus_bytes - 1)) >> word_bits) << word_bits),
                address.eq(command.params),
                taps.eq(command.kernel_height * command.kernel_width),
                ones.eq((command.flags & int(Flag.ONES)).any()),
            ]

        # What is asked for: of each line its weights, then its parameters.
        free, stored = Signal(range(3), init=2), Signal(range(3))  # lines
        begin, received = Signal(), Signal()
        m.d.sync += [
            free.eq(free + self.done - begin),
            stored.eq(stored + received - self.next_line),
        ]
        ask = self.matrices
        m.d.comb += [
            self.whole.eq(stored != 0),
            lines.o.ready.eq(received),
            ask.p.size.eq(word_size(config)),
            ask.p.groups.eq(ask.p.words),
        ]
        with m.FSM():
            with m.State("LINE"):
                m.d.comb += begin.eq(lines.o.valid & (free != 0))
                with m.If(begin):
                    m.next = "WEIGHTS"
                    with m.If(ones):
                        m.next = "PARAMS"
            with m.State("WEIGHTS"):
                m.d.comb += [
                    ask.valid.eq(1),
                    ask.p.address.eq(w + line.first),
                    ask.p.stride.eq(w_row),
                    ask.p.rows.eq(taps),
                    ask.p.words.eq(line_words),
                ]
                with m.If(ask.ready):
                    m.next = "PARAMS"
            with m.State("PARAMS"):
                m.d.comb += [
                    ask.valid.eq(1),
                    ask.p.address.eq(address + line.first * PARAM_BYTES),
                    ask.p.rows.eq(1),
                    ask.p.words.eq(param_words),
                ]
                with m.If(ask.ready):
                    m.next = "REST"
            with m.State("REST"):
                with m.If(received):
                    m.next = "LINE"

        # What comes: no word is in flight but of this line.
        half, in_params = Signal(), Signal()
        tap, place = Signal(range(MOST_TAPS)), Signal(range(places))
        index = Signal(range(GROUPS * places))
        weights_write, params_write = weights.write_port(), params.write_port()
        m.d.comb += [
            self.words.ready.eq(1),
            weights_write.addr.eq(Cat(place, tap, half)),
            weights_write.data.eq(self.words.p),
            params_write.addr.eq(Cat(index, half)),
            params_write.data.eq(self.words.p),
            check.start.eq(self.start),
            check.valid.eq(params_write.en),
            check.pairs.eq(self.words.p),
            check.channel.eq(line.first + (index << group_bits)),
            check.left.eq(line.size - (index << group_bits)),
            self.bad.eq(check.bad),
            self.bad_channel.eq(check.bad_channel),
        ]
        with m.If(self.words.valid):
            with m.If(in_params | ones):
                m.d.comb += [
                    params_write.en.eq(1),
                    received.eq(index == param_words - 1),
                ]
                m.d.sync += index.eq(Mux(received, 0, index + 1))
                with m.If(received):
                    m.d.sync += [in_params.eq(0), half.eq(~half)]
            with m.Else():
                m.d.comb += weights_write.en.eq(1)
                m.d.sync += place.eq(place + 1)
                with m.If(place == line_words - 1):
                    m.d.sync += [place.eq(0), tap.eq(tap + 1)]
                    with m.If(tap == taps - 1):
                        m.d.sync += [tap.eq(0), in_params.eq(1)]

        # What is in use.
        weights_half, params_half = Signal(), Signal()
        weights_read, params_read = weights.read_port(), params.read_port()
        m.d.comb += [
            weights_read.en.eq(self.read_weights),
            weights_read.addr.eq(Cat(self.place, self.tap, weights_half)),
            self.weights.eq(weights_read.data),
            params_read.en.eq(self.read_params),
            params_read.addr.eq(Cat(self.group, self.param_place, params_half)),
            self.params.eq(params_read.data),
        ]
        with m.If(self.next_line):
            m.d.sync += weights_half.eq(~weights_half)
        with m.If(self.done):
            m.d.sync += params_half.eq(~params_half)
        return m
