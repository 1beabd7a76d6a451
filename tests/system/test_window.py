"""What a processor reads and writes in BAR 2, over the whole way from it to DRAM and scratchpad."""

import random

import pytest

WIDTHS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def places(runtime):
    """Bus address of 64 bytes of a card's DRAM, and of 64 of its scratchpad."""
    config, bars = runtime.config, runtime.platform.bars[1]
    return {"dram": bars.bar2 + 0x3F80, "scratchpad": bars.bar2 + config.scratchpad_base + 0x140}


@pytest.mark.parametrize("memory", ["dram", "scratchpad"])
def test_every_aligned_integer_is_written_alone_and_read_back(runtime, places, memory):
    bus, base, rng = runtime.platform.bus, places[memory], random.Random(1)
    expected = bytearray(rng.randbytes(64))
    bus.write(base, bytes(expected))
    for size in WIDTHS:
        for start in range(0, 64, size):
            expected[start : start + size] = data = rng.randbytes(size)
            bus.write(base + start, data)
            assert bus.read(base + start, size) == data, (start, size)
            assert bus.read(base, 64) == expected, (start, size)


@pytest.mark.parametrize("memory", ["dram", "scratchpad"])
def test_accesses_of_any_size_at_any_byte(runtime, places, memory):
    bus, base, rng = runtime.platform.bus, places[memory] - 0x100, random.Random(2)
    expected = bytearray(rng.randbytes(1024))
    bus.write(base, bytes(expected))
    for _ in range(300):
        size = rng.choice([*WIDTHS, rng.randint(1, 64), rng.randint(1, 1024)])
        start = rng.randrange(1024 - size + 1)
        if rng.random() < 0.5:
            expected[start : start + size] = data = rng.randbytes(size)
            bus.write(base + start, data)
        else:
            assert bus.read(base + start, size) == expected[start : start + size], (start, size)
    assert bus.read(base, 1024) == expected
