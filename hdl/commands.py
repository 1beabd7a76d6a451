"""The 64-byte descriptors a host submits and the 16-byte completions a card returns.

One table of fields per command is the only definition: the RTL decoder, the host packer, the golden
model and the C header derive from it. All fields are little-endian and start on a byte. A command
may have an extension, a second slot of the ring behind its descriptor.
"""

import enum as python_enum
from collections.abc import Mapping
from typing import NamedTuple

from amaranth.lib import data, enum

DESCRIPTOR_BYTES = 64
COMPLETION_BYTES = 16
NO_COUNTER = 0xFF
"""Counter index that means: wait for nothing, signal nothing."""
TABLE_BYTES = 256
"""Bytes of the table of a LOOKUP: one for each byte that an element may be."""
RATIO_EXPONENTS = range(-16, 8)
"""log2, rounded down, of the ratios of an ADD_QUANTISED: beyond, a step of an input is at least as
far as from end to end of the output, or all of an input less than a hundredth of a step."""
MULTIPLIER_EXPONENTS = range(-16, 2)
"""log2, rounded down, of the multiplier of a MULTIPLY_QUANTISED: below, no product is a step."""
OFFSET_LIMIT = 1 << 17
"""What the offset of an ADD_QUANTISED stays below, whatever its zero points are."""
MOST_TAPS = 64
"""Taps of the largest kernel of a DEPTHWISE that has weights."""
MOST_AVERAGED = 255
"""Taps of the largest window of an AVERAGE."""
SCALE_EXPONENTS = range(-40, 40)
"""log2, rounded down, of the scales of an AVERAGE: no step of it overflows or underflows."""
TRANSPOSED_BYTES = (1, 2, 4)
"""Bytes that an element of a TRANSPOSE may have."""
MATMUL_LIMIT = 65535
"""Largest m, k or n of a matrix product; of a CONV2D, largest height, width, k or n."""


class Engine(enum.IntEnum, shape=4):
    """The engines of a core, each with its own in-order queue: the high nibble of an opcode."""

    LOAD = 0
    STORE = 1
    GATHER = 2
    MATMUL = 3
    VECTOR = 4


class Opcode(enum.IntEnum, shape=8):
    """What a descriptor asks for. `FENCE_*` does nothing but wait and signal in that queue."""

    LOAD = 0x01
    COPY = 0x02
    TRANSPOSE = 0x03
    FENCE_LOAD = 0x0F
    STORE = 0x11
    SIGNAL = 0x12
    FENCE_STORE = 0x1F
    GATHER = 0x21
    FENCE_GATHER = 0x2F
    MATMUL = 0x31
    BATCH_MATMUL = 0x32
    CONV2D = 0x33
    FENCE_MATMUL = 0x3F
    AFFINE = 0x41
    ADD = 0x42
    MULTIPLY = 0x43
    CLAMP = 0x44
    LOOKUP = 0x45
    POOL = 0x46
    ADD_QUANTISED = 0x47
    MULTIPLY_QUANTISED = 0x48
    QUANTISE = 0x4A
    DEPTHWISE = 0x4B
    AVERAGE = 0x4C
    FENCE_VECTOR = 0x4F

    @property
    def engine(self) -> Engine:
        """The engine whose queue the command joins."""
        return Engine(self.value >> 4)

    @property
    def is_fence(self) -> bool:
        """Whether the command only waits and signals."""
        return self.value & 0xF == 0xF


