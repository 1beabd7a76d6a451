"""The groups of elements that pass the vector engine, and what stands beside its lanes."""

from amaranth import Cat, Const, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig

FLOAT_SIZE = 2
"""log2 of the bytes of an fp32 element, the largest that passes the lanes."""


def word_size(config: CardConfig) -> int:
    """log2 of the element's bytes where a group of elements is a whole bus word."""
    return FLOAT_SIZE + exact_log2(config.float_word_cycles)


def byte_size(config: CardConfig) -> int:
    """log2 of the element's bytes whose groups are `byte_lanes` bytes."""
    return word_size(config) - exact_log2(config.byte_word_cycles)


def element_sizes(config: CardConfig) -> list[int]:
    """log2 of the bytes that an element may have that is written: those of the lanes' formats, and
    that of groups of `byte_lanes` bytes."""
    return sorted({*range(FLOAT_SIZE + 1), byte_size(config)})


def group_layout(config: CardConfig) -> data.ArrayLayout:
    """A group: `vector_lanes` elements, each in the low bits of as many as a word has for one."""
    return data.ArrayLayout(8 << word_size(config), config.vector_lanes)


def unit_members(nbytes: int) -> dict:
    """Members of a unit that takes and gives groups of so many bytes.

    A group comes with `valid`, which is low unless `enable` is high; groups inside move on in
    enabled cycles. One leaves in each enabled cycle that has `o_valid`.
    """
    return {
        "enable": In(1),
        "valid": In(1),
        "i": In(8 * nbytes),
        "o": Out(8 * nbytes),
        "o_valid": Out(1),
    }


def bytes_of(group: data.View, size: int) -> Value:
    """The bytes of a group of elements of `1 << size` bytes."""
    return Cat(element[: 8 << size] for element in group)


def group_of(raw: Value, size: int, config: CardConfig) -> Value:
    """The inverse of `bytes_of`, as the bits of a group."""
    width, room = 8 << size, 8 << word_size(config)
    count = len(raw) // width
    return Cat(Cat(raw.word_select(k, width), Const(0, room - width)) for k in range(count))
