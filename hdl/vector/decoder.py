"""What a vector command asks of the parts of the engine."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.commands import TABLE_BYTES, ElementFormat, Flag, Function, Opcode
from halfdome.hdl.config import CardConfig
from halfdome.hdl.descriptors import fields, layout
from halfdome.hdl.engine import DESCRIPTOR_BITS
from halfdome.hdl.vector import packer, source
from halfdome.hdl.vector.lanes import SETTINGS
from halfdome.hdl.vector.unit import byte_size, word_size


class Unit(enum.Enum, shape=3):
    """What the groups of a command pass."""

    LANES = 0
    TABLE = 1
    MAXIMUM = 2
    PAIRS = 3
    SUMS = 4
    AVERAGES = 5


_BESIDE = {
    Opcode.LOOKUP: Unit.TABLE, Opcode.POOL: Unit.MAXIMUM, Opcode.ADD_QUANTISED: Unit.PAIRS,
    Opcode.MULTIPLY_QUANTISED: Unit.PAIRS, Opcode.DEPTHWISE: Unit.SUMS,
    Opcode.AVERAGE: Unit.AVERAGES,
}  # fmt: skip
"""Commands that do not pass the lanes."""


def is_windowed(unit: Signal) -> Value:
    """Whether the elements of a command are those of windows of an image."""
    return (unit == Unit.MAXIMUM) | (unit == Unit.SUMS) | (unit == Unit.AVERAGES)


def row_of_bytes(matrix: data.View, columns: Value, size: int) -> list:
    """Rows of so many bytes, as the packer takes them in elements of `1 << size` bytes."""
    return [
        matrix.size.eq(size),
        matrix.columns.eq(_begun(columns, 1 << size)),
        matrix.beyond.eq((-columns)[:size] if size else 0),
    ]


def _begun(count: Value, unit: int) -> Value:
    """How many units so many begin; a unit is a power of two."""
    return (count + (unit - 1)) >> exact_log2(unit)


def _element_size(element: Value) -> Value:
    """log2 of an element's bytes."""
    half = element == ElementFormat.FLOAT16
    return Mux(half, 1, Mux(element > ElementFormat.FLOAT16, 2, 0))


class CommandDecoder(wiring.Component):
    """Combinational.

    Members
    -------
    descriptor : In(512)
    unit : Out(Unit), what it passes
    settings : Out(`SETTINGS`), what the lanes do
    two_sources : Out(1), every group of a goes with one of b
    groups : Out(config.count_bits), groups of a row
    a, b : Out(`source.matrix_layout`), what is read. Of the windows of an image, nothing
    y : Out(`packer.matrix_layout`), what is written, but for windows
    """

    def __init__(self, config: CardConfig):
        self._config = config
        self._elements = config.vector_lanes
        super().__init__(
            {
                "descriptor": In(DESCRIPTOR_BITS),
                "unit": Out(Unit),
                "settings": Out(SETTINGS),
                "two_sources": Out(1),
                "groups": Out(config.count_bits),
                "a": Out(source.matrix_layout(config)),
                "b": Out(source.matrix_layout(config)),
                "y": Out(packer.matrix_layout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, a, b, y = self._config, self.a, self.b, self.y
        # Fields that all commands of matrices have or most, and those of some.
        command, second, lookup, pair = (
            data.View(layout(fields(opcode)), self.descriptor)
            for opcode in (Opcode.AFFINE, Opcode.ADD, Opcode.LOOKUP, Opcode.ADD_QUANTISED)
        )
        with m.Switch(command.opcode):
            for opcode, unit in _BESIDE.items():
                with m.Case(opcode):
                    m.d.comb += self.unit.eq(unit)
        reduces = (command.flags & (Flag.SUM | Flag.MAX)).any()
        m.d.comb += [
            self.two_sources.eq(
                (command.opcode == Opcode.ADD) | (command.opcode == Opcode.MULTIPLY)
            ),
            self.groups.eq(_begun(command.columns, self._elements)),
            *self._settings(command, second),
            *self._read(a, command.a, command.a_stride, command.a_format, command),
            *self._read(b, second.b, second.b_stride, second.b_format, command),
            b.hold.eq((command.flags & int(Flag.BROADCAST)).any()),
            y.address.eq(command.y),
            y.stride.eq(command.y_stride),
            y.rows.eq(command.rows),
            y.columns.eq(Mux(reduces, 1, command.columns)),
            y.size.eq(_element_size(Value.cast(command.y_format))),
        ]
        size = byte_size(config)
        with m.If((self.unit == Unit.TABLE) | (self.unit == Unit.PAIRS)):
            m.d.comb += [
                self.groups.eq(_begun(command.columns, config.byte_lanes)),
                a.words.eq(_begun(command.columns, config.bus_bytes)),
                a.size.eq(size),
                *row_of_bytes(y, command.columns, size),
            ]
        table_words = TABLE_BYTES // config.bus_bytes
        with m.Switch(self.unit):
            with m.Case(Unit.TABLE):
                m.d.comb += [
                    b.address.eq(lookup.table),
                    b.rows.eq(1),
                    b.groups.eq(table_words),
                    b.words.eq(table_words),
                    b.size.eq(word_size(config)),
                ]
            with m.Case(Unit.PAIRS):
                m.d.comb += [
                    self.two_sources.eq(1),
                    b.address.eq(pair.b),
                    b.stride.eq(pair.b_stride),
                    b.words.eq(Mux(b.hold, 1, a.words)),
                    b.size.eq(Mux(b.hold, 0, size)),
                ]
            with m.Case(Unit.MAXIMUM, Unit.SUMS, Unit.AVERAGES):
                m.d.comb += [a.size.eq(size), a.rows.eq(0), a.groups.eq(0)]
        return m

    def _settings(self, command, second) -> list:
        settings = self.settings
        beyond = command.columns[: exact_log2(self._elements)]
        same = (
            "opcode", "a_format", "a_zero_point", "y_format", "y_zero_point", "multiplier",
        )  # fmt: skip
        return [
            *(settings[name].eq(command[name]) for name in same),
            # A QUANTISE has no function, and its scale where others have their multiplier.
            settings.function.eq(
                Mux(command.opcode == Opcode.QUANTISE, Function.IDENTITY, command.function)
            ),
            settings.b_format.eq(second.b_format),
            settings.b_zero_point.eq(second.b_zero_point),
            settings.sum.eq((command.flags & int(Flag.SUM)).any()),
            settings.max.eq((command.flags & int(Flag.MAX)).any()),
            settings.first.eq(command.scale),
            settings.second.eq(command.shift),
            settings.tail.eq(Mux(beyond.any(), beyond, self._elements)),
        ]

    def _read(self, matrix, address, stride, element, command) -> list:
        """A matrix of any format; of a held one, its first elements."""
        size = _element_size(element)
        words = _begun(command.columns << size, self._config.bus_bytes)
        return [
            matrix.address.eq(address),
            matrix.stride.eq(stride),
            matrix.rows.eq(command.rows),
            matrix.groups.eq(self.groups),
            matrix.size.eq(size),
            matrix.words.eq(Mux(matrix.hold, 1, words)),
        ]
