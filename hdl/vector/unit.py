"""The shape of what stands beside the lanes of the vector engine, for commands of bytes alone."""

from amaranth import Cat, Const, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from halfdome.hdl.config import CardConfig

WORDS = 2
"""log2 of an element's bytes where a group of elements is a whole bus word."""


def byte_size(config: CardConfig) -> int:
    """log2 of the element's bytes whose groups are `byte_lanes` bytes."""
    return WORDS - exact_log2(config.byte_word_cycles)


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


def group_of(word: Value, size: int) -> Value:
    """The inverse of `bytes_of`, as the bits of a group."""
    width = 8 << size
    count = len(word) // width
    return Cat(Cat(word.word_select(k, width), Const(0, 32 - width)) for k in range(count))
