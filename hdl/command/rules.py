"""What a good descriptor must satisfy, as tables over its bits.

The rules stand in the order in which the checker reports them: header; then, per command, formats,
dimensions, strides too small for their rows, alignment. A stride of a single row is irrelevant.
Ranges and then overlaps come last: see `operands`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from amaranth import Cat, Const, Value, ValueLike
from amaranth.lib import data, enum
from amaranth.utils import exact_log2

from hdl.commands import (
    FLAGS,
    HEADER,
    MATMUL_LIMIT,
    NO_COUNTER,
    ElementFormat,
    Flag,
    Function,
    IndexMode,
    Opcode,
    RowFormat,
    Status,
    fields,
    layout,
    offset,
)
from hdl.config import CardConfig

MOVES = (Opcode.LOAD, Opcode.COPY, Opcode.STORE)
VECTOR = (Opcode.AFFINE, Opcode.ADD, Opcode.MULTIPLY, Opcode.CLAMP)


class Rule(NamedTuple):
    """If `broken`, the descriptor ends with `status` and `detail`, unless an earlier rule did."""

    broken: Value
    status: Status
    detail: ValueLike


class Access(enum.Enum, shape=2):
    """What a command does with an operand, as far as overlaps are looked at."""

    READ = 0
    #: The operand comes first; no other may overlap it.
    WRITE = 1
    #: Likewise, but the rows of another may be overwritten with rows as long or shorter.
    WRITE_IN_PLACE = 2


class Operand(NamedTuple):
    """`steps * stride + tail` bytes from card address `base`; not looked at unless `needed`."""

    base: ValueLike
    steps: ValueLike
    stride: ValueLike
    tail: ValueLike
    needed: ValueLike
    detail: int
    access: Access = Access.READ


def view(opcode: Opcode, descriptor: Value) -> data.View:
    """The descriptor's bits as the fields of a command."""
    return data.View(layout(fields(opcode)), descriptor)


def rules(descriptor: Value, config: CardConfig) -> list[Rule]:
    """Every rule but the ranges, in order of precedence."""
    return [
        *_header_rules(descriptor, config),
        *_move_rules(descriptor, config),
        *_signal_rules(descriptor),
        *_gather_rules(descriptor, config),
        *_matmul_rules(descriptor, config),
        *(rule for opcode in VECTOR for rule in _vector_rules(opcode, descriptor, config)),
    ]


def is_one_of(value: Value, choices) -> Value:
    """Whether `value` is among some integers."""
    return Cat(value == int(choice) for choice in choices).any()


def _header_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    header = data.View(layout(HEADER), descriptor)

    def at(name: str) -> int:
        return offset(Opcode.LOAD, name)  # the header is the same in every command

    yield Rule(~is_one_of(header.opcode, Opcode), Status.BAD_OPCODE, header.opcode)
    yield Rule(header.core >= config.cores, Status.BAD_CORE, at("core"))
    known = Cat(
        is_one_of(header.opcode, [opcode for opcode, flags in FLAGS.items() if flags >> bit & 1])
        for bit in range(8)
    )
    yield Rule((header.flags & ~known).any(), Status.BAD_FORMAT, at("flags"))
    for name in ("wait_counter", "signal_counter"):
        index = header[name]
        bad = (index >= config.counters) & (index != NO_COUNTER)
        yield Rule(bad, Status.BAD_COUNTER, at(name))
    yield Rule(header.reserved.any(), Status.BAD_FORMAT, at("reserved"))


class _Rules:
    """Builds the rules of one command: each holds only when the opcode matches."""

    def __init__(self, descriptor: Value, opcodes: tuple[Opcode, ...]):
        self._opcode = opcodes[0]
        self._applies = is_one_of(descriptor[:8], opcodes)

    def __call__(self, broken: Value, status: Status, name: str) -> Rule:
        return Rule(self._applies & broken, status, offset(self._opcode, name))


def _misaligned(address: Value, unit: int) -> Value:
    return address[: exact_log2(unit)].any()


