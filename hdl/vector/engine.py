"""The vector engine: element-wise work on matrices, one pass over memory a command."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out, connect, flipped

from halfdome.hdl.commands import Status
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import Activity, engine_members
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.once import EnableInserter
from halfdome.hdl.vector.averages import WindowAverages
from halfdome.hdl.vector.channels import ChannelLines
from halfdome.hdl.vector.decoder import CommandDecoder, Unit, is_windowed, row_of_bytes
from halfdome.hdl.vector.fixed import FixedConstants
from halfdome.hdl.vector.kernel import GROUPS
from halfdome.hdl.vector.lanes import SETTINGS, VectorLanes
from halfdome.hdl.vector.lookup import ByteTable
from halfdome.hdl.vector.maximum import WindowMaximum
from halfdome.hdl.vector.packer import RowPacker
from halfdome.hdl.vector.pairs import BytePairs
from halfdome.hdl.vector.source import GroupSource
from halfdome.hdl.vector.sums import WindowSums
from halfdome.hdl.vector.taps import TapGroups
from halfdome.hdl.vector.unit import FLOAT_SIZE, byte_size, bytes_of, group_layout, group_of
from halfdome.hdl.vector.walker import Taps, WindowWalker, line_groups

QUEUE_WORDS = 4


class VectorEngine(wiring.Component):
    """Every command of `Engine.VECTOR`: those of any format through fp32 lanes, with a function and
    a reduction of rows; those of bytes alone through a unit beside the lanes.

    Exact as `halfdome.sim.golden.vector`, `pairs`, `pool` and `sums`. Only the bytes of the
    output's rows are written. Groups of `vector_lanes` elements flow from the sources to the
    packer; what they pass stands still while the packer cannot take what leaves it. An element is
    written after everything up to it, in reading order, has been read. The table of a LOOKUP comes
    first, through `b`; weights and parameters of a DEPTHWISE come there, too, a line of channels
    ahead.

    Members
    -------
    command, result, activity : `engine_members()`; descriptors of `Engine.VECTOR`
    a, b : Out(ReadPort), the inputs
    y : Out(WritePort), the output

    Throughput: `vector_lanes` elements of a row a cycle while memory keeps up, whatever the formats
    (`cycles()`, `turn_cycles()`). The last source word of an output word reaches `a` `latency`
    cycles before `y` offers the output word; `VectorLanes` tells what tables and reductions add.
    LOOKUP, ADD_QUANTISED and MULTIPLY_QUANTISED: `byte_lanes` elements a cycle, once the table is
    there (`lookup_cycles()`, `pair_cycles()`), `lookup_latency` or `pair_latency` cycles later.
    POOL: as many of a tap (`pool_cycles()`); an output word is offered `pool_latency` cycles after
    its window's last. DEPTHWISE, AVERAGE: likewise (`sums_cycles()`, `sums_latency`;
    `average_cycles()`,
    `average_latency`), but `GROUPS` cycles a word written.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._lanes = VectorLanes(config.vector_lanes, in_turns=config.lanes_in_turns)
        # Two cycles through the reader's queue, two through the one in front of the packer.
        around = 2 + 2 + RowPacker.latency
        self.latency = around + self._lanes.latency
        later = config.byte_word_cycles - 1  # the last bytes of a word
        self.lookup_latency = around + ByteTable.latency + later
        self.pair_latency = around + BytePairs.latency + later
        self.pool_latency = around + WindowMaximum.latency + later
        self._sums, self._averages = WindowSums(config), WindowAverages(config)
        self._parts = max(1, GROUPS // config.byte_word_cycles)  # cycles a group is written in
        self.sums_latency = around + self._sums.latency + later * self._parts
        self.average_latency = around + self._averages.latency + later * self._parts
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

    def cycles(self, rows: int, columns: int) -> int:
        """Cycles to stream matrices: no memory stalls, no start-up."""
        return rows * -(-columns // self._config.vector_lanes)

    def turn_cycles(
        self, rows: int, columns: int, *, table: bool = False, reduces: bool = False,
        quantises: bool = False,
    ) -> int:  # fmt: skip
        """What is added to `cycles()`, at most, where lanes take turns: a cycle for each group of a
        function with a `table`, some for each of a QUANTISE or row that is reduced."""
        lanes = self._lanes
        groups = -(-columns // self._config.vector_lanes)
        of_group = table + len(lanes.quotient_turns) * quantises
        of_row = groups * of_group + (len(lanes.reduce_turns) + 1) * reduces
        return rows * of_row * self._config.lanes_in_turns

    def pair_cycles(self, rows: int, columns: int) -> int:
        """`cycles()` of an ADD_QUANTISED or MULTIPLY_QUANTISED."""
        return rows * -(-columns // self._config.byte_lanes)

    def lookup_cycles(self, rows: int, columns: int) -> int:
        """`cycles()` of a LOOKUP, its table included; fewer where lines wait for the table."""
        return ByteTable.load_cycles + self.pair_cycles(rows, columns)

    def pool_cycles(self, k: int, rows: Taps, columns: Taps) -> int:
        """`cycles()` of a POOL, at most: fewer where what lies outside is left out meanwhile."""
        return self._window_cycles(k, rows, columns, -(-k // self._config.byte_lanes))

    def sums_cycles(self, k: int, rows: Taps, columns: Taps) -> int:
        """`cycles()` of a DEPTHWISE whose windows all have `GROUPS` taps or fewer, or all more."""
        return max(self.pool_cycles(k, rows, columns), self._written_cycles(k, rows, columns))

    def average_cycles(self, k: int, rows: Taps, columns: Taps) -> int:
        """`cycles()` of an AVERAGE, likewise: a line of one group takes two cycles."""
        groups, most = -(-k // self._config.byte_lanes), line_groups(self._config)
        alone = groups if most == 1 else int(groups % most == 1)
        added = self._window_cycles(k, rows, columns, groups + alone)
        return max(added, self._written_cycles(k, rows, columns))

    def _window_cycles(self, k: int, rows: Taps, columns: Taps, of_tap: int) -> int:
        lines = -(-k // self._config.line_bytes)
        asked = rows.inside * (columns.inside * of_tap + columns.before * lines)
        return WindowWalker.latency + asked + rows.before * columns.windows * lines

    def _written_cycles(self, k: int, rows: Taps, columns: Taps) -> int:
        groups = rows.windows * columns.windows * -(-k // self._config.byte_lanes)
        return WindowWalker.latency + self._parts * groups

    def elaborate(self, platform):
        m = Module()
        config, lanes = self._config, self._lanes
        unit = Signal(Unit)
        go = Signal()
        m.submodules.decoder = decoder = CommandDecoder(config)
        m.submodules.a = a = GroupSource(config)
        m.submodules.b = b = GroupSource(config)
        m.submodules.lanes = EnableInserter(go & (unit == Unit.LANES))(lanes)
        m.submodules.table = table = ByteTable(config)
        m.submodules.walker = walker = WindowWalker(config)
        m.submodules.maximum = maximum = WindowMaximum(config)
        m.submodules.groups = groups = TapGroups(config)
        m.submodules.sums = sums = self._sums
        m.submodules.averages = averages = self._averages
        m.submodules.lines = lines = ChannelLines(config)
        m.submodules.constants = constants = FixedConstants()
        m.submodules.pairs = pairs = BytePairs(config)
        m.submodules.queue = queue = SyncFIFOBuffered(
            width=group_layout(config).size, depth=QUEUE_WORDS
        )
        m.submodules.packer = packer = RowPacker(config)
        connect(m, a.port, flipped(self.a))
        connect(m, b.port, flipped(self.b))
        connect(m, packer.port, flipped(self.y))

        settings = Signal(SETTINGS)
        row_groups = Signal(self._config.count_bits)
        groups_left = Signal(self._config.count_bits)  # of a row
        rows_left = Signal(self._config.count_bits)
        two_sources = Signal()
        start = Signal()
        windows, next_windows = (is_windowed(each) for each in (unit, decoder.unit))
        m.d.comb += [
            decoder.descriptor.eq(self.command.p),
            a.start.p.eq(decoder.a),
            a.start.valid.eq(start),
            b.start.p.eq(decoder.b),
            b.start.valid.eq(start & (decoder.two_sources | (decoder.unit == Unit.TABLE))),
            packer.start.p.eq(decoder.y),
            table.start.eq(start),
            constants.descriptor.eq(self.command.p),
            constants.start.eq(start),
            packer.start.valid.eq(start & ~next_windows),
            walker.start.eq(start & next_windows),
            walker.descriptor.eq(self.command.p),
            sums.start.eq(start & (decoder.unit == Unit.SUMS)),
            sums.descriptor.eq(self.command.p),
            averages.start.eq(start & (decoder.unit == Unit.AVERAGES)),
            averages.descriptor.eq(self.command.p),
        ]
        # Of an image, all windows of a line of channels are written before those of the next.
        job, line = walker.job, lines.o.p
        size = byte_size(config)
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
                *row_of_bytes(packer.start.p, line.size, size),
            ]
        with m.If(sums.matrices.valid):
            m.d.comb += [b.start.valid.eq(1), b.start.p.eq(sums.matrices.p)]
        connect(m, walker.bursts, a.bursts)

        # From the sources through the lanes, or what stands beside them, to the packer.
        enter, other = Signal(), Signal()
        connect(m, walker.tags, groups.tags)
        m.d.comb += [
            enter.eq(go & a.o.valid & other),
            a.o.ready.eq(go & other),
            table.table.p.eq(b.o.p),
            table.table.valid.eq(b.o.valid & (unit == Unit.TABLE)),
            groups.valid.eq(enter & windows),
            a.ends.eq(windows & groups.o.tap_ends),
            *(each.group.eq(groups.o) for each in (maximum, sums, averages)),
            averages.terms.eq(pairs.terms),
            maximum.is_signed.eq(job.x_int8),
            sums.words.p.eq(b.o.p),
            sums.words.valid.eq(b.o.valid & (unit == Unit.SUMS)),
            pairs.constants.eq(constants.o),
            pairs.second.eq(bytes_of(b.o.p, size)),
            lanes.settings.eq(settings),
            lanes.valid.eq(enter),
            lanes.a.eq(bytes_of(a.o.p, FLOAT_SIZE)),
            lanes.b.eq(bytes_of(b.o.p, FLOAT_SIZE)),
            lanes.last.eq(groups_left == 1),
            packer.i.p.eq(queue.r_data),
            packer.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(packer.i.ready),
        ]
        # What an element needs beside itself, who takes b, and who makes the output.
        both, tagged = b.o.valid | ~two_sources, walker.tags.valid
        beside = (
            (Unit.TABLE, table, 1, table.table.ready),
            (Unit.MAXIMUM, maximum, tagged, 0),
            (Unit.PAIRS, pairs, both, go & a.o.valid),
            (Unit.SUMS, sums, tagged & sums.accepts, sums.words.ready),
            (Unit.AVERAGES, averages, tagged & averages.accepts, 0),
        )
        m.d.comb += [each.i.eq(bytes_of(a.o.p, size)) for _, each, *_ in beside]
        with m.Switch(unit):
            for name, each, needs, takes_b in beside:
                with m.Case(name):
                    m.d.comb += [
                        other.eq(needs),
                        b.o.ready.eq(takes_b),
                        each.enable.eq(go),
                        each.valid.eq(enter),
                        queue.w_data.eq(group_of(each.o, size, config)),
                        queue.w_en.eq(each.o_valid & go),
                    ]
            with m.Default():
                m.d.comb += [
                    other.eq(both & lanes.accepts),
                    b.o.ready.eq(go & a.o.valid & lanes.accepts),
                    queue.w_data.eq(group_of(Value.cast(lanes.o), FLOAT_SIZE, config)),
                    queue.w_en.eq(lanes.o_valid & go),
                ]
        # What an AVERAGE adds up comes out of lanes of pairs.
        with m.If(unit == Unit.AVERAGES):
            m.d.comb += pairs.enable.eq(go)
        with m.If(enter):
            m.d.sync += groups_left.eq(groups_left - 1)
            with m.If(lanes.last):
                m.d.sync += [groups_left.eq(row_groups), rows_left.eq(rows_left - 1)]

        works = Mux(unit == Unit.AVERAGES, averages.busy, sums.busy)
        takes_turns = (unit == Unit.LANES) & ~lanes.accepts
        read = Signal()  # all there is
        m.d.comb += read.eq(Mux(windows, walker.idle, rows_left == 0))
        refused = self.y.request.valid & ~self.y.request.ready
        m.d.comb += self.result.p.status.eq(Status.OK)
        with m.If((unit == Unit.SUMS) & sums.bad):
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
                        settings.eq(decoder.settings),
                        unit.eq(decoder.unit),
                        two_sources.eq(decoder.two_sources),
                        row_groups.eq(decoder.groups),
                        groups_left.eq(decoder.groups),
                        rows_left.eq(decoder.y.rows),
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
                ready = table.whole | (unit != Unit.TABLE)
                m.d.sync += go.eq((queue.level <= QUEUE_WORDS - 2) & packer.busy & ready)
                with m.If(refused):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.Elif(enter | table.loads | walker.skips | works | read | takes_turns):
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
