"""What a good descriptor must satisfy, as tables over its bits.

The rules stand in the order in which the checker reports them: header; then, per command, formats,
dimensions, strides too small for their rows, alignment. A stride of a single row is irrelevant.
Ranges and then overlaps come last: see `operands`.
"""

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import or_
from typing import NamedTuple

from amaranth import Cat, Const, Value, ValueLike
from amaranth.lib import data, enum
from amaranth.utils import exact_log2

from halfdome.hdl.arith.format import FLOAT32
from halfdome.hdl.commands import (
    BYTE_FORMATS,
    EXTENSION,
    FLAGS,
    HEADER,
    MATMUL_LIMIT,
    MOST_TAPS,
    MULTIPLIER_EXPONENTS,
    NO_COUNTER,
    OFFSET_LIMIT,
    POOLED_FORMATS,
    PRODUCT_FORMATS,
    RATIO_EXPONENTS,
    TABLE_BYTES,
    TRANSPOSED_BYTES,
    ElementFormat,
    Flag,
    Function,
    Opcode,
    RowFormat,
    Status,
    fields,
    layout,
    offset,
)
from halfdome.hdl.config import CardConfig

MOVES = (Opcode.LOAD, Opcode.COPY, Opcode.STORE)
IMAGE_SIDES = ("height", "width", "k", "out_height", "out_width")
WINDOW_SIDES = tuple(
    f"{name}_{side}" for name in ("kernel", "stride", "dilation") for side in ("height", "width")
)
PADS = {"height": "pad_top", "width": "pad_left"}
PAIRS = (Opcode.ADD_QUANTISED, Opcode.MULTIPLY_QUANTISED)
VECTOR = (Opcode.AFFINE, Opcode.ADD, Opcode.MULTIPLY, Opcode.CLAMP, Opcode.QUANTISE)


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
    #: A command that works in place may not do so here.
    READ_APART = 3


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


def rules(
    descriptor: Value, extension: Value, core: Value, config: CardConfig
) -> list[Rule]:  # fmt: skip
    """Every rule but the ranges, in order of precedence.

    `extension` is the slot behind the descriptor, looked at if there is one.
    """
    return [
        *_header_rules(descriptor, extension, core, config),
        *_move_rules(descriptor, config),
        *_transpose_rules(descriptor, config),
        *_signal_rules(descriptor),
        *_gather_rules(descriptor, config),
        *_matmul_rules(descriptor, config),
        *_batch_matmul_rules(descriptor, config),
        *_conv2d_rules(descriptor, config),
        *(rule for opcode in VECTOR for rule in _vector_rules(opcode, descriptor, config)),
        *_lookup_rules(descriptor, config),
        *_pool_rules(descriptor, config),
        *(rule for opcode in PAIRS for rule in _pair_rules(opcode, descriptor, config)),
        *_depthwise_rules(descriptor, config),
    ]


def is_one_of(value: Value, choices) -> Value:
    """Whether `value` is among some integers."""
    return Cat(value == int(choice) for choice in choices).any()


def _header_rules(
    descriptor: Value, extension: Value, core: Value, config: CardConfig
) -> Iterator[Rule]:  # fmt: skip
    header = data.View(layout(HEADER), descriptor)
    second = data.View(layout(EXTENSION), extension)
    extended = header.extension == 1

    def at(name: str) -> int:
        return offset(Opcode.LOAD, name)  # the header is the same in every command

    yield Rule(~is_one_of(header.opcode, Opcode), Status.BAD_OPCODE, header.opcode)
    yield Rule(header.core != core, Status.BAD_CORE, at("core"))
    known = Cat(
        is_one_of(header.opcode, [opcode for opcode, flags in FLAGS.items() if flags >> bit & 1])
        for bit in range(8)
    )
    yield Rule((header.flags & ~known).any(), Status.BAD_FORMAT, at("flags"))

    def missing(index: Value) -> Value:
        return (index >= config.counters) & (index != NO_COUNTER)

    for name in ("wait_counter", "signal_counter"):
        yield Rule(missing(header[name]), Status.BAD_COUNTER, at(name))
    yield Rule(header.extension > 1, Status.BAD_FORMAT, at("extension"))
    name = "second_wait_counter"
    yield Rule(extended & missing(second[name]), Status.BAD_COUNTER, at(name))
    yield Rule(extended & second.reserved.any(), Status.BAD_FORMAT, at("reserved"))


