"""The allocator gives every byte to one owner at a time and forgets none."""

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
