"""The vector engine: element-wise work on matrices, one pass over memory a command."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.commands import (
    TABLE_BYTES,
    ElementFormat,
    Flag,
    Function,
    Opcode,
    Status,
    fields,
    layout,
)
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import Activity, engine_members
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.once import EnableInserter
from halfdome.hdl.vector.channels import ChannelLines
from halfdome.hdl.vector.kernel import GROUPS
from halfdome.hdl.vector.lanes import SETTINGS, VectorLanes
from halfdome.hdl.vector.lookup import ByteTable
from halfdome.hdl.vector.maximum import WindowMaximum
from halfdome.hdl.vector.packer import RowPacker
from halfdome.hdl.vector.source import GroupSource
from halfdome.hdl.vector.sums import WindowSums
from halfdome.hdl.vector.walker import Taps, WindowWalker

_QUEUE_WORDS = 4
_WORDS = 2
"""log2 of an element's bytes where groups are whole bus words."""


def element_size(element: Value) -> Value:
    """log2 of an element's bytes."""
    half = element == ElementFormat.FLOAT16
    return Mux(half, 1, Mux(element > ElementFormat.FLOAT16, 2, 0))


class VectorEngine(wiring.Component):
    """AFFINE, ADD, MULTIPLY and CLAMP, each with a function and a reduction of rows; QUANTISE,
    LOOKUP, POOL and DEPTHWISE.

    Exact as `halfdome.sim.golden.vector`. Only the bytes of the output's rows are written. Groups
    of `elements` elements flow from the sources to the packer; the lanes stand still while the
    packer cannot take what leaves them. An element is written after everything up to it, in
    reading order, has been read. The bytes of a LOOKUP pass a table beside the lanes, which it
    reads first, through `b`; those of a POOL the maxima of its windows, those of a DEPTHWISE the
    sums of its windows, whose weights and parameters come through `b`.

    Members
    -------
    command, result, activity : `engine_members()`; descriptors `AFFINE` to `DEPTHWISE`
    a, b : Out(ReadPort), the inputs
    y : Out(WritePort), the output

    Throughput: `elements` elements a cycle while memory keeps up, whatever the formats; a row takes
    at least one cycle more than it has lines (`cycles()`). The last source word of an output
    word reaches `a` `latency` cycles before `y` offers the output word; `VectorLanes` tells what
    tables and reductions add. LOOKUP: a bus word a cycle, once the table is there
    (`lookup_cycles()`), `lookup_latency` cycles later. POOL: a word of a tap a cycle
    (`pool_cycles()`); an output word is offered `pool_latency` cycles after its window's last.
    DEPTHWISE: likewise (`sums_cycles()`, `sums_latency`), but `GROUPS` cycles a word written.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self.elements = config.bus_bytes // 4
        self._lanes = VectorLanes(self.elements)
        # Two cycles through the reader's queue, two through the one in front of the packer.
        around = 2 + 2 + RowPacker.latency
        self.latency = around + self._lanes.latency
        self.lookup_latency = around + ByteTable.latency
        self.pool_latency = around + WindowMaximum.latency
        self._sums = WindowSums(config)
        self.sums_latency = around + self._sums.latency
        self.table_latency = self._lanes.table_latency
        self.reduce_latency = self._lanes.reduce_latency
        super().__init__(
            engine_members()
            | {
                "a": Out(ReadPort(config)),
                "b": Out(ReadPort(config)),
                "y": Out(WritePort(config)),
            }
        )

    def cycles(self, rows: int, columns: int, widest: ElementFormat) -> int:
        """Cycles to stream matrices whose rows start at a line: no memory stalls, no start-up.

        `widest` is the format of the input with the largest elements.
        """
        words = -(-columns * widest.nbytes // self._config.bus_bytes)
        return self._cycles(rows, words, -(-columns // self.elements))

    def lookup_cycles(self, rows: int, columns: int) -> int:
        """`cycles()` of a LOOKUP, its table included; fewer where lines wait for the table."""
        words = -(-columns // self._config.bus_bytes)
        return ByteTable.load_cycles + self._cycles(rows, words, words)

    def pool_cycles(self, k: int, rows: Taps, columns: Taps) -> int:
        """`cycles()` of a POOL, at most: fewer where what lies outside is left out meanwhile."""
        words = -(-k // self._config.bus_bytes)
        lines = -(-words // self._config.burst_words)
        asked = rows.inside * (columns.inside * words + columns.before * lines)
        return WindowWalker.latency + asked + rows.before * columns.windows * lines

    def sums_cycles(self, k: int, rows: Taps, columns: Taps) -> int:
        """`cycles()` of a DEPTHWISE whose windows all have `GROUPS` taps or fewer, or all more."""
        words = -(-k // self._config.bus_bytes)
        written = GROUPS * rows.windows * columns.windows * words
        return max(self.pool_cycles(k, rows, columns), WindowWalker.latency + written)

    def _cycles(self, rows: int, words: int, groups: int) -> int:
        return rows * max(groups, -(-words // self._config.burst_words) + 1)

    def elaborate(self, platform):
        m = Module()
        config, lanes = self._config, self._lanes
        go = Signal()
        m.submodules.a = a = GroupSource(config)
        m.submodules.b = b = GroupSource(config)
        looks_up, pools, adds = Signal(), Signal(), Signal()
        m.submodules.lanes = EnableInserter(go & ~looks_up & ~pools & ~adds)(lanes)
        m.submodules.table = table = ByteTable(config)
        m.submodules.walker = walker = WindowWalker(config)
        m.submodules.maximum = maximum = WindowMaximum(config)
        m.submodules.sums = sums = self._sums
        m.submodules.lines = lines = ChannelLines(config)
        m.submodules.queue = queue = SyncFIFOBuffered(width=32 * self.elements, depth=_QUEUE_WORDS)
        m.submodules.packer = packer = RowPacker(config)
        connect(m, a.port, flipped(self.a))
        connect(m, b.port, flipped(self.b))
        connect(m, packer.port, flipped(self.y))

        # A command's fields: one input's, the second input's or the table where there is one.
        command = data.View(layout(fields(Opcode.AFFINE)), self.command.p)
        second = data.View(layout(fields(Opcode.ADD)), self.command.p)
        lookup = data.View(layout(fields(Opcode.LOOKUP)), self.command.p)
        settings = Signal(SETTINGS)
        next_settings = Signal(SETTINGS)
        groups = Signal(32)
        next_groups = Signal(32)
        groups_left = Signal(32)  # of a row
        rows_left = Signal(32)
        two_sources = Signal()
        next_two = Signal()
        next_looks_up, next_pools, next_adds = Signal(), Signal(), Signal()
        next_windows = Signal()
        start = Signal()
        reduces = (command.flags & (Flag.SUM | Flag.MAX)).any()
        beyond = command.columns[: exact_log2(self.elements)]
        in_group = Mux(next_looks_up, config.bus_bytes, self.elements)
        rounded = command.columns + (in_group - 1)
        m.d.comb += [
            next_looks_up.eq(command.opcode == Opcode.LOOKUP),
            next_pools.eq(command.opcode == Opcode.POOL),
            next_adds.eq(command.opcode == Opcode.DEPTHWISE),
            next_windows.eq(next_pools | next_adds),
            next_groups.eq(
                Mux(next_looks_up, rounded >> _WORDS, rounded) >> exact_log2(self.elements)
            ),
            next_two.eq((command.opcode == Opcode.ADD) | (command.opcode == Opcode.MULTIPLY)),
            next_settings.opcode.eq(command.opcode),
            next_settings.sum.eq(command.flags & Flag.SUM != 0),
            next_settings.max.eq(command.flags & Flag.MAX != 0),
            next_settings.first.eq(command.scale),
            next_settings.second.eq(command.shift),
            next_settings.tail.eq(Mux(beyond.any(), beyond, self.elements)),
            *(
                next_settings[name].eq(command[name])
                for name in (
                    "a_format", "a_zero_point", "y_format", "y_zero_point", "multiplier",
                )
            ),
            # A QUANTISE has no function, and its scale where others have their multiplier.
            next_settings.function.eq(
                Mux(command.opcode == Opcode.QUANTISE, Function.IDENTITY, command.function)
            ),
            next_settings.b_format.eq(second.b_format),
            next_settings.b_zero_point.eq(second.b_zero_point),
            *self._matrix(a, command.a, command.a_stride, command.a_format, command, next_groups),
            *self._matrix(b, second.b, second.b_stride, second.b_format, command, next_groups),
            b.start.p.hold.eq(command.flags & Flag.BROADCAST != 0),
            a.start.valid.eq(start),
            b.start.valid.eq(start & (next_two | next_looks_up)),
            table.start.eq(start),
            packer.start.valid.eq(start & ~next_windows),
            walker.start.eq(start & next_windows),
            walker.descriptor.eq(self.command.p),
            sums.start.eq(start & next_adds),
            sums.descriptor.eq(self.command.p),
            packer.start.p.address.eq(command.y),
            packer.start.p.stride.eq(command.y_stride),
            packer.start.p.rows.eq(command.rows),
            packer.start.p.columns.eq(Mux(reduces, 1, command.columns)),
            packer.start.p.size.eq(element_size(Value.cast(command.y_format))),
        ]  # fmt: skip
        table_words = TABLE_BYTES // config.bus_bytes
        with m.If(next_looks_up):
            m.d.comb += [
                a.start.p.size.eq(_WORDS),
                a.start.p.words.eq(next_groups),
                b.start.p.address.eq(lookup.table),
                b.start.p.rows.eq(1),
                b.start.p.groups.eq(table_words),
                b.start.p.words.eq(table_words),
                b.start.p.size.eq(_WORDS),
                packer.start.p.size.eq(_WORDS),
                packer.start.p.columns.eq((command.columns + 3) >> _WORDS),
                packer.start.p.beyond.eq(-command.columns[:2]),
            ]

        # Of an image, all windows of a line of channels are written before those of the next.
        job, line = walker.job, lines.o.p
        with m.If(next_windows):
            m.d.comb += [a.start.p.size.eq(_WORDS), a.start.p.rows.eq(0)]
        m.d.comb += [
            lines.start.eq(walker.known),
            lines.k.eq(job.k),
            lines.o.ready.eq(packer.start.ready),
            sums.matrices.ready.eq(b.start.ready),
        ]
        with m.If(lines.o.valid):
            m.d.comb += [
                packer.start.valid.eq(1),
                packer.start.p.address.eq(job.y + line.first),
                packer.start.p.stride.eq(job.y_stride),
                packer.start.p.rows.eq(job.rows),
                packer.start.p.size.eq(_WORDS),
                packer.start.p.columns.eq((line.size + 3) >> _WORDS),
                packer.start.p.beyond.eq(-line.size[:2]),
            ]
        with m.If(sums.matrices.valid):
            m.d.comb += [b.start.valid.eq(1), b.start.p.eq(sums.matrices.p)]
        connect(m, walker.bursts, a.bursts)

        # From the sources through the lanes, the table or the maxima to the packer.
        enter, other = Signal(), Signal()
        m.d.comb += [
            enter.eq(go & a.o.valid & other),
            a.o.ready.eq(go & other),
            *((unit.tags.p.eq(walker.tags.p), unit.tags.valid.eq(walker.tags.valid))
              for unit in (maximum, sums)),
            walker.tags.ready.eq(Mux(adds, sums.tags.ready, maximum.tags.ready)),
            maximum.enable.eq(go),
            maximum.valid.eq(enter & pools),
            maximum.i.eq(a.o.p),
            maximum.is_signed.eq(job.x_int8),
            sums.enable.eq(go),
            sums.valid.eq(enter & adds),
            sums.i.eq(a.o.p),
            sums.words.p.eq(b.o.p),
            sums.words.valid.eq(b.o.valid & adds),
            table.table.p.eq(b.o.p),
            table.table.valid.eq(b.o.valid & looks_up),
            table.enable.eq(go),
            table.valid.eq(enter & looks_up),
            table.i.eq(a.o.p),
            lanes.settings.eq(settings),
            lanes.valid.eq(enter),
            lanes.a.eq(a.o.p),
            lanes.b.eq(b.o.p),
            lanes.last.eq(groups_left == 1),
            packer.i.p.eq(queue.r_data),
            packer.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(packer.i.ready),
        ]  # fmt: skip
        # What an element needs beside itself, and who makes the output.
        made = Signal()
        m.d.comb += queue.w_en.eq(made & go)
        for condition, unit, needs, takes_b in (
            (adds, sums, walker.tags.valid & sums.accepts, sums.words.ready),
            (pools, maximum, walker.tags.valid, 0),
            (looks_up, table, 1, table.table.ready),
            (~adds & ~pools & ~looks_up, lanes, b.o.valid | ~two_sources, go & a.o.valid),
        ):
            with m.If(condition):
                m.d.comb += [
                    other.eq(needs),
                    b.o.ready.eq(takes_b),
                    queue.w_data.eq(unit.o),
                    made.eq(unit.o_valid),
                ]
        with m.If(enter):
            m.d.sync += groups_left.eq(groups_left - 1)
            with m.If(lanes.last):
                m.d.sync += [groups_left.eq(groups), rows_left.eq(rows_left - 1)]

        read = Signal()  # all there is
        m.d.comb += read.eq(Mux(pools | adds, walker.idle, rows_left == 0))
        refused = self.y.request.valid & ~self.y.request.ready
        m.d.comb += self.result.p.status.eq(Status.OK)
        with m.If(adds & sums.bad):
            m.d.comb += [
                self.result.p.status.eq(Status.BAD_MULTIPLIER),
                self.result.p.detail.eq(sums.bad_channel),
            ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    self.activity.eq(Activity.IDLE),
                    self.command.ready.eq(1),
                    start.eq(self.command.valid),
                ]
                with m.If(start):
                    m.d.sync += [
                        settings.eq(next_settings),
                        two_sources.eq(next_two),
                        looks_up.eq(next_looks_up),
                        pools.eq(next_pools),
                        adds.eq(next_adds),
                        groups.eq(next_groups),
                        groups_left.eq(next_groups),
                        rows_left.eq(command.rows),
                    ]
                    m.next = "RUN"
                    with m.If(next_windows):
                        m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.comb += self.activity.eq(Activity.BUSY)
                with m.If(walker.known):
                    m.next = "RUN"
            with m.State("RUN"):
                # A word may leave the lanes in this cycle and the next.
                ready = table.whole | ~looks_up
                m.d.sync += go.eq((queue.level <= _QUEUE_WORDS - 2) & packer.busy & ready)
                with m.If(refused):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.Elif(enter | table.loads | walker.skips | sums.busy | read):
                    m.d.comb += self.activity.eq(Activity.BUSY)
                with m.Else():
                    m.d.comb += self.activity.eq(Activity.STARVED)
                with m.If(~packer.busy & ~lines.o.valid):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.If(self.y.idle):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += [self.activity.eq(Activity.BLOCKED), self.result.valid.eq(1)]
                with m.If(self.result.ready):
                    m.next = "IDLE"
        return m

    def _matrix(self, source, address, stride, element, command, groups) -> list:
        """What a source is to read, but for `hold`."""
        size = element_size(element)
        word_bits = exact_log2(self._config.bus_bytes)
        row_bytes = command.columns << size
        start = source.start.p
        words = (row_bytes + (self._config.bus_bytes - 1)) >> word_bits
        return [
            start.address.eq(address),
            start.stride.eq(stride),
            start.rows.eq(command.rows),
            start.groups.eq(groups),
            start.size.eq(size),
            start.words.eq(Mux(start.hold, 1, words)),
        ]
