"""MATMUL, BATCH_MATMUL and CONV2D."""

from collections.abc import Iterator

from amaranth import Const, Value, ValueLike
from amaranth.lib import data
from amaranth.utils import exact_log2

from halfdome.hdl.command.rules.rule import (
    Access,
    Operand,
    Rule,
    RulesOf,
    has,
    is_one_of,
    misaligned,
    operand,
    rows,
    select,
    view,
)
from halfdome.hdl.command.rules.windows import IMAGE_SIDES, WINDOW_SIDES
from halfdome.hdl.commands import (
    MATMUL_LIMIT,
    PRODUCT_FORMATS,
    ElementFormat,
    Flag,
    Opcode,
    Status,
)
from halfdome.hdl.config import CardConfig


def rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    """Of products."""
    yield from _matmul_rules(descriptor, config)
    yield from _batch_matmul_rules(descriptor, config)
    yield from _conv2d_rules(descriptor, config)


def operands(descriptor: Value, config: CardConfig) -> dict[Opcode, list[Operand]]:
    """What MATMUL, BATCH_MATMUL and CONV2D read and write."""

    def params(opcode, v):
        return operand(opcode, v, "params", 1, 0, v.n, ~_is_int32(v), scale=3)

    def weights(opcode, v, taps, k):
        # taps * k_tiles * (n_tiles * weight_tile_bytes); both factors fit 32 bits.
        k_tiles = (k[:16] + config.array_rows - 1) >> exact_log2(config.array_rows)
        n_tiles = (v.n[:16] + config.array_columns - 1) >> exact_log2(config.array_columns)
        tile_row = n_tiles << exact_log2(config.weight_tile_bytes)
        return operand(opcode, v, "w", (taps * k_tiles)[:32], tile_row, tile_row)

    def matrix(opcode, v, name, count, columns):
        """A strided matrix."""
        output = name == "y"
        access, scale = (Access.WRITE, _output_scale(v)) if output else (Access.READ, 0)
        return rows(opcode, v, name, count, columns, access, scale)

    def matrices(v, name, count, size):
        """A strided matrix for each batch."""
        op, access = Opcode.BATCH_MATMUL, Access.WRITE if name == "y" else Access.READ
        one = (count - 1)[: len(count)] * v[f"{name}_stride"] + size
        return operand(op, v, name, v.batches, v[f"{name}_batch_stride"], one, access=access)

    matmul, batch, conv = (
        view(opcode, descriptor) for opcode in (Opcode.MATMUL, Opcode.BATCH_MATMUL, Opcode.CONV2D)
    )
    transposed, triangle = has(batch, Flag.TRANSPOSED), has(batch, Flag.TRIANGLE)
    w_rows = select(transposed, batch.n, batch.k)
    w_row = select(transposed, batch.k, batch.n)
    # n - 1 rows of on average n / 2 outputs.
    below_diagonal = (batch.n * (batch.n - 1)[:16]) >> 1
    y = matrices(batch, "y", batch.m, _output_bytes(batch))
    y = y._replace(
        elements=select(triangle, below_diagonal, y.elements), needed=~triangle | (batch.n != 1)
    )
    taps = conv.kernel_height * conv.kernel_width
    conv_k = select(has(conv, Flag.DIAGONAL), Const(1, 16), conv.k)  # one tile along k
    op = Opcode
    return {
        op.MATMUL: [
            matrix(op.MATMUL, matmul, "y", matmul.m, matmul.n),
            matrix(op.MATMUL, matmul, "x", matmul.m, matmul.k),
            weights(op.MATMUL, matmul, 1, matmul.k),
            params(op.MATMUL, matmul),
        ],
        op.BATCH_MATMUL: [
            y,
            matrices(batch, "x", batch.m, batch.k),
            matrices(batch, "w", w_rows, w_row),
            params(op.BATCH_MATMUL, batch),
        ],
        op.CONV2D: [
            matrix(op.CONV2D, conv, "y", conv.out_height * conv.out_width, conv.n),
            matrix(op.CONV2D, conv, "x", conv.height * conv.width, conv.k),
            weights(op.CONV2D, conv, taps, conv_k),
            params(op.CONV2D, conv),
        ],
    }