class _Rules:
    """Builds the rules of one command: each holds only when the opcode matches."""

    def __init__(self, descriptor: Value, opcodes: tuple[Opcode, ...]):
        self._opcode = opcodes[0]
        self._applies = is_one_of(descriptor[:8], opcodes)

    def __call__(self, broken: Value, status: Status, name: str) -> Rule:
        return Rule(self._applies & broken, status, offset(self._opcode, name))


def _has(v: data.View, flag: Flag) -> Value:
    return (v.flags & int(flag)).any()


def _select(condition: Value, yes: Value, no: Value) -> Value:
    width = max(len(yes), len(no))
    mask = condition.replicate(width)
    return ((yes & mask) | (no & ~mask))[:width]


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


def _transposed_rows(v: data.View) -> dict[str, tuple[Value, Value]]:
    """Rows of a matrix on either side of a TRANSPOSE, and the bytes of each."""

    def nbytes(count: Value) -> Value:
        return count << v.element_bytes[1:3]

    return {
        "source": (v.rows, nbytes(v.columns)),
        "destination": (v.columns, nbytes(v.rows)),
    }


def _transpose_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.TRANSPOSE,)), view(Opcode.TRANSPOSE, descriptor)
    known = is_one_of(v.element_bytes, TRANSPOSED_BYTES)
    yield rule(~known, Status.BAD_FORMAT, "element_bytes")
    for name in ("rows", "columns", "batches"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    sides = _transposed_rows(v)
    for name, (rows, size) in sides.items():
        short = (rows > 1) & (v[f"{name}_stride"] < size)
        yield rule(short, Status.BAD_DIMENSION, f"{name}_stride")
    needed = {name: Const(1) for name in sides}
    needed |= {f"{name}_stride": rows > 1 for name, (rows, _) in sides.items()}
    needed |= {f"{name}_batch_stride": v.batches > 1 for name in sides}
    for name, condition in needed.items():
        bad = condition & _misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)


def _signal_rules(descriptor: Value) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.SIGNAL,)), view(Opcode.SIGNAL, descriptor)
    yield rule(_misaligned(v.address, 4), Status.BAD_ALIGNMENT, "address")


def _by_value(value: Value, choices: Mapping[int, Value]) -> Value:
    """The choice for `value`; 0 for a value that has none."""
    width = max(len(choice) for choice in choices.values())
    return reduce(or_, (
        (value == key).replicate(width) & choice for key, choice in choices.items()
    ))  # fmt: skip


def _row_bytes(v: data.View) -> Value:
    """Bytes of an embedding row with its scale and bias."""
    elements = {32: v.dim << 2, 16: v.dim << 1, 8: v.dim, 4: (v.dim + 1) >> 1}
    sizes = {
        int(row_format): (elements[row_format.element_bits] + row_format.tail_bytes)
        for row_format in RowFormat
    }
    return _by_value(v.format, sizes)


def _pooled_bytes(v: data.View) -> Value:
    """Bytes of a pooled row."""
    elements = {4: v.dim << 2, 2: v.dim << 1, 1: v.dim}
    return _by_value(v.output_format, {int(f): elements[f.nbytes] for f in POOLED_FORMATS})


def _not_finite(x: Value) -> Value:
    return x[23:31].all()


def _gather_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.GATHER,)), view(Opcode.GATHER, descriptor)
    many_bags = v.bags > 1
    yield rule(_has(v, Flag.WARN) & _has(v, Flag.IGNORE), Status.BAD_FORMAT, "flags")
    yield rule(~is_one_of(v.format, RowFormat), Status.BAD_FORMAT, "format")
    yield rule(~is_one_of(v.output_format, POOLED_FORMATS), Status.BAD_FORMAT, "output_format")
    scaled = is_one_of(v.output_format, [f for f in POOLED_FORMATS if f.nbytes == 1])
    yield rule(scaled & _not_finite(v.multiplier), Status.BAD_FORMAT, "multiplier")
    for name in ("rows", "bags"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    yield rule((v.dim == 0) | (v.dim > config.max_dim), Status.BAD_DIMENSION, "dim")
    too_small = (v.rows > 1) & (v.row_stride < _row_bytes(v))
    yield rule(too_small, Status.BAD_DIMENSION, "row_stride")
    too_small = many_bags & (v.output_stride < _pooled_bytes(v))
    yield rule(too_small, Status.BAD_DIMENSION, "output_stride")
    for name in ("indices", "lengths", "weights"):
        needed = _has(v, Flag.WEIGHTED) if name == "weights" else 1
        bad = needed & _misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)


