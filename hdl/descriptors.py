"""The 64-byte descriptors a host submits and the 16-byte completions a card returns.

One table of fields per command is the only definition: the RTL decoder, the host packer, the golden
model and the C header derive from it. All fields are little-endian and start on a byte. A command
may have an extension, a second slot of the ring behind its descriptor.
"""

from collections.abc import Mapping
from typing import NamedTuple

from amaranth.lib import data

from halfdome.hdl.commands import Flag, Opcode

DESCRIPTOR_BYTES = 64
COMPLETION_BYTES = 16
NO_COUNTER = 0xFF
"""Counter index that means: wait for nothing, signal nothing."""


class Field(NamedTuple):
    """One field: `bits` is a multiple of 8."""

    name: str
    bits: int
    doc: str


HEADER: tuple[Field, ...] = (
    Field("opcode", 8, "`Opcode`"),
    Field("flags", 8, "`Flag` bits of the command"),
    Field("id", 16, "returned in the completion"),
    Field("core", 8, "core that runs the command: the one whose ring it is in"),
    Field("wait_counter", 8, "counter to wait for, or NO_COUNTER"),
    Field("signal_counter", 8, "counter to set when done, or NO_COUNTER"),
    Field("extension", 8, "1: the next slot of the ring is this command's `EXTENSION`; else 0"),
    Field("wait_value", 32, "start when counter >= this, compared modulo 2**32"),
    Field("signal_value", 32, "value the counter is set to, whatever the status"),
)

EXTENSION: tuple[Field, ...] = (
    Field("second_wait_counter", 8, "counter to wait for, too, or NO_COUNTER"),
    Field("reserved", 24, "zero"),
    Field("second_wait_value", 32, "as `wait_value`"),
)
"""The slot behind a descriptor that says so; unused bytes are zero."""

_MOVE: tuple[Field, ...] = (
    Field("source", 64, "PCIe bus address (LOAD) or card address of the first row"),
    Field("destination", 64, "PCIe bus address (STORE) or card address of the first row"),
    Field("rows", 32, "rows to move"),
    Field("row_bytes", 32, "bytes of a row; any number"),
    Field("source_stride", 32, "bytes from one source row to the next"),
    Field("destination_stride", 32, "bytes from one destination row to the next"),
)

_ELEMENTS: tuple[Field, ...] = (
    Field("y", 40, "card address of the output, [rows, columns] or [rows, 1]"),
    Field("a", 40, "card address of the first input, [rows, columns]"),
    Field("rows", 32, "rows"),
    Field("columns", 32, "elements of a row"),
    Field("y_stride", 24, "bytes from one row of y to the next"),
    Field("a_stride", 24, "bytes from one row of a to the next"),
)

_ZERO_POINTS: tuple[Field, ...] = (
    Field("y_zero_point", 8, "added after scaling if y has 8 bits"),
    Field("a_zero_point", 8, "what stands for 0 in a of 8 bits"),
)

_VECTOR: tuple[Field, ...] = (
    *_ELEMENTS,
    Field("multiplier", 32, "float32, finite and not zero: y = result * multiplier"),
    *_ZERO_POINTS,
    Field("y_format", 8, "`ElementFormat` but INT32"),
    Field("a_format", 8, "`ElementFormat`"),
    Field("function", 8, "`Function`"),
)

_SECOND: tuple[Field, ...] = (
    Field("b", 40, "card address of the second input, [rows, columns] or, BROADCAST, [rows, 1]"),
    Field("b_stride", 24, "bytes from one row of b to the next; 0 for the same row always"),
    Field("b_zero_point", 8, "what stands for 0 in b of 8 bits"),
    Field("b_format", 8, "`ElementFormat`"),
)

_SECOND_BYTES: tuple[Field, ...] = (
    *_SECOND[:2],
    *(Field(f"{name}_format", 8, "UINT8 or INT8") for name in "yab"),
)

