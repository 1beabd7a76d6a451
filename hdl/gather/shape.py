"""The shape of a command's rows in bus words and chunks, derived once per command."""

from amaranth import Cat, Mux, Value
from amaranth.lib import data
from amaranth.utils import exact_log2

from hdl.commands import RowFormat
from hdl.config import CardConfig

INT8_TAIL_BYTES = 8
"""fp32 scale and fp32 bias."""
INT4_TAIL_BYTES = 4
"""fp16 scale and fp16 bias."""


def max_chunks(config: CardConfig) -> int:
    """Chunks of the longest row: a chunk is what the lanes take in one cycle."""
    return -(-config.max_dim // config.lanes)


def max_row_bytes(config: CardConfig) -> int:
    """Bytes of the longest row, scale and bias included."""
    return config.max_dim + INT8_TAIL_BYTES


def row_shape(config: CardConfig) -> data.StructLayout:
    """What the units along the row path need to know of a row.

    int4 : elements are nibbles
    row_bytes : bytes of a row, scale and bias included
    last_word, last_byte : position of the row's last byte when the row starts at byte 0 of a word
    last_data_word : the last word that holds elements
    last_chunk : number of the last chunk
    last_mask : lanes that hold an element in the last chunk
    """
    words = range(-(-max_row_bytes(config) // config.bus_bytes))
    return data.StructLayout(
        {
            "int4": 1,
            "row_bytes": range(max_row_bytes(config) + 1),
            "last_word": words,
            "last_byte": range(config.bus_bytes),
            "last_data_word": words,
            "last_chunk": range(max_chunks(config)),
            "last_mask": config.lanes,
        }
    )


def shape_of(config: CardConfig, dim: Value, row_format: Value) -> dict[str, Value]:
    """The fields of `row_shape` for rows of `dim` elements, as combinational values."""
    int4 = row_format == RowFormat.INT4
    word_bits = exact_log2(config.bus_bytes)
    lane_bits = exact_log2(config.lanes)
    data_bytes = Mux(int4, (dim + 1) >> 1, dim)
    row_bytes = data_bytes + Mux(int4, INT4_TAIL_BYTES, INT8_TAIL_BYTES)
    last_byte = row_bytes - 1
    last_element = dim - 1
    last_lane = last_element[:lane_bits]
    return {
        "int4": int4,
        "row_bytes": row_bytes,
        "last_word": last_byte[word_bits:],
        "last_byte": last_byte[:word_bits],
        "last_data_word": (data_bytes - 1)[word_bits:],
        "last_chunk": last_element[lane_bits:],
        "last_mask": Cat(lane <= last_lane for lane in range(config.lanes)),
    }
