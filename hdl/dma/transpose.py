"""Rows that become columns: blocks of a matrix, each read row by row and written column by column.

A block is a memory line wide and as high: both sides move whole lines.
"""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.dma.rows import block_layout, words_of
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.once import Once

QUEUED = 16
"""Blocks that are asked for and not yet written: small ones hide the latency of memory, too."""


def log2_size(element_bytes: Value) -> Value:
    """log2 of 1, 2 or 4."""
    return element_bytes[1:3]


class BlockWalker(wiring.Component):
    """Cuts the matrices of a TRANSPOSE into blocks, along the rows of the source.

    Members
    -------
    i : In(stream of 512 bits), a checked TRANSPOSE; taken when all blocks of the one before are
    o : Out(stream of {source, destination}, each a `block_layout`): the rows of a block, and where
        its columns become rows
    size : Out(2), log2 of an element's bytes

    The first block is offered in the cycle after `i` is taken, then one a cycle.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        places = dict.fromkeys(("source", "destination"), block_layout(config))
        super().__init__(
            {
                "i": In(stream.Signature(DESCRIPTOR_BITS)),
                "o": Out(stream.Signature(data.StructLayout(places))),
                "size": Out(2),
            }
        )

    def elaborate(self, platform):
        m = Module()
        line, bits = self._config.line_bytes, self._config.address_bits
        new = data.View(layout(fields(Opcode.TRANSPOSE)), self.i.p)
        job = Signal.like(new)
        batches = Signal(16)
        rows, columns = Signal(16), Signal(16)  # from the block on
        # Of the batch, of the first block along the rows, of the block.
        source = [Signal(bits, name=f"source_{of}") for of in ("batch", "row", "block")]
        target = [Signal(bits, name=f"target_{of}") for of in ("batch", "row", "block")]
        side = Signal(range(line + 1))  # of a block, in elements
        height, width = Signal.like(side), Signal.like(side)
        last_across, last_down = Signal(), Signal()
        m.d.comb += [
            self.size.eq(log2_size(job.element_bytes)),
            side.eq(line >> self.size),
            last_across.eq(columns <= side),
            last_down.eq(rows <= side),
            height.eq(Mux(last_down, rows, side)),
            width.eq(Mux(last_across, columns, side)),
            self.i.ready.eq(batches == 0),
            self.o.valid.eq(batches != 0),
            self.o.p.source.address.eq(source[-1]),
            self.o.p.source.stride.eq(job.source_stride),
            self.o.p.source.rows.eq(height),
            self.o.p.source.row_bytes.eq(width << self.size),
            self.o.p.destination.address.eq(target[-1]),
            self.o.p.destination.stride.eq(job.destination_stride),
            self.o.p.destination.rows.eq(width),
            self.o.p.destination.row_bytes.eq(height << self.size),
        ]

        def enter(places, address, kept):
            """All places from that of a batch, a row or a block on."""
            return [place.eq(address) for place in places[kept:]]

        step = exact_log2(line)
        with m.If(self.o.valid & self.o.ready):
            with m.If(~last_across):
                m.d.sync += [
                    columns.eq(columns - side),
                    *enter(source, source[2] + line, 2),
                    *enter(target, target[2] + ((job.destination_stride << step) >> self.size), 2),
                ]
            with m.Else():
                m.d.sync += columns.eq(job.columns)
                with m.If(~last_down):
                    m.d.sync += [
                        rows.eq(rows - side),
                        *enter(source, source[1] + ((job.source_stride << step) >> self.size), 1),
                        *enter(target, target[1] + line, 1),
                    ]
                with m.Else():
                    m.d.sync += [
                        rows.eq(job.rows),
                        batches.eq(batches - 1),
                        *enter(source, source[0] + job.source_batch_stride, 0),
                        *enter(target, target[0] + job.destination_batch_stride, 0),
                    ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                job.eq(new),
                batches.eq(new.batches),
                rows.eq(new.rows),
                columns.eq(new.columns),
                *enter(source, new.source, 0),
                *enter(target, new.destination, 0),
            ]
        return m


class _Bank(wiring.Component):
    """One byte of each word of two blocks.

    Members
    -------
    write : In(1), place : In, value : In(8): what is written where
    read : In(1), at : In, from where
    o : Out(8), in the cycle after `read` and until the next
    """

    def __init__(self, depth: int):
        self._depth = depth
        super().__init__(
            {
                "write": In(1),
                "place": In(range(depth)),
                "value": In(8),
                "read": In(1),
                "at": In(range(depth)),
                "o": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=self._depth, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.write),
            write.addr.eq(self.place),
            write.data.eq(self.value),
            read.en.eq(self.read),
            read.addr.eq(self.at),
            self.o.eq(read.data),
        ]
        return m


def _turned(m: Module, word: Value, places: Value, name: str) -> Value:
    """The bytes of a word, each so many places further up, from the top to the bottom."""
    for bit in range(len(places)):
        turned = Signal(len(word), name=f"{name}_{bit}")
        m.d.comb += turned.eq(Mux(places[bit], word.rotate_left(8 << bit), word))
        word = turned
    return word


class BlockTransposer(wiring.Component):
    """Takes the words of a block's rows, and gives those of its columns.

    A byte of a word goes to a bank of its own, a row's first element one element further than that
    of the row before: so neither the elements of a row nor those of a column share a bank.

    Members
    -------
    size : In(2), log2 of an element's bytes; constant while anything is inside
    block : In(stream of {rows, columns}), elements of a block, at most a line of them each
    i : In(stream of bus words), row by row; beyond a row's end whatever there is
    o : Out(stream of bus words), column by column; likewise
    idle : Out(1), nothing is inside

    A word in and a word out a cycle: a block leaves while the next comes. Its first word is offered
    `latency` cycles after its last was taken, unless the block before leaves then.
    """

    latency = 4

    def __init__(self, config: CardConfig):
        self._config = config
        side = range(config.line_bytes + 1)
        word = 8 * config.bus_bytes
        self._block = data.StructLayout({"rows": side, "columns": side})
        super().__init__(
            {
                "size": In(2),
                "block": In(stream.Signature(self._block)),
                "i": In(stream.Signature(word)),
                "o": Out(stream.Signature(word)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, size = self._config, self.size
        line_bits, word_bits = exact_log2(config.line_bytes), exact_log2(config.bus_bytes)
        queues = []
        for name in ("coming", "leaving"):
            queue = SyncFIFOBuffered(width=self._block.size, depth=QUEUED)
            m.submodules[name] = queue
            queues.append(queue)
            m.d.comb += queue.w_data.eq(self.block.p)
        coming, leaving = queues
        room = coming.w_rdy & leaving.w_rdy
        m.d.comb += [
            self.block.ready.eq(room),
            *(queue.w_en.eq(self.block.valid & room) for queue in queues),
        ]
        full = Signal(2)  # of each half, whether a block waits there

        # Into the banks: words of rows.
        shape = data.View(self._block, coming.r_data)
        half, row, word = Signal(), Signal(line_bits), Signal(line_bits - word_bits)
        take, ends, stored, stored_last = Signal(), Signal(), Signal(), Signal()
        last_word = word == (words_of(config, shape.columns << size) - 1)[: len(word)]
        m.d.comb += [
            self.i.ready.eq(coming.r_rdy & ~full.bit_select(half, 1)),
            take.eq(self.i.valid & self.i.ready),
            ends.eq(last_word & (row == shape.rows - 1)),
            coming.r_en.eq(take & ends),
        ]
        m.d.sync += [stored.eq(take), stored_last.eq(take & ends)]
        with m.If(take):
            m.d.sync += word.eq(word + 1)
            with m.If(last_word):
                m.d.sync += [word.eq(0), row.eq(row + 1)]
            with m.If(ends):
                m.d.sync += [row.eq(0), half.eq(~half)]
        value = Signal(8 * config.bus_bytes)
        place = Signal(1 + line_bits + len(word))
        with m.If(take):
            m.d.sync += [
                value.eq(_turned(m, self.i.p, (row << size)[:word_bits], "row")),
                place.eq(Cat(word, row, half)),
            ]

        # Out of the banks: words of columns.
        out_shape = data.View(self._block, leaving.r_data)
        out_half, column, group = Signal(), Signal(line_bits), Signal(line_bits - word_bits)
        step, give, out_ends = Signal(), Signal(), Signal()
        last_group = group == (words_of(config, out_shape.rows << size) - 1)[: len(group)]
        m.d.comb += [
            step.eq(~self.o.valid | self.o.ready),
            give.eq(step & full.bit_select(out_half, 1)),
            out_ends.eq(last_group & (column == out_shape.columns - 1)),
            leaving.r_en.eq(give & out_ends),
        ]
        with m.If(give):
            m.d.sync += group.eq(group + 1)
            with m.If(last_group):
                m.d.sync += [group.eq(0), column.eq(column + 1)]
            with m.If(out_ends):
                m.d.sync += [column.eq(0), out_half.eq(~out_half)]
        with m.If(stored_last):
            m.d.sync += full.bit_select(place[-1], 1).eq(1)
        with m.If(give & out_ends):
            m.d.sync += full.bit_select(out_half, 1).eq(0)

        column_byte = (column << size)[:line_bits]
        first = column_byte[:word_bits]
        read, out_first = Signal(), Signal(word_bits)
        m.d.comb += self.idle.eq((leaving.level == 0) & ~read & ~self.o.valid)
        with m.If(step):
            m.d.sync += [read.eq(give), out_first.eq(first), self.o.valid.eq(read)]
        banks = []
        for k in range(config.bus_bytes):
            bank = _Bank(1 << len(place))
            m.submodules[f"bank_{k}"] = Once(bank)
            # The byte of a column's word that is here, and the row of its element.
            byte = Signal(word_bits, name=f"byte_{k}")
            m.d.comb += [
                byte.eq(k - first),
                bank.write.eq(stored),
                bank.place.eq(place),
                bank.value.eq(value.word_select(k, 8)),
                bank.read.eq(give),
                bank.at.eq(Cat(
                    column_byte[word_bits:], (Cat(byte, group) >> size)[:line_bits], out_half
                )),
            ]  # fmt: skip
            banks.append(bank.o)
        with m.If(step & read):
            m.d.sync += self.o.p.eq(_turned(m, Cat(*banks), (-out_first)[:word_bits], "column"))
        return m


class Transposer(wiring.Component):
    """What a TRANSPOSE needs between a reader of rows and a writer of rows.

    Members
    -------
    i : In(stream of 512 bits), a checked TRANSPOSE, only while `idle`
    source, destination : Out(stream of `block_layout`), rows to read and to write, in their order
    i_words, o_words : In, Out(stream of bus words), those of the rows
    idle : Out(1), no TRANSPOSE has anything left to ask for or to hand over

    A word in and a word out a cycle; `cycles()` with what a block costs beside.
    """

    latency = BlockTransposer.latency

    def __init__(self, config: CardConfig):
        self._config = config
        self._side = range(config.line_bytes + 1)
        word = 8 * config.bus_bytes
        super().__init__(
            {
                "i": In(stream.Signature(DESCRIPTOR_BITS)),
                "source": Out(stream.Signature(block_layout(config))),
                "destination": Out(stream.Signature(block_layout(config))),
                "i_words": In(stream.Signature(word)),
                "o_words": Out(stream.Signature(word)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.walker = walker = BlockWalker(self._config)
        m.submodules.blocks = blocks = BlockTransposer(self._config)
        queued = data.StructLayout(
            {"address": self._config.address_bits}
            | dict.fromkeys(("rows", "row_bytes"), self._side)
        )
        m.submodules.targets = targets = SyncFIFOBuffered(width=queued.size, depth=QUEUED)
        ready = self.source.ready & blocks.block.ready & targets.w_rdy
        wiring.connect(m, wiring.flipped(self.i), walker.i)
        wiring.connect(m, wiring.flipped(self.i_words), blocks.i)
        wiring.connect(m, blocks.o, wiring.flipped(self.o_words))
        source, target = walker.o.p.source, walker.o.p.destination
        m.d.comb += [
            walker.o.ready.eq(ready),
            self.source.p.eq(source),
            self.source.valid.eq(walker.o.valid & blocks.block.ready & targets.w_rdy),
            blocks.size.eq(walker.size),
            blocks.block.p.rows.eq(source.rows),
            blocks.block.p.columns.eq(target.rows),
            blocks.block.valid.eq(walker.o.valid & self.source.ready & targets.w_rdy),
            targets.w_en.eq(walker.o.valid & ready),
            self.destination.p.stride.eq(target.stride),  # of all blocks the same
            self.destination.valid.eq(targets.r_rdy),
            targets.r_en.eq(self.destination.ready),
            self.idle.eq(walker.i.ready & blocks.idle & (targets.level == 0)),
        ]
        for name in ("address", "rows", "row_bytes"):
            m.d.comb += [
                data.View(queued, targets.w_data)[name].eq(target[name]),
                self.destination.p[name].eq(data.View(queued, targets.r_data)[name]),
            ]
        return m


def cycles(
    config: CardConfig, batches: int, rows: int, columns: int, element_bytes: int = 1
) -> int:
    """Cycles to stream the words of a TRANSPOSE: no memory stalls, no start-up.

    Of each block the longer side, a cycle more on the way out; the first comes and the last leaves
    alone.
    """
    side = config.line_bytes // element_bytes

    def parts(count: int) -> list[int]:
        return [min(side, count - first) for first in range(0, count, side)]

    def words(count: int) -> int:
        return -(-count * element_bytes // config.bus_bytes)

    blocks = [
        (height * words(width), width * words(height) + 1)
        for height in parts(rows)
        for width in parts(columns)
    ] * batches
    coming, leaving = zip(*blocks, strict=True)
    return (
        coming[0]
        + leaving[-1]
        + sum(max(one, other) for one, other in zip(coming[1:], leaving[:-1], strict=True))
    )
