"""The allocator gives every byte to one owner at a time and forgets none."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.driver.memory import Allocator

BASE, SIZE, ALIGN = 0x1000, 4096, 64


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 900), st.integers(0, 50)), max_size=60))
def test_blocks_never_overlap_and_all_memory_comes_back(steps):
    allocator = Allocator("test", BASE, SIZE, ALIGN)
    held = []
    for allocate, nbytes, pick in steps:
        if allocate:
            try:
                block = allocator.allocate(nbytes)
            except MemoryError:
                assert allocator.free_bytes < SIZE
                continue
            assert block.address % ALIGN == 0
            assert block.nbytes >= max(1, nbytes)
            assert block.address >= BASE
            assert block.address + block.nbytes <= BASE + SIZE
            for other in held:
                assert (
                    block.address + block.nbytes <= other.address
                    or other.address + other.nbytes <= block.address
                )
            held.append(block)
        elif held:
            allocator.release(held.pop(pick % len(held)))
    for block in held:
        allocator.release(block)
    assert allocator.allocate(SIZE).address == BASE


def test_a_full_memory_says_what_is_left():
    allocator = Allocator("card 3 scratchpad", BASE, SIZE, ALIGN)
    allocator.allocate(SIZE - ALIGN)
    with pytest.raises(MemoryError, match=r"card 3 scratchpad: no 128 .* 64 of 4096 are free"):
        allocator.allocate(65)


def test_a_block_is_given_back_once_and_to_the_memory_it_came_from():
    allocator, other = (Allocator(name, BASE, SIZE, ALIGN) for name in ("one", "two"))
    block, same_place = allocator.allocate(100), other.allocate(100)
    assert block.address == same_place.address
    with pytest.raises(ValueError, match=r"one: the block of 128 bytes at 0x1000 is not allocated"):
        allocator.release(same_place)
    allocator.release(block)
    with pytest.raises(ValueError, match="it was released before, or is of another memory"):
        allocator.release(block)
    assert allocator.free_bytes == SIZE
    assert not allocator.owns(block)
    assert other.owns(same_place)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 500)), max_size=30), st.integers(0, 30))
def test_restoring_gives_back_what_came_later_and_takes_nothing_again(steps, when):
    allocator = Allocator("test", BASE, SIZE, ALIGN)
    owned, held = allocator.owned, []
    for place, (allocate, nbytes) in enumerate(steps):
        if place == when:
            owned = allocator.owned
        if not allocate and held:
            allocator.release(held.pop(nbytes % len(held)))
        else:
            with suppress(MemoryError):
                held.append(allocator.allocate(nbytes))
    expected = [block for block in owned if block in held]
    allocator.restore(owned)
    assert list(allocator.owned) == expected
    assert allocator.free_bytes == SIZE - sum(block.nbytes for block in expected)
    assert list(allocator.owned) == sorted(allocator.owned, key=lambda block: block.address)
