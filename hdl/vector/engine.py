"""The vector engine: element-wise work on matrices, one pass over memory a command."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, enum, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out, connect, flipped
from amaranth.utils import exact_log2

from halfdome.hdl.commands import (
    TABLE_BYTES,
    ElementFormat,
    Flag,
    Opcode,
    Status,
    fields,
    layout,
)
from halfdome.hdl.config import CardConfig
from halfdome.hdl.engine import Activity, engine_members
from halfdome.hdl.memory.port import ReadPort, WritePort
from halfdome.hdl.once import EnableInserter
from halfdome.hdl.vector.fixed import FixedConstants
from halfdome.hdl.vector.lanes import SETTINGS, VectorLanes
from halfdome.hdl.vector.lookup import ByteTable
from halfdome.hdl.vector.maximum import WindowMaximum
from halfdome.hdl.vector.packer import RowPacker
from halfdome.hdl.vector.pairs import BytePairs
from halfdome.hdl.vector.source import GroupSource
from halfdome.hdl.vector.unit import WORDS, byte_size, bytes_of, group_of
from halfdome.hdl.vector.walker import Taps, WindowWalker

_QUEUE_WORDS = 4


class Unit(enum.Enum, shape=2):
    """What the groups of a command pass."""

    LANES = 0
    TABLE = 1
    MAXIMUM = 2
    PAIRS = 3


_BESIDE = {
    Opcode.LOOKUP: Unit.TABLE, Opcode.POOL: Unit.MAXIMUM, Opcode.ADD_QUANTISED: Unit.PAIRS,
    Opcode.MULTIPLY_QUANTISED: Unit.PAIRS,
}  # fmt: skip
"""Commands that do not pass the lanes."""


def element_size(element: Value) -> Value:
    """log2 of an element's bytes."""
    half = element == ElementFormat.FLOAT16
    return Mux(half, 1, Mux(element > ElementFormat.FLOAT16, 2, 0))


