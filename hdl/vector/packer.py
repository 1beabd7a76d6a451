"""Collects groups of elements into whole words of a strided matrix."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.memory.port import WritePort
from halfdome.hdl.vector.unit import byte_size, element_sizes, group_layout, word_size


def matrix_layout(config: CardConfig) -> data.StructLayout:
    """Rows of `columns` elements of `1 << size` bytes; of a row's last, if of 2 bytes or more,
    `beyond` bytes are not of the row."""
    return data.StructLayout(
        {
            "address": config.address_bits,
            "stride": 24,
            "rows": config.count_bits,
            "columns": config.count_bits,
            "size": range(word_size(config) + 1),
            "beyond": range(1 << byte_size(config)),
        }
    )


class RowPacker(wiring.Component):
    """Writes rows that come as groups of `vector_lanes` elements; rows start a group and a word.

    Members
    -------
    start : In(stream of `matrix_layout`), each size 1 or more
    i : In(stream of `group_layout`), elements beyond a row's end are ignored
    port : Out(WritePort), writes only the bytes of the matrix
    busy : Out(1), a matrix is not written to its end

    A word is offered in the cycle after its last group is taken. One group a cycle.
    """

    latency = 1

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "start": In(stream.Signature(matrix_layout(config))),
                "i": In(stream.Signature(group_layout(config))),
                "port": Out(WritePort(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, lanes = self._config, self._config.vector_lanes
        request = self.port.request

        matrix = Signal(self.start.p.shape())
        rows_left = Signal(config.count_bits)
        elements_left = Signal(config.count_bits)
        word_address = Signal.like(matrix.address)
        next_row = Signal.like(matrix.address)
        # Of a group in its word, in parts: what a group of bytes fills.
        position = Signal(word_size(config))

        take = Signal()
        end_of_row = Signal()
        end_of_word = Signal()
        next_position = Signal(len(position) + 1)
        present = Signal(lanes)
        more = elements_left[exact_log2(lanes) :].any()
        low = elements_left[: exact_log2(lanes)]
        m.d.comb += [
            self.start.ready.eq(~self.busy),
            self.busy.eq((rows_left != 0) | request.valid),
            self.i.ready.eq((rows_left != 0) & (~request.valid | request.ready)),
            take.eq(self.i.valid & self.i.ready),
            end_of_row.eq(elements_left <= lanes),
            next_position.eq(position + (1 << matrix.size)),
            end_of_word.eq(end_of_row | next_position[-1]),
            present.eq(Cat(more | (low > k) for k in range(lanes))),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(take):
            m.d.sync += [
                request.valid.eq(end_of_word),
                request.p.address.eq(word_address),
                elements_left.eq(elements_left - lanes),
                position.eq(next_position),
            ]
            self._place(m, matrix, position, present, end_of_row)
            with m.If(end_of_word):
                m.d.sync += [
                    position.eq(0),
                    word_address.eq(word_address + config.bus_bytes),
                ]
            with m.If(end_of_row):
                m.d.sync += [
                    word_address.eq(next_row),
                    next_row.eq(next_row + matrix.stride),
                    elements_left.eq(matrix.columns),
                    rows_left.eq(rows_left - 1),
                ]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [
                matrix.eq(self.start.p),
                rows_left.eq(self.start.p.rows),
                elements_left.eq(self.start.p.columns),
                word_address.eq(self.start.p.address),
                next_row.eq(self.start.p.address + self.start.p.stride),
                position.eq(0),
            ]
        return m

    def _place(self, m, matrix, position, present, end_of_row):
        """Puts a group at `position`; the first group of a word clears the other strobes."""
        config, request = self._config, self.port.request
        lanes, sizes = range(config.vector_lanes), element_sizes(config)
        packed = {size: Cat(self.i.p[k][: 8 << size] for k in lanes) for size in sizes}
        strobes = {size: Cat(present[k].replicate(1 << size) for k in lanes) for size in sizes}
        # Bytes of the last element of a row: the one that none follows.
        follows = Cat(present[1:], ~end_of_row)
        for size in sizes[1:]:
            width = 1 << size
            inside = Cat(matrix.beyond < width - byte for byte in range(width))
            strobes[size] &= Cat(follows[k].replicate(width) | inside for k in lanes)
        nbytes = len(lanes)  # of a part
        for part in range(1 << len(position)):
            here = Signal(name=f"here_{part}")
            value = Signal(8 * nbytes, name=f"value_{part}")
            strobe = Signal(nbytes, name=f"strobe_{part}")
            with m.Switch(matrix.size):
                for size in sizes:
                    in_group = part % (1 << size)
                    with m.Case(size):
                        m.d.comb += [
                            here.eq(position == part - in_group),
                            value.eq(packed[size].word_select(in_group, 8 * nbytes)),
                            strobe.eq(strobes[size].word_select(in_group, nbytes)),
                        ]
            target = request.p.strobe.word_select(part, nbytes)
            with m.If(here):
                m.d.sync += [
                    request.p.data.word_select(part, 8 * nbytes).eq(value),
                    target.eq(strobe),
                ]
            with m.Elif(position == 0):
                m.d.sync += target.eq(0)
