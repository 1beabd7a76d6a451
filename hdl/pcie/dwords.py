"""The doublewords of a bus word: packets count from their address, memory from its words."""

from amaranth import Mux, Value


def rotated(word: Value, count: Value) -> Value:
    """A bus word whose doubleword 0 is number `count` (modulo their number) of `word`."""
    for bit in range(len(count)):
        word = Mux(count[bit], word.rotate_right(32 << bit), word)
    return word