class VectorEngine(wiring.Component):
    """Every command of `Engine.VECTOR`: those of any format through fp32 lanes, with a function and
    a reduction of rows; those of bytes alone through a unit beside the lanes.

    Exact as `halfdome.sim.golden.vector`, `pool` and `pairs`. Only the bytes of the output's rows
    are written. Groups of `elements` elements flow from the sources to the packer; what they pass
    stands still while the packer cannot take what leaves it. An element is written after
    everything up to it, in reading order, has been read. The table of a LOOKUP comes first,
    through `b`.

    Members
    -------
    command, result, activity : `engine_members()`; descriptors of `Engine.VECTOR`
    a, b : Out(ReadPort), the inputs
    y : Out(WritePort), the output

    Throughput: `elements` elements a cycle while memory keeps up, whatever the formats; a row takes
    at least one cycle more than it has lines (`cycles()`). The last source word of an output
    word reaches `a` `latency` cycles before `y` offers the output word; `VectorLanes` tells what
    tables and reductions add. LOOKUP, ADD_QUANTISED and MULTIPLY_QUANTISED: `byte_lanes` elements a
    cycle, once the table is there (`lookup_cycles()`, `pair_cycles()`), `lookup_latency` or
    `pair_latency` cycles later. POOL: a word of a tap a cycle (`pool_cycles()`); an output word is
    offered `pool_latency` cycles after its window's last.
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self.elements = config.bus_bytes // 4
        self._lanes = VectorLanes(self.elements)
        # Two cycles through the reader's queue, two through the one in front of the packer.
        around = 2 + 2 + RowPacker.latency
        self.latency = around + self._lanes.latency
        later = config.byte_word_cycles - 1  # the last bytes of a word
        self.lookup_latency = around + ByteTable.latency + later
        self.pair_latency = around + BytePairs.latency + later
        self.pool_latency = around + WindowMaximum.latency
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
        return self._cycles(rows, columns * widest.nbytes, -(-columns // self.elements))

    def pair_cycles(self, rows: int, columns: int) -> int:
        """`cycles()` of an ADD_QUANTISED or MULTIPLY_QUANTISED."""
        return self._cycles(rows, columns, -(-columns // self._config.byte_lanes))

    def lookup_cycles(self, rows: int, columns: int) -> int:
        """`cycles()` of a LOOKUP, its table included; fewer where lines wait for the table."""
        return ByteTable.load_cycles + self.pair_cycles(rows, columns)

    def pool_cycles(self, k: int, rows: Taps, columns: Taps) -> int:
        """`cycles()` of a POOL, at most: fewer where what lies outside is left out meanwhile."""
        words = -(-k // self._config.bus_bytes)
        lines = -(-words // self._config.burst_words)
        asked = rows.inside * (columns.inside * words + columns.before * lines)
        return WindowWalker.latency + asked + rows.before * columns.windows * lines

    def _cycles(self, rows: int, row_bytes: int, groups: int) -> int:
        return rows * max(groups, -(-row_bytes // self._config.line_bytes) + 1)

    def elaborate(self, platform):
        m = Module()
        config, lanes = self._config, self._lanes
        go = Signal()
        unit, next_unit = Signal(Unit), Signal(Unit)
        m.submodules.a = a = GroupSource(config)
        m.submodules.b = b = GroupSource(config)
        m.submodules.lanes = EnableInserter(go & (unit == Unit.LANES))(lanes)
        m.submodules.table = table = ByteTable(config)
        m.submodules.walker = walker = WindowWalker(config)
        m.submodules.maximum = maximum = WindowMaximum(config)
        m.submodules.constants = constants = FixedConstants()
        m.submodules.pairs = pairs = BytePairs(config)
        m.submodules.queue = queue = SyncFIFOBuffered(width=32 * self.elements, depth=_QUEUE_WORDS)
        m.submodules.packer = packer = RowPacker(config)
        connect(m, a.port, flipped(self.a))
        connect(m, b.port, flipped(self.b))
        connect(m, packer.port, flipped(self.y))

        command = data.View(layout(fields(Opcode.AFFINE)), self.command.p)
        settings, next_settings = Signal(SETTINGS), Signal(SETTINGS)
        groups, next_groups = Signal(32), Signal(32)
        groups_left = Signal(32)  # of a row
        rows_left = Signal(32)
        two_sources, next_two = Signal(), Signal()
        start = Signal()
        with m.Switch(command.opcode):
            for opcode, beside in _BESIDE.items():
                with m.Case(opcode):
                    m.d.comb += next_unit.eq(beside)
        m.d.comb += [
            *self._settings(next_settings, command),
            a.start.valid.eq(start),
            b.start.valid.eq(start & (next_two | (next_unit == Unit.TABLE))),
            table.start.eq(start),
            constants.descriptor.eq(self.command.p),
            constants.start.eq(start),
            packer.start.valid.eq(start & (next_unit != Unit.MAXIMUM)),
            walker.start.eq(start & (next_unit == Unit.MAXIMUM)),
            walker.descriptor.eq(self.command.p),
        ]
        self._prepare(m, next_unit, next_two, next_groups, a.start.p, b.start.p, packer.start.p)
        job = walker.job
        with m.If(walker.known):
            m.d.comb += [
                packer.start.valid.eq(1),
                packer.start.p.address.eq(job.y),
                packer.start.p.stride.eq(job.y_stride),
                packer.start.p.rows.eq(job.rows),
                *_bytes(packer.start.p, job.k, WORDS),
            ]
        connect(m, walker.bursts, a.bursts)
        connect(m, walker.tags, maximum.tags)

        # From the sources through the lanes, or what stands beside them, to the packer.
        enter, other = Signal(), Signal()
        size = byte_size(config)
        beside = {
            Unit.TABLE: (table, size), Unit.MAXIMUM: (maximum, WORDS), Unit.PAIRS: (pairs, size),
        }  # fmt: skip
        m.d.comb += [
            # What an element needs beside itself.
            other.eq(Mux(unit == Unit.MAXIMUM, maximum.tags.valid, b.o.valid | ~two_sources)),
            enter.eq(go & a.o.valid & other),
            a.o.ready.eq(go & other),
            b.o.ready.eq(Mux(unit == Unit.TABLE, table.table.ready, go & a.o.valid)),
            table.table.p.eq(b.o.p),
            table.table.valid.eq(b.o.valid & (unit == Unit.TABLE)),
            maximum.is_signed.eq(job.x_int8),
            pairs.constants.eq(constants.o),
            pairs.second.eq(bytes_of(b.o.p, size)),
            lanes.settings.eq(settings),
            lanes.valid.eq(enter),
            lanes.a.eq(a.o.p),
            lanes.b.eq(b.o.p),
            lanes.last.eq(groups_left == 1),
            packer.i.p.eq(queue.r_data),
            packer.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(packer.i.ready),
        ]
        with m.Switch(unit):
            for name, (each, group_size) in beside.items():
                m.d.comb += each.i.eq(bytes_of(a.o.p, group_size))
                with m.Case(name):
                    m.d.comb += [
                        each.enable.eq(go),
                        each.valid.eq(enter),
                        queue.w_data.eq(group_of(each.o, group_size)),
                        queue.w_en.eq(each.o_valid & go),
                    ]
            with m.Default():
                m.d.comb += [queue.w_data.eq(lanes.o), queue.w_en.eq(lanes.o_valid & go)]
        with m.If(enter):
            m.d.sync += groups_left.eq(groups_left - 1)
            with m.If(lanes.last):
                m.d.sync += [groups_left.eq(groups), rows_left.eq(rows_left - 1)]

        read = Signal()  # all there is
        m.d.comb += read.eq(Mux(unit == Unit.MAXIMUM, walker.idle, rows_left == 0))
        refused = self.y.request.valid & ~self.y.request.ready
        m.d.comb += self.result.p.status.eq(Status.OK)
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
                        unit.eq(next_unit),
                        two_sources.eq(next_two),
                        groups.eq(next_groups),
                        groups_left.eq(next_groups),
                        rows_left.eq(command.rows),
                    ]
                    m.next = "RUN"
                    with m.If(next_unit == Unit.MAXIMUM):
                        m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.comb += self.activity.eq(Activity.BUSY)
                with m.If(walker.known):
                    m.next = "RUN"
            with m.State("RUN"):
                # A word may leave the lanes in this cycle and the next.
                ready = table.whole | (unit != Unit.TABLE)
                m.d.sync += go.eq((queue.level <= _QUEUE_WORDS - 2) & packer.busy & ready)
                with m.If(refused):
                    m.d.comb += self.activity.eq(Activity.BLOCKED)
                with m.Elif(enter | table.loads | walker.skips | read):
                    m.d.comb += self.activity.eq(Activity.BUSY)
                with m.Else():
                    m.d.comb += self.activity.eq(Activity.STARVED)
                with m.If(~packer.busy):
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

    def _settings(self, settings, command) -> list:
        """What the lanes do."""
        second = data.View(layout(fields(Opcode.ADD)), self.command.p)
        beyond = command.columns[: exact_log2(self.elements)]
        same = (
            "function", "a_format", "a_zero_point", "y_format", "y_zero_point", "multiplier",
        )  # fmt: skip
        return [
            settings.opcode.eq(command.opcode),
            settings.sum.eq(command.flags & Flag.SUM != 0),
            settings.max.eq(command.flags & Flag.MAX != 0),
            settings.first.eq(command.scale),
            settings.second.eq(command.shift),
            settings.tail.eq(Mux(beyond.any(), beyond, self.elements)),
            *(settings[name].eq(command[name]) for name in same),
            settings.b_format.eq(second.b_format),
            settings.b_zero_point.eq(second.b_zero_point),
        ]

    def _prepare(self, m, unit, two_sources, groups, a, b, y) -> None:
        """What a command reads and writes, and in which groups."""
        config = self._config
        command, second, lookup, pair = (
            data.View(layout(fields(opcode)), self.command.p)
            for opcode in (Opcode.AFFINE, Opcode.ADD, Opcode.LOOKUP, Opcode.ADD_QUANTISED)
        )
        reduces = (command.flags & (Flag.SUM | Flag.MAX)).any()
        m.d.comb += [
            two_sources.eq((command.opcode == Opcode.ADD) | (command.opcode == Opcode.MULTIPLY)),
            groups.eq(_units(command.columns, self.elements)),
            *self._matrix(a, command.a, command.a_stride, command),
            *self._elements(a, element_size(command.a_format), command.columns),
            a.groups.eq(groups),
            *self._matrix(b, second.b, second.b_stride, command),
            b.hold.eq(command.flags & Flag.BROADCAST != 0),
            *self._elements(b, element_size(second.b_format), command.columns),
            b.groups.eq(groups),
            y.address.eq(command.y),
            y.stride.eq(command.y_stride),
            y.rows.eq(command.rows),
            y.columns.eq(Mux(reduces, 1, command.columns)),
            y.size.eq(element_size(Value.cast(command.y_format))),
        ]
        size = byte_size(config)
        with m.If((unit == Unit.TABLE) | (unit == Unit.PAIRS)):
            m.d.comb += [
                groups.eq(_units(command.columns, config.byte_lanes)),
                *_bytes(y, command.columns, size),
                a.words.eq(_units(command.columns, config.bus_bytes)),
                a.size.eq(size),
            ]
        table_words = TABLE_BYTES // config.bus_bytes
        with m.Switch(unit):
            with m.Case(Unit.TABLE):
                m.d.comb += [
                    b.address.eq(lookup.table),
                    b.rows.eq(1),
                    b.groups.eq(table_words),
                    b.words.eq(table_words),
                    b.size.eq(WORDS),
                ]
            with m.Case(Unit.PAIRS):
                m.d.comb += [
                    two_sources.eq(1),
                    b.address.eq(pair.b),
                    b.stride.eq(pair.b_stride),
                    b.words.eq(Mux(b.hold, 1, a.words)),
                    b.size.eq(Mux(b.hold, 0, size)),
                ]
            with m.Case(Unit.MAXIMUM):
                m.d.comb += [a.size.eq(WORDS), a.rows.eq(0)]

    def _matrix(self, source, address, stride, command) -> list:
        """Where a source's rows lie."""
        return [source.address.eq(address), source.stride.eq(stride), source.rows.eq(command.rows)]

    def _elements(self, source, size, columns) -> list:
        """What a row of a source is made of; of one element if it is held."""
        words = _units(columns << size, self._config.bus_bytes)
        return [source.size.eq(size), source.words.eq(Mux(source.hold, 1, words))]


def _units(count: Value, unit: int) -> Value:
    """How many units so many begin, of a number that is a power of two."""
    return (count + (unit - 1)) >> exact_log2(unit)


def _bytes(target: data.View, columns: Value, size: int) -> list:
    """Rows of so many bytes, as the packer takes them in elements of `1 << size` bytes."""
    return [
        target.size.eq(size),
        target.columns.eq(_units(columns, 1 << size)),
        target.beyond.eq((-columns)[:size] if size else 0),
    ]
