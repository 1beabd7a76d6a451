"""Lines of activations between memory and the array: fetched once, used by many weight tiles."""

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.job import SIZE_BITS, job_layout
from halfdome.hdl.matmul.sequencer import fill_layout
from halfdome.hdl.memory.port import ReadPort

_POSITION_BITS = 26
"""Signed; holds a row of any image times any stride."""


class ActivationBuffer(wiring.Component):
    """Holds a line of each row of a block, and fetches the line that follows meanwhile.

    Where a line lies in the image's padding something is read all the same, and marked.

    Members
    -------
    job : In(`job_layout`), constant while lines are fetched
    start : In(1), the next line is the job's first
    i : In(stream of `fill_layout`)
    port : Out(ReadPort)
    row, word : In, what to read of the oldest line
    available : Out(1), it is there
    read : In(1), only while `available`
    data : Out(bus word), in the cycle after `read`, kept until the next
    outside : Out(1), with `data`: it stands for zero
    release : In(1), the oldest line is done with; its last read may be in this cycle

    The first request leaves `latency` cycles after `i` is taken; then a burst a cycle. A word can
    be read in the cycle after it came.
    """

    latency = 2

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "job": In(job_layout(config)),
                "start": In(1),
                "i": In(stream.Signature(fill_layout(config))),
                "port": Out(ReadPort(config)),
                "row": In(range(config.activation_rows)),
                "word": In(range(config.burst_words)),
                "available": Out(1),
                "read": In(1),
                "data": Out(config.bus_bytes * 8),
                "outside": Out(1),
                "release": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        rows, words = config.activation_rows, config.burst_words
        m.submodules.lines = lines = Memory(
            shape=config.bus_bytes * 8, depth=2 * rows * words, init=[]
        )
        m.submodules.padding = padding = Memory(shape=1, depth=2 * rows, init=[])
        write, read = lines.write_port(), lines.read_port()
        mark, marked = padding.write_port(), padding.read_port()

        # Per half of the buffer: the line in it, and whether all of it has come.
        half_rows = Array(Signal(range(rows + 1), name=f"rows_{h}") for h in range(2))
        half_words = Array(Signal(range(words + 1), name=f"words_{h}") for h in range(2))
        complete = Signal(2)
        free = Signal(range(3), init=2)
        fill_half, come_half, read_half = (
            Signal(name=name) for name in ("fill_half", "come_half", "read_half")
        )
        taken = Signal()
        m.d.comb += taken.eq(self.i.valid & self.i.ready)
        m.d.sync += free.eq(free - taken + self.release)

        walked = self._walk(m, taken, free, fill_half, mark)
        self._request(m, *walked)
        with m.If(taken):
            m.d.sync += [
                half_rows[fill_half].eq(self.i.p.rows),
                half_words[fill_half].eq(self.i.p.words),
            ]

        # What comes, comes in the order of the requests.
        come_row, come_word = Signal(range(rows)), Signal(range(words))
        word_bits = ceil_log2(words)
        m.d.comb += [
            write.addr.eq(Cat(come_word[:word_bits], come_row, come_half)),
            write.data.eq(self.port.response.p.data),
            write.en.eq(self.port.response.valid),
        ]
        with m.If(write.en):
            m.d.sync += come_word.eq(come_word + 1)
            with m.If(come_word == half_words[come_half] - 1):
                m.d.sync += [come_word.eq(0), come_row.eq(come_row + 1)]
                with m.If(come_row == half_rows[come_half] - 1):
                    m.d.sync += [
                        come_row.eq(0),
                        come_half.eq(~come_half),
                        complete.bit_select(come_half, 1).eq(1),
                    ]

        came = Signal()
        m.d.comb += [
            came.eq((come_row > self.row) | ((come_row == self.row) & (come_word > self.word))),
            self.available.eq(
                complete.bit_select(read_half, 1) | ((come_half == read_half) & came)
            ),
            read.addr.eq(Cat(self.word[:word_bits], self.row, read_half)),
            read.en.eq(self.read),
            self.data.eq(read.data),
            marked.addr.eq(Cat(self.row, read_half)),
            marked.en.eq(self.read),
            self.outside.eq(marked.data),
        ]
        with m.If(self.release):
            m.d.sync += [read_half.eq(~read_half), complete.bit_select(read_half, 1).eq(0)]
        return m

    def _walk(self, m, taken, free, half, mark):
        """Walks the rows of a line: an address, and whether it is one, for each."""
        config, job = self._config, self.job
        line = Signal(fill_layout(config))
        walking, step = Signal(), Signal()
        row = Signal(range(config.activation_rows))
        position = {
            "column": SIZE_BITS,  # of the output image
            "down": signed(_POSITION_BITS),  # row and column of x
            "right": signed(_POSITION_BITS),
            "address": config.address_bits,
            "line_address": config.address_bits,  # of the output row's first pixel
        }
        here = {name: Signal(shape, name=f"here_{name}") for name, shape in position.items()}
        following = {name: Signal(shape, name=f"next_{name}") for name, shape in position.items()}
        block = {name: Signal(shape, name=f"block_{name}") for name, shape in position.items()}
        batch_x = Signal(config.address_bits)
        next_batch_x = Signal(config.address_bits)
        m.d.comb += next_batch_x.eq(batch_x + job.x_batch_stride)

        def origin(address):
            return {
                "column": 0,
                "down": -job.pad_top,
                "right": -job.pad_left,
                "address": address,
                "line_address": address,
            }

        def go(to: dict, values: dict) -> list:
            return [to[name].eq(value) for name, value in values.items()]

        next_line = Signal(config.address_bits)
        m.d.comb += [
            next_line.eq(here["line_address"] + job.line_step),
            *go(following, here),
            following["column"].eq(here["column"] + 1),
            following["right"].eq(here["right"] + job.stride_width),
            following["address"].eq(here["address"] + job.pixel_step),
        ]
        with m.If(here["column"] == job.out_width - 1):
            m.d.comb += [
                following["column"].eq(0),
                following["down"].eq(here["down"] + job.stride_height),
                following["right"].eq(-job.pad_left),
                following["address"].eq(next_line),
                following["line_address"].eq(next_line),
            ]

        down, right = Signal(signed(_POSITION_BITS + 1)), Signal(signed(_POSITION_BITS + 1))
        inside = Signal()
        m.d.comb += [
            self.i.ready.eq(~walking & (free != 0)),
            down.eq(here["down"] + line.down),
            right.eq(here["right"] + line.right),
            inside.eq((down >= 0) & (down < job.height) & (right >= 0) & (right < job.width)),
            mark.addr.eq(Cat(row, half)),
            mark.data.eq(~inside),
            mark.en.eq(walking),
        ]
        with m.If(step):
            m.d.sync += [row.eq(row + 1), *go(here, following)]
            with m.If(row == line.rows - 1):
                m.d.sync += [walking.eq(0), half.eq(~half)]
                with m.If(line.batch_last):
                    m.d.sync += [batch_x.eq(next_batch_x), *go(block, origin(next_batch_x))]
                with m.Elif(line.block_last):
                    m.d.sync += go(block, following)
        with m.If(taken):
            m.d.sync += [line.eq(self.i.p), row.eq(0), walking.eq(1), *go(here, block)]
        with m.If(self.start):
            m.d.sync += [batch_x.eq(job.x), *go(block, origin(job.x))]
        address = Mux(inside, here["address"] + line.offset, job.x_inside)
        # Whether the row follows the one before it, also in memory.
        adjoins, follows = Signal(), Signal()
        m.d.comb += follows.eq(adjoins & (row != 0))
        with m.If(taken):
            m.d.sync += adjoins.eq(
                job.is_matrix
                & (job.x < config.scratchpad_base)
                & (job.pixel_step == self.i.p.words * config.bus_bytes)
            )
        return walking, step, address, line.words, follows

    def _request(self, m, walking, step, row_address, row_words, follows):
        """Cuts a row's words at the end of a memory line; from DRAM, rows that follow each other in
        one are read together."""
        config = self._config
        address = Signal(config.address_bits)
        left = Signal(range(config.burst_words + 1))
        count = Signal.like(left)
        to_line_end = Signal.like(left)
        joins, asked = Signal(), Signal()
        word_index = address[exact_log2(config.bus_bytes) :]
        request = self.port.request
        m.d.comb += [
            to_line_end.eq(config.burst_words - (word_index & (config.burst_words - 1))),
            count.eq(Mux(left < to_line_end, left, to_line_end)),
            # Known as soon as `left` is: what is offered must not change.
            joins.eq(walking & follows & (left + row_words <= to_line_end)),
            request.valid.eq((left != 0) & ~joins),
            request.p.address.eq(address),
            request.p.count_minus_1.eq(count - 1),
            asked.eq(request.valid & request.ready),
            step.eq(walking & ((left == 0) | joins | (asked & (left == count)))),
        ]
        with m.If(asked):
            m.d.sync += [address.eq(address + count * config.bus_bytes), left.eq(left - count)]
        with m.If(joins):
            m.d.sync += left.eq(left + row_words)
        with m.Elif(step):
            m.d.sync += [address.eq(row_address), left.eq(row_words)]
