"""What commands are expected to take, against what it depends on."""

import numpy as np
import pytest

from halfdome.hdl.commands import RowFormat
from halfdome.hdl.config import LINE_BYTES, PRESETS
from halfdome.host.bench.gather import row_lines
from halfdome.host.compiler import costs
from halfdome.sim.dram import replay

QUAD = PRESETS["quad"]


@pytest.mark.parametrize("rows", [2048, 4096, 8192, 16384, 32768, 1 << 21])
@pytest.mark.parametrize(("dim", "stride"), [(64, 72), (32, 64)])
def test_rows_of_a_table_take_dram_as_long_as_expected(rows, dim, stride):
    """The smaller a table, the more of the reads that wait are of rows that are open."""
    row_bytes = RowFormat.INT8.row_bytes(dim)
    drawn = np.random.default_rng(0).integers(0, rows, 10_000)
    lines = row_lines(drawn * stride, row_bytes)
    expected = drawn.size * costs.far_row(QUAD, row_bytes, rows, stride)
    assert expected == pytest.approx(replay.cycles(QUAD, lines), rel=0.08)
    assert lines.size * LINE_BYTES < costs.dram_bytes_per_cycle(QUAD) * expected


@pytest.mark.parametrize(
    ("row_bytes", "stride"),
    [(12, 16), (20, 32), (36, 64), (40, 64), (56, 64), (64, 64), (72, 72), (100, 128), (136, 136)],
)
@pytest.mark.parametrize("rows", [4096, 1 << 21])
def test_rows_lie_as_far_apart_as_dram_reads_them_soonest(row_bytes, stride, rows):
    """Apart where they touch fewer lines then; else one behind the other."""
    assert costs.far_stride(QUAD, row_bytes, rows) == stride
    drawn = np.random.default_rng(0).integers(0, rows, 10_000)
    packed, apart = (
        replay.cycles(QUAD, row_lines(drawn * each, row_bytes)) for each in (row_bytes, stride)
    )
    assert apart <= packed
    if stride > row_bytes and rows == 4096:
        assert apart < 0.9 * packed
