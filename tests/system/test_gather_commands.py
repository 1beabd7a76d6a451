"""Good and bad GATHERs in any order: each ends, each is right, none writes where it must not."""

import numpy as np
import pytest

from halfdome.hdl.commands import POOLED_FORMATS, IndexMode, RowFormat, Status
from halfdome.hdl.config import PRESETS
from tests.hdl.gather.harness import FILL, Gather, Laid, lay, make_table

TINY = PRESETS["tiny"]
WORD = TINY.bus_bytes
BATCH = 100
"""Commands that are in memory at a time."""
DAMAGES = (
    ({"rows": 0}, Status.BAD_DIMENSION),
    ({"dim": TINY.max_dim + 1}, Status.BAD_DIMENSION),
    ({"indices": 8}, Status.BAD_ALIGNMENT),
    ({"format": 7}, Status.BAD_FORMAT),
    ({"output": TINY.dram_bytes - 1, "bags": 9, "output_stride": 4096}, Status.BAD_RANGE),
)
FAULTS = {Status.BAD_INDEX, Status.BAD_LENGTH, Status.LENGTH_MISMATCH}
ENDS = FAULTS | {Status.OK} | {status for _, status in DAMAGES}


def random_command(rng) -> Gather:
    """Any command; half have something wrong with their indices or lengths."""
    row_format = RowFormat(rng.integers(len(RowFormat)))
    dim, rows = int(rng.integers(1, 40)), int(rng.integers(1, 20))
    lengths = rng.integers(0, rng.choice([2, 9, 30]), int(rng.integers(1, 9)))
    count = int(lengths.sum())
    indices = rng.integers(0, rows, count)
    wide = bool(rng.integers(2))
    limits = np.iinfo(np.int64 if wide else np.int32)
    if rng.random() < 0.4:
        bad = rng.choice([-1, -2, rows, limits.min, limits.max], count)
        indices = np.where(rng.random(count) < 0.1, bad, indices)
    offsets = None
    delimiters = lengths
    if rng.integers(2):
        delimiters = offsets = np.cumsum(lengths) - lengths
    if rng.random() < 0.2:
        place = rng.integers(len(lengths))
        delimiters[place] += rng.choice([-40, -1, 1, 40])
        if rng.random() < 0.3:
            delimiters[place] = rng.choice([limits.min, limits.max])
    return Gather(
        table=make_table(rng, rows, dim, row_format, int(rng.integers(9)), bool(rng.integers(2))),
        indices=indices,
        lengths=lengths,
        dim=dim,
        row_format=row_format,
        weights=rng.standard_normal(count).astype(np.float32) if rng.integers(2) else None,
        mode=IndexMode(rng.integers(len(IndexMode))),
        offset=int(rng.integers(WORD)),
        output_offset=int(rng.integers(WORD)),
        output_padding=int(rng.integers(2 * WORD)),
        output_format=POOLED_FORMATS[rng.integers(len(POOLED_FORMATS))],
        multiplier=float(np.float32(rng.normal() * 50)),
        zero_point=int(rng.integers(256)),
        mean=bool(rng.integers(2)),
        wide=wide,
        pruned=bool(rng.integers(2)),
        offsets=offsets,
    )


def run_batch(card, memory, rng, count) -> set[Status]:
    """Runs `count` commands that lie side by side; returns the ways in which they ended.

    The card counts the bytes that it writes. The rows it should write hold other bytes before: if
    all are right and the count is theirs, every write was to one of them.
    """
    memory[:] = FILL
    laid: list[Laid] = []
    endings = []
    rows: list[tuple[int, np.ndarray]] = []
    end = 0
    for _ in range(count):
        command = random_command(rng)
        pooled, *ending = command.golden()
        changes = {}
        if rng.random() < 0.1:
            changes, status = DAMAGES[rng.integers(len(DAMAGES))]
            pooled, ending = pooled[:0], [status, None]
        laid.append(lay(command, memory, end, WORD, **changes))
        end = laid[-1].end
        endings.append(ending)
        rows += [
            (laid[-1].output + bag * laid[-1].stride, row.view(np.uint8))
            for bag, row in enumerate(pooled)
        ]
    expected = memory.copy()
    for start, row in rows:
        expected[start : start + row.size] = row
        memory[start : start + row.size] = ~row

    written = card.counters()["dram_write_bytes"]
    completions = card.device.wait(card.device.submit([place.descriptor for place in laid]))
    for completion, (status, detail) in zip(completions, endings, strict=True):
        assert completion.status == status
        assert detail in (completion.detail, None)
    np.testing.assert_array_equal(memory, expected)
    written = card.counters()["dram_write_bytes"] - written
    assert written == sum(row.size for _, row in rows)
    return {completion.status for completion in completions}


@pytest.mark.parametrize("count", [BATCH, pytest.param(2_000, marks=pytest.mark.slow)])
def test_a_random_mix_of_good_and_bad_commands(runtime, card, count):
    rng = np.random.default_rng(count)
    memory = runtime.platform.memory(card.index)
    ends = [run_batch(card, memory, rng, BATCH) for _ in range(count // BATCH)]
    assert set.union(*ends) == ENDS