def _move_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, MOVES), view(Opcode.LOAD, descriptor)
    many = v.rows > 1
    for name in ("rows", "row_bytes"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    strides = ("source_stride", "destination_stride")
    for name in strides:
        yield rule(many & (v[name] < v.row_bytes), Status.BAD_DIMENSION, name)
    for name in ("source", "destination"):
        yield rule(_misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)
    for name in strides:
        yield rule(many & _misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)


def _signal_rules(descriptor: Value) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.SIGNAL,)), view(Opcode.SIGNAL, descriptor)
    yield rule(_misaligned(v.address, 4), Status.BAD_ALIGNMENT, "address")


def _row_size(v: data.View) -> Value:
    """Bytes of an embedding row with its scale and bias."""
    return _select(v.format == RowFormat.INT8, v.dim + 8, ((v.dim + 1) >> 1) + 4)


def _select(condition: Value, yes: Value, no: Value) -> Value:
    width = max(len(yes), len(no))
    mask = condition.replicate(width)
    return ((yes & mask) | (no & ~mask))[:width]


def _gather_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.GATHER,)), view(Opcode.GATHER, descriptor)
    weighted, many_bags = v.flags[0], v.bags > 1
    yield rule(~is_one_of(v.format, RowFormat), Status.BAD_FORMAT, "format")
    yield rule(~is_one_of(v.mode, IndexMode), Status.BAD_FORMAT, "mode")
    for name in ("rows", "bags"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    yield rule((v.dim == 0) | (v.dim > config.max_dim), Status.BAD_DIMENSION, "dim")
    too_small = (v.rows > 1) & (v.row_stride < _row_size(v))
    yield rule(too_small, Status.BAD_DIMENSION, "row_stride")
    too_small = many_bags & (v.output_stride < v.dim << 2)
    yield rule(too_small, Status.BAD_DIMENSION, "output_stride")
    for name in ("indices", "lengths", "weights", "output"):
        needed = weighted if name == "weights" else 1
        bad = needed & _misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)
    bad = many_bags & _misaligned(v.output_stride, config.bus_bytes)
    yield rule(bad, Status.BAD_ALIGNMENT, "output_stride")


def _matmul_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.MATMUL,)), view(Opcode.MATMUL, descriptor)
    many = v.m > 1
    for name in ("m", "k", "n"):
        yield rule((v[name] == 0) | (v[name] > MATMUL_LIMIT), Status.BAD_DIMENSION, name)
    for name, size in (("x_stride", v.k), ("y_stride", v.n)):
        yield rule(many & (v[name] < size), Status.BAD_DIMENSION, name)
    for name in ("x", "w", "params", "y"):
        yield rule(_misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)
    for name in ("x_stride", "y_stride"):
        yield rule(many & _misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)


def _has_second(opcode: Opcode) -> bool:
    """Whether a vector command has an input b."""
    return any(field.name == "b" for field in fields(opcode))


def _log2_size(element: Value) -> Value:
    """log2 of the bytes of an element of some format."""
    wide = is_one_of(element, (ElementFormat.FLOAT32, ElementFormat.INT32))
    return Cat(element == ElementFormat.FLOAT16, wide)


def _vector_row_bytes(opcode: Opcode, v: data.View) -> dict[str, Value]:
    """Bytes of a row of each operand of a vector command, in the order they are checked."""
    reduced = v.flags & (Flag.SUM | Flag.MAX) != 0
    columns = {"y": _select(reduced, Const(1), v.columns), "a": v.columns}
    if _has_second(opcode):
        columns["b"] = _select(v.flags & Flag.BROADCAST != 0, Const(1), v.columns)
    return {
        name: (count << _log2_size(v[f"{name}_format"]))[:34] for name, count in columns.items()
    }


def _not_finite(x: Value) -> Value:
    return x[23:31].all()


def _order(x: Value) -> Value:
    """An unsigned number that orders fp32 as their values, -0 below +0."""
    return Cat(x[:-1] ^ x[-1].replicate(31), ~x[-1])