def _is_int32(v: data.View) -> Value:
    return v.y_format == ElementFormat.INT32


def _output_bytes(v: data.View) -> Value:
    """Bytes of a row of a product."""
    return _select(_is_int32(v), v.n << 2, v.n)


def _matmul_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.MATMUL,)), view(Opcode.MATMUL, descriptor)
    many = v.m > 1
    yield from _format_rules(rule, v, _has(v, Flag.RELU))
    for name in ("m", "k", "n"):
        yield rule((v[name] == 0) | (v[name] > MATMUL_LIMIT), Status.BAD_DIMENSION, name)
    for name, size in (("x_stride", v.k), ("y_stride", _output_bytes(v))):
        yield rule(many & (v[name] < size), Status.BAD_DIMENSION, name)
    yield from _alignment_rules(rule, v, config, {"x_stride": many, "y_stride": many})


def _batch_matmul_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.BATCH_MATMUL,)), view(Opcode.BATCH_MATMUL, descriptor)
    square, transposed = ~_has(v, Flag.TRIANGLE), _has(v, Flag.TRANSPOSED)
    yield from _format_rules(rule, v, _has(v, Flag.RELU) | ~square)
    for name in ("m", "k", "n", "batches"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    yield rule(~square & (v.m != v.n), Status.BAD_DIMENSION, "n")
    many = {
        "x_stride": v.m > 1,
        "w_stride": _select(transposed, v.n, v.k) > 1,
        "y_stride": square & (v.m > 1),
    }
    w_row = _select(transposed, v.k, v.n)
    for name, size in zip(many, (v.k, w_row, _output_bytes(v)), strict=True):
        yield rule(many[name] & (v[name] < size), Status.BAD_DIMENSION, name)
    batches = v.batches > 1
    steps = {"x_batch_stride": batches, "w_batch_stride": batches}
    steps |= {"y_batch_stride": batches & square}
    yield from _alignment_rules(rule, v, config, many | steps, square)


def _conv2d_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.CONV2D,)), view(Opcode.CONV2D, descriptor)
    diagonal = _has(v, Flag.DIAGONAL)
    if not config.diagonal_tiles:
        yield rule(diagonal, Status.BAD_FORMAT, "flags")
    yield from _format_rules(rule, v, _has(v, Flag.RELU))
    for name in (*IMAGE_SIDES[:3], "n", *IMAGE_SIDES[3:], *WINDOW_SIDES):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    yield rule(diagonal & (v.n != v.k), Status.BAD_DIMENSION, "n")
    many = {
        "x_stride": (v.height > 1) | (v.width > 1),
        "y_stride": (v.out_height > 1) | (v.out_width > 1),
    }
    for name, size in zip(many, (v.k, _output_bytes(v)), strict=True):
        yield rule(many[name] & (v[name] < size), Status.BAD_DIMENSION, name)
    yield from _alignment_rules(rule, v, config, many)


def _format_rules(rule: _Rules, v: data.View, only_bytes: Value) -> Iterator[Rule]:
    yield rule(~is_one_of(v.y_format, PRODUCT_FORMATS), Status.BAD_FORMAT, "y_format")
    yield rule(_is_int32(v) & only_bytes, Status.BAD_FORMAT, "y_format")


def _alignment_rules(
    rule: _Rules, v: data.View, config: CardConfig, strides: dict[str, Value], y: ValueLike = 1
) -> Iterator[Rule]:
    needed = {"x": 1, "w": 1, "params": ~_is_int32(v), "y": y} | strides
    for name, condition in needed.items():
        bad = condition & _misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)


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