_WINDOWS: tuple[Field, ...] = (
    Field("out_height", 16, "rows of pixels of y"),
    Field("out_width", 16, "pixels of a row of y"),
    Field("x_stride", 16, "bytes from one pixel of x to the next; rows follow without a gap"),
    Field("y_stride", 16, "bytes from one pixel of y to the next; rows follow without a gap"),
    Field("kernel_height", 8, "rows of the kernel"),
    Field("kernel_width", 8, "columns of the kernel"),
    Field("stride_height", 8, "rows of x from one row of y to the next"),
    Field("stride_width", 8, "pixels of x from one pixel of y to the next"),
)

_DILATIONS: tuple[Field, ...] = (
    Field("dilation_height", 8, "rows of x from one row of the kernel to the next"),
    Field("dilation_width", 8, "pixels of x from one column of the kernel to the next"),
)

WINDOWED: tuple[Field, ...] = (
    Field("y", 40, "card address of y[out_height, out_width, k], pixels `y_stride` apart"),
    Field("x", 40, "card address of 8-bit x[height, width, k], pixels `x_stride` apart"),
    Field("height", 16, "rows of pixels of x"),
    Field("width", 16, "pixels of a row of x"),
    Field("k", 16, "channels of x and y"),
    *_WINDOWS,
    Field("pad_top", 8, "rows of the first window above x; one is inside at least"),
    Field("pad_left", 8, "columns of the first window left of x; likewise"),
    *_DILATIONS,
)
"""What commands that go over the windows of each channel by itself begin with."""

