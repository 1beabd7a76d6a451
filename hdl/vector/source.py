"""Reads a strided matrix of any element format as groups of elements."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.config import LINE_BYTES, CardConfig
from halfdome.hdl.memory.port import ReadPort, read_request
from halfdome.hdl.memory.reader import BurstCutter, ReadBuffer

READ_AHEAD_LINES = 16
"""Lines in flight or buffered: covers a memory latency of that many line times."""


def read_ahead_words(config: CardConfig) -> int:
    """`READ_AHEAD_LINES` in bus words."""
    return max(config.burst_words, READ_AHEAD_LINES * LINE_BYTES // config.bus_bytes)


def matrix_layout(config: CardConfig) -> data.StructLayout:
    """`words` bus words and `groups` groups a row; elements of `1 << size` bytes. With `hold` every
    group of a row is the row's first element, once for each element."""
    return data.StructLayout(
        {
            "address": config.address_bits,
            "stride": 24,
            "rows": 32,
            "words": 32,
            "groups": 32,
            "size": 2,
            "hold": 1,
        }
    )


class GroupSource(wiring.Component):
    """Streams the elements of a matrix, `bus_bytes / 4` at a time; each row starts a new group.

    Members
    -------
    start : In(stream of `matrix_layout`), each size 1 or more; taken when the matrix before is
        requested. Without rows: from now on `bursts` are read, of elements of that size, groups
        without end
    bursts : In(stream of `read_request`), only after such a start
    ends : In(1), of `bursts`: the group is the last of its word that is wanted
    o : Out(stream of lanes x 32), elements in the low bits, undefined above and beyond the row
    port : Out(ReadPort)

    One group a cycle while memory keeps up; a row takes a cycle more than it has lines.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self.lanes = config.bus_bytes // 4
        super().__init__(
            {
                "start": In(stream.Signature(matrix_layout(config))),
                "bursts": In(stream.Signature(read_request(config))),
                "ends": In(1),
                "o": Out(stream.Signature(data.ArrayLayout(32, self.lanes))),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, lanes = self._config, self.lanes
        m.submodules.cutter = cutter = BurstCutter(config)
        m.submodules.reader = reader = ReadBuffer(config, read_ahead_words(config))
        connect(m, reader.port, flipped(self.port))
        m.d.comb += [
            reader.i.p.eq(Mux(self.bursts.valid, self.bursts.p, cutter.o.p)),
            reader.i.valid.eq(self.bursts.valid | cutter.o.valid),
            self.bursts.ready.eq(reader.i.ready),
            cutter.o.ready.eq(reader.i.ready & ~self.bursts.valid),
        ]

        # One run of words per row.
        matrix = Signal(matrix_layout(config))
        m.d.comb += [
            cutter.i.p.address.eq(matrix.address),
            cutter.i.p.words.eq(matrix.words),
            cutter.i.valid.eq(matrix.rows != 0),
            self.start.ready.eq(matrix.rows == 0),
        ]
        with m.If(cutter.i.valid & cutter.i.ready):
            m.d.sync += [
                matrix.address.eq(matrix.address + matrix.stride),
                matrix.rows.eq(matrix.rows - 1),
            ]

        groups_left = Signal(32)
        position = Signal(2)  # of a group in its word, in quarters
        row_ends = Signal()
        word_ends = Signal()
        m.d.comb += [
            row_ends.eq((groups_left == 1) | self.ends),
            word_ends.eq(~matrix.hold & ((position + (1 << matrix.size)) == 4)),
            self.o.valid.eq(reader.o.valid),
            reader.o.ready.eq(self.o.ready & (row_ends | word_ends)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += groups_left.eq(groups_left - 1)
            with m.If(~matrix.hold):
                m.d.sync += position.eq(position + (1 << matrix.size))
            with m.If(row_ends):
                m.d.sync += [groups_left.eq(matrix.groups), position.eq(0)]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [
                matrix.eq(self.start.p),
                groups_left.eq(self.start.p.groups),
                position.eq(0),
            ]

        word = reader.o.p.data
        quarter, half = Signal(8 * lanes), Signal(16 * lanes)
        m.d.comb += [
            quarter.eq(word.word_select(position, 8 * lanes)),
            half.eq(word.word_select(position[1], 16 * lanes)),
        ]
        first = Signal(32)
        for lane in range(lanes):
            element = Signal(32, name=f"element_{lane}")
            with m.Switch(matrix.size):
                with m.Case(0):
                    m.d.comb += element.eq(quarter.word_select(lane, 8))
                with m.Case(1):
                    m.d.comb += element.eq(half.word_select(lane, 16))
                with m.Default():
                    m.d.comb += element.eq(word.word_select(lane, 32))
            if lane == 0:
                m.d.comb += [first.eq(element), self.o.p[0].eq(element)]
            else:
                m.d.comb += self.o.p[lane].eq(Mux(matrix.hold, first, element))
        return m