def _order(x: Value) -> Value:
    """An unsigned number that orders fp32 as their values, -0 below +0."""
    return Cat(x[:-1] ^ x[-1].replicate(31), ~x[-1])


def _vector_rules(opcode: Opcode, descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (opcode,)), view(opcode, descriptor)
    both = Flag.SUM | Flag.MAX

    yield rule((v.flags & both) == both, Status.BAD_FORMAT, "flags")
    for name in (f.name for f in fields(opcode)):
        match name:
            case "scale" if opcode is Opcode.QUANTISE:
                broken = _not_finite(v.scale) | ~v.scale[23:31].any() | v.scale[31]
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
            case "y_format" if opcode is Opcode.QUANTISE:
                broken = ~is_one_of(v[name], (ElementFormat.UINT8, ElementFormat.INT8))
            case "y_format":
                broken = ~is_one_of(v[name], set(ElementFormat) - {ElementFormat.INT32})
            case "a_format" | "b_format":
                broken = ~is_one_of(v[name], ElementFormat)
            case _:
                continue
        yield rule(broken, Status.BAD_FORMAT, name)
    yield from _matrix_rules(rule, v, config, _vector_row_bytes(opcode, v))


def _lookup_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.LOOKUP,)), view(Opcode.LOOKUP, descriptor)
    yield from _matrix_rules(rule, v, config, {"y": v.columns, "a": v.columns})
    yield rule(_misaligned(v.table, config.bus_bytes), Status.BAD_ALIGNMENT, "table")


def _pair_row_bytes(v: data.View) -> dict[str, Value]:
    """Bytes of a row of each operand of a command of pairs, in the order they are checked."""
    b = _select(_has(v, Flag.BROADCAST), Const(1), v.columns)
    return {"y": v.columns, "a": v.columns, "b": b}


def _exponent_outside(x: Value, exponents: range) -> Value:
    """Whether an fp32 is as large as no power of two of these exponents or up to the next."""
    steps = (FLOAT32.layout(x).exponent - (FLOAT32.bias + exponents.start))[: FLOAT32.exponent_bits]
    return steps >= len(exponents)


def _pair_rules(opcode: Opcode, descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (opcode,)), view(opcode, descriptor)
    for name in (f.name for f in fields(opcode)):
        match name:
            case "y_format" | "a_format" | "b_format":
                broken = ~is_one_of(v[name], BYTE_FORMATS)
            case "a_ratio" | "b_ratio":
                broken = _exponent_outside(v[name], RATIO_EXPONENTS)
            case "multiplier":
                broken = _exponent_outside(v[name], MULTIPLIER_EXPONENTS)
            case "offset":
                limit = FLOAT32.bias + exact_log2(OFFSET_LIMIT)
                broken = FLOAT32.layout(v.offset).exponent >= limit
            case _:
                continue
        yield rule(broken, Status.BAD_FORMAT, name)
    yield from _matrix_rules(rule, v, config, _pair_row_bytes(v))


def _pool_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.POOL,)), view(Opcode.POOL, descriptor)
    yield from _window_rules(rule, v, config, {})


def _depthwise_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = _Rules(descriptor, (Opcode.DEPTHWISE,)), view(Opcode.DEPTHWISE, descriptor)
    bytes_ = (ElementFormat.UINT8, ElementFormat.INT8)
    weighted = ~_has(v, Flag.ONES)
    yield rule(~is_one_of(v.y_format, bytes_), Status.BAD_FORMAT, "y_format")
    yield rule(weighted & (_taps(v) > MOST_TAPS), Status.BAD_DIMENSION, "kernel_height")
    yield from _window_rules(rule, v, config, {"w": weighted, "params": 1})


def _taps(v: data.View) -> Value:
    return v.kernel_height * v.kernel_width


