"""The tile loops of a matrix product: which line of activations comes next, and what it serves."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import ElementFormat
from halfdome.hdl.config import ADDRESS_BITS, CardConfig
from halfdome.hdl.matmul.job import JOB, SIZE_BITS, Weights


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
            "offset": ADDRESS_BITS,
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
            "address": ADDRESS_BITS,
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
            "y_address": ADDRESS_BITS,
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


class LineSequencer(wiring.Component):
    """Walks `for batch: for m_block: for n_group: for tap: for k_line`, a line for each step.

    A block is `activation_rows` rows, a group `group_tiles` tiles of output channels, a line
    `line_bytes` bytes along K. If all of K is one line, the groups of a block share it.

    Members
    -------
    job : In(JOB), held from `start` until the final line is taken
    start : In(1), begin; only while `o` is not valid
    o : Out(stream of `line_layout`)

    The first line is offered in the cycle after `start`; then one a cycle.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "job": In(JOB),
                "start": In(1),
                "o": Out(stream.Signature(line_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.job
        block, line = config.activation_rows, config.line_bytes
        group = config.group_tiles * config.array_columns

        batches_left = Signal(SIZE_BITS)
        rows_left = Signal(32)
        n_left = Signal(SIZE_BITS)
        taps_down = Signal(8)
        taps_right = Signal(8)
        k_left = Signal(SIZE_BITS)
        first = Signal()
        block_first = Signal()
        one_line = Signal()  # is all of K
        last_k, last_right, last, last_n, last_m, last_b = (
            Signal(name=name)
            for name in ("last_k", "last_right", "last", "last_n", "last_m", "last_b")
        )
        m.d.comb += [
            last_k.eq(k_left <= line),
            last_right.eq(taps_right == 1),
            last.eq(last_k & last_right & (taps_down == 1)),
            last_n.eq(n_left <= group),
            last_m.eq(rows_left <= block),
            last_b.eq(batches_left == 1),
        ]

        # Where the line is within its row, within the image, and among the weights; and the same
        # for the loops around it.
        offset, tap, tap_line = (
            Signal(ADDRESS_BITS, name=name) for name in ("offset", "tap", "tap_line")
        )
        down, right = Signal(SIZE_BITS), Signal(SIZE_BITS)
        w_line, w_group, w_batch = (
            Signal(ADDRESS_BITS, name=name) for name in ("w_line", "w_group", "w_batch")
        )
        y_group, y_block, y_batch = (
            Signal(ADDRESS_BITS, name=name) for name in ("y_group", "y_block", "y_batch")
        )
        top, left = Signal(SIZE_BITS), Signal(SIZE_BITS)

        rows = Signal(range(block + 1))
        k = Signal(range(line + 1))
        columns = Signal(range(group + 1))
        row_bits, column_bits = exact_log2(config.array_rows), exact_log2(config.array_columns)
        word_bits = exact_log2(config.bus_bytes)
        p = self.o.p
        m.d.comb += [
            rows.eq(Mux(last_m, rows_left, block)),
            k.eq(Mux(last_k, k_left, line)),
            columns.eq(Mux(last_n, n_left, group)),
            p.fill.rows.eq(rows),
            p.fill.words.eq((k + config.bus_bytes - 1) >> word_bits),
            p.fill.offset.eq(offset),
            p.fill.down.eq(down),
            p.fill.right.eq(right),
            one_line.eq(first & last),
            p.fill.block_last.eq(one_line | (last & last_n)),
            p.fill.batch_last.eq(p.fill.block_last & last_m),
            p.weights.restart.eq(block_first),
            p.weights.address.eq(w_line),
            p.feed.rows.eq(rows),
            p.feed.y_address.eq(y_group),
            p.feed.top.eq(top),
            p.feed.left.eq(left),
            p.feed.first.eq(first),
            p.feed.last.eq(last),
            p.feed.keep.eq(one_line & ~last_n),
            p.feed.final.eq(last & last_n & last_m & last_b),
            p.fetch.eq(~one_line | block_first),
            p.block_first.eq(block_first),
        ]
        for part in (p.weights, p.feed):
            m.d.comb += [
                part.tiles.eq((columns + config.array_columns - 1) >> column_bits),
                part.depth.eq((k + config.array_rows - 1) >> row_bits),
                part.last_rows.eq(((k - 1)[:row_bits]) + 1),
                part.last_columns.eq(((columns - 1)[:column_bits]) + 1),
            ]

        output_bits = Mux(job.y_format == ElementFormat.INT32, 2, 0)
        along_k = Mux(job.weights == Weights.ROWS, job.w_stride << exact_log2(line), line)
        along_n = Mux(job.weights == Weights.ROWS, group, job.w_stride << exact_log2(group))
        # Row i of a triangle begins i * (i - 1) / 2 outputs after row 0.
        down_y = Mux(
            job.triangle,
            (top << exact_log2(block)) + block * (block - 1) // 2,
            job.y_stride << exact_log2(block),
        )
        next_tap, next_tap_line = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        next_w_group, next_w_batch = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        next_y_block, next_y_batch = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        m.d.comb += [
            next_tap.eq(tap + job.tap_step),
            next_tap_line.eq(tap_line + job.tap_line_step),
            next_w_group.eq(w_group + along_n),
            next_w_batch.eq(w_batch + job.w_batch_stride),
            next_y_block.eq(y_block + down_y),
            next_y_batch.eq(y_batch + job.y_batch_stride),
        ]

        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                first.eq(last),
                block_first.eq(last & last_n),
                k_left.eq(k_left - line),
                offset.eq(offset + line),
                w_line.eq(w_line + along_k),
            ]
            with m.If(last_k):
                m.d.sync += [
                    k_left.eq(job.k),
                    taps_right.eq(taps_right - 1),
                    right.eq(right + job.dilation_width),
                    tap.eq(next_tap),
                    offset.eq(next_tap),
                ]
                with m.If(last_right):
                    m.d.sync += [
                        taps_right.eq(job.kernel_width),
                        taps_down.eq(taps_down - 1),
                        right.eq(0),
                        down.eq(down + job.dilation_height),
                        tap_line.eq(next_tap_line),
                        tap.eq(next_tap_line),
                        offset.eq(next_tap_line),
                    ]
            with m.If(last):
                m.d.sync += [
                    taps_down.eq(job.kernel_height),
                    down.eq(0),
                    tap_line.eq(0),
                    tap.eq(0),
                    offset.eq(0),
                    n_left.eq(n_left - group),
                    left.eq(left + group),
                    w_group.eq(next_w_group),
                    w_line.eq(next_w_group),
                    y_group.eq(y_group + (group << output_bits)),
                ]
                with m.If(last_n):
                    m.d.sync += [
                        n_left.eq(job.n),
                        left.eq(0),
                        w_group.eq(w_batch),
                        w_line.eq(w_batch),
                        rows_left.eq(rows_left - block),
                        top.eq(top + block),
                        y_block.eq(next_y_block),
                        y_group.eq(next_y_block),
                    ]
                    with m.If(last_m):
                        m.d.sync += [
                            rows_left.eq(job.rows),
                            top.eq(0),
                            batches_left.eq(batches_left - 1),
                            w_batch.eq(next_w_batch),
                            w_group.eq(next_w_batch),
                            w_line.eq(next_w_batch),
                            y_batch.eq(next_y_batch),
                            y_block.eq(next_y_batch),
                            y_group.eq(next_y_batch),
                            self.o.valid.eq(~last_b),
                        ]
        with m.If(self.start):
            m.d.sync += [
                batches_left.eq(job.batches),
                rows_left.eq(job.rows),
                n_left.eq(job.n),
                taps_down.eq(job.kernel_height),
                taps_right.eq(job.kernel_width),
                k_left.eq(job.k),
                *(value.eq(0) for value in (offset, tap, tap_line, down, right, top, left)),
                *(value.eq(job.w) for value in (w_line, w_group, w_batch)),
                *(value.eq(job.y) for value in (y_group, y_block, y_batch)),
                first.eq(1),
                block_first.eq(1),
                self.o.valid.eq(1),
            ]
        return m
