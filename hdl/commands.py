"""What a card can be told to do, and what it answers: opcodes, flags, formats, statuses, limits."""

import enum as python_enum

from amaranth.lib import enum

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