def _vector_rules(opcode: Opcode, descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (opcode,)), view(opcode, descriptor)
    both = Flag.SUM | Flag.MAX
    many = v.rows > 1
    row_bytes = _vector_row_bytes(opcode, v)

    yield rule((v.flags & both) == both, Status.BAD_FORMAT, "flags")
    for name in (f.name for f in fields(opcode)):
        match name:
            case "multiplier" | "scale":
                broken = _not_finite(v[name]) | ~v[name][:31].any()
            case "shift":
                broken = _not_finite(v[name])
            case "low":
                broken = _not_finite(v[name]) & v[name][:23].any()
            case "high":
                broken = _not_finite(v[name]) & v[name][:23].any()
                broken |= _order(v.high) < _order(v.low)
            case "function":
                broken = ~is_one_of(v[name], Function)
            case "y_format":
                broken = ~is_one_of(v[name], set(ElementFormat) - {ElementFormat.INT32})
            case "a_format" | "b_format":
                broken = ~is_one_of(v[name], ElementFormat)
            case _:
                continue
        yield rule(broken, Status.BAD_FORMAT, name)
    for name in ("rows", "columns"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    for name, size in row_bytes.items():
        short = v[f"{name}_stride"] < size
        if name == "b":
            short &= v.b_stride != 0
        yield rule(many & short, Status.BAD_DIMENSION, f"{name}_stride")
    for name in row_bytes:
        yield rule(_misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)
    for name in (f"{operand}_stride" for operand in row_bytes):
        yield rule(many & _misaligned(v[name], config.bus_bytes), Status.BAD_ALIGNMENT, name)


def operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What each command reads and writes in card memory, in the order it is checked."""

    def operand(opcode, name, steps, stride, tail, needed=1, access=Access.READ):
        base = view(opcode, descriptor)[name]
        return Operand(base, steps, stride, tail, needed, offset(opcode, name), access)

    def rows(opcode, name, count, stride, tail, access=Access.READ):
        return operand(opcode, name, (count - 1)[:32], stride, tail, access=access)

    def run(opcode, name, tail, needed=1):
        return operand(opcode, name, 0, 0, tail, needed)

    move, gather = view(Opcode.LOAD, descriptor), view(Opcode.GATHER, descriptor)
    matmul = view(Opcode.MATMUL, descriptor)
    weighted, indexed = gather.flags[0], gather.index_count.any()
    # k_tiles * (n_tiles * weight_tile_bytes); both factors fit the multiplier's 32 bits.
    k_tiles = (matmul.k[:16] + config.array_rows - 1) >> exact_log2(config.array_rows)
    n_tiles = (matmul.n[:16] + config.array_columns - 1) >> exact_log2(config.array_columns)
    tile_row = n_tiles << exact_log2(config.weight_tile_bytes)

    def moved(opcode, *names):
        return [
            rows(opcode, name, move.rows, move[f"{name}_stride"], move.row_bytes) for name in names
        ]

    def elements(opcode):
        v = view(opcode, descriptor)
        return [
            rows(opcode, name, v.rows, v[f"{name}_stride"], size,
                 Access.WRITE_IN_PLACE if name == "y" else Access.READ)
            for name, size in _vector_row_bytes(opcode, v).items()
        ]  # fmt: skip

    op = Opcode
    return {
        op.LOAD: moved(op.LOAD, "destination"),
        op.COPY: moved(op.COPY, "source", "destination"),
        op.STORE: moved(op.STORE, "source"),
        op.GATHER: [
            rows(op.GATHER, "table", gather.rows, gather.row_stride, _row_size(gather)),
            run(op.GATHER, "indices", gather.index_count << 2, indexed),
            run(op.GATHER, "lengths", gather.bags << 2),
            run(op.GATHER, "weights", gather.index_count << 2, indexed & weighted),
            rows(op.GATHER, "output", gather.bags, gather.output_stride, gather.dim << 2),
        ],
        op.MATMUL: [
            rows(op.MATMUL, "x", matmul.m, matmul.x_stride, matmul.k),
            operand(op.MATMUL, "w", k_tiles, tile_row, 0),
            run(op.MATMUL, "params", matmul.n << 3),
            rows(op.MATMUL, "y", matmul.m, matmul.y_stride, matmul.n),
        ],
        **{opcode: elements(opcode) for opcode in VECTOR},
    }  # fmt: skip