BODIES: dict[Opcode, tuple[Field, ...]] = {
    Opcode.LOAD: _MOVE,
    Opcode.COPY: _MOVE,
    # destination[batch, column, row] = source[batch, row, column]
    Opcode.TRANSPOSE: (
        Field("source", 40, "card address of elements [batches, rows, columns]"),
        Field("destination", 40, "card address of elements [batches, columns, rows]"),
        Field("rows", 16, "rows of the source"),
        Field("columns", 16, "columns of the source"),
        Field("batches", 16, "matrices"),
        Field("source_stride", 24, "bytes from one row of the source to the next"),
        Field("destination_stride", 24, "bytes from one row of the destination to the next"),
        Field("source_batch_stride", 32, "bytes between matrices of the source"),
        Field("destination_batch_stride", 32, "bytes between matrices of the destination"),
        Field("element_bytes", 8, "of `TRANSPOSED_BYTES`"),
    ),
    Opcode.STORE: _MOVE,
    Opcode.SIGNAL: (
        Field("address", 64, "PCIe bus address of a 4-byte register, 4-byte aligned"),
        Field("value", 32, "value written there after every earlier STORE of this queue"),
    ),
    Opcode.GATHER: (
        Field("table", 40, "card address of row 0; any byte"),
        Field("indices", 40, "card address of int[index_count]"),
        Field("lengths", 40, "card address of int[bags]: lengths or, OFFSETS, starts"),
        Field("weights", 40, "card address of float32[index_count]; read if WEIGHTED"),
        Field("output", 40, "card address of [bags, dim] elements; any byte"),
        Field("rows", 32, "rows of the table"),
        Field("index_count", 24, "indices in all bags; may be 0"),
        Field("bags", 24, "bags"),
        Field("row_stride", 16, "bytes from one table row to the next"),
        Field("dim", 16, "elements of a row"),
        Field("output_stride", 16, "bytes from one pooled row to the next; any number"),
        Field("format", 8, "`RowFormat`"),
        Field("output_format", 8, "of `POOLED_FORMATS`"),
        Field("multiplier", 32, "float32, finite: 8 bits are round(pooled * this) + zero_point"),
        Field("zero_point", 8, "what stands for 0 in an output of 8 bits"),
    ),
    Opcode.MATMUL: (
        Field("x", 40, "card address of 8-bit x[m, k], rows `x_stride` apart"),
        Field("w", 40, "card address of the packed weight tiles"),
        Field("params", 40, "card address of n pairs of int32 bias, float32 multiplier"),
        Field("y", 40, "card address of y[m, n], rows `y_stride` apart"),
        Field("m", 32, "rows of x and y"),
        Field("k", 32, "columns of x, rows of the weights"),
        Field("n", 32, "columns of y"),
        Field("x_stride", 32, "bytes from one row of x to the next"),
        Field("y_stride", 32, "bytes from one row of y to the next"),
        Field("y_zero_point", 8, "added after scaling; the floor of RELU"),
        Field("x_zero_point", 8, "the x that stands for zero, in x's format"),
        Field("w_zero_point", 8, "the w that stands for zero, in w's format"),
        Field("y_format", 8, "of `PRODUCT_FORMATS`"),
    ),
    Opcode.BATCH_MATMUL: (
        Field("x", 40, "card address of 8-bit x[batches, m, k]"),
        Field("w", 40, "card address of 8-bit w[batches, k, n], or [batches, n, k] if TRANSPOSED"),
        Field("params", 40, "card address of n pairs of int32 bias, float32 multiplier"),
        Field("y", 40, "card address of y[batches, m, n]; any byte if TRIANGLE"),
        Field("m", 16, "rows of x and y"),
        Field("k", 16, "columns of x"),
        Field("n", 16, "columns of y"),
        Field("batches", 16, "independent products"),
        Field("x_stride", 16, "bytes from one row of x to the next"),
        Field("w_stride", 16, "bytes from one row of w to the next"),
        Field("y_stride", 16, "bytes from one row of y to the next; of no meaning if TRIANGLE"),
        Field("x_batch_stride", 24, "bytes from one batch of x to the next; 0: the same x"),
        Field("w_batch_stride", 24, "bytes from one batch of w to the next; 0: the same w"),
        Field("y_batch_stride", 24, "bytes from one batch of y to the next; any byte if TRIANGLE"),
        Field("y_zero_point", 8, "added after scaling; the floor of RELU"),
        Field("x_zero_point", 8, "the x that stands for zero, in x's format"),
        Field("w_zero_point", 8, "the w that stands for zero, in w's format"),
        Field("y_format", 8, "of `PRODUCT_FORMATS`"),
    ),
    Opcode.CONV2D: (
        Field("x", 40, "card address of 8-bit x[height, width, k], pixels `x_stride` apart"),
        Field("w", 40, "card address of the packed weight tiles, tap after tap"),
        Field("params", 40, "card address of n pairs of int32 bias, float32 multiplier"),
        Field("y", 40, "card address of y[out_height, out_width, n], pixels `y_stride` apart"),
        Field("height", 16, "rows of pixels of x"),
        Field("width", 16, "pixels of a row of x"),
        Field("k", 16, "channels of x"),
        Field("n", 16, "channels of y"),
        *_WINDOWS,
        Field("pad_top", 8, "rows above x that stand for zero"),
        Field("pad_left", 8, "columns left of x that stand for zero; likewise what y needs beyond"),
        *_DILATIONS,
        Field("y_zero_point", 8, "added after scaling; the floor of RELU"),
        Field("x_zero_point", 8, "the x that stands for zero, in x's format"),
        Field("w_zero_point", 8, "the w that stands for zero, in w's format"),
        Field("y_format", 8, "of `PRODUCT_FORMATS`"),
    ),
    # y = function(a * scale + shift)
    Opcode.AFFINE: (
        *_VECTOR,
        Field("scale", 32, "float32, finite and not zero"),
        Field("shift", 32, "float32, finite"),
    ),
    # y = function(a + b * scale)
    Opcode.ADD: (*_VECTOR, Field("scale", 32, "float32, finite and not zero"), *_SECOND),
    # y = function(a * b + shift)
    Opcode.MULTIPLY: (*_VECTOR, Field("shift", 32, "float32, finite"), *_SECOND),
    # y = function(min(max(a, low), high))
    Opcode.CLAMP: (
        *_VECTOR,
        Field("low", 32, "float32, not NaN"),
        Field("high", 32, "float32, not NaN, not below low"),
    ),
    # y = a / scale, rounded to float32, then to 8 bits; NaN gives the least
    Opcode.QUANTISE: (
        *_ELEMENTS,
        Field("scale", 32, "float32, positive and normal"),
        *_ZERO_POINTS,
        Field("y_format", 8, "UINT8 or INT8"),
        Field("a_format", 8, "`ElementFormat`"),
    ),
    # y = table[a]
    Opcode.LOOKUP: (
        *_ELEMENTS,
        Field("table", 40, "card address of uint8[256]: what each byte of a becomes"),
    ),
    # y = saturate(round(fma(a, a_ratio, fma(b, b_ratio, offset)))), of the bytes as they are; with
    # INNER_A, a and b in each other's place
    Opcode.ADD_QUANTISED: (
        *_ELEMENTS,
        *_SECOND_BYTES,
        Field("a_ratio", 32, "float32, 2**-16 to below 2**8, or so far below 0"),
        Field("b_ratio", 32, "likewise"),
        Field("offset", 32, "float32, from -2**17 to 2**17 without these"),
    ),
    # y = saturate(round((a - a_zero_point) * (b - b_zero_point) * multiplier + y_zero_point)), the
    # product and the sum rounded to float32 before
    Opcode.MULTIPLY_QUANTISED: (
        *_ELEMENTS,
        *_SECOND_BYTES,
        Field("multiplier", 32, "float32, 2**-16 to below 4, or so far below 0"),
        Field("y_zero_point", 8, "added before rounding to an integer"),
        Field("a_zero_point", 8, "what stands for 0 in a"),
        Field("b_zero_point", 8, "what stands for 0 in b"),
    ),
    # y = maximum over a window of x; what lies outside x takes no part
    Opcode.POOL: WINDOWED,
    # y = sum over a window of x * w, requantised; what lies outside x takes no part
    Opcode.DEPTHWISE: (
        *WINDOWED,
        Field("w", 40, "card address of 8-bit w[taps, k], rows of whole bus words; not if ONES"),
        Field("params", 40, "card address of k pairs of int32 bias, float32 multiplier"),
        Field("y_zero_point", 8, "added after scaling; the floor of RELU"),
        Field("x_zero_point", 8, "the x that stands for zero, in x's format"),
        Field(
            "w_zero_point", 8, "the w that stands for zero, in w's format; of no meaning if ONES"
        ),
        Field("y_format", 8, "`ElementFormat` UINT8 or INT8"),
    ),
    # y = saturate(round(mean / y_scale + y_zero_point)), of (x - x_zero_point) * x_scale over a
    # window of x; every product, sum and quotient is rounded to float32
    Opcode.AVERAGE: (
        *WINDOWED,
        Field("x_scale", 32, "float32, 2**-40 to below 2**40"),
        Field("y_scale", 32, "likewise"),
        Field("y_zero_point", 8, "added before rounding to an integer"),
        Field("x_zero_point", 8, "the x that stands for zero, in x's format"),
        Field("y_format", 8, "`ElementFormat` UINT8 or INT8"),
    ),
}
"""The bytes after the header, per opcode. Fences have none; unused bytes are zero."""

