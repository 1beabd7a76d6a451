"""The shape of a command's rows in bus words and chunks, derived once per command."""

from amaranth import Const, Mux, Value
from amaranth.lib import data, enum
from amaranth.utils import exact_log2

from halfdome.hdl.commands import RowFormat
from halfdome.hdl.config import CardConfig

TAIL_BYTES = max(row_format.tail_bytes for row_format in RowFormat)
"""Most bytes of scale and bias."""


class ElementWidth(enum.IntEnum, shape=2):
    """Bits of an element of a row, as a power of two of nibbles."""

    NIBBLE = 0
    BYTE = 1
    HALF = 2
    SINGLE = 3

    @property
    def bits(self) -> int:
        """Bits of an element."""
        return 4 << self.value


class Factors(enum.IntEnum, shape=2):
    """What scale and bias of a row are."""

    #: The row has neither.
    NONE = 0
    #: fp16.
    HALF = 1
    #: fp32.
    SINGLE = 2


_FACTORS = {0: Factors.NONE, 4: Factors.HALF, 8: Factors.SINGLE}
"""By the bytes that both take."""


def max_chunks(config: CardConfig) -> int:
    """Chunks of the longest row: a chunk is what the lanes take in one cycle."""
    return -(-config.max_dim // config.lanes)


def max_row_bytes(config: CardConfig) -> int:
    """Bytes of the longest row, scale and bias included."""
    return max(row_format.row_bytes(config.max_dim) for row_format in RowFormat)


def max_factored_words(config: CardConfig) -> int:
    """Bus words that hold the elements of the longest row which ends with scale and bias."""
    most = max(
        row_format.row_bytes(config.max_dim) - row_format.tail_bytes
        for row_format in RowFormat
        if row_format.tail_bytes
    )
    return -(-most // config.bus_bytes)


def row_shape(config: CardConfig) -> data.StructLayout:
    """What the units along the row path need to know of a row.

    width : of its elements
    factors : what its scale and bias are
    row_bytes : bytes of a row, scale and bias included
    last_word, last_byte : position of the row's last byte when the row starts at byte 0 of a word
    last_data_word : the last word that holds elements
    last_chunk : number of the last chunk
    last_lane : the last lane that holds an element in the last chunk
    """
    words = range(-(-max_row_bytes(config) // config.bus_bytes))
    return data.StructLayout(
        {
            "width": ElementWidth,
            "factors": Factors,
            "row_bytes": range(max_row_bytes(config) + 1),
            "last_word": words,
            "last_byte": range(config.bus_bytes),
            "last_data_word": words,
            "last_chunk": range(max_chunks(config)),
            "last_lane": range(config.lanes),
        }
    )


def shape_of(config: CardConfig, dim: Value, row_format: Value) -> dict[str, Value]:
    """The fields of `row_shape` for rows of `dim` elements, as combinational values."""

    def select(values: dict[RowFormat, Value | int]) -> Value:
        result: Value = Const(0, 0)
        for choice, value in values.items():
            result = Mux(row_format == choice, value, result)
        return result

    word_bits = exact_log2(config.bus_bytes)
    lane_bits = exact_log2(config.lanes)
    data_bytes = select({f: (dim * f.element_bits + 7) >> 3 for f in RowFormat})
    row_bytes = data_bytes + select({f: f.tail_bytes for f in RowFormat})
    last_byte = row_bytes - 1
    last_element = dim - 1
    return {
        "width": select({f: ElementWidth(exact_log2(f.element_bits // 4)) for f in RowFormat}),
        "factors": select({f: _FACTORS[f.tail_bytes] for f in RowFormat}),
        "row_bytes": row_bytes,
        "last_word": last_byte[word_bits:],
        "last_byte": last_byte[:word_bits],
        "last_data_word": (data_bytes - 1)[word_bits:],
        "last_chunk": last_element[lane_bits:],
        "last_lane": last_element[:lane_bits],
    }
