"""The tile loops of a matrix product: which line of activations comes next, and what it serves."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import CardConfig
from halfdome.hdl.matmul.job import SIZE_BITS, Weights, job_layout


def fill_layout(config: CardConfig) -> data.StructLayout:
    """What to fetch of x for a line.

    rows, words : rows of the block, bus words of the line in each
    offset : bytes from a row's first tap to the line
    down, right : pixels of x from a row's first tap to the line's tap
    block_last, batch_last : the next line is of the next block, of the next batch
    """
    return data.StructLayout(
        {
            "rows": range(config.activation_rows + 1),
            "words": range(config.burst_words + 1),
            "offset": config.address_bits,
            "down": SIZE_BITS,
            "right": SIZE_BITS,
            "block_last": 1,
            "batch_last": 1,
        }
    )


def weights_layout(config: CardConfig) -> data.StructLayout:
    """What to fetch of w for a line.

    restart : of packed tiles, the line takes the first
    address : of an operand that is not packed, its first element for this line
    tiles : weight tiles along N
    depth : weight tiles along K
    last_rows, last_columns : rows and columns of the last tile that are used
    """
    return data.StructLayout(
        {
            "restart": 1,
            "address": config.address_bits,
            "tiles": range(config.group_tiles + 1),
            "depth": range(config.line_tiles + 1),
            "last_rows": range(config.array_rows + 1),
            "last_columns": range(config.array_columns + 1),
        }
    )


def feed_layout(config: CardConfig) -> data.StructLayout:
    """How a line passes through the array: `tiles` times `depth` passes of `rows` rows.

    last_rows, last_columns : rows and columns of the last tile that are used
    y_address : of the first tile's first output
    top, left : number of the block's first row, of the first tile's first column
    first, last : the line is the first, the last along K
    keep : the line that follows is of the same activations
    final : the line is the last of the job
    """
    return data.StructLayout(
        {
            "rows": range(config.activation_rows + 1),
            "tiles": range(config.group_tiles + 1),
            "depth": range(config.line_tiles + 1),
            "last_rows": range(config.array_rows + 1),
            "last_columns": range(config.array_columns + 1),
            "y_address": config.address_bits,
            "top": SIZE_BITS,
            "left": SIZE_BITS,
            "first": 1,
            "last": 1,
            "keep": 1,
            "final": 1,
        }
    )


def line_layout(config: CardConfig) -> data.StructLayout:
    """One line of each row of a block, against the weights of a group of output tiles.

    fetch : the activations of the line are not those of the line before
    block_first : the line is the first of its block of rows
    """
    return data.StructLayout(
        {
            "fill": fill_layout(config),
            "weights": weights_layout(config),
            "feed": feed_layout(config),
            "fetch": 1,
            "block_first": 1,
        }
    )


_ENDS = data.StructLayout(dict.fromkeys(("k", "right", "taps", "n", "m", "batches"), 1))
"""Which loops are in their last turn; `taps` says so of K and of the taps both ways together."""


class LineSequencer(wiring.Component):
    """Walks `for batch: for m_block: for n_group: for tap: for k_line`, a line for each step.

    A block is `activation_rows` rows, a group `group_tiles` tiles of output channels, a line
    `line_bytes` bytes along K. If all of K is one line, the groups of a block share it. In a
    `diagonal` job a group is `diagonal_tiles` tiles, and of each tap its own channels are its line.

    Members
    -------
    job : In(`job_layout`), held from `start` until the final line is taken
    start : In(1), begin; only while `o` is not valid
    o : Out(stream of `line_layout`)

    The first line is offered in the cycle after `start`; then one a cycle.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._group = config.group_tiles * config.array_columns  # columns of a group
        self._diagonal = config.diagonal_tiles * config.array_columns  # the same, channels of x too
        super().__init__(
            {
                "job": In(job_layout(config)),
                "start": In(1),
                "o": Out(stream.Signature(line_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step = Signal()
        ends = Signal(_ENDS)
        m.d.comb += step.eq(self.o.valid & self.o.ready)
        group = self._group
        if self._diagonal not in (0, group):
            group = Signal(range(self._group + 1))
            m.d.comb += group.eq(Mux(self.job.diagonal, self._diagonal, self._group))
        rows, columns, k = self._count(m, step, ends, group)
        self._describe(m, step, ends, rows, columns, k)
        self._walk_activations(m, step, ends)
        self._walk_weights(m, step, ends)
        self._walk_outputs(m, step, ends, group)
        return m

    def _count(self, m, step, ends, group):
        """The loops: what is left of each; returns what the line has of rows, columns and K."""
        job = self.job
        block, line = self._config.activation_rows, self._config.line_bytes
        batches_left = Signal(SIZE_BITS)
        rows_left = Signal(self._config.count_bits)
        n_left = Signal(SIZE_BITS)
        taps_down = Signal(8)
        taps_right = Signal(8)
        k_left = Signal(SIZE_BITS)
        rows = Signal(range(block + 1))
        columns = Signal(range(self._group + 1))
        k = Signal(range(line + 1))
        m.d.comb += [
            ends.k.eq(job.diagonal | (k_left <= line)),
            ends.right.eq(taps_right == 1),
            ends.taps.eq(ends.k & ends.right & (taps_down == 1)),
            ends.n.eq(n_left <= group),
            ends.m.eq(rows_left <= block),
            ends.batches.eq(batches_left == 1),
            rows.eq(Mux(ends.m, rows_left, block)),
            columns.eq(Mux(ends.n, n_left, group)),
            k.eq(Mux(job.diagonal, columns, Mux(ends.k, k_left, line))),
        ]
        with m.If(step):
            m.d.sync += k_left.eq(k_left - line)
            with m.If(ends.k):
                m.d.sync += [k_left.eq(job.k), taps_right.eq(taps_right - 1)]
                with m.If(ends.right):
                    m.d.sync += [taps_right.eq(job.kernel_width), taps_down.eq(taps_down - 1)]
            with m.If(ends.taps):
                m.d.sync += [taps_down.eq(job.kernel_height), n_left.eq(n_left - group)]
                with m.If(ends.n):
                    m.d.sync += [n_left.eq(job.n), rows_left.eq(rows_left - block)]
                    with m.If(ends.m):
                        m.d.sync += [
                            rows_left.eq(job.rows),
                            batches_left.eq(batches_left - 1),
                            self.o.valid.eq(~ends.batches),
                        ]
        with m.If(self.start):
            m.d.sync += [
                batches_left.eq(job.batches),
                rows_left.eq(job.rows),
                n_left.eq(job.n),
                taps_down.eq(job.kernel_height),
                taps_right.eq(job.kernel_width),
                k_left.eq(job.k),
                self.o.valid.eq(1),
            ]
        return rows, columns, k

    def _describe(self, m, step, ends, rows, columns, k):
        """The line's size, in what each unit counts, and its place in the loops."""
        config, line = self._config, self.o.p
        row_bits, column_bits = exact_log2(config.array_rows), exact_log2(config.array_columns)
        word_bits = exact_log2(config.bus_bytes)
        first = Signal()
        block_first = Signal()
        one_line = Signal()  # is all of K
        m.d.comb += [
            one_line.eq(first & ends.taps & ~self.job.diagonal),
            line.fill.rows.eq(rows),
            line.fill.words.eq((k + config.bus_bytes - 1) >> word_bits),
            line.fill.block_last.eq(one_line | (ends.taps & ends.n)),
            line.fill.batch_last.eq(line.fill.block_last & ends.m),
            line.weights.restart.eq(block_first),
            line.feed.rows.eq(rows),
            line.feed.first.eq(first),
            line.feed.last.eq(ends.taps),
            line.feed.keep.eq(one_line & ~ends.n),
            line.feed.final.eq(ends.taps & ends.n & ends.m & ends.batches),
            line.fetch.eq(~one_line | block_first),
            line.block_first.eq(block_first),
        ]
        for part in (line.weights, line.feed):
            m.d.comb += [
                part.tiles.eq((columns + config.array_columns - 1) >> column_bits),
                part.depth.eq(Mux(self.job.diagonal, 1, (k + config.array_rows - 1) >> row_bits)),
                part.last_rows.eq(((k - 1)[:row_bits]) + 1),
                part.last_columns.eq(((columns - 1)[:column_bits]) + 1),
            ]
        with m.If(step):
            m.d.sync += [first.eq(ends.taps), block_first.eq(ends.taps & ends.n)]
        with m.If(self.start):
            m.d.sync += [first.eq(1), block_first.eq(1)]

    def _walk_activations(self, m, step, ends):
        """Where the line is within its row of x, in bytes and in pixels of the image."""
        job, line = self.job, self._config.line_bytes
        offset, tap, tap_line = (
            Signal(self._config.address_bits, name=name) for name in ("offset", "tap", "tap_line")
        )
        next_tap, next_tap_line = (
            Signal(self._config.address_bits, name=name) for name in ("next_tap", "next_tap_line")
        )
        down, right = (Signal(SIZE_BITS, name=name) for name in ("down", "right"))
        # In a pixel of x the channels of the group, if they are all that it sees.
        own, next_own = Signal(SIZE_BITS), Signal(SIZE_BITS)
        fill = self.o.p.fill
        m.d.comb += [
            next_own.eq(Mux(job.diagonal & ~ends.n, own + self._diagonal, 0)),
            fill.offset.eq(offset),
            fill.down.eq(down),
            fill.right.eq(right),
            next_tap.eq(tap + job.tap_step),
            next_tap_line.eq(tap_line + job.tap_line_step),
        ]
        with m.If(step):
            m.d.sync += offset.eq(offset + line)
            with m.If(ends.k):
                m.d.sync += [
                    right.eq(right + job.dilation_width),
                    tap.eq(next_tap),
                    offset.eq(next_tap),
                ]
                with m.If(ends.right):
                    m.d.sync += [
                        right.eq(0),
                        down.eq(down + job.dilation_height),
                        tap_line.eq(next_tap_line),
                        tap.eq(next_tap_line),
                        offset.eq(next_tap_line),
                    ]
            with m.If(ends.taps):
                m.d.sync += down.eq(0)
                m.d.sync += [value.eq(next_own) for value in (own, tap_line, tap, offset)]
        with m.If(self.start):
            m.d.sync += [value.eq(0) for value in (own, offset, tap, tap_line, down, right)]

    def _walk_weights(self, m, step, ends):
        """Where the line is in w, and where its group of columns and its batch begin."""
        job, line, group = self.job, self._config.line_bytes, self._group
        w_line, w_group, w_batch = (
            Signal(self._config.address_bits, name=name)
            for name in ("w_line", "w_group", "w_batch")
        )
        next_group, next_batch = (
            Signal(self._config.address_bits, name=name)
            for name in ("next_w_group", "next_w_batch")
        )
        along_k = Mux(job.weights == Weights.ROWS, job.w_stride << exact_log2(line), line)
        along_n = Mux(job.weights == Weights.ROWS, group, job.w_stride << exact_log2(group))
        m.d.comb += [
            self.o.p.weights.address.eq(w_line),
            next_group.eq(w_group + along_n),
            next_batch.eq(w_batch + job.w_batch_stride),
        ]
        with m.If(step):
            m.d.sync += w_line.eq(w_line + along_k)
            with m.If(ends.taps):
                m.d.sync += [value.eq(next_group) for value in (w_line, w_group)]
                with m.If(ends.n):
                    m.d.sync += [value.eq(w_batch) for value in (w_line, w_group)]
                    with m.If(ends.m):
                        m.d.sync += [value.eq(next_batch) for value in (w_line, w_group, w_batch)]
        with m.If(self.start):
            m.d.sync += [value.eq(job.w) for value in (w_line, w_group, w_batch)]

    def _walk_outputs(self, m, step, ends, group):
        """Where the line's outputs are in y, by address and by row and column."""
        job, block = self.job, self._config.activation_rows
        y_group, y_block, y_batch = (
            Signal(self._config.address_bits, name=name)
            for name in ("y_group", "y_block", "y_batch")
        )
        next_block, next_batch = (
            Signal(self._config.address_bits, name=name)
            for name in ("next_y_block", "next_y_batch")
        )
        top, left = (Signal(SIZE_BITS, name=name) for name in ("top", "left"))
        output_bits = Mux(job.y_format == ElementFormat.INT32, 2, 0)
        # Row i of a triangle begins i * (i - 1) / 2 outputs after row 0.
        down_y = Mux(
            job.triangle,
            (top << exact_log2(block)) + block * (block - 1) // 2,
            job.y_stride << exact_log2(block),
        )
        feed = self.o.p.feed
        m.d.comb += [
            feed.y_address.eq(y_group),
            feed.top.eq(top),
            feed.left.eq(left),
            next_block.eq(y_block + down_y),
            next_batch.eq(y_batch + job.y_batch_stride),
        ]
        with m.If(step & ends.taps):
            m.d.sync += [left.eq(left + group), y_group.eq(y_group + (group << output_bits))]
            with m.If(ends.n):
                m.d.sync += [
                    left.eq(0),
                    top.eq(top + block),
                    *(value.eq(next_block) for value in (y_group, y_block)),
                ]
                with m.If(ends.m):
                    m.d.sync += [
                        top.eq(0),
                        *(value.eq(next_batch) for value in (y_group, y_block, y_batch)),
                    ]
        with m.If(self.start):
            m.d.sync += [
                *(value.eq(0) for value in (top, left)),
                *(value.eq(job.y) for value in (y_group, y_block, y_batch)),
            ]
