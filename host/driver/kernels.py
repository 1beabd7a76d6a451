"""The commands of a card as functions of operands that lie somewhere: opcode and fields.

An address is a number, or stands for one that is known later. Shapes, strides and formats decide
everything else; the rules that they must keep are those of `halfdome.sim.golden.check`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from halfdome.hdl.commands import ElementFormat, Engine, Flag, Function, Opcode, RowFormat
from halfdome.host.driver.layout import round_up

Address = Any
"""A card address or, at the other end of a transfer, a bus address; or what stands for one."""


@dataclass(frozen=True)
class Rows:
    """A matrix in memory: rows `stride` bytes apart, of elements of `format`.

    Of 8-bit elements `zero_point` stands for zero.
    """

    address: Address
    stride: int
    format: ElementFormat = ElementFormat.UINT8
    zero_point: int = 0

    def at(self, address: Address) -> "Rows":
        """The same rows elsewhere."""
        return replace(self, address=address)

    @property
    def zero_byte(self) -> int:
        """The zero point as a descriptor carries it."""
        return self.zero_point & 0xFF


@dataclass(frozen=True)
class Work:
    """A command without its header: what it does, and the fields that say with what.

    `cycles` is what it is expected to take, for whoever plans; `core` is the one that runs it.
    """

    opcode: Opcode
    fields: Mapping[str, Any]
    cycles: float = 0.0
    core: int = 0

    @cached_property
    def queue(self) -> int:
        """The in-order queue that it joins: those of a core follow those of the one before."""
        return queue_of(self.core, self.opcode.engine)

    def taking(self, cycles: float) -> "Work":
        """The same, expected to take so long."""
        return replace(self, cycles=cycles)


def queue_of(core: int, engine: Engine) -> int:
    """The number of an engine's queue, and of the timeline counter of what it has done."""
    return core * len(Engine) + engine


def float_bits(value: float | np.float32) -> int:
    """A float32 as a descriptor carries it."""
    return int(np.float32(value).view(np.uint32))


def move(
    opcode: Opcode, source: Address, source_stride: int, target: Address, target_stride: int,
    rows: int, row_bytes: int,
) -> Work:  # fmt: skip
    """LOAD, COPY or STORE of `rows` rows."""
    return Work(opcode, {
        "source": source, "source_stride": source_stride, "destination": target,
        "destination_stride": target_stride, "rows": rows, "row_bytes": row_bytes,
    })  # fmt: skip


def transpose(
    source: Rows, source_step: int, target: Rows, target_step: int, batches: int, rows: int,
    columns: int,
) -> Work:  # fmt: skip
    """TRANSPOSE of matrices [rows, columns], each so many bytes behind the one before."""
    return Work(Opcode.TRANSPOSE, {
        "source": source.address, "source_stride": source.stride,
        "source_batch_stride": source_step, "destination": target.address,
        "destination_stride": target.stride, "destination_batch_stride": target_step, "rows": rows,
        "columns": columns,
        "batches": batches, "element_bytes": source.format.nbytes,
    })  # fmt: skip


def vector(
    opcode: Opcode, y: Rows, a: Rows, rows: int, columns: int, b: Rows | None = None, *,
    flags: int = 0, function: Function = Function.IDENTITY, multiplier: float = 1.0,
    **constants: float,
) -> Work:  # fmt: skip
    """AFFINE, ADD, MULTIPLY or CLAMP; `constants` are the command's own float32 fields."""
    fields = {
        "flags": flags, "rows": rows, "columns": columns, "function": function,
        "multiplier": float_bits(multiplier),
    } | {name: float_bits(value) for name, value in constants.items()}  # fmt: skip
    for name, operand in (("y", y), ("a", a), *((("b", b),) if b else ())):
        fields |= {
            name: operand.address, f"{name}_stride": operand.stride,
            f"{name}_format": operand.format, f"{name}_zero_point": operand.zero_byte,
        }  # fmt: skip
    return Work(opcode, fields)


def quantise(y: Rows, a: Rows, rows: int, columns: int, scale: float) -> Work:
    """QUANTISE: a over a scale, rounded to bytes."""
    return Work(Opcode.QUANTISE, {
        "y": y.address, "y_stride": y.stride, "y_format": y.format, "y_zero_point": y.zero_byte,
        "a": a.address, "a_stride": a.stride, "a_format": a.format, "a_zero_point": a.zero_byte,
        "rows": rows, "columns": columns, "scale": float_bits(scale),
    })  # fmt: skip


def lookup(table: Address, y: Rows, a: Rows, rows: int, columns: int, word: int) -> Work:
    """LOOKUP of bytes in a table of 256 bytes.

    Rows between which no word is free are one row: what fills their last words up is nobody's.
    """
    if a.stride == y.stride == round_up(columns, word):
        rows, columns = 1, (rows - 1) * a.stride + columns
    return Work(Opcode.LOOKUP, {
        "table": table, "y": y.address, "y_stride": y.stride, "a": a.address,
        "a_stride": a.stride, "rows": rows, "columns": columns,
    })  # fmt: skip