_PRODUCT_FLAGS = Flag.RELU | Flag.X_INT8 | Flag.W_UINT8

FLAGS: dict[Opcode, int] = {
    Opcode.GATHER: Flag(0x7F),
    Opcode.MATMUL: _PRODUCT_FLAGS,
    Opcode.BATCH_MATMUL: _PRODUCT_FLAGS | Flag.TRANSPOSED | Flag.TRIANGLE,
    Opcode.CONV2D: _PRODUCT_FLAGS | Flag.DIAGONAL,
    Opcode.AFFINE: Flag.SUM | Flag.MAX,
    Opcode.ADD: Flag.SUM | Flag.MAX | Flag.BROADCAST,
    Opcode.MULTIPLY: Flag.SUM | Flag.MAX | Flag.BROADCAST,
    Opcode.CLAMP: Flag.SUM | Flag.MAX,
    Opcode.POOL: Flag.X_INT8,
    Opcode.ADD_QUANTISED: Flag.BROADCAST | Flag.INNER_A,
    Opcode.MULTIPLY_QUANTISED: Flag.BROADCAST,
    Opcode.DEPTHWISE: Flag.RELU | Flag.X_INT8 | Flag.W_UINT8 | Flag.ONES,
    Opcode.AVERAGE: Flag.X_INT8 | Flag.OUTSIDE,
}
"""Flag bits a command accepts; an opcode not listed accepts none."""