def _window_rules(
    rule: _Rules, v: data.View, config: CardConfig, others: dict[str, ValueLike]
) -> Iterator[Rule]:
    """Of images channel by channel; `others` are what else is aligned, and when."""
    for name in (*IMAGE_SIDES, *WINDOW_SIDES):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    many = {
        "x_stride": (v.height > 1) | (v.width > 1),
        "y_stride": (v.out_height > 1) | (v.out_width > 1),
    }
    for name, condition in many.items():
        yield rule(condition & (v[name] < v.k), Status.BAD_DIMENSION, name)
    # A tap of every window is inside: the first begins before the image's end, as the last does.
    for side, pad in (("height", v.pad_top), ("width", v.pad_left)):
        out, kernel, stride, dilation = (
            v[f"{name}_{side}"] for name in ("out", "kernel", "stride", "dilation")
        )
        reach = (kernel - 1)[:8] * dilation
        last = (out - 1)[:16] * stride
        yield rule(pad > reach, Status.BAD_DIMENSION, PADS[side])
        yield rule(pad.any() & (dilation > v[side]), Status.BAD_DIMENSION, f"dilation_{side}")
        yield rule(last >= v[side] + pad, Status.BAD_DIMENSION, f"out_{side}")
    for name, condition in ({"x": 1, "y": 1} | others | many).items():
        bad = condition & _misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)


def _matrix_rules(
    rule: _Rules, v: data.View, config: CardConfig, row_bytes: dict[str, Value]
) -> Iterator[Rule]:
    """Rules of matrices whose rows have so many bytes."""
    many = v.rows > 1
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


