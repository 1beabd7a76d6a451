"""Buffers that batches take in turn."""

import pytest

from halfdome.host.runtime.buffers import Buffer, Matrix, Ring
from halfdome.host.driver.memory import Block
from halfdome.host.driver.timeline import Event


class Memory:
    """As much of a card as a ring uses."""

    def __init__(self):
        self.blocks = []

    def place(self, nbytes):
        self.blocks.append(Block(64 * len(self.blocks), nbytes))
        return self.blocks[-1]

    def release(self, block):
        self.blocks.remove(block)


def test_a_ring_hands_out_the_buffer_used_longest_ago_with_its_last_readers():
    memory = Memory()
    ring = Ring(memory, 10, 3)
    taken = [ring.take() for _ in range(3)]
    assert len({buffer.block for buffer in taken}) == 3
    events = [Event(0, 1, value) for value in range(3)]
    for buffer, event in zip(taken, events, strict=True):
        buffer.give_back(event)
    assert [ring.take().free_after for _ in range(3)] == [(event,) for event in events]
    ring.release()
    assert memory.blocks == []


def test_a_buffer_whose_readers_are_not_known_yet_is_not_handed_out():
    buffer = Buffer(Block(0x40, 8))
    buffer.take()
    with pytest.raises(RuntimeError, match="buffer at 0x40: taken before it was given back"):
        buffer.take()
    buffer.give_back()
    buffer.take()


def test_rows_of_a_matrix():
    assert Matrix(100, 32).rows_from(3) == Matrix(196, 32)