class Status(enum.IntEnum, shape=8):
    """How a command ended."""

    OK = 0
    #: The opcode is none of `Opcode`. Detail: the opcode.
    BAD_OPCODE = 1
    #: The core is not the one whose ring the command is in. Detail: byte offset of the field in
    #: the descriptor.
    BAD_CORE = 2
    #: A counter index is neither `NO_COUNTER` nor a counter. Detail: byte offset of the field.
    BAD_COUNTER = 3
    #: A dimension is zero or too large. Detail: byte offset of the field.
    BAD_DIMENSION = 4
    #: An address or stride is not a multiple of what it must be. Detail: byte offset of the field.
    BAD_ALIGNMENT = 5
    #: An operand leaves DRAM or the core's scratchpad. Detail: byte offset of its address field.
    BAD_RANGE = 6
    #: A flag, format, mode or scale has no meaning. Detail: byte offset of the field.
    BAD_FORMAT = 7
    #: An index is outside its table (`IndexMode.FATAL`). Detail: position in the index array.
    BAD_INDEX = 8
    #: A bag length is negative, or the next bag starts before it. Detail: bag number.
    BAD_LENGTH = 9
    #: The lengths do not sum to `index_count`, or offsets do not start at 0. Detail: number of the
    #: bag that overruns, or `bags`.
    LENGTH_MISMATCH = 10
    #: A PCIe read failed. Detail: `ReadFailure`, of the first part that failed.
    READ_FAILED = 11
    #: The output overlaps an operand. Detail: byte offset of the operand's address field.
    BAD_OVERLAP = 12
    #: The multiplier of an output channel is zero, infinite or NaN. Detail: the channel.
    BAD_MULTIPLIER = 13


class ReadFailure(enum.IntEnum, shape=3):
    """Why a PCIe read failed."""

    NONE = 0
    #: A completion was poisoned.
    POISONED = 1
    #: A completion said unsupported request, completer abort or configuration retry.
    UNSUCCESSFUL = 2
    #: A completion was not what its header said, or not what the read still needed.
    MALFORMED = 3
    #: Not all completions came in time.
    TIMED_OUT = 4
    #: Every tag is in quarantine.
    NO_TAG = 5
    #: Bus mastering is off.
    NOT_BUS_MASTER = 6


