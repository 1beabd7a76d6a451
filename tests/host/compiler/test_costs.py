"""What commands are expected to take, against what it depends on."""

import numpy as np
import pytest

from halfdome.hdl.commands import RowFormat
from halfdome.hdl.config import LINE_BYTES, PRESETS
from halfdome.host.bench.gather import row_lines
from halfdome.host.compiler import costs
from halfdome.sim.dram import replay

QUAD = PRESETS["quad"]
DIM = 64


@pytest.mark.parametrize("rows", [2048, 4096, 8192, 16384, 32768, 1 << 21])
def test_rows_of_a_table_take_dram_as_long_as_expected(rows):
    """The smaller a table, the more of the reads that wait are of rows that are open."""
    row_bytes = RowFormat.INT8.row_bytes(DIM)
    drawn = np.random.default_rng(0).integers(0, rows, 10_000)
    lines = row_lines(drawn * row_bytes, row_bytes)
    expected = drawn.size * costs.far_row(QUAD, row_bytes, rows, row_bytes)
    assert expected == pytest.approx(replay.cycles(QUAD, lines), rel=0.08)
    assert lines.size * LINE_BYTES < costs.dram_bytes_per_cycle(QUAD) * expected