def pair(
    opcode: Opcode, y: Rows, a: Rows, b: Rows, rows: int, columns: int, word: int, *,
    flags: int = 0, **constants: float,
) -> Work:  # fmt: skip
    """ADD_QUANTISED or MULTIPLY_QUANTISED; `constants` are the command's own float32 fields.

    Rows between which no word is free are one row, as those of a LOOKUP are.
    """
    stride = round_up(columns, word)
    if all(each.stride == stride for each in (y, a, b)) and not flags & Flag.BROADCAST:
        rows, columns = 1, (rows - 1) * stride + columns
    fields = {"flags": flags, "rows": rows, "columns": columns}
    fields |= {name: float_bits(value) for name, value in constants.items()}
    for name, operand in (("y", y), ("a", a), ("b", b)):
        fields |= {
            name: operand.address, f"{name}_stride": operand.stride,
            f"{name}_format": operand.format,
        }  # fmt: skip
        if opcode is Opcode.MULTIPLY_QUANTISED:
            fields[f"{name}_zero_point"] = operand.zero_byte
    return Work(opcode, fields)


def copy(source: Rows, target: Address, target_stride: int, rows: int, columns: int) -> Work:
    """A strided copy of elements by the vector engine, as far as that can write them; of 8 bits
    whatever they stand for."""
    if source.format is ElementFormat.INT32:
        return move(
            Opcode.COPY, source.address, source.stride, target, target_stride, rows,
            columns * source.format.nbytes,
        )  # fmt: skip
    y = Rows(target, target_stride, source.format, source.zero_point)
    return vector(Opcode.AFFINE, y, source, rows, columns, scale=1.0, shift=-0.0)


def gather(
    table: Address, row_format: RowFormat, row_stride: int, rows: int, dim: int,
    indices: Address, index_count: int, lengths: Address, bags: int, output: Rows, *,
    weights: Address | None = None, flags: int = 0, multiplier: float = 1.0,
) -> Work:  # fmt: skip
    """GATHER of `bags` bags."""
    return Work(Opcode.GATHER, {
        "flags": flags | (Flag.WEIGHTED if weights is not None else 0), "table": table,
        "indices": indices, "lengths": lengths, "weights": 0 if weights is None else weights,
        "output": output.address, "rows": rows, "index_count": index_count, "bags": bags,
        "row_stride": row_stride, "dim": dim, "output_stride": output.stride, "format": row_format,
        "output_format": output.format, "multiplier": float_bits(multiplier),
        "zero_point": output.zero_byte,
    })  # fmt: skip


def product_flags(x: ElementFormat, w: ElementFormat, relu: bool) -> int:
    """The flags that tell the formats of a product's operands."""
    chosen = {
        Flag.RELU: relu,
        Flag.X_INT8: x is ElementFormat.INT8,
        Flag.W_UINT8: w is ElementFormat.UINT8,
    }
    return int(sum(flag for flag, on in chosen.items() if on))


def linear(
    x: Rows, w: Address, params: Address, y: Rows, m: int, k: int, n: int, *,
    w_format: ElementFormat = ElementFormat.INT8, w_zero_point: int = 0, relu: bool = False,
) -> Work:  # fmt: skip
    """MATMUL: y[m, n] of x[m, k] and packed weights."""
    return Work(Opcode.MATMUL, {
        "flags": product_flags(x.format, w_format, relu), "x": x.address, "w": w, "params": params,
        "y": y.address, "m": m, "k": k, "n": n, "x_stride": x.stride, "y_stride": y.stride,
        "y_zero_point": y.zero_byte, "x_zero_point": x.zero_byte,
        "w_zero_point": w_zero_point & 0xFF, "y_format": y.format,
    })  # fmt: skip


@dataclass(frozen=True)
class Window:
    """What a convolution or a pooling makes of which pixels: sizes are rows and columns of pixels.

    `k` and `n` are channels of x and y; pixels above and left of the image stand for zero, as do
    those that `out` needs beyond it. To a pooling they are nothing. If `diagonal`, a tile of y's
    channels sees the same of x alone.
    """

    image: tuple[int, int]
    k: int
    n: int
    out: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    diagonal: bool = False

    def fields(self) -> dict[str, int]:
        """What descriptors say of it, but for `n`."""
        return {
            "height": self.image[0], "width": self.image[1], "k": self.k,
            "out_height": self.out[0], "out_width": self.out[1],
            "kernel_height": self.kernel[0], "kernel_width": self.kernel[1],
            "stride_height": self.stride[0], "stride_width": self.stride[1],
            "pad_top": self.pad[0], "pad_left": self.pad[1],
            "dilation_height": self.dilation[0], "dilation_width": self.dilation[1],
        }  # fmt: skip