def _product_operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What MATMUL, BATCH_MATMUL and CONV2D read and write."""

    def operand(opcode, v, name, steps, stride, tail, needed=1):
        access = Access.WRITE if name == "y" else Access.READ
        return Operand(v[name], steps, stride, tail, needed, offset(opcode, name), access)

    def params(opcode, v):
        return operand(opcode, v, "params", 0, 0, v.n << 3, ~_is_int32(v))

    def weights(opcode, v, taps, k):
        # taps * k_tiles * (n_tiles * weight_tile_bytes); both factors fit 32 bits.
        k_tiles = (k[:16] + config.array_rows - 1) >> exact_log2(config.array_rows)
        n_tiles = (v.n[:16] + config.array_columns - 1) >> exact_log2(config.array_columns)
        tile_row = n_tiles << exact_log2(config.weight_tile_bytes)
        return operand(opcode, v, "w", (taps * k_tiles - 1)[:32], tile_row, tile_row)

    def matrix(opcode, v, name, rows, size):
        """A strided matrix, or one for each batch."""
        steps = (rows - 1)[: len(rows)]
        if opcode is not Opcode.BATCH_MATMUL:
            return operand(opcode, v, name, steps, v[f"{name}_stride"], size)
        one = steps * v[f"{name}_stride"] + size
        return operand(opcode, v, name, (v.batches - 1)[:16], v[f"{name}_batch_stride"], one)

    matmul, batch, conv = (
        view(opcode, descriptor) for opcode in (Opcode.MATMUL, Opcode.BATCH_MATMUL, Opcode.CONV2D)
    )
    transposed, triangle = _has(batch, Flag.TRANSPOSED), _has(batch, Flag.TRIANGLE)
    w_rows = _select(transposed, batch.n, batch.k)
    w_row = _select(transposed, batch.k, batch.n)
    # n - 1 rows of on average n / 2 outputs.
    below_diagonal = (batch.n * (batch.n - 1)[:16]) >> 1
    y = matrix(Opcode.BATCH_MATMUL, batch, "y", batch.m, _output_bytes(batch))
    y = y._replace(
        tail=_select(triangle, below_diagonal, y.tail), needed=~triangle | (batch.n != 1)
    )
    taps = conv.kernel_height * conv.kernel_width
    conv_k = _select(_has(conv, Flag.DIAGONAL), Const(1, 16), conv.k)  # one tile along k
    op = Opcode
    return {
        op.MATMUL: [
            matrix(op.MATMUL, matmul, "y", matmul.m, _output_bytes(matmul)),
            matrix(op.MATMUL, matmul, "x", matmul.m, matmul.k),
            weights(op.MATMUL, matmul, 1, matmul.k),
            params(op.MATMUL, matmul),
        ],
        op.BATCH_MATMUL: [
            y,
            matrix(op.BATCH_MATMUL, batch, "x", batch.m, batch.k),
            matrix(op.BATCH_MATMUL, batch, "w", w_rows, w_row),
            params(op.BATCH_MATMUL, batch),
        ],
        op.CONV2D: [
            matrix(op.CONV2D, conv, "y", conv.out_height * conv.out_width, _output_bytes(conv)),
            matrix(op.CONV2D, conv, "x", conv.height * conv.width, conv.k),
            weights(op.CONV2D, conv, taps, conv_k),
            params(op.CONV2D, conv),
        ],
    }


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
    weighted, indexed = _has(gather, Flag.WEIGHTED), gather.index_count.any()
    wide = _has(gather, Flag.WIDE)

    def integers(count: Value) -> Value:
        """Bytes of that many int32, or int64."""
        return (count << 2) << wide

    def moved(opcode, name):
        access = Access.WRITE_IN_PLACE if name == "destination" else Access.READ
        return rows(opcode, name, move.rows, move[f"{name}_stride"], move.row_bytes, access)

    def matrices(opcode, v, row_bytes):
        return [
            rows(opcode, name, v.rows, v[f"{name}_stride"], size,
                 Access.WRITE_IN_PLACE if name == "y" else Access.READ)
            for name, size in row_bytes.items()
        ]  # fmt: skip

    def elements(opcode):
        v = view(opcode, descriptor)
        return matrices(opcode, v, _vector_row_bytes(opcode, v))

    def images(opcode):
        v = view(opcode, descriptor)
        pixels = {"y": v.out_height * v.out_width, "x": v.height * v.width}
        return [
            rows(opcode, name, count, v[f"{name}_stride"], v.k,
                 Access.WRITE if name == "y" else Access.READ)
            for name, count in pixels.items()
        ]  # fmt: skip

    turn = view(Opcode.TRANSPOSE, descriptor)
    turned = _transposed_rows(turn)

    def matrix_of(name):
        count, size = turned[name]
        one = (count - 1)[:16] * turn[f"{name}_stride"] + size
        access = Access.WRITE if name == "destination" else Access.READ
        return operand(op.TRANSPOSE, name, (turn.batches - 1)[:16], turn[f"{name}_batch_stride"],
                       one, access=access)  # fmt: skip

    lookup, depthwise = (view(op, descriptor) for op in (Opcode.LOOKUP, Opcode.DEPTHWISE))
    words = (depthwise.k + (config.bus_bytes - 1)) >> exact_log2(config.bus_bytes)
    kernel_row = words << exact_log2(config.bus_bytes)

    op = Opcode
    return {
        op.LOAD: [moved(op.LOAD, "destination")],
        op.COPY: [moved(op.COPY, "destination"), moved(op.COPY, "source")],
        op.TRANSPOSE: [matrix_of("destination"), matrix_of("source")],
        op.STORE: [moved(op.STORE, "source")],
        op.GATHER: [
            rows(op.GATHER, "output", gather.bags, gather.output_stride, _pooled_bytes(gather),
                 Access.WRITE),
            rows(op.GATHER, "table", gather.rows, gather.row_stride, _row_bytes(gather)),
            run(op.GATHER, "indices", integers(gather.index_count), indexed),
            run(op.GATHER, "lengths", integers(gather.bags)),
            run(op.GATHER, "weights", gather.index_count << 2, indexed & weighted),
        ],
        **_product_operands(descriptor, config),
        **{opcode: elements(opcode) for opcode in VECTOR},
        op.LOOKUP: [
            *matrices(op.LOOKUP, lookup, {"y": lookup.columns, "a": lookup.columns}),
            operand(op.LOOKUP, "table", 0, 0, TABLE_BYTES, access=Access.READ_APART),
        ],
        **{
            opcode: matrices(opcode, v, _pair_row_bytes(v))
            for opcode in PAIRS for v in (view(opcode, descriptor),)
        },
        op.POOL: images(op.POOL),
        op.DEPTHWISE: [
            *images(op.DEPTHWISE),
            operand(op.DEPTHWISE, "w", (_taps(depthwise) - 1)[:16], kernel_row, depthwise.k,
                    ~_has(depthwise, Flag.ONES)),
            run(op.DEPTHWISE, "params", depthwise.k << 3),
        ],
    }  # fmt: skip