COMPLETION: tuple[Field, ...] = (
    Field("id", 16, "of the descriptor"),
    Field("status", 8, "`Status`"),
    Field("phase", 8, "1 on the first pass over the ring, 0 on the second, and so on"),
    Field("detail", 32, "see `Status`; rows skipped when OK"),
    Field("start_cycle", 32, "card cycle at which the engine took the command, modulo 2**32"),
    Field("end_cycle", 32, "card cycle at which the engine was done, modulo 2**32"),
)


def fields(opcode: Opcode) -> tuple[Field, ...]:
    """Header and body fields of a command, in order."""
    return HEADER + BODIES.get(opcode, ())


def _starts(table: tuple[Field, ...], first: int) -> dict[str, int]:
    """The byte at which each field begins, the table itself at byte `first`."""
    starts, position = {}, first * 8
    for field in table:
        starts[field.name] = position // 8
        position += field.bits
    return starts


def _offsets(opcode: Opcode) -> dict[str, int]:
    """Byte offsets of all fields of a command, its extension's behind the descriptor."""
    return _starts(fields(opcode), 0) | _starts(EXTENSION, DESCRIPTOR_BYTES)


def offset(opcode: Opcode, name: str) -> int:
    """Byte offset of a field in the command, as completions report it."""
    offsets = _offsets(opcode)
    if name not in offsets:
        raise KeyError(f"{opcode.name} has no field {name!r}")
    return offsets[name]


def field_at(opcode: Opcode, byte: int) -> str:
    """Name of the field that starts at `byte`: the meaning of a completion's detail."""
    return next(name for name, start in _offsets(opcode).items() if start == byte)


def layout(table: tuple[Field, ...], size_bytes: int = DESCRIPTOR_BYTES) -> data.StructLayout:
    """The table as a hardware layout, padded to `size_bytes`."""
    members = {field.name: field.bits for field in table}
    padding = size_bytes * 8 - sum(members.values())
    return data.StructLayout(members | ({"padding": padding} if padding else {}))


def pack(opcode: Opcode, **values: int) -> bytes:
    """A command as 64 bytes, or as 128 if it has an extension or a field of one is given.

    Counters default to `NO_COUNTER`, other fields to 0. Raises `ValueError` naming a field that
    does not exist or a value that does not fit.
    """
    extended = values.get("extension") == 1 or any(field.name in values for field in EXTENSION)
    table = fields(opcode)
    known = {field.name for field in (*table, *EXTENSION)} - {"opcode"}
    for name in values:
        if name not in known:
            raise ValueError(f"{name}: {opcode.name} has no such field")
    counters = ("wait_counter", "signal_counter", "second_wait_counter")
    values = dict.fromkeys(counters, NO_COUNTER) | {"extension": int(extended)} | values
    raw = _packed(table, values | {"opcode": opcode})
    return raw + _packed(EXTENSION, values) if extended else raw


def _packed(table: tuple[Field, ...], values: Mapping[str, int]) -> bytes:
    word = position = 0
    for field in table:
        value = int(values.get(field.name, 0))
        if not 0 <= value < 1 << field.bits:
            raise ValueError(f"{field.name}={value}: must fit {field.bits} unsigned bits")
        word |= value << position
        position += field.bits
    return word.to_bytes(DESCRIPTOR_BYTES, "little")


def unpack(table: tuple[Field, ...], raw: bytes) -> dict[str, int]:
    """The fields of a packed descriptor or completion."""
    word = int.from_bytes(raw, "little")
    values = {}
    for field in table:
        values[field.name] = word & ((1 << field.bits) - 1)
        word >>= field.bits
    return values


def waits(command: bytes) -> list[tuple[int, int]]:
    """The counters that a command waits for, each with the value it must reach."""
    header = unpack(HEADER, command)
    found = [(header["wait_counter"], header["wait_value"])]
    if header["extension"] == 1:
        extension = unpack(EXTENSION, command[DESCRIPTOR_BYTES:])
        found.append((extension["second_wait_counter"], extension["second_wait_value"]))
    return [(counter, value) for counter, value in found if counter != NO_COUNTER]