def conv2d(
    x: Rows, w: Address, params: Address, y: Rows, window: Window, *,
    w_format: ElementFormat = ElementFormat.INT8, w_zero_point: int = 0, relu: bool = False,
) -> Work:  # fmt: skip
    """CONV2D: y[*out, n] of an image x[*image, k] and packed weights."""
    flags = product_flags(x.format, w_format, relu) | (Flag.DIAGONAL if window.diagonal else 0)
    return Work(Opcode.CONV2D, window.fields() | {
        "flags": int(flags), "x": x.address, "w": w, "params": params,
        "y": y.address, "n": window.n, "x_stride": x.stride, "y_stride": y.stride,
        "y_zero_point": y.zero_byte, "x_zero_point": x.zero_byte,
        "w_zero_point": w_zero_point & 0xFF, "y_format": y.format,
    })  # fmt: skip


def depthwise(
    x: Rows, w: Address | None, params: Address, y: Rows, window: Window, *,
    w_format: ElementFormat = ElementFormat.INT8, w_zero_point: int = 0, relu: bool = False,
) -> Work:  # fmt: skip
    """DEPTHWISE: y[*out, k] of an image x[*image, k] and rows of weights for each tap, all ones if
    there are none."""
    flags = product_flags(x.format, w_format, relu) | (Flag.ONES if w is None else 0)
    return Work(Opcode.DEPTHWISE, window.fields() | {
        "flags": int(flags), "x": x.address, "w": 0 if w is None else w, "params": params,
        "y": y.address, "x_stride": x.stride, "y_stride": y.stride, "y_zero_point": y.zero_byte,
        "x_zero_point": x.zero_byte, "w_zero_point": w_zero_point & 0xFF, "y_format": y.format,
    })  # fmt: skip


def max_pool(x: Rows, y: Rows, window: Window) -> Work:
    """POOL: y[*out, k] of an image x[*image, k]."""
    return Work(Opcode.POOL, window.fields() | {
        "flags": int(Flag.X_INT8) if x.format is ElementFormat.INT8 else 0, "x": x.address,
        "y": y.address, "x_stride": x.stride, "y_stride": y.stride,
    })  # fmt: skip


def average_pool(
    x: Rows, y: Rows, window: Window, *, x_scale: float, y_scale: float, outside: bool = False
) -> Work:
    """AVERAGE: y[*out, k] of an image x[*image, k]; taps outside of it count, too, if `outside`."""
    flags = product_flags(x.format, ElementFormat.INT8, False) | (Flag.OUTSIDE if outside else 0)
    return Work(Opcode.AVERAGE, window.fields() | {
        "flags": int(flags), "x": x.address, "y": y.address, "x_stride": x.stride,
        "y_stride": y.stride, "x_scale": float_bits(x_scale), "y_scale": float_bits(y_scale),
        "x_zero_point": x.zero_byte, "y_zero_point": y.zero_byte, "y_format": y.format,
    })  # fmt: skip


def batch_matmul(
    operands: Sequence[tuple[Rows, int]], params: Address, shape: Sequence[int], *, transposed: bool
) -> Work:
    """BATCH_MATMUL of x, w and y, each with the bytes from one matrix to the next; `shape` is
    batches, m, k, n."""
    (x, x_step), (w, w_step), (y, y_step) = operands
    batches, m, k, n = shape
    flags = product_flags(x.format, w.format, relu=False) | (Flag.TRANSPOSED if transposed else 0)
    return Work(Opcode.BATCH_MATMUL, {
        "flags": int(flags), "x": x.address, "w": w.address, "params": params, "y": y.address,
        "m": m, "k": k, "n": n, "batches": batches, "x_stride": x.stride, "w_stride": w.stride,
        "y_stride": y.stride, "x_batch_stride": x_step, "w_batch_stride": w_step,
        "y_batch_stride": y_step, "y_zero_point": y.zero_byte, "x_zero_point": x.zero_byte,
        "w_zero_point": w.zero_byte, "y_format": y.format,
    })  # fmt: skip


def pairs(
    x: Rows, segments: int, segment_stride: int, dim: int, params: Address, y: Rows, samples: int
) -> Work:
    """BATCH_MATMUL: of each sample the products of segments i and j < i, one after the other.

    Segments of a sample lie `segment_stride` bytes apart in its row of `x`.
    """
    flags = product_flags(x.format, x.format, relu=False) | Flag.TRANSPOSED | Flag.TRIANGLE
    return Work(Opcode.BATCH_MATMUL, {
        "flags": flags, "x": x.address, "w": x.address, "params": params, "y": y.address,
        "m": segments, "k": dim, "n": segments, "batches": samples, "x_stride": segment_stride,
        "w_stride": segment_stride, "y_stride": 0, "x_batch_stride": x.stride,
        "w_batch_stride": x.stride, "y_batch_stride": y.stride, "y_zero_point": y.zero_byte,
        "x_zero_point": x.zero_byte, "w_zero_point": x.zero_byte, "y_format": y.format,
    })  # fmt: skip
