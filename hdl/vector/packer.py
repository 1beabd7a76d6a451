"""Collects results of part of a bus word into whole words of a strided matrix."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hdl.config import ADDRESS_BITS, CardConfig
from hdl.memory.port import WritePort


class BytePacker(wiring.Component):
    """Writes rows of bytes that come in groups; each row starts with a new group and a new word.

    Parameters
    ----------
    group : int
        Bytes of a group; divides `config.bus_bytes`.

    Members
    -------
    start : In(stream of {address, stride, rows, columns}), a matrix of bytes, each size 1 or more
    i : In(stream of `group` bytes); bytes beyond a row's end are ignored
    port : Out(WritePort), writes only the bytes of the matrix
    busy : Out(1), a matrix is not written to its end

    A word is offered in the cycle after its last group is taken. One group a cycle.
    """

    latency = 1

    def __init__(self, config: CardConfig, group: int):
        self._config = config
        self._group = group
        matrix = {"address": ADDRESS_BITS, "stride": 32, "rows": 32, "columns": 32}
        super().__init__(
            {
                "start": In(stream.Signature(data.StructLayout(matrix))),
                "i": In(stream.Signature(8 * group)),
                "port": Out(WritePort(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        group = self._group
        groups = self._config.bus_bytes // group
        request = self.port.request

        matrix = Signal.like(self.start.p)
        rows_left = Signal(32)
        bytes_left = Signal(32)
        word_address = Signal(ADDRESS_BITS)
        next_row = Signal(ADDRESS_BITS)
        position = Signal(range(max(2, groups)))

        take = Signal()
        end_of_row = Signal()
        end_of_word = Signal()
        mask = Signal(group)
        more = bytes_left[exact_log2(group) :].any()
        low = bytes_left[: exact_log2(group)]
        m.d.comb += [
            self.start.ready.eq(~self.busy),
            self.busy.eq((rows_left != 0) | request.valid),
            self.i.ready.eq((rows_left != 0) & (~request.valid | request.ready)),
            take.eq(self.i.valid & self.i.ready),
            end_of_row.eq(bytes_left <= group),
            end_of_word.eq(end_of_row | (position == groups - 1)),
            mask.eq(Cat(more | (low > k) for k in range(group))),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(take):
            m.d.sync += [
                request.valid.eq(end_of_word),
                request.p.address.eq(word_address),
                bytes_left.eq(bytes_left - group),
                position.eq(position + 1),
            ]
            with m.Switch(position):
                for k in range(groups):
                    with m.Case(k):
                        m.d.sync += [
                            request.p.data.word_select(k, 8 * group).eq(self.i.p),
                            # The first group of a word clears the strobes of the word before.
                            request.p.strobe.eq(
                                Cat(request.p.strobe[: k * group], mask) if k else mask
                            ),
                        ]
            with m.If(end_of_word):
                m.d.sync += [
                    position.eq(0),
                    word_address.eq(word_address + self._config.bus_bytes),
                ]
            with m.If(end_of_row):
                m.d.sync += [
                    word_address.eq(next_row),
                    next_row.eq(next_row + matrix.stride),
                    bytes_left.eq(matrix.columns),
                    rows_left.eq(rows_left - 1),
                ]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [
                matrix.eq(self.start.p),
                rows_left.eq(self.start.p.rows),
                bytes_left.eq(self.start.p.columns),
                word_address.eq(self.start.p.address),
                next_row.eq(self.start.p.address + self.start.p.stride),
                position.eq(0),
            ]
        return m
