"""What a command touches, as the compiler's checks see it, and what the golden card does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.hdl.commands import Opcode, Status
from halfdome.hdl.config import PRESETS
from halfdome.hdl.descriptors import fields, unpack
from halfdome.host.compiler.operands import operands
from halfdome.sim.golden.card import GoldenCard
from tests.system.programs import KINDS, SLOT

TINY = PRESETS["tiny"]
MEMORY = 4 * SLOT
"""Bytes of DRAM that a task lies in."""


def touched(found, writes):
    """The bytes of memory that some operands cover."""
    mask = np.zeros(TINY.window_bytes, bool)
    for extent, written in found.values():
        if written is writes:
            for row in range(extent.rows):
                start = extent.start + row * extent.stride
                mask[start : start + extent.row_bytes] = True
    return mask


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(seed=st.integers(0, 1 << 30))
def test_a_command_reads_and_writes_its_operands_and_nothing_else(kind, seed):
    rng = np.random.default_rng(seed)
    task = kind(rng, TINY, 0, SLOT)
    raw = task.descriptor
    found = operands(task.opcode, unpack(fields(Opcode(task.opcode)), raw), TINY)
    read, written = (touched(found, writes) for writes in (False, True))
    one, two = (GoldenCard(TINY, None) for _ in range(2))
    one.memory[:MEMORY] = rng.integers(0, 256, MEMORY, np.uint8)
    for address, values in task.contents:
        one.memory[address : address + values.size] = values
    two.memory[:MEMORY] = rng.integers(0, 256, MEMORY, np.uint8)
    two.memory[read] = one.memory[read]
    before = one.memory.copy(), two.memory.copy()
    status = one.execute(raw)
    assert two.execute(raw) == status
    for card, old in zip((one, two), before, strict=True):
        np.testing.assert_array_equal(card.memory[~written], old[~written])
    if status[0] is Status.OK:
        made = one.memory != before[0]
        np.testing.assert_array_equal(one.memory[made], two.memory[made])
