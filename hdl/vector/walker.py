"""Visits the windows of an image: which of its words belong to which word of the output."""

from typing import NamedTuple

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import MOST_TAPS, Flag
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import HEADER, WINDOWED, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.memory.port import read_request
from halfdome.hdl.vector.source import read_ahead_words
from halfdome.hdl.windows import STEP_CYCLES, calculate_steps, step_bits

_POSITION_BITS = 26
"""Signed; holds a row of any image times any stride."""


def job_layout(config: CardConfig) -> data.StructLayout:
    """What to go over; `x` is the address of the first window's first tap, which may lie outside
    the image."""
    addresses = dict.fromkeys(("x", "y"), config.address_bits)
    sizes = {field.name: field.bits for field in WINDOWED}
    return data.StructLayout(sizes | addresses | {"x_int8": 1} | step_bits(config))


class Taps(NamedTuple):
    """Taps along one side of an image, in all windows: inside it and before it."""

    windows: int
    inside: int
    before: int


def taps_along(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> Taps:
    """Of `out` windows along a side of `size` pixels."""
    starts = [window * stride - pad for window in range(out)]
    before = [max(0, -(start // dilation)) for start in starts]
    until = [min(kernel, -((start - size) // dilation)) for start in starts]
    return Taps(out, sum(until) - sum(before), sum(before))


def line_groups(config: CardConfig) -> int:
    """Groups of `byte_lanes` bytes in a line of channels."""
    return config.burst_words * config.byte_word_cycles


def tap_tag(config: CardConfig) -> data.StructLayout:
    """What is to be known of a tap.

    more : groups of `byte_lanes` bytes of it, less 1
    tap : its number in the kernel, modulo `MOST_TAPS`
    last : it is the last of its window
    ends : its window is the last of its line of channels
    """
    return data.StructLayout(
        {
            "more": range(line_groups(config)),
            "tap": range(MOST_TAPS),
            "last": 1,
            "ends": 1,
        }
    )


class WindowWalker(wiring.Component):
    """Asks for the taps of each window that lie inside the image.

    All windows are visited once for each line of channels, their taps in reading order. One tap
    inside has no tap inside below it and beside it: it is the last, and the taps beyond are not
    visited. Rows of taps above the image are left out at once, taps left of it one by one.

    Members
    -------
    descriptor : In(512), of a command whose fields begin with `WINDOWED`
    start : In(1), takes it; only while `idle`
    job : Out(`job_layout`), constant from `known` to the next `start`
    known : Out(1), in the cycle after this one `job` is calculated
    bursts : Out(stream of `read_request`), the words of the taps
    tags : Out(stream of `tap_tag`), one for each tap asked for, in order
    skips : Out(1), finds nothing to ask for
    idle : Out(1), every tap was asked for and its tag taken

    `known` comes `latency` cycles after `start`, the first burst may be offered two later; then a
    tap a cycle, two if it crosses the end of a memory line.
    """

    latency = STEP_CYCLES

    def __init__(self, config: CardConfig):
        self._config = config
        super().__init__(
            {
                "descriptor": In(DESCRIPTOR_BITS),
                "start": In(1),
                "job": Out(job_layout(config)),
                "known": Out(1),
                "bursts": Out(stream.Signature(read_request(config))),
                "tags": Out(stream.Signature(tap_tag(config))),
                "skips": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.job
        command = data.View(layout(HEADER + WINDOWED), self.descriptor)
        with m.If(self.start):
            m.d.sync += [
                *(job[field.name].eq(command[field.name]) for field in WINDOWED),
                job.x_int8.eq((command.flags & int(Flag.X_INT8)).any()),
            ]
        m.d.comb += self.known.eq(calculate_steps(m, job, job, self.start))

        walking, works = Signal(), Signal()
        inside, last, step = Signal(), Signal(), Signal()
        tap, last_window = Signal(range(MOST_TAPS)), Signal()
        groups_left = Signal(16)  # of a pixel, from this line of its channels on
        most = line_groups(config)
        tap_groups = Signal(range(most + 1))
        tap_words = Signal(range(config.burst_words + 1))
        cycles = config.byte_word_cycles
        address = Signal(config.address_bits)
        tag_layout = tap_tag(config)
        m.submodules.tags = tags = SyncFIFOBuffered(
            width=tag_layout.size, depth=read_ahead_words(config)
        )
        tag = data.View(tag_layout, tags.w_data)
        free = self._ask(m, step & inside, address, tap_words)
        m.d.comb += [
            step.eq(walking & (~inside | (free & tags.w_rdy))),
            self.skips.eq(walking & ~inside),
            tap_groups.eq(Mux(groups_left < most, groups_left, most)),
            tap_words.eq((tap_groups + (cycles - 1)) >> exact_log2(cycles)),
            tag.more.eq(tap_groups - 1),
            tag.tap.eq(tap),
            tag.last.eq(last),
            tag.ends.eq(last_window),
            tags.w_en.eq(step & inside),
            self.tags.p.eq(data.View(tag_layout, tags.r_data)),
            self.tags.valid.eq(tags.r_rdy),
            tags.r_en.eq(self.tags.ready),
            self.idle.eq(~works & (tags.level == 0)),
        ]
        begin = Signal()
        m.d.sync += begin.eq(self.known)
        end = self._walk(m, begin, step, address, tap, inside, last, last_window, groups_left)
        with m.If(begin):
            m.d.sync += walking.eq(1)
        with m.If(end):
            m.d.sync += [walking.eq(0), works.eq(0)]
        with m.If(self.start):
            m.d.sync += works.eq(1)
        return m

    def _walk(self, m, begin, step, address, tap, inside, last, last_window, groups_left):
        """From tap to tap, window to window, line to line of the channels; whether at the end."""
        config, job = self._config, self.job
        position = signed(_POSITION_BITS)
        row, column = Signal(16), Signal(16)  # of the output
        down, right = Signal(position), Signal(position)  # of the tap in the image
        window_down, window_right = Signal(position), Signal(position)
        ky, kx = Signal(8), Signal(8)
        first_tap = Signal(range(MOST_TAPS))  # of a row of taps
        group, line, window, tap_row = (
            Signal(config.address_bits, name=name)
            for name in ("group", "line", "window", "tap_row")
        )  # addresses: of a line of channels, a row of windows, a window, a row of its taps
        most = line_groups(config)
        pixel_groups = Signal(16)
        m.d.comb += pixel_groups.eq(
            (job.k + (config.byte_lanes - 1)) >> exact_log2(config.byte_lanes)
        )

        beside, below = Signal(), Signal()
        m.d.comb += [
            inside.eq(~down[-1] & ~right[-1]),
            beside.eq(
                (kx == job.kernel_width - 1) | (right + job.dilation_width >= job.width) | down[-1]
            ),
            below.eq((ky == job.kernel_height - 1) | (down + job.dilation_height >= job.height)),
            last.eq(beside & below),
            last_window.eq((column == job.out_width - 1) & (row == job.out_height - 1)),
        ]

        def enter(new_window, new_down, new_right):
            return [
                *(a.eq(new_window) for a in (window, tap_row, address)),
                *(a.eq(new_down) for a in (window_down, down)),
                *(a.eq(new_right) for a in (window_right, right)),
            ]

        def enter_line(new_group):
            return [
                *(a.eq(new_group) for a in (group, line)),
                *(a.eq(0) for a in (column, row)),
                *enter(new_group, -job.pad_top, -job.pad_left),
            ]

        next_row, next_group, next_line = (
            Signal(config.address_bits, name=name)
            for name in ("next_row", "next_group", "next_line")
        )
        next_first_tap = Signal.like(first_tap)
        m.d.comb += [
            next_row.eq(tap_row + job.tap_line_step),
            next_first_tap.eq(first_tap + job.kernel_width),
            next_group.eq(group + config.line_bytes),
            next_line.eq(line + job.line_step),
        ]
        end = Signal()
        with m.If(step):
            m.d.sync += [
                kx.eq(kx + 1),
                tap.eq(tap + 1),
                right.eq(right + job.dilation_width),
                address.eq(address + job.tap_step),
            ]
            with m.If(beside):
                m.d.sync += [
                    kx.eq(0), right.eq(window_right), address.eq(next_row), tap_row.eq(next_row),
                    ky.eq(ky + 1), down.eq(down + job.dilation_height),
                    tap.eq(next_first_tap), first_tap.eq(next_first_tap),
                ]  # fmt: skip
            with m.If(last):
                m.d.sync += [*(a.eq(0) for a in (ky, tap, first_tap))]
                with m.If(last_window):
                    m.d.sync += enter_line(next_group)
                    m.d.sync += groups_left.eq(groups_left - most)
                    m.d.comb += end.eq(groups_left <= most)
                with m.Elif(column != job.out_width - 1):
                    m.d.sync += column.eq(column + 1)
                    m.d.sync += enter(
                        window + job.pixel_step, window_down, window_right + job.stride_width
                    )
                with m.Else():
                    m.d.sync += [column.eq(0), row.eq(row + 1), line.eq(next_line)]
                    m.d.sync += enter(next_line, window_down + job.stride_height, -job.pad_left)
        with m.If(begin):
            m.d.sync += [*(a.eq(0) for a in (kx, ky, tap, first_tap)), groups_left.eq(pixel_groups)]
            m.d.sync += enter_line(job.x)
        return end

    def _ask(self, m, take, tap_address, tap_words):
        """Cuts the words of a tap at the end of a memory line; whether the next may come."""
        config = self._config
        address = Signal(config.address_bits)
        left = Signal(range(config.burst_words + 1))
        count, to_line_end = Signal.like(left), Signal.like(left)
        asked, free = Signal(), Signal()
        word_index = address[exact_log2(config.bus_bytes) :]
        m.d.comb += [
            to_line_end.eq(config.burst_words - (word_index & (config.burst_words - 1))),
            count.eq(Mux(left < to_line_end, left, to_line_end)),
            self.bursts.valid.eq(left != 0),
            self.bursts.p.address.eq(address),
            self.bursts.p.count_minus_1.eq(count - 1),
            asked.eq(self.bursts.valid & self.bursts.ready),
            free.eq((left == 0) | (asked & (left == count))),
        ]
        with m.If(asked):
            m.d.sync += [address.eq(address + count * config.bus_bytes), left.eq(left - count)]
        with m.If(take):
            m.d.sync += [address.eq(tap_address), left.eq(tap_words)]
        return free
