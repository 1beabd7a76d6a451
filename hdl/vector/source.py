"""Reads a strided matrix of any element format as groups of elements."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from halfdome.hdl.config import LINE_BYTES, CardConfig
from halfdome.hdl.memory.port import ReadPort, read_request
from halfdome.hdl.memory.reader import BurstCutter, ReadBuffer, run_layout
from halfdome.hdl.vector.unit import element_sizes, group_layout, word_size

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
            "rows": config.count_bits,
            "words": run_layout(config)["words"].shape,
            "groups": config.count_bits,
            "size": range(word_size(config) + 1),
            "hold": 1,
        }
    )


class GroupSource(wiring.Component):
    """Streams the elements of a matrix, `vector_lanes` at a time; each row starts a new group.

    Members
    -------
    start : In(stream of `matrix_layout`), each size 1 or more; taken when the matrix before is
        requested. Without rows: from now on `bursts` are read, of elements of that size, groups
        without end
    bursts : In(stream of `read_request`), only after such a start
    ends : In(1), of `bursts`: the group is the last of its word that is wanted
    o : Out(stream of `group_layout`), undefined above the elements' bits and beyond the row
    port : Out(ReadPort)

    One group a cycle while memory keeps up, from row to row, too.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "start": In(stream.Signature(matrix_layout(config))),
                "bursts": In(stream.Signature(read_request(config))),
                "ends": In(1),
                "o": Out(stream.Signature(group_layout(config))),
                "port": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
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

        groups_left = Signal(config.count_bits)
        # Of a group in its word, in parts: what a group of bytes fills.
        position = Signal(word_size(config))
        parts = 1 << len(position)  # of a word
        row_ends = Signal()
        word_ends = Signal()
        m.d.comb += [
            row_ends.eq((groups_left == 1) | self.ends),
            word_ends.eq(~matrix.hold & (position + (1 << matrix.size) == parts)),
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
        group = Signal(group_layout(config))
        smaller = (size for size in element_sizes(config) if size < word_size(config))
        with m.Switch(matrix.size):
            for size in smaller:
                width = 8 << size
                taken = word.word_select(position[size:], width * config.vector_lanes)
                with m.Case(size):
                    m.d.comb += [
                        element.eq(taken.word_select(lane, width))
                        for lane, element in enumerate(group)
                    ]
            with m.Default():
                m.d.comb += group.eq(word)
        for element, out in zip(group, self.o.p, strict=True):
            m.d.comb += out.eq(Mux(matrix.hold, group[0], element))
        return m