def _is_int32(v: data.View) -> Value:
    return v.y_format == ElementFormat.INT32


def _output_scale(v: data.View) -> Value:
    """log2 of the bytes of an element of a product."""
    return _is_int32(v) << 1


def _output_bytes(v: data.View) -> Value:
    """Bytes of a row of a product."""
    return select(_is_int32(v), v.n << 2, v.n)


def _matmul_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.MATMUL,)), view(Opcode.MATMUL, descriptor)
    many = v.m > 1
    yield from _format_rules(rule, v, has(v, Flag.RELU))
    for name in ("m", "k", "n"):
        yield rule((v[name] == 0) | (v[name] > MATMUL_LIMIT), Status.BAD_DIMENSION, name)
    yield from _alignment_rules(rule, v, config, {"x_stride": many, "y_stride": many})


def _batch_matmul_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.BATCH_MATMUL,)), view(Opcode.BATCH_MATMUL, descriptor)
    square, transposed = ~has(v, Flag.TRIANGLE), has(v, Flag.TRANSPOSED)
    yield from _format_rules(rule, v, has(v, Flag.RELU) | ~square)
    for name in ("m", "k", "n", "batches"):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    yield rule(~square & (v.m != v.n), Status.BAD_DIMENSION, "n")
    many = {
        "x_stride": v.m > 1,
        "w_stride": select(transposed, v.n, v.k) > 1,
        "y_stride": square & (v.m > 1),
    }
    w_row = select(transposed, v.k, v.n)
    for name, size in zip(many, (v.k, w_row, _output_bytes(v)), strict=True):
        yield rule(many[name] & (v[name] < size), Status.BAD_DIMENSION, name)
    batches = v.batches > 1
    steps = {"x_batch_stride": batches, "w_batch_stride": batches}
    steps |= {"y_batch_stride": batches & square}
    yield from _alignment_rules(rule, v, config, many | steps, square)


def _conv2d_rules(descriptor: Value, config: CardConfig) -> Iterator[Rule]:
    rule, v = RulesOf(descriptor, (Opcode.CONV2D,)), view(Opcode.CONV2D, descriptor)
    diagonal = has(v, Flag.DIAGONAL)
    if not config.diagonal_tiles:
        yield rule(diagonal, Status.BAD_FORMAT, "flags")
    yield from _format_rules(rule, v, has(v, Flag.RELU))
    for name in (*IMAGE_SIDES[:3], "n", *IMAGE_SIDES[3:], *WINDOW_SIDES):
        yield rule(v[name] == 0, Status.BAD_DIMENSION, name)
    yield rule(diagonal & (v.n != v.k), Status.BAD_DIMENSION, "n")
    many = {
        "x_stride": (v.height > 1) | (v.width > 1),
        "y_stride": (v.out_height > 1) | (v.out_width > 1),
    }
    yield from _alignment_rules(rule, v, config, many)


def _format_rules(rule: RulesOf, v: data.View, only_bytes: Value) -> Iterator[Rule]:
    yield rule(~is_one_of(v.y_format, PRODUCT_FORMATS), Status.BAD_FORMAT, "y_format")
    yield rule(_is_int32(v) & only_bytes, Status.BAD_FORMAT, "y_format")


def _alignment_rules(
    rule: RulesOf, v: data.View, config: CardConfig, strides: dict[str, Value], y: ValueLike = 1
) -> Iterator[Rule]:
    needed = {"x": 1, "w": 1, "params": ~_is_int32(v), "y": y} | strides
    for name, condition in needed.items():
        bad = condition & misaligned(v[name], config.bus_bytes)
        yield rule(bad, Status.BAD_ALIGNMENT, name)
