"""A fault is named, moves nothing outside the bags before it, and leaves the engine clean."""

import pytest

from halfdome.hdl.commands import IndexMode, Status
from halfdome.hdl.config import PRESETS
from tests.hdl.gather.harness import plain, run

TINY = PRESETS["tiny"]


def faulty(*, index=None, length=None, **changes):
    """A command like `plain` with one index or length, or both, replaced: (place, value)."""
    command = plain(**{"dim": 3} | changes)
    if index:
        command.indices[index[0]] = index[1]
    if length:
        command.lengths[length[0]] = length[1]
    return command


# Bags of `plain` start at positions 0, 3, 3, 8, 9, 11 and end at 15.
FAULTS = {
    "first index": (faulty(index=(0, -1)), Status.BAD_INDEX, 0),
    "index inside a bag": (faulty(index=(5, 12)), Status.BAD_INDEX, 5),
    "last index": (faulty(index=(14, -(2**31))), Status.BAD_INDEX, 14),
    "index of a bag of one": (faulty(index=(8, 2**31 - 1)), Status.BAD_INDEX, 8),
    "index far into a long array": (
        faulty(index=(9, 12), lengths=(4, 600), dim=3), Status.BAD_INDEX, 9
    ),
    "first length negative": (faulty(length=(0, -1)), Status.BAD_LENGTH, 0),
    "last length negative": (faulty(length=(5, -(2**31))), Status.BAD_LENGTH, 5),
    "length too long": (faulty(length=(2, 2**31 - 1)), Status.LENGTH_MISMATCH, 2),
    "last length one too long": (faulty(length=(5, 5)), Status.LENGTH_MISMATCH, 5),
    "last length one too short": (faulty(length=(5, 3)), Status.LENGTH_MISMATCH, 6),
    "all lengths zero": (
        plain(lengths=(0, 0), indices=[0] * 9, weights=None), Status.LENGTH_MISMATCH, 2
    ),
    "bad index before a bad length": (
        faulty(index=(1, 99), length=(3, -7)), Status.BAD_INDEX, 1
    ),
}  # fmt: skip


@pytest.mark.slow
def test_every_fault_is_named_and_the_command_after_it_is_good():
    commands, expected = [plain(0)], [(Status.OK, 0)]
    for number, (command, status, detail) in enumerate(FAULTS.values()):
        commands += [command, plain(number + 1, dim=3)]
        expected += [(status, detail), (Status.OK, 0)]
    outcomes = run(TINY, commands, stall=0.3)
    assert [(o.status, o.detail) for o in outcomes] == expected


def test_a_fault_does_not_read_the_rest_of_a_long_array():
    command, status, _ = FAULTS["index far into a long array"]
    (outcome,) = run(TINY, [command], latency=(1, 1))
    assert outcome.status == status
    assert outcome.cycles < 300


@pytest.mark.slow
def test_bad_rows_are_skipped_and_counted_in_mode_warn():
    for mode, detail in ((IndexMode.WARN, 4), (IndexMode.IGNORE, 0)):
        command = plain(mode=mode)
        # The last row of one bag, the only row of another, the first and last of a third.
        command.indices[[2, 8, 9, 10]] = [-1, 12, 13, 2**31 - 1]
        (outcome,) = run(TINY, [command])
        assert (outcome.status, outcome.detail) == (Status.OK, detail)