class RowFormat(enum.IntEnum, shape=8):
    """How an embedding row is stored."""

    #: `dim` uint8, then fp32 scale, fp32 bias.
    INT8 = 0
    #: `dim` 4-bit values, even column in the low nibble, then fp16 scale, fp16 bias.
    INT4 = 1
    #: `dim` uint8, then fp16 scale, fp16 bias.
    INT8_HALF = 2
    #: `dim` fp16, neither scale nor bias.
    FLOAT16 = 3
    #: `dim` fp32, neither scale nor bias.
    FLOAT32 = 4

    @property
    def element_bits(self) -> int:
        """Bits of an element."""
        return (8, 4, 8, 16, 32)[self.value]

    @property
    def tail_bytes(self) -> int:
        """Bytes of scale and bias, behind the elements."""
        return (8, 4, 4, 0, 0)[self.value]

    def row_bytes(self, dim: int) -> int:
        """Bytes of a row of `dim` elements, scale and bias included."""
        return -(-dim * self.element_bits // 8) + self.tail_bytes


class IndexMode(enum.IntEnum, shape=2):
    """What an index outside its table means: bits 6:5 of a GATHER's flags."""

    #: The command fails and names the position.
    FATAL = 0
    #: The row contributes nothing; completion detail counts such rows.
    WARN = 1
    #: The row contributes nothing.
    IGNORE = 2


class ElementFormat(enum.IntEnum, shape=8):
    """How an element is stored, in vector commands and in the output of matrix products."""

    #: Stands for `q - zero_point`.
    UINT8 = 0
    #: Stands for `q - zero_point`, both two's complement.
    INT8 = 1
    #: IEEE 754 binary16.
    FLOAT16 = 2
    #: IEEE 754 binary32.
    FLOAT32 = 3
    #: Vector sources, rounded to the nearest fp32; of a matrix product, the sums of products.
    INT32 = 4

    @property
    def nbytes(self) -> int:
        """Bytes of an element."""
        return (1, 1, 2, 4, 4)[self.value]


POOLED_FORMATS = (
    ElementFormat.FLOAT32, ElementFormat.FLOAT16, ElementFormat.UINT8, ElementFormat.INT8,
)  # fmt: skip
"""What GATHER writes."""
BYTE_FORMATS = (ElementFormat.UINT8, ElementFormat.INT8)
"""What ADD_QUANTISED and MULTIPLY_QUANTISED read and write, and DEPTHWISE and AVERAGE write."""
PRODUCT_FORMATS = (ElementFormat.UINT8, ElementFormat.INT8, ElementFormat.INT32)
"""What a matrix product writes: totals requantised to 8 bits, or the int32 sums of products as they
are, without bias and multiplier; `params` is not read then."""


class Function(enum.IntEnum, shape=8):
    """What a vector command applies to each element; errors are in `halfdome.hdl.vector.tables`."""

    IDENTITY = 0
    #: The larger of x and +0.
    RELU = 1
    SIGMOID = 2
    TANH = 3
    EXP = 4
    #: x / 2 * (1 + erf(x / sqrt(2))).
    GELU = 5
    #: 1 / x; a subnormal x counts as zero.
    RECIPROCAL = 6
    #: 1 / sqrt(x); a subnormal x counts as zero.
    RSQRT = 7


_MODE_SHIFT = 5


class Flag(python_enum.IntFlag):
    """Bits of the `flags` field; each command accepts only its own (`FLAGS`)."""

    #: GATHER: multiply each row by its fp32 weight.
    WEIGHTED = 1
    #: GATHER: divide each sum by the number of rows in it.
    MEAN = 2
    #: GATHER: indices and lengths are int64, not int32.
    WIDE = 4
    #: GATHER: `lengths` holds where each bag starts in the indices, not its length.
    OFFSETS = 8
    #: GATHER: index -1 stands for a pruned row, which contributes nothing and is not bad.
    PRUNED = 16
    #: GATHER: `IndexMode.WARN`. Not with IGNORE.
    WARN = IndexMode.WARN << _MODE_SHIFT
    #: GATHER: `IndexMode.IGNORE`.
    IGNORE = IndexMode.IGNORE << _MODE_SHIFT
    #: Matrix products, DEPTHWISE: clamp the output at the zero point; not with INT32.
    RELU = 1
    #: Vector commands: y is [rows, 1], the sum of each row.
    SUM = 1
    #: Vector commands: y is [rows, 1], the largest element of each row. Not with SUM.
    MAX = 2
    #: ADD, MULTIPLY, quantised or not: b is [rows, 1], one element for all columns of a row.
    BROADCAST = 4
    #: ADD_QUANTISED: the offset is added to what comes of a first, not of b.
    INNER_A = 8
    #: Matrix products, POOL, DEPTHWISE, AVERAGE: x is int8, not uint8.
    X_INT8 = 2
    #: Matrix products, DEPTHWISE: w is uint8, not int8.
    W_UINT8 = 4
    #: AVERAGE: taps outside of x count, too, as zeros.
    OUTSIDE = 4
    #: DEPTHWISE: every weight is one; w is not read, and kernels may have any number of taps.
    ONES = 8
    #: BATCH_MATMUL: w is stored as n rows of k, not as k rows of n: y = x @ w.T.
    TRANSPOSED = 8
    #: CONV2D: y's channels of an output tile see x's of the same numbers alone; w is those tiles.
    #: Needs n = k and a card with `CardConfig.diagonal_tiles`.
    DIAGONAL = 8
    #: BATCH_MATMUL: of each batch write only row i's columns j < i, one after the other: row 1,
    #: row 2, and so on, n * (n - 1) / 2 bytes. Needs m = n, not with INT32.
    TRIANGLE = 16


def mode_flags(mode: IndexMode) -> Flag:
    """The flags of a GATHER that stand for `mode`."""
    return Flag(mode << _MODE_SHIFT)


def index_mode(flags: int) -> IndexMode:
    """The mode that a GATHER's flags stand for; `ValueError` if they stand for none."""
    return IndexMode(flags >> _MODE_SHIFT & 3)


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
